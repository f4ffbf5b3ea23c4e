//! One call: the request, the limits of its answer, and what is a matter of the server rather than of the episode.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};

use super::{OPENING, verdict};
use crate::{
    cycle::{Condition, EpisodeReport, InfraFault, MinerFault, Outcome},
    manifest::simulation::{Affinetes, Argument, Simulation},
    rollout::{Error, client, protocol::EpisodeOrder},
};

/// What a server is given beyond its own time-out, so that it is the one to end the episode.
const GRACE: Duration = Duration::from_secs(30);

/// What an operator does about an `evaluate` that takes other arguments.
const SEND: &str = " (`adapter.affinetes.call.send` lists the arguments that `evaluate` receives)";

/// Largest answer that is read.
const LARGEST: usize = 16 << 20;

/// The way to a server.
#[derive(Debug, Clone)]
pub(super) struct Http {
    http: reqwest::Client,
    base_url: Arc<str>,
    token: Arc<str>,
}

/// What a call came to that was answered: its result, or what the server says of its failure.
pub(super) type Answered = Result<Value, String>;

impl Http {
    pub(super) fn new(base_url: &str, token: &str) -> Result<Self, Error> {
        let base_url = base_url.trim_end_matches('/');
        Ok(Self { http: client::http(base_url)?, base_url: base_url.into(), token: token.into() })
    }

    /// The JSON behind a `GET`.
    pub(super) async fn get(&self, verb: &str) -> Result<Value, Error> {
        let request = self.authorized(self.http.get(format!("{}/{verb}", self.base_url)));
        let response = request.timeout(OPENING).send().await.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        let body = body(response).await.map_err(|reason| Error::Cut { reason })?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                return Err(Error::Unfit(format!(
                    "it has no `GET /{verb}` ({status}): its image is not a function-based image of affinetes"
                )));
            }
            status => return Err(Error::Refused { status, text: beginning(&body) }),
        }
        serde_json::from_slice(&body)
            .map_err(|error| Error::Unfit(format!("its answer to `GET /{verb}` is not JSON: {error}")))
    }

    /// What a method returned. An error is about the server; what it says of the call itself is in the answer.
    pub(super) async fn result(&self, body: &Value, patience: Duration) -> Result<Answered, Error> {
        let request = self.authorized(self.http.post(format!("{}/call", self.base_url)).json(body));
        let exchange = async {
            let response = request.send().await.map_err(|source| self.unreachable(source))?;
            let status = response.status();
            Ok((status, self::body(response).await))
        };
        let Ok(exchanged) = timeout(patience, exchange).await else { return Err(Error::Late(patience)) };
        let (status, body) = exchanged?;
        let body = body.map_err(|reason| Error::Cut { reason })?;
        match status {
            StatusCode::OK => Ok(read(&body)),
            // A proxy before a server that is not there.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Err(Error::Refused { status, text: beginning(&body) })
            }
            status => {
                let words = beginning(&body);
                let remedy = if words.contains("unexpected keyword argument") { SEND } else { "" };
                Ok(Err(format!("the server answered {status}: {words}{remedy}")))
            }
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable { server: self.base_url.to_string(), source }
    }
}

/// The result in the body of an answer.
fn read(body: &[u8]) -> Answered {
    #[derive(Deserialize)]
    struct Envelope {
        status: String,
        #[serde(default)]
        result: Value,
        #[serde(default)]
        error: Option<String>,
    }
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|error| format!("the server's answer is not of the protocol ({error}): {}", beginning(body)))?;
    match envelope.status.as_str() {
        "success" => Ok(envelope.result),
        // A call that the server ended says why in the place of a result.
        "failed" if envelope.error.is_none() && envelope.result["error"].is_string() => Ok(envelope.result),
        status => Err(format!("the server's status is `{status}`: {}", envelope.error.unwrap_or_default())),
    }
}

/// The words of a refusal, without the traceback that follows them.
fn beginning(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        detail: Value,
    }
    let text = String::from_utf8_lossy(body);
    let words = match serde_json::from_slice(body) {
        Ok(Refusal { detail: Value::String(text) }) => text,
        Ok(Refusal { detail }) => detail.to_string(),
        Err(_) => text.into_owned(),
    };
    words.lines().next().unwrap_or_default().chars().take(400).collect()
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| client::root_cause(&error))? {
        if body.len() + chunk.len() > LARGEST {
            return Err(format!("it is larger than {LARGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How the episodes of a request are called for.
#[derive(Debug, Clone)]
pub(super) struct Call {
    http: Http,
    pub(super) simulation: Arc<Simulation>,
    call: Affinetes,
    action_timeout_ms: u64,
}

/// What came of an order.
#[derive(Debug)]
pub(super) enum Called {
    /// The episode has ended.
    Ended(Box<EpisodeReport>),
    /// The episode has ended in a fault that is the miner's unless this machine's network failed at the same time.
    Undecided(Box<EpisodeReport>, Condition),
    /// It never began, and neither will another: nobody is there.
    NotBegun(Error),
    /// The server was lost while it played.
    Lost(Error),
    /// It has ended for us; the server goes on with it, and may do so with others.
    Abandoned(Box<EpisodeReport>),
}

impl Call {
    /// None when no server of others simulates.
    pub(super) fn new(http: Http, simulation: Simulation, action_timeout_ms: u64) -> Option<Self> {
        let call = simulation.affinetes()?.clone();
        Some(Self { http, simulation: Arc::new(simulation), call, action_timeout_ms })
    }

    /// Play an episode.
    pub(super) async fn play(&self, order: &EpisodeOrder) -> Called {
        let report = |outcome, detail: &str, wall: Duration| {
            Box::new(verdict::broken(&self.simulation, outcome, detail, wall.as_secs_f64() * 1000.0))
        };
        if !is_endpoint(&order.endpoint) {
            let detail = "the endpoint is not `http(s)://host:port[/prefix]`";
            return Called::Ended(report(Outcome::MinerFault(MinerFault::ConnectionError), detail, Duration::ZERO));
        }
        let begun = Instant::now();
        let patience = Duration::from_millis(self.call.timeout_ms).saturating_add(GRACE);
        let answered = self.http.result(&self.body(order), patience).await;
        let wall = begun.elapsed();
        match answered {
            Ok(Ok(result)) => {
                let wall_ms = wall.as_secs_f64() * 1000.0;
                match verdict::report(&self.simulation, order.seed, &result, wall_ms) {
                    (report, None) => Called::Ended(Box::new(report)),
                    (report, Some(condition)) => Called::Undecided(Box::new(report), condition),
                }
            }
            Ok(Err(problem)) => Called::Ended(report(Outcome::InfraFault(InfraFault::SimulatorError), &problem, wall)),
            Err(error @ Error::Late(_)) => {
                Called::Abandoned(report(Outcome::InfraFault(InfraFault::SimulatorTimeout), &error.to_string(), wall))
            }
            Err(error @ Error::Unreachable { .. }) if error.has_not_begun() => Called::NotBegun(error),
            Err(error) => Called::Lost(error),
        }
    }

    /// The request. What the manifest adds cannot replace what is ours.
    fn body(&self, order: &EpisodeOrder) -> Value {
        let mut kwargs: Map<String, Value> = self.call.kwargs.clone();
        let ours = json!({
            "task_id": order.seed,
            "seed": order.seed,
            "model": order.hotkey,
            "base_url": order.endpoint,
            "env_id": self.call.env_id,
            "max_timesteps": self.simulation.max_steps,
            "action_timeout": self.action_timeout_ms as f64 / 1000.0,
            "use_images": self.call.use_images,
            "timeout": self.call.timeout_ms / 1000,
        });
        for argument in Argument::ALL.into_iter().filter(|argument| self.call.sends(*argument)) {
            kwargs.insert(argument.name().to_owned(), ours[argument.name()].clone());
        }
        json!({ "method": "evaluate", "args": [], "kwargs": kwargs })
    }
}

fn is_endpoint(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_result_or_words_about_its_failure() {
        assert_eq!(read(br#"{"status": "success", "result": {"score": 1}, "error": null}"#), Ok(json!({ "score": 1 })));
        assert_eq!(
            read(br#"{"status": "failed", "error": "no"}"#),
            Err("the server's status is `failed`: no".to_owned())
        );
        let late = json!({ "error": "Task execution exceeded timeout of 300s" });
        assert_eq!(read(json!({ "status": "failed", "result": late, "error": null }).to_string().as_bytes()), Ok(late));
        assert!(read(br#"{"status": "failed", "result": {"error": 5}}"#).is_err());
        for broken in [&b"<html>"[..], b"[]", br#"{"result": {}}"#, br#"{"status": "success", "result": NaN}"#, b"\xff"]
        {
            assert!(read(broken).unwrap_err().contains("not of the protocol"), "{broken:?}");
        }
    }

    #[test]
    fn of_a_traceback_only_the_first_line_is_told() {
        assert_eq!(beginning(br#"{"detail": "no licence\nTraceback (most recent call last):\n  File"}"#), "no licence");
        assert_eq!(beginning(br#"{"detail": [{"loc": ["body"]}]}"#), r#"[{"loc":["body"]}]"#);
        assert_eq!(beginning(b"Internal Server Error"), "Internal Server Error");
        assert_eq!(beginning(&[b'x'; 5000]).len(), 400);
    }

    #[test]
    fn what_is_no_endpoint_is_never_handed_on() {
        for good in ["http://a:1", "https://miner.example/prefix"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in ["", "miner", "ftp://a", "file:///etc/passwd", "http://", "unix:/run/x"] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}
