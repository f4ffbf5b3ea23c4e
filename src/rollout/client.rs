//! Asks an environment server for episodes and reads what it reports, line by line.

use std::{collections::HashMap, time::Duration};

use bytes::{Buf, BytesMut};
use futures::{Stream, stream};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::{
    driver::Control,
    protocol::{Drain, EpisodesRequest, Grant, Grants, Open, Opened, ServerMessage},
};
use crate::cycle::Hotkey;

/// Longest line of an answer. Reports are a few hundred bytes.
const LINE_LIMIT: usize = 1 << 20;

/// Longest silence of a stream, which is told something twice a second.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest time for a server to start its workers and load its environments.
const OPENING: Duration = Duration::from_secs(600);

/// How often permits are sent again to a server that does not take them, and how long is waited before each time.
const SENDS: u32 = 5;
const RESEND: Duration = Duration::from_millis(300);

/// Why an environment server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("the environment server at `{server}` cannot be reached")]
    Unreachable {
        /// Its address.
        server: String,
        /// What the system said.
        source: reqwest::Error,
    },
    /// It answers, and says no.
    #[error("the environment server refused ({status}): {text}")]
    Refused {
        /// The status: 4xx is about the request, 5xx about the server.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// It did not answer in time.
    #[error("the environment server did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It answers, and is not a server for these episodes.
    #[error("the environment server does not fit: {0}")]
    Unfit(String),
    /// Its answer broke off, or is not of the protocol.
    #[error("the environment server's answer was cut: {reason}")]
    Cut {
        /// How.
        reason: String,
    },
}

impl Error {
    /// Whether another attempt may help: not when the server says that the request itself is wrong.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => !status.is_client_error(),
            Self::Unfit(_) => false,
            Self::Unreachable { .. } | Self::Late(_) | Self::Cut { .. } => true,
        }
    }

    /// Whether the server says that it holds nothing of what it was told when it was opened: somebody has started or opened it
    /// anew meanwhile.
    pub fn has_forgotten(&self) -> bool {
        let forgotten = [StatusCode::CONFLICT, StatusCode::NOT_FOUND];
        matches!(self, Self::Refused { status, .. } if forgotten.contains(status))
    }

    /// Whether the request cannot have reached the server.
    pub(super) fn has_not_begun(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.is_connect())
    }
}

/// A client of one environment server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    token: String,
}

impl Client {
    /// A client of the server at `http://host:port`. The process's TLS provider must be installed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base_url: impl Into<String>, token: impl Into<String>) -> Result<Self, Error> {
        let base_url = base_url.into().trim_end_matches('/').to_owned();
        Ok(Self { http: http(&base_url)?, base_url, token: token.into() })
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// [`Error`] when it does not, or not well.
    pub async fn health(&self) -> Result<(), Error> {
        self.send(self.request(Method::GET, "health").timeout(Duration::from_secs(5))).await.map(drop)
    }

    /// Start the workers and load the environments. May take a while; asking again the same changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the simulator's words when an environment cannot be loaded.
    pub async fn open(&self, open: &Open) -> Result<Opened, Error> {
        let response = self.send(self.request(Method::POST, "open").timeout(OPENING).json(open)).await?;
        response.json().await.map_err(|error| cut(&error))
    }

    /// Run episodes. The stream yields reports as they come and ends after [`ServerMessage::End`]; without one it ends with
    /// [`Error::Cut`]. Dropping it stops the episodes.
    ///
    /// # Errors
    /// When the request is not accepted.
    pub async fn episodes(
        &self,
        request: &EpisodesRequest,
    ) -> Result<impl Stream<Item = Result<ServerMessage, Error>> + Send + use<>, Error> {
        self.episodes_until(request, CancellationToken::new()).await
    }

    /// The same; once `drain` is cancelled, no more of them begin, and the stream ends with those that have begun.
    ///
    /// # Errors
    /// When the request is not accepted.
    pub async fn episodes_until(
        &self,
        request: &EpisodesRequest,
        drain: CancellationToken,
    ) -> Result<impl Stream<Item = Result<ServerMessage, Error>> + Send + use<>, Error> {
        self.episodes_with(request, drain.into()).await
    }

    /// The same, with permits for a request that asks for them.
    ///
    /// # Errors
    /// When the request is not accepted.
    pub async fn episodes_with(
        &self,
        request: &EpisodesRequest,
        Control { drain, grants }: Control,
    ) -> Result<impl Stream<Item = Result<ServerMessage, Error>> + Send + use<>, Error> {
        let response = self.send(self.request(Method::POST, "episodes").json(request)).await?;
        let lines = Lines { response, buffer: BytesMut::new(), searched: 0 };
        // A task of its own: whoever reads the stream may be busy with what it has read, while a permit should not wait.
        let granting = AbortOnDropHandle::new(tokio::spawn(self.clone().grant(request.run, grants)));
        let asking = Asking { client: self.clone(), run: request.run, drain: Some(drain), granting, lines };
        Ok(stream::unfold(Some(asking), |asking| async {
            let mut asking = asking?;
            match asking.next().await {
                Ok(ServerMessage::End) => Some((Ok(ServerMessage::End), None)),
                Ok(message) => Some((Ok(message), Some(asking))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// Have a request begin no more of its episodes.
    async fn drain(&self, run: Uuid) {
        let request = self.request(Method::POST, "drain").timeout(Duration::from_secs(5)).json(&Drain { run });
        if let Err(error) = self.send(request).await {
            // Then it goes on until its stream is dropped.
            tracing::debug!("the environment server could not be asked to begin no more: {}", root_cause(&error));
        }
    }

    /// Tell a request of its permits, as they come. Ends when the server does not take them.
    async fn grant(self, run: Uuid, mut grants: UnboundedReceiver<Grant>) -> Error {
        while let Some(first) = grants.recv().await {
            let mut unsent: HashMap<Hotkey, Grant> = HashMap::new();
            let mut failures = 0;
            let mut next = Some(first);
            loop {
                // The last one of a miner holds all that the ones before it have said.
                while let Some(grant) = next.take().or_else(|| grants.try_recv().ok()) {
                    unsent.insert(grant.hotkey.clone(), grant);
                }
                let body = Grants { run, grants: unsent.values().cloned().collect() };
                let request = self.request(Method::POST, "permits").timeout(Duration::from_secs(5)).json(&body);
                match self.send(request).await {
                    Ok(_) => break,
                    Err(Error::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {
                        return Error::Unfit(
                            "it does not know permits, since its version is older; start it again with this one"
                                .to_owned(),
                        );
                    }
                    Err(error) if failures >= SENDS || !error.is_retryable() => return error,
                    Err(_) => {
                        failures += 1;
                        tokio::time::sleep(RESEND).await;
                    }
                }
            }
        }
        std::future::pending().await
    }

    fn request(&self, method: Method, verb: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/{verb}", self.base_url)).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let unreachable = |source| Error::Unreachable { server: self.base_url.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status == StatusCode::OK { Ok(response) } else { Err(refused(status, response).await) }
    }
}

/// The way to an environment server: no proxy, no redirects, certificates verified.
pub(super) fn http(base_url: &str) -> Result<reqwest::Client, Error> {
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
    };
    // A machine without CA certificates still reaches servers that speak plain HTTP, as those next to us do.
    let http = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    http.map_err(|source| Error::Unreachable { server: base_url.to_owned(), source })
}

async fn refused(status: StatusCode, response: Response) -> Error {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let text = response.text().await.unwrap_or_default();
    let text = serde_json::from_str(&text).map_or(text, |refusal: Refusal| refusal.error);
    Error::Refused { status, text }
}

fn cut(error: &dyn std::error::Error) -> Error {
    Error::Cut { reason: root_cause(error) }
}

/// What is at the bottom of an error.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A request that is being answered.
struct Asking {
    client: Client,
    run: Uuid,
    /// None once the server was told.
    drain: Option<CancellationToken>,
    /// Sends permits; ends when they cannot be sent.
    granting: AbortOnDropHandle<Error>,
    lines: Lines,
}

impl Asking {
    async fn next(&mut self) -> Result<ServerMessage, Error> {
        if let Some(drain) = &self.drain {
            tokio::select! {
                // First: who asks for the next message after that can rely on the server having been told.
                biased;
                () = drain.cancelled() => {}
                message = self.lines.next() => return message,
                error = &mut self.granting => return Err(not_granted(error)),
            }
            self.drain = None;
            self.client.drain(self.run).await;
        }
        tokio::select! {
            biased;
            message = self.lines.next() => message,
            error = &mut self.granting => Err(not_granted(error)),
        }
    }
}

/// Without permits nothing begins any more: as good as a stream that was cut.
fn not_granted(ended: Result<Error, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(error @ Error::Unfit(_)) => error,
        Ok(error) => Error::Cut { reason: format!("it takes no permits: {}", root_cause(&error)) },
        Err(error) => cut(&error),
    }
}

/// A stream of lines, each a message.
struct Lines {
    response: Response,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line end.
    searched: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<ServerMessage, Error> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                return serde_json::from_slice(&line).map_err(|error| cut(&error));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_LIMIT {
                return Err(Error::Cut { reason: format!("a line is longer than {LINE_LIMIT} bytes") });
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            let silent = |_| Error::Cut { reason: format!("nothing for {} s", SILENCE.as_secs()) };
            match chunk.map_err(silent)?.map_err(|error| cut(&error))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Err(Error::Cut { reason: "it ended before all episodes were reported".to_owned() }),
            }
        }
    }
}
