//! The API in the test's own process, on a real socket and a real database.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use robo::{
    api::{self, Endpoints, Metrics, Pipelines, Protection, Settings, Token, standing::Validity},
    config::Guarding,
    store::{ApiKey, KeyAnswer, NewApiKey, Store},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The API while it runs.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) url: String,
    pub(crate) client: Client,
    stop: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// For a test that asks as often as it likes.
    pub(crate) async fn of(store: &Store) -> Self {
        Self::guarded(store, unlimited()).await
    }

    /// Guarded like this.
    pub(crate) async fn guarded(store: &Store, guarding: Guarding) -> Self {
        Self::start(store, settings(guarding)).await
    }

    /// With these pipelines.
    pub(crate) async fn with(store: &Store, guarding: Guarding, pipelines: Arc<dyn Pipelines>) -> Self {
        Self::start(store, Settings { pipelines, ..settings(guarding) }).await
    }

    /// For everybody to see where miners answer.
    pub(crate) async fn showing_endpoints(store: &Store) -> Self {
        Self::start(store, Settings { endpoints: Endpoints::Shown, ..settings(unlimited()) }).await
    }

    async fn start(store: &Store, settings: Settings) -> Self {
        crate::install_tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = api::serve(listener, (store.clone(), settings), stop.clone().cancelled_owned());
        let client = Client::builder().no_proxy().build().unwrap();
        Self { address, url: format!("http://{address}"), client, stop, running: tokio::spawn(served) }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, token: &Token, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).bearer_auth(token.expose()).body(body.to_string())
    }

    /// Status, tag and body of an answer to whoever knows this tag. Asked again, as it wants to be, when it says that the database is
    /// away: on a busy machine five seconds may pass.
    pub(crate) async fn ask(&self, path: &str, known: Option<&str>) -> (StatusCode, Option<String>, Value) {
        loop {
            let answer = self.ask_once(path, known).await;
            let is_away = answer.2.to_string().contains("unreachable");
            if answer.0 != StatusCode::SERVICE_UNAVAILABLE || !is_away {
                return answer;
            }
        }
    }

    async fn ask_once(&self, path: &str, known: Option<&str>) -> (StatusCode, Option<String>, Value) {
        let known = known.map(|known| (header::IF_NONE_MATCH, known));
        let request = known.into_iter().fold(self.get(path), |request, (name, value)| request.header(name, value));
        let answer = request.send().await.unwrap();
        let tag = answer.headers().get(header::ETAG).map(|tag| tag.to_str().unwrap().to_owned());
        let status = answer.status();
        (status, tag, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Ask until the answer is the one that is waited for: some are kept for a moment.
    pub(crate) async fn until_it_says(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> (Option<String>, Value) {
        loop {
            let (status, tag, body) = self.ask(path, None).await;
            if status == StatusCode::OK && wanted(&body) {
                return (tag, body);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tell it to stop, and wait until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // Far longer than it takes: whoever hangs is to be named here.
        tokio::time::timeout(Duration::from_secs(60), self.running).await.expect("it stops").unwrap().unwrap();
    }
}

fn settings(guarding: Guarding) -> Settings {
    Settings {
        validity: Validity::default(),
        pipelines: Arc::new(robo::backend::Pipelines::default()),
        protection: Protection::new(guarding).unwrap(),
        endpoints: Endpoints::Hidden,
        metrics: Metrics::new().unwrap(),
        addresses: api::Addresses::All,
    }
}

/// As often as anybody likes.
pub(crate) fn unlimited() -> Guarding {
    Guarding { rate_limit: 0, ..Guarding::default() }
}

/// Make a key known to a database.
pub(crate) async fn key(store: &Store, name: &str, good_for: Option<TimeDelta>) -> (Token, ApiKey) {
    let token = Token::random();
    let expires_at = good_for.map(|age| Utc::now() + age);
    let new = NewApiKey { name: name.into(), start: token.start().into(), sha256: token.sha256(), expires_at };
    match store.create_api_key(&new).await.unwrap() {
        KeyAnswer::Created(key) => (token, key),
        KeyAnswer::NameTaken => panic!("there is a key `{name}`"),
    }
}

/// Status and body of an answer.
pub(crate) async fn told(request: RequestBuilder) -> (u16, Value) {
    let answer: Response = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}
