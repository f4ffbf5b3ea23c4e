//! Before a miner's clock starts: ask its `/health` until it is ready, for as long as the pipeline grants it.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cycle::{MinerFault, MinerStatus, plain_text};
use crate::manifest::simulation::ImageEncoding;

use super::{Client, Fault, Route, image};

/// Whether a status says that the endpoint is still starting, or has too much to do: its own words, those of a gateway before it
/// (502, 504), or those of Cloudflare (520 to 527, 530).
pub(super) fn is_not_ready(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504 | 520..=527 | 530)
}

/// The pause before it is asked again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Longest name of a model that is kept.
const LONGEST_MODEL: usize = 128;

/// What a miner says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Forms of images that it accepts.
    pub accepts: Vec<ImageEncoding>,
    /// What it says its model is.
    pub model: Option<String>,
    /// Episodes that it says it can play at a time; none when it says nothing of it, or nothing that makes sense.
    pub max_concurrency: Option<u32>,
}

/// How a miner was found that is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// `cold`, `unreachable` or `refused`.
    pub status: MinerStatus,
    /// The last thing that came of it.
    pub fault: Fault,
}

/// What came of one question.
pub(super) struct Asked {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: bytes::Bytes,
}

impl Health {
    fn read(body: &[u8]) -> Self {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let model =
            said["model"].as_str().map(|model| plain_text(model).chars().take(LONGEST_MODEL).collect::<String>());
        let max_concurrency = said["max_concurrency"].as_u64().filter(|most| *most > 0);
        Self {
            accepts: image::accepted(body),
            model: model.filter(|model| !model.is_empty()),
            max_concurrency: max_concurrency.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        }
    }
}

impl Client {
    /// Wake a miner up and connect to it, outside any clock. Whatever it answers to `/health` will do, unless the
    /// status says that it is not ready. Then, and when it does not take a connection, it is asked again, after pauses that grow or are as long as its
    /// `Retry-After`, until `budget` has passed.
    ///
    /// # Errors
    /// [`NotReady`]; by itself no fault, but where the endpoint may not be called at all.
    pub async fn health(&self, route: &Route, budget: Duration) -> Result<Health, NotReady> {
        let deadline = Instant::now() + budget;
        let late = || Fault::new(MinerFault::ConnectionError, format!("not ready within {} s", budget.as_secs_f64()));
        let mut last = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let wait = match timeout_at(deadline, self.ask_health(route)).await {
                Ok(Ok(asked)) if is_not_ready(asked.status) => {
                    let text = format!("{}: /health says {}", late().detail, asked.status.as_u16());
                    last = Some(NotReady { status: MinerStatus::Cold, fault: Fault::new(MinerFault::NotReady, text) });
                    pause.max(retry_after(&asked.headers))
                }
                Ok(Ok(asked)) => return Ok(Health::read(&asked.body)),
                Ok(Err(fault)) => match fault.reason {
                    MinerFault::EndpointAddressForbidden => {
                        return Err(NotReady { status: MinerStatus::Refused, fault });
                    }
                    // Another try in a moment ends the same way.
                    MinerFault::TlsError => return Err(NotReady { status: MinerStatus::Unreachable, fault }),
                    MinerFault::ConnectionError => {
                        last = Some(NotReady { status: MinerStatus::Unreachable, fault });
                        pause
                    }
                    // It answers, if not well. Its episodes show what that is worth.
                    _ => return Ok(Health::default()),
                },
                // It has taken the question, and thinks.
                Err(_) => return Err(last.unwrap_or_else(|| NotReady { status: MinerStatus::Cold, fault: late() })),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            sleep(wait.min(left)).await;
            if let Some(last) = last.take_if(|_| wait >= left) {
                return Err(last);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// How long an endpoint wants to be left alone.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_say_not_ready_and_a_broken_server_does_not() {
        let ready = |code| !is_not_ready(StatusCode::from_u16(code).unwrap());
        for code in [429, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530] {
            assert!(!ready(code), "{code}");
        }
        for code in [200, 204, 301, 400, 401, 404, 500, 501, 505, 519, 528, 529, 531] {
            assert!(ready(code), "{code}");
        }
    }

    #[test]
    fn concurrency_is_a_whole_number_or_nothing() {
        let most = |body: &str| Health::read(body.as_bytes()).max_concurrency;
        assert_eq!(most(r#"{"status": "ok", "max_concurrency": 16}"#), Some(16));
        assert_eq!(most(r#"{"max_concurrency": 99999999999}"#), Some(u32::MAX));
        for none in ["0", "-1", "1.5", "\"16\"", "true", "null", "[16]", "1e99", "NaN"] {
            assert_eq!(most(&format!(r#"{{"max_concurrency": {none}}}"#)), None, "{none}");
        }
        for none in ["ok", "", "16", "[]", "\u{1}"] {
            assert_eq!(most(none), None, "{none}");
        }
    }

    #[test]
    fn a_model_is_a_short_plain_text_or_nothing() {
        let model = |body: &str| Health::read(body.as_bytes()).model;
        assert_eq!(model(r#"{"model": "sha256:abc"}"#).as_deref(), Some("sha256:abc"));
        assert_eq!(model("{\"model\": \"\\u001b[31mred\\u202e\"}").as_deref(), Some("red"));
        assert_eq!(model(&format!(r#"{{"model": "{}"}}"#, "x".repeat(1000))).map(|model| model.len()), Some(128));
        for none in ["ok", "{}", r#"{"model": 7}"#, r#"{"model": " "}"#] {
            assert_eq!(model(none), None, "{none}");
        }
    }
}
