//! One HTTP exchange with an endpoint that a stranger controls: bounded in time, size and trust, and measured.
//!
//! Talks to whatever address it is given, directly (no proxy), in HTTP/1.1 over kept-alive connections. It never follows
//! a redirect, never unpacks a compressed answer, never reads past a limit.

use std::{
    error::Error as _,
    io,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, Request, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::time::sleep;

use crate::cycle::MinerFault;

use super::{
    Fault,
    freshness::{Connection, Watch, observe},
    request::TimedBody,
};

/// The header that tells a policy with memory which episode a call belongs to.
pub(super) const EPISODE_ID: HeaderName = HeaderName::from_static("x-episode-id");

/// How much of an error answer is kept for the fault's text.
const EXCERPT: usize = 2048;

/// How an endpoint says that it is still starting, and when it is asked again.
const NOT_READY: [StatusCode; 2] = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
const READY_AGAIN: Duration = Duration::from_millis(250);

/// Bounds on what a miner can cost us, next to the time-outs of the environment.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest time to connect, TLS included. Outside the miner's clock.
    pub connect: Duration,
    /// Longest time for `/health`, which may wake up a cold endpoint.
    pub warm_up: Duration,
    /// Largest answer in bytes.
    pub answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), warm_up: Duration::from_secs(10), answer: 64 * 1024 }
    }
}

/// The client. Cheap to clone; one per process, since it holds the connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    limits: Limits,
}

/// What a call sends, and how long its answer may take.
pub(super) struct Call<'a> {
    pub(super) url: &'a Url,
    pub(super) episode_id: &'a HeaderValue,
    pub(super) body: Bytes,
    /// From the last byte sent to the last byte received.
    pub(super) deadline: Duration,
    /// The fault when it passes.
    pub(super) late: MinerFault,
}

/// A complete answer of status 200.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) body: Bytes,
    pub(super) latency: Duration,
}

/// How one try ended without an answer.
enum Failed {
    /// It is the miner's fault.
    Fault(Fault),
    /// The connection closed before an answer, this long after the request was sent.
    Closed { after: Duration, connection: Connection, detail: String },
}

impl Client {
    /// A client with no connections yet. The process's TLS provider must be installed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(limits: Limits) -> Result<Self, reqwest::Error> {
        let builder = || {
            reqwest::Client::builder()
                .http1_only()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .tcp_nodelay(true)
                .connect_timeout(limits.connect)
                .connector_layer(Watch)
                .user_agent(concat!("robo/", env!("CARGO_PKG_VERSION")))
        };
        // A machine without CA certificates can still reach `http://` miners; `https://` ones then fail to verify.
        let http = builder().build().or_else(|_| builder().tls_certs_only([]).build())?;
        Ok(Self { http, limits })
    }

    /// Ask for `/health`: wakes the endpoint up and opens a connection. Whatever it answers will do, unless it says that it
    /// is not ready yet: then it is asked again.
    pub(super) async fn get(&self, url: &Url) -> Result<Bytes, Fault> {
        let call = async {
            loop {
                let (status, body) = self.ask_health(url).await?;
                if !NOT_READY.contains(&status) {
                    return Ok(body);
                }
                sleep(READY_AGAIN).await;
            }
        };
        match tokio::time::timeout(self.limits.warm_up, call).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(Fault::new(MinerFault::ConnectionError, describe(&error))),
            Err(_) => Err(Fault::new(MinerFault::ConnectionError, "not ready in time by its /health")),
        }
    }

    async fn ask_health(&self, url: &Url) -> Result<(StatusCode, Bytes), reqwest::Error> {
        let mut response = self.http.execute(Request::new(Method::GET, url.clone())).await?;
        // Read to the end, within bounds, so that the connection can be used again.
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.limits.answer {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body.freeze()))
    }

    /// Send a call and wait for its whole answer.
    ///
    /// When a kept-alive connection turns out to be closed before an answer began, the call is sent once more; the time
    /// the first try took counts against the one deadline.
    pub(super) async fn post(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        match self.attempt(call, Duration::ZERO).await {
            Ok(reply) => Ok(reply),
            Err(Failed::Closed { after, connection: Connection::Reused, .. }) => {
                self.attempt(call, after).await.map_err(Failed::into_fault)
            }
            Err(failed) => Err(failed.into_fault()),
        }
    }

    async fn attempt(&self, call: &Call<'_>, spent: Duration) -> Result<Reply, Failed> {
        let (body, mut taken) = TimedBody::new(call.body.clone());
        let request = post(call, body);
        let mut exchange = pin!(observe(self.exchange(request)));
        // Before the request is sent its time is bounded by the time to connect; a little more than the client's own
        // bound, which explains itself better.
        let mut limit = pin!(sleep(self.limits.connect + Duration::from_millis(500)));
        let mut sent = None;
        let (outcome, connection) = loop {
            tokio::select! {
                biased;
                result = &mut exchange => break result,
                moment = &mut taken, if sent.is_none() => {
                    let moment = moment.unwrap_or_else(|_| Instant::now());
                    sent = Some(moment);
                    limit.as_mut().reset((moment + call.deadline.saturating_sub(spent)).into());
                }
                () = &mut limit => {
                    return Err(Failed::Fault(match sent {
                        Some(_) => late(call),
                        None => Fault::new(MinerFault::ConnectionError, "the connection did not open in time"),
                    }));
                }
            }
        };
        let ended = Instant::now();
        // The answer may have come before we saw the request leave.
        let sent = sent.or_else(|| taken.try_recv().ok());
        let after = spent + sent.map_or(Duration::ZERO, |sent| ended.duration_since(sent));
        match outcome {
            Ok(_) if after > call.deadline => Err(Failed::Fault(late(call))),
            Ok(body) => Ok(Reply { body, latency: after }),
            Err(Broken::Fault(fault)) => Err(Failed::Fault(fault)),
            Err(Broken::Closed(detail)) => Err(Failed::Closed { after, connection, detail }),
        }
    }

    /// Send and read, however long it takes.
    async fn exchange(&self, request: Request) -> Result<Bytes, Broken> {
        let response = self.http.execute(request).await.map_err(Broken::before_answer)?;
        let status = response.status();
        if status.is_redirection() {
            let detail = format!("status {}: redirects are not followed", status.as_u16());
            return Err(Fault::new(MinerFault::RedirectNotAllowed, detail).into());
        }
        if let Some(encoding) = foreign_encoding(&response) {
            let detail = format!("content encoding `{}` was not asked for", plain_header(encoding));
            return Err(Fault::new(MinerFault::UnsupportedEncoding, detail).into());
        }
        if status != StatusCode::OK {
            let text = excerpt(response).await;
            return Err(Fault::new(MinerFault::HttpError, format!("status {}: {text}", status.as_u16())).into());
        }
        self.read(response).await
    }

    async fn read(&self, mut response: Response) -> Result<Bytes, Broken> {
        let limit = self.limits.answer;
        let too_large = || {
            Broken::from(Fault::new(MinerFault::ResponseTooLarge, format!("the answer is larger than {limit} bytes")))
        };
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let Some(first) = response.chunk().await.map_err(Broken::in_answer)? else { return Ok(Bytes::new()) };
        if first.len() > limit {
            return Err(too_large());
        }
        let Some(second) = response.chunk().await.map_err(Broken::in_answer)? else { return Ok(first) };
        let mut body = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
            next = response.chunk().await.map_err(Broken::in_answer)?;
        }
        Ok(body.freeze())
    }
}

/// Why an exchange has no answer.
enum Broken {
    Fault(Fault),
    /// The connection closed before the answer began.
    Closed(String),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Broken {
    fn before_answer(error: reqwest::Error) -> Self {
        let detail = describe(&error);
        if error.is_connect() || error.is_timeout() {
            return Fault::new(MinerFault::ConnectionError, detail).into();
        }
        match find::<hyper::Error>(&error) {
            Some(cause) if cause.is_parse_too_large() => Fault::new(MinerFault::ResponseTooLarge, detail).into(),
            Some(cause) if cause.is_parse() => Fault::new(MinerFault::MalformedResponse, detail).into(),
            Some(cause) if cause.is_incomplete_message() || cause.is_canceled() => Self::Closed(detail),
            _ if find::<io::Error>(&error).is_some() => Self::Closed(detail),
            _ => Fault::new(MinerFault::ConnectionError, detail).into(),
        }
    }

    fn in_answer(error: reqwest::Error) -> Self {
        // A chunk that is no chunk comes as an input error, a closed connection as any other.
        let is_input = find::<io::Error>(&error)
            .is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData));
        let reason = if is_input { MinerFault::MalformedResponse } else { MinerFault::ConnectionError };
        Fault::new(reason, format!("in the middle of the answer: {}", describe(&error))).into()
    }
}

impl Failed {
    fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Closed { detail, .. } => {
                Fault::new(MinerFault::ConnectionError, format!("the connection closed before an answer: {detail}"))
            }
        }
    }
}

fn post(call: &Call<'_>, body: TimedBody) -> Request {
    let mut request = Request::new(Method::POST, call.url.clone());
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(EPISODE_ID, call.episode_id.clone());
    *request.body_mut() = Some(reqwest::Body::wrap(body));
    request
}

fn late(call: &Call<'_>) -> Fault {
    Fault::new(call.late, format!("no complete answer within {} ms", call.deadline.as_millis()))
}

fn foreign_encoding(response: &Response) -> Option<&HeaderValue> {
    let encoding = response.headers().get(CONTENT_ENCODING)?;
    let known =
        encoding.to_str().is_ok_and(|text| text.trim().is_empty() || text.trim().eq_ignore_ascii_case("identity"));
    if known { None } else { Some(encoding) }
}

fn plain_header(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect()
}

/// The beginning of an error answer; what cannot be read is left out.
async fn excerpt(mut response: Response) -> String {
    let mut text = Vec::new();
    while text.len() < EXCERPT
        && let Ok(Some(chunk)) = response.chunk().await
    {
        text.extend_from_slice(&chunk[..chunk.len().min(EXCERPT - text.len())]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The innermost cause, which says most, without the address: miners read it, and they know theirs.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.source().is_none() && error.is_timeout() {
        return "the connection did not open in time".to_owned();
    }
    cause.to_string()
}

fn find<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(found) = source.downcast_ref() {
            return Some(found);
        }
        cause = source.source();
    }
    None
}
