//! A node with faults: it stands before another node, passes on what it is asked, and meddles as a test tells it. It takes calls
//! itself, keeps them, and lets them end as the test wants.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use jsonrpsee::{
    PendingSubscriptionSink, RpcModule,
    server::{Server, ServerConfig, ServerHandle},
    types::{ErrorObjectOwned, Params},
};
use serde_json::{Value, json};
use subxt::rpcs::{RpcClient, client::RpcParams};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What is passed on: everything that is asked of a node here, but for calls.
const METHODS: [&str; 12] = [
    "rpc_methods",
    "system_chain",
    "chain_getBlockHash",
    "chain_getFinalizedHead",
    "chain_getHeader",
    "chain_getBlock",
    "state_call",
    "state_getRuntimeVersion",
    "state_getMetadata",
    "state_getKeysPaged",
    "state_queryStorageAt",
    "state_getStorage",
];
/// How long an answer is held back by `Deed::Late`.
const LATE: Duration = Duration::from_millis(50);

/// What becomes of one request.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    /// It is passed on.
    Pass,
    /// The same, after a while.
    Late,
    /// This is the answer.
    Answer(Value),
    /// There is no answer.
    Hang,
    /// The connection is cut, and every later one.
    Cut,
}

/// What becomes of a call that is submitted.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It is refused with this code, message and further words.
    Refused(i32, &'static str, Option<&'static str>),
    /// These are told of it, in this order, and then this is done.
    Told(Vec<Value>, Deed),
}

/// A request: its method, which it is of that method (from 1 on), what stands in it.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) count: usize,
    pub(crate) parameters: &'a [Value],
}

impl Asked<'_> {
    /// A parameter as text; none when it is no text.
    pub(crate) fn text(&self, at: usize) -> Option<&str> {
        self.parameters.get(at)?.as_str()
    }
}

/// Decides over a request, knowing the calls that were submitted.
type Meddle = dyn Fn(&Asked<'_>, &[String]) -> Deed + Send + Sync;

struct State {
    upstream: RpcClient,
    meddle: Box<Meddle>,
    fate: Fate,
    counts: Mutex<BTreeMap<String, usize>>,
    /// Calls that were submitted, as they came.
    calls: Mutex<Vec<String>>,
    cut: CancellationToken,
}

/// A node that meddles until it is dropped.
pub(crate) struct Meddler {
    /// `ws://127.0.0.1:PORT`.
    pub(crate) url: String,
    state: Arc<State>,
    server: ServerHandle,
}

impl Meddler {
    /// One before the node at `upstream`. `meddle` decides over each request; it sees the calls that were submitted.
    pub(crate) async fn before(
        upstream: &str,
        fate: Fate,
        meddle: impl Fn(&Asked<'_>, &[String]) -> Deed + Send + Sync + 'static,
    ) -> Self {
        let upstream = RpcClient::from_insecure_url(upstream).await.expect("the node before which it stands answers");
        let (counts, calls, cut) = (Mutex::default(), Mutex::default(), CancellationToken::new());
        let state = Arc::new(State { upstream, meddle: Box::new(meddle), fate, counts, calls, cut });
        let config = ServerConfig::builder().max_response_body_size(64 << 20).build();
        let server = Server::builder().set_config(config).build("127.0.0.1:0").await.expect("a port is free");
        let behind = server.local_addr().expect("it is bound");
        let server = server.start(methods(state.clone()));
        let url = format!("ws://{}", wire(behind, state.cut.clone()).await);
        Self { url, state, server }
    }

    /// Calls that were submitted, as they came.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap().clone()
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.state.cut.cancel();
        let _ = self.server.stop();
    }
}

/// An address that leads to another until it is cut: a server that stops says goodbye, a broken wire does not.
async fn wire(to: SocketAddr, cut: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let cut = cut.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    });
    address
}

fn methods(state: Arc<State>) -> RpcModule<Arc<State>> {
    let mut module = RpcModule::new(state);
    for method in METHODS {
        module
            .register_async_method(method, move |parameters, state, _| async move {
                let text = parameters.as_str().unwrap_or("[]");
                let parameters: Vec<Value> = serde_json::from_str(text).expect("parameters are a list");
                state.answer(method, &parameters).await
            })
            .unwrap();
    }
    module
        .register_subscription(
            "author_submitAndWatchExtrinsic",
            "author_extrinsicUpdate",
            "author_unwatchExtrinsic",
            |parameters, pending, state, _| async move { state.take(parameters, pending).await },
        )
        .unwrap();
    module
}

impl State {
    async fn answer(&self, method: &str, parameters: &[Value]) -> Result<Value, ErrorObjectOwned> {
        let count = {
            let mut counts = self.counts.lock().unwrap();
            *counts.entry(method.to_owned()).and_modify(|count| *count += 1).or_insert(1)
        };
        let deed = {
            let calls = self.calls.lock().unwrap();
            (self.meddle)(&Asked { method, count, parameters }, &calls)
        };
        match deed {
            Deed::Answer(value) => Ok(value),
            Deed::Pass => self.pass(method, parameters).await,
            Deed::Late => {
                tokio::time::sleep(LATE).await;
                self.pass(method, parameters).await
            }
            Deed::Hang => std::future::pending().await,
            Deed::Cut => {
                self.cut.cancel();
                std::future::pending().await
            }
        }
    }

    async fn pass(&self, method: &str, parameters: &[Value]) -> Result<Value, ErrorObjectOwned> {
        let mut passed = RpcParams::new();
        for parameter in parameters {
            passed.push(parameter).unwrap();
        }
        let answered: Result<Value, _> = self.upstream.request(method, passed).await;
        answered.map_err(|error| ErrorObjectOwned::owned(-32000, error.to_string(), None::<()>))
    }

    async fn take(&self, parameters: Params<'_>, pending: PendingSubscriptionSink) {
        let call: String = parameters.sequence().next().unwrap();
        self.calls.lock().unwrap().push(call);
        let (told, then) = match &self.fate {
            Fate::Refused(code, message, data) => {
                return pending.reject(ErrorObjectOwned::owned(*code, *message, data.map(|data| json!(data)))).await;
            }
            Fate::Told(told, then) => (told, then),
        };
        let sink = pending.accept().await.unwrap();
        for status in told {
            sink.send(serde_json::value::to_raw_value(status).unwrap()).await.unwrap();
        }
        match then {
            Deed::Cut => self.cut.cancel(),
            Deed::Hang => sink.closed().await,
            _ => {}
        }
    }
}
