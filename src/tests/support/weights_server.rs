//! A backend that serves whatever weights document a test gives it, under an `ETag`, as the real one does.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use robo::evidence;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::ports;

#[derive(Default)]
struct Shelf {
    document: Mutex<Option<Value>>,
    full: AtomicUsize,
    unchanged: AtomicUsize,
}

/// A backend that answers until it is dropped.
pub(crate) struct WeightsServer {
    pub(crate) address: SocketAddr,
    shelf: Arc<Shelf>,
    server: JoinHandle<()>,
}

impl WeightsServer {
    pub(crate) async fn start(document: Option<Value>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), document).await
    }

    pub(crate) async fn start_at(address: SocketAddr, document: Option<Value>) -> Self {
        let shelf = Arc::new(Shelf { document: Mutex::new(document), ..Shelf::default() });
        let router = Router::new().route("/v1/weights/latest", get(latest)).with_state(Arc::clone(&shelf));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shelf, server }
    }

    /// An address at which nobody answers yet.
    pub(crate) fn nobody() -> SocketAddr {
        ([127, 0, 0, 1], ports::free()).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn publish(&self, document: Value) {
        *self.shelf.document.lock().unwrap() = Some(document);
    }

    /// How often the whole document was sent, and how often it had not changed.
    pub(crate) fn answers(&self) -> (usize, usize) {
        (self.shelf.full.load(Ordering::SeqCst), self.shelf.unchanged.load(Ordering::SeqCst))
    }
}

impl Drop for WeightsServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn latest(State(shelf): State<Arc<Shelf>>, headers: HeaderMap) -> Response {
    let Some(document) = shelf.document.lock().unwrap().clone() else {
        return (StatusCode::NOT_FOUND, r#"{"detail": "no weights have been published yet"}"#).into_response();
    };
    let etag = format!("\"{}\"", document["digest"].as_str().unwrap_or(&format!("v-{}", evidence::digest(&document))));
    if headers.get(header::IF_NONE_MATCH).is_some_and(|held| held.as_bytes() == etag.as_bytes()) {
        shelf.unchanged.fetch_add(1, Ordering::SeqCst);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    shelf.full.fetch_add(1, Ordering::SeqCst);
    ([(header::ETAG, etag)], axum::Json(document)).into_response()
}

/// A document whose digest is of everything that stands in it.
pub(crate) fn published(block: u64, entries: Value) -> Value {
    let cycle = "01900000-0000-7000-8000-000000000001";
    let mut document = serde_json::json!({ "cycle_id": cycle, "block": block, "entries": entries });
    document["digest"] = evidence::digest(&document).into();
    document
}

/// A document whose digest is of its vector alone: another cycle that comes to the same has the same.
pub(crate) fn published_bare(block: u64, entries: Value) -> Value {
    let mut document = serde_json::json!({ "entries": entries });
    document["digest"] = evidence::digest(&document).into();
    document["block"] = block.into();
    document
}
