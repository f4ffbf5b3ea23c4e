//! `webhook/send`: tells somebody, with POST. Whoever is told can check who speaks and tell a repetition from news.
//!
//! The address may be a secret, so no message holds it. Redirects are never followed: they would carry the signature to
//! another place.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Response, StatusCode, header, redirect::Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Context, Invocation, Output, chain, config};
use crate::cycle::{FailureClass, TaskFailure};

/// The first wait; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait, whatever the other side asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Characters of a message that Discord takes.
const LONGEST_CONTENT: usize = 2000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    url: String,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    attempts: u32,
    answer_seconds: u64,
}

pub(super) async fn run<J>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let settings: Settings = invocation.settings()?;
    let letter = Letter {
        client: client(Duration::from_secs(settings.answer_seconds))?,
        body: body(&settings)?,
        key: idempotency_key(&context.lease.cycle.to_string(), &invocation.task.to_string()),
        settings,
    };
    let mut attempt = 1;
    loop {
        let answer = letter.send().await;
        let (wait, failure) = match judge(&answer) {
            Verdict::Taken(status) => return Ok(json!({ "status": status, "attempts": attempt }).into()),
            Verdict::Refused(failure) => return Err(failure),
            Verdict::Again(wait, failure) => (wait, failure),
        };
        if attempt >= letter.settings.attempts {
            return Err(TaskFailure {
                message: format!("{} (attempt {attempt} of {attempt})", failure.message),
                ..failure
            });
        }
        tokio::time::sleep(wait.unwrap_or(FIRST_WAIT * 2u32.saturating_pow(attempt - 1)).min(LONGEST_WAIT)).await;
        attempt += 1;
    }
}

/// What is sent, the same in every attempt but for its time.
struct Letter {
    client: Client,
    body: Vec<u8>,
    key: String,
    settings: Settings,
}

impl Letter {
    async fn send(&self) -> Result<Response, reqwest::Error> {
        let timestamp = seconds_now().to_string();
        let mut request = self
            .client
            .post(&self.settings.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &self.key)
            .header("X-Robo-Timestamp", &timestamp);
        if let Some(secret) = &self.settings.secret {
            request = request.header("X-Robo-Signature", signature(secret, &timestamp, &self.body));
        }
        request.body(self.body.clone()).send().await.map_err(reqwest::Error::without_url)
    }
}

/// What an answer means.
enum Verdict {
    Taken(u16),
    Refused(TaskFailure),
    /// Worth another attempt, after the time that the other side has asked for.
    Again(Option<Duration>, TaskFailure),
}

fn judge(answer: &Result<Response, reqwest::Error>) -> Verdict {
    let infra = |message: String| TaskFailure { class: FailureClass::Infra, message };
    let response = match answer {
        Ok(response) => response,
        Err(error) if error.is_builder() => return Verdict::Refused(config("`with.url` is not an address of HTTP")),
        Err(error) => return Verdict::Again(None, infra(format!("the webhook cannot be reached: {}", chain(error)))),
    };
    let status = response.status();
    if status.is_success() {
        return Verdict::Taken(status.as_u16());
    }
    if status.is_redirection() {
        return Verdict::Refused(config(format!("the webhook answered {status}, and redirects are not followed")));
    }
    let message = format!("the webhook answered {status}");
    let is_passing =
        status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
    if is_passing {
        let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Verdict::Again(asked.and_then(|asked| retry_after(asked, Utc::now())), infra(message))
    } else {
        Verdict::Refused(config(message))
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(asked: &str, now: DateTime<Utc>) -> Option<Duration> {
    let asked = asked.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(asked).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

fn body(settings: &Settings) -> Result<Vec<u8>, TaskFailure> {
    let value = match (&settings.payload, &settings.text) {
        (Some(payload), None) => payload.clone(),
        (None, Some(text)) => {
            let content: String = text.chars().take(LONGEST_CONTENT).collect();
            json!({ "text": text, "content": content })
        }
        _ => return Err(config("`webhook/send` takes `payload` or `text`, and exactly one of them")),
    };
    Ok(value.to_string().into_bytes())
}

fn client(patience: Duration) -> Result<Client, TaskFailure> {
    let client = Client::builder().redirect(Policy::none()).timeout(patience).user_agent("robo").build();
    client.map_err(|error| TaskFailure { class: FailureClass::Infra, message: chain(&error) })
}

/// Stays the same when the attempt, the task or the whole process is repeated. Plain characters only.
fn idempotency_key(cycle: &str, task: &str) -> String {
    format!("{cycle}-{}", hex::encode(&Sha256::digest(task)[..8]))
}

fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_that_others_can_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let expected = "sha256=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        let found = signature("key", "1700000000", br#"{"a":1}"#);
        assert_eq!(found, expected);
    }

    #[test]
    fn waits_as_asked_in_seconds_or_by_date() {
        let now = DateTime::parse_from_rfc2822("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().to_utc();
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn a_key_is_plain_and_belongs_to_the_task() {
        let key = idempotency_key("cycle", "tell[a\nb]");
        assert_eq!(key, idempotency_key("cycle", "tell[a\nb]"));
        assert_ne!(key, idempotency_key("cycle", "tell[c]"));
        assert!(key.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
