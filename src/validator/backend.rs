//! The backend's side of the wire: `GET /v1/weights/latest`, asked for again only if it has changed. What comes is bounded in
//! time and size; it is read here and judged elsewhere.

use std::{str::FromStr, time::Duration};

use futures::StreamExt;
use reqwest::{
    StatusCode, Url,
    header::{ETAG, IF_NONE_MATCH},
};

use super::document::{Document, Malformed};
use crate::cycle::{plain_text, with_causes};

/// How long the backend may take for a whole answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest document: 256 miners need 30 KB.
const LARGEST: usize = 4 << 20;
/// Redirects that are followed.
const REDIRECTS: usize = 3;
const PATH: &str = "v1/weights/latest";

/// Where a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl(Url);

impl FromStr for BackendUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| format!("it is not an address: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("it is not http://HOST:PORT or https://HOST:PORT".into());
        }
        // It stands in logs.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address must not hold a user or a password".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it must end with its path".into());
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

impl std::fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// What the backend has answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// What it said the last time is still so.
    Unchanged,
    /// A document, and the `ETag` it came under.
    New(Box<Document>, Option<String>),
    /// Nothing has been published yet.
    Nothing,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// No connection, or one that broke.
    #[error("{0}")]
    Unreachable(String),
    /// Another answer than those that are known.
    #[error("it answers with status {status}{detail}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What it says, if anything.
        detail: String,
    },
    /// More than a vector can be.
    #[error("its answer is longer than {LARGEST} bytes")]
    TooLong,
    /// Something else.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A client of one backend.
pub struct Backend {
    client: reqwest::Client,
    url: Url,
    /// Under which the last document came that was [kept](Self::keep).
    etag: Option<String>,
}

impl Backend {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// What the system says of TLS.
    pub fn new(BackendUrl(base): &BackendUrl) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .user_agent(concat!("robo-validate/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .build()?;
        let mut url = base.clone();
        url.set_path(&format!("{}{PATH}", base.path()));
        Ok(Self { client, url, etag: None })
    }

    /// Ask for the document, unless it is the one that was kept.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask(&self) -> Result<Answer, Unanswered> {
        let mut request = self.client.get(self.url.clone());
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let status = answer.status();
        if status == StatusCode::NOT_MODIFIED && self.etag.is_some() {
            return Ok(Answer::Unchanged);
        }
        let body = body(answer).await?;
        match status {
            StatusCode::OK => Ok(Answer::New(Box::new(Document::parse(&body)?), etag)),
            StatusCode::NOT_FOUND if says_nothing_published(&body) => Ok(Answer::Nothing),
            _ => Err(Unanswered::Status { status, detail: detail(&body) }),
        }
    }

    /// The document that came under this `ETag` is in use: from now on only another one is wanted. One that is not believed
    /// is not kept, so that it is looked at again.
    pub fn keep(&mut self, etag: Option<String>) {
        self.etag = etag;
    }
}

async fn body(answer: reqwest::Response) -> Result<Vec<u8>, Unanswered> {
    let mut body = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece.map_err(unreachable)?);
        if body.len() > LARGEST {
            return Err(Unanswered::TooLong);
        }
    }
    Ok(body)
}

/// A backend says with JSON that there are no weights yet. Another program, or another address of a backend, has no word of
/// weights in its answer: `{"detail": "Not Found"}` means a wrong URL.
fn says_nothing_published(body: &[u8]) -> bool {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    value["detail"].as_str().is_some_and(|detail| detail.to_ascii_lowercase().contains("weights"))
}

fn detail(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    value["detail"].as_str().map(|detail| format!(": {}", plain_text(detail))).unwrap_or_default()
}

fn unreachable(error: reqwest::Error) -> Unanswered {
    let error = error.without_url();
    Unanswered::Unreachable(with_causes(error.to_string(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_told_from_a_backend_without_weights() {
        assert!(says_nothing_published(br#"{"detail": "no weights have been published yet"}"#));
        assert!(says_nothing_published(br#"{"detail": "No weights available"}"#));
        for other in [&br#"{"detail": "Not Found"}"#[..], br#"{"error": "no such page"}"#, b"<html>"] {
            assert!(!says_nothing_published(other));
        }
    }

    #[test]
    fn an_address_has_no_secrets_and_keeps_its_path() {
        let base: BackendUrl = "https://robo.example/subnet".parse().unwrap();
        assert_eq!(base.to_string(), "https://robo.example/subnet");
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert_eq!(Backend::new(&base).unwrap().url.as_str(), "https://robo.example/subnet/v1/weights/latest");
        for wrong in ["robo.example", "ftp://a", "https://u:p@a", "https://a/?x=1", "https://a/#x", ""] {
            assert!(wrong.parse::<BackendUrl>().is_err(), "{wrong}");
        }
    }
}
