//! The HTTP side: who may ask, what is open, one answer per request (docs/protocols.md).

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt,
};
use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::cycle::Hotkey;
use crate::host::{
    Stalls,
    descriptors::{self, TooFew},
};
use crate::miner::{Client, Limits, Timeouts};
use crate::rollout::{
    network::Network,
    protocol::{Drain, EpisodesRequest, Grant, Grants, Health, Open},
};

use super::{
    episode::Stage,
    fleet::{Fleet, OpenError},
    run::{Controls, Run},
    scheduler::Limit,
    spawner::{Python, Spawner},
};

/// Largest request: a million episodes.
const BODY_LIMIT: usize = 256 << 20;

/// Lines that wait for a slow reader before episodes wait for it.
const LINES: usize = 256;

/// Largest numbers a request may ask for, so that a slip does not fork a machine to death.
const MOST_WORKERS: u32 = 1024;
const MOST_SLOTS: u32 = 4096;

/// Files that a server has open beside its workers, its episodes and its miners.
const OTHER_FILES: u64 = 64;

/// What a server says it is.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How a server works.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Python that simulates.
    pub python: Python,
    /// What a request must carry.
    pub token: String,
    /// Longest silence of a worker that owes an answer.
    pub worker_timeout: Duration,
    /// SHA-256 in hex of the lock and the sources that simulate, when it is known.
    pub digest: Option<String>,
}

/// Why a server cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client for miners could not be made.
    #[error("cannot set up the client for miners")]
    Client(#[from] rustls::Error),
    /// The system refused something a server needs.
    #[error("cannot run the environment server")]
    Io(#[from] io::Error),
}

/// Steers a request that is being answered.
#[derive(Debug)]
struct RunHandle {
    drain: CancellationToken,
    grants: mpsc::UnboundedSender<Vec<Grant>>,
}

/// An environment server.
#[derive(Debug)]
pub struct Server {
    token: [u8; 32],
    digest: Option<String>,
    worker_timeout: Duration,
    spawner: Spawner,
    client: Client,
    stalls: Arc<Stalls>,
    network: Arc<Network>,
    fleet: Mutex<Option<Arc<Fleet>>>,
    runs: TaskTracker,
    /// By which each of them is told what may begin.
    handles: std::sync::Mutex<HashMap<Uuid, RunHandle>>,
    stop: CancellationToken,
}

impl Server {
    /// A server with no workers yet. Within a runtime, with the process's TLS provider installed.
    ///
    /// # Errors
    /// When TLS or a thread cannot be had.
    pub fn new(config: Config) -> Result<Self, Error> {
        // Before the client, which keeps no more connections than it may have open.
        let _ = descriptors::allow(u64::MAX);
        let stalls = Arc::<Stalls>::default();
        Ok(Self {
            token: digest(&config.token),
            digest: config.digest,
            worker_timeout: config.worker_timeout,
            spawner: Spawner::start(config.python)?,
            client: Client::beside(Limits::default(), stalls.clone())?,
            stalls,
            network: Network::new(),
            fleet: Mutex::default(),
            runs: TaskTracker::new(),
            handles: std::sync::Mutex::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Serve until `shutdown`, then end all episodes and all workers.
    ///
    /// # Errors
    /// When the listener cannot accept any more.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let server = Arc::new(self);
        let router = Router::new()
            .route("/health", get(health))
            .route("/open", post(open))
            .route("/episodes", post(episodes))
            .route("/drain", post(drain))
            .route("/permits", post(permits))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(middleware::from_fn_with_state(server.clone(), authorize))
            .with_state(server.clone());
        let listener = listener.tap_io(|stream| {
            // Only a matter of speed.
            let _ = stream.set_nodelay(true);
        });
        let served = tokio::select! {
            served = axum::serve(listener, router) => served,
            () = server.stalls.watch() => Ok(()),
            () = shutdown => Ok(()),
        };
        server.stop.cancel();
        server.runs.close();
        server.runs.wait().await;
        if let Some(fleet) = server.fleet.lock().await.take() {
            fleet.close().await;
        }
        Ok(served?)
    }
}

impl Server {
    fn handles(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, RunHandle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Let a server have the files open that it needs: the pipes of its workers, for each slot a connection and the one that it has just
/// given back, and a kept connection to each miner.
fn allow_files(open: &Open, miners: usize) -> Result<(), TooFew> {
    let (workers, slots) = (u64::from(open.workers.max(1)), u64::from(open.slots_per_worker.max(1)));
    descriptors::allow(OTHER_FILES + 4 * workers + 2 * workers * slots + miners as u64)
}

/// Compares digests, whose agreement in a few bytes tells nothing about the token.
async fn authorize(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response<Body> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if digest(token) == server.token => next.run(request).await,
        _ => refuse(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong"),
    }
}

fn refuse(status: StatusCode, error: impl AsRef<str>) -> Response<Body> {
    (status, Json(json!({ "error": error.as_ref() }))).into_response()
}

/// The request in a body, or what is wrong with it.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the request is not of the protocol: {error}"))
}

/// Well, unless no worker is left and none will come: whoever asks then needs another server.
async fn health(State(server): State<Arc<Server>>) -> Response<Body> {
    // While it is being opened, which holds the lock, it is well.
    let lost = server.fleet.try_lock().is_ok_and(|fleet| fleet.as_ref().is_some_and(|fleet| fleet.slots.are_lost()));
    if lost {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the simulator's workers are gone and do not come back");
    }
    Json(Health { status: "ok".to_owned(), version: Some(VERSION.to_owned()), digest: server.digest.clone() })
        .into_response()
}

async fn open(State(server): State<Arc<Server>>, body: Bytes) -> Response<Body> {
    let mut request: Open = match parse(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    if request.workers == 0 {
        // Counts what the walls of a container leave of a machine's cores.
        request.workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    }
    if request.workers > MOST_WORKERS || request.slots_per_worker > MOST_SLOTS {
        return refuse(StatusCode::BAD_REQUEST, "too many workers or slots");
    }
    if let Err(error) = allow_files(&request, 0) {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    }
    if request.simulations.iter().any(|simulation| simulation.adapter().is_none()) {
        return refuse(StatusCode::BAD_REQUEST, "an environment is not simulated by workers (`protocol: affinetes`)");
    }
    let mut fleet = server.fleet.lock().await;
    if let Some(fleet) = fleet.as_ref().filter(|fleet| fleet.open == request) {
        return Json(&fleet.opened).into_response();
    }
    if fleet.is_some() && !server.runs.is_empty() {
        let error = "the server is already open, with other environments, workers or slots, and plays episodes";
        return refuse(StatusCode::CONFLICT, error);
    }
    // Nobody plays: a server that outlives a cycle serves the next one, whose environments may be others.
    if let Some(old) = fleet.take() {
        old.close().await;
    }
    let opening = Fleet::open(server.spawner.clone(), request, server.worker_timeout);
    let opened = tokio::select! {
        opened = opening => opened,
        () = server.stop.cancelled() => return refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is ending"),
    };
    match opened {
        Ok(mut opened) => {
            opened.opened.version = Some(VERSION.to_owned());
            opened.opened.digest.clone_from(&server.digest);
            let opened = fleet.insert(Arc::new(opened));
            Json(&opened.opened).into_response()
        }
        Err(error @ OpenError::Refused { .. }) => refuse(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        Err(error @ OpenError::Died(_)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn episodes(State(server): State<Arc<Server>>, body: Bytes) -> Response<Body> {
    let request: EpisodesRequest = match parse(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    let Some(fleet) = server.fleet.lock().await.clone() else {
        return refuse(StatusCode::CONFLICT, "the server is not open");
    };
    let simulation = fleet.open.simulations.iter().find(|simulation| simulation.environment == request.environment);
    let Some(simulation) = simulation.cloned() else {
        return refuse(StatusCode::NOT_FOUND, format!("environment `{}` was not opened", request.environment));
    };
    let Some(adapter) = simulation.adapter().cloned() else {
        return refuse(StatusCode::BAD_REQUEST, format!("`{}` is not simulated by workers", request.environment));
    };
    let miners: HashSet<&Hotkey> = request.episodes.iter().map(|order| &order.hotkey).collect();
    if let Err(error) = allow_files(&fleet.open, miners.len()) {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    }
    let stage = Stage {
        client: server.client.clone(),
        network: server.network.clone(),
        canary: request.canary,
        simulation,
        adapter,
        timeouts: Timeouts {
            reset: Duration::from_millis(request.reset_timeout_ms),
            action: Duration::from_millis(request.action_timeout_ms),
        },
        budget: request.budget_ms.map(Duration::from_millis),
        spent: request.spent_ms.into_iter().map(|(hotkey, ms)| (hotkey, Duration::from_millis(ms))).collect(),
        cold_start: Duration::from_millis(request.cold_start_ms),
        rules: request.rules,
        steps: AtomicU64::new(0),
        stalls: server.stalls.clone(),
    };
    let (sender, lines) = mpsc::channel::<Bytes>(LINES);
    let (name, drain) = (request.run, CancellationToken::new());
    let (granting, grants) = mpsc::unbounded_channel();
    let limit = if request.permits { Limit::Permits } else { Limit::PerMiner(request.per_miner) };
    let controls = Controls { drain: drain.clone(), grants };
    let run = Run::new(stage, (request.episodes, limit), fleet.slots.clone(), (sender, controls));
    server.handles().insert(name, RunHandle { drain, grants: granting });
    let (playing, keeper) = (server.stop.clone().run_until_cancelled_owned(run.run()), server.clone());
    server.runs.spawn(async move {
        playing.await;
        keeper.handles().remove(&name);
    });
    let body = Body::from_stream(ReceiverStream::new(lines).map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// One that is not known has ended, and begins no more either.
async fn drain(State(server): State<Arc<Server>>, body: Bytes) -> Response<Body> {
    match parse(&body) {
        Ok(Drain { run }) => {
            if let Some(handle) = server.handles().get(&run) {
                handle.drain.cancel();
            }
            Json(json!({ "status": "ok" })).into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, error),
    }
}

/// One that is not known has ended, and needs no more.
async fn permits(State(server): State<Arc<Server>>, body: Bytes) -> Response<Body> {
    match parse(&body) {
        Ok(Grants { run, grants }) => {
            if let Some(handle) = server.handles().get(&run) {
                // One that hears nothing any more is about to end.
                let _ = handle.grants.send(grants);
            }
            Json(json!({ "status": "ok" })).into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, error),
    }
}
