//! One HTTP exchange with an endpoint that a stranger controls: bounded in time, size and trust, and measured.
//!
//! Talks to where its route leads, directly (no proxy), in HTTP/1.1 over kept-alive connections. It never follows
//! a redirect, never unpacks a compressed answer, never reads past a limit.

use std::{
    error::Error as _,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http_body::Body;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT,
    },
};
use tokio::time::{sleep_until, timeout_at};

use crate::cycle::{Condition, InfraFault, MinerFault, Party};
use crate::host::Stalls;

use super::{
    Fault, Route,
    deadline::{Deadline, Passed},
    dial::{DialError, Dialer, Trust},
    idle::Idle,
    line::Line,
    route::forbidden,
    warm_up::{Asked, is_not_ready},
    wire::Flood,
};

/// The header that tells a policy with memory which episode a call belongs to.
const EPISODE_ID: HeaderName = HeaderName::from_static("x-episode-id");

const OURSELVES: HeaderValue = HeaderValue::from_static(concat!("robo/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Most chunks that an answer may come in: each costs us as much as a whole answer, however small it is.
const MOST_CHUNKS: usize = 256;

/// How much of an error answer is kept for the fault's text.
const EXCERPT: usize = 2048;

/// Bounds on what a miner can cost us, next to the time-outs of the environment.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest time to connect, TLS included. Outside the miner's clock.
    pub connect: Duration,
    /// Largest answer in bytes.
    pub answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), answer: 64 * 1024 }
    }
}

/// The client. Cheap to clone; one per process, since it holds the connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Connections>);

#[derive(Debug)]
struct Connections {
    dialer: Dialer,
    idle: Idle,
    limits: Limits,
    stalls: Arc<Stalls>,
}

/// What a call sends, and how long its answer may take.
pub(super) struct Call<'a> {
    pub(super) route: &'a Route,
    pub(super) target: &'a Uri,
    pub(super) episode_id: &'a HeaderValue,
    pub(super) body: Bytes,
    /// From the last byte of the first request to the last byte of the answer, whatever connections come and go between.
    pub(super) deadline: Duration,
    /// The fault when it passes.
    pub(super) late: MinerFault,
    /// The fault when the miner answers that it is not ready.
    pub(super) busy: MinerFault,
    /// How often the episode may still send a request again.
    pub(super) resends: &'a AtomicU32,
}

/// A complete answer of status 200.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) body: Bytes,
    /// From the last byte of the first request to the last byte of the answer.
    pub(super) latency: Duration,
    /// From the beginning of the call, dialling included, to the last byte of the answer.
    pub(super) wall: Duration,
}

/// How one try ended without an answer.
enum Failed {
    /// It ends the call.
    Fault(Fault),
    /// The connection was closed before any byte of the request reached the miner.
    Unread(Fault),
}

impl Client {
    /// A client with no connections yet. The process's TLS provider must be installed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(limits: Limits) -> Result<Self, rustls::Error> {
        Self::beside(limits, Arc::default())
    }

    /// The same; a deadline that passes while this process is stalled is not the miner's fault.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn beside(limits: Limits, stalls: Arc<Stalls>) -> Result<Self, rustls::Error> {
        let dialer = Dialer::new(limits.connect)?;
        Ok(Self(Arc::new(Connections { dialer, idle: Idle::new(), limits, stalls })))
    }

    /// Whether the certificate of a miner can be verified here. A machine without CA certificates can verify none, and that is
    /// not the miners' fault.
    pub fn can_verify(&self, route: &Route) -> bool {
        !route.endpoint.origin.secure || self.0.dialer.trust == Trust::Authorities
    }

    /// Ask for `/health` once, and open a connection if none is open.
    pub(super) async fn ask_health(&self, route: &Route) -> Result<Asked, Fault> {
        if let Some(line) = self.0.idle.take(route).await {
            match self.ask_health_on(route, line).await {
                Err(Broken::Closed(..)) => {}
                result => return result.map_err(Broken::into_fault),
            }
        }
        self.ask_health_on(route, self.dial(route).await?).await.map_err(Broken::into_fault)
    }

    async fn ask_health_on(&self, route: &Route, mut line: Line) -> Result<Asked, Broken> {
        let targets = &route.endpoint.targets;
        let request = request(Method::GET, &targets.health, &targets.host, Bytes::new());
        let mut response = line.send(request).await.map_err(Broken::before_answer)?;
        // Read to the end, within bounds, so that the connection can be used again. An answer that breaks those says nothing.
        let body = match read(&mut line, &mut response, self.0.limits.answer).await {
            Ok(body) => {
                self.0.idle.put(&route.endpoint.origin, line).await;
                body
            }
            Err(_) => Bytes::new(),
        };
        let (head, _) = response.into_parts();
        Ok(Asked { status: head.status, headers: head.headers, body })
    }

    /// Send a call and wait for its whole answer.
    ///
    /// A kept connection that was closed before the request reached the miner makes the call be sent once more, on a new
    /// connection. The deadline goes on.
    pub(super) async fn post(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let mut deadline = Deadline::new(call.deadline, self.0.limits.connect);
        if let Some(line) = self.0.idle.take(call.route).await {
            match self.attempt(call, line, &mut deadline).await {
                Ok(reply) => return Ok(reply),
                Err(Failed::Unread(_)) if call.may_resend() => {}
                Err(failed) => return Err(failed.into_fault()),
            }
        }
        let line = match deadline.ends() {
            None => self.dial(call.route).await?,
            Some(end) => match timeout_at(end.into(), self.dial(call.route)).await {
                Ok(dialled) => dialled?,
                Err(_) => return Err(late(call, Passed::Silent)),
            },
        };
        self.attempt(call, line, &mut deadline).await.map_err(Failed::into_fault)
    }

    async fn dial(&self, route: &Route) -> Result<Line, Fault> {
        let began = Instant::now();
        self.0.dialer.dial(route).await.map_err(|error| match (error.condition(), error) {
            // Nothing that a miner does takes so much of this process's time.
            (Some(Condition::Silence), error)
                if self.0.stalls.within(began, Instant::now()) >= self.0.limits.connect / 2 =>
            {
                let party = Party::Infrastructure(InfraFault::Overloaded);
                Fault { party, ..Fault::of(Condition::Silence, error.to_string()) }
            }
            (Some(condition), error) => Fault::of(condition, error.to_string()),
            (None, DialError::Http(error)) => Fault::new(MinerFault::ConnectionError, describe(&error)),
            (None, DialError::Forbidden(refusal)) => forbidden(refusal),
            (None, error) => Fault::new(MinerFault::TlsError, error.to_string()),
        })
    }

    async fn attempt(&self, call: &Call<'_>, mut line: Line, deadline: &mut Deadline) -> Result<Reply, Failed> {
        let clock = line.clock.clone();
        deadline.try_begins();
        let outcome = {
            let mut exchange = pin!(exchange(&mut line, call, self.0.limits.answer));
            let mut limit = pin!(sleep_until(deadline.first_look().into()));
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut exchange => break outcome,
                    () = &mut limit => {
                        deadline.note_sent(clock.sent());
                        if deadline.last_look() > Instant::now() {
                            limit.as_mut().reset(deadline.last_look().into());
                            continue;
                        }
                        // What has arrived by now is judged by when it arrived.
                        clock.take_last_look();
                        if let Some(outcome) = exchange.as_mut().now_or_never() {
                            break outcome;
                        }
                        match deadline.passed(Instant::now(), &self.0.stalls, clock.has_arrived()) {
                            Passed::Extended => limit.as_mut().reset(deadline.last_look().into()),
                            Passed::NotTaken => {
                                let detail = "the request was not taken in time";
                                return Err(Failed::Fault(Fault::of(Condition::Silence, detail)));
                            }
                            passed => return Err(Failed::Fault(late(call, passed))),
                        }
                    },
                }
            }
        };
        deadline.note_sent(clock.sent());
        match outcome {
            Ok(body) => {
                let came = clock.came().unwrap_or_else(Instant::now);
                self.0.idle.put(&call.route.endpoint.origin, line).await;
                match deadline.judge(came, &self.0.stalls) {
                    Ok(latency) => Ok(Reply { body, latency, wall: deadline.wall(came) }),
                    Err(passed) => Err(Failed::Fault(late(call, passed))),
                }
            }
            Err(Broken::Closed(condition, detail)) if condition == Condition::Closed && clock.closed_unread() => {
                Err(Failed::Unread(Broken::Closed(condition, detail).into_fault()))
            }
            Err(broken) => Err(Failed::Fault(broken.into_fault())),
        }
    }
}

impl Call<'_> {
    /// Whether the request may be sent again; it counts as sent again then.
    fn may_resend(&self) -> bool {
        self.resends.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Send and read, however long it takes.
async fn exchange(line: &mut Line, call: &Call<'_>, limit: usize) -> Result<Bytes, Broken> {
    let mut request = request(Method::POST, call.target, &call.route.endpoint.targets.host, call.body.clone());
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ACCEPT, JSON);
    headers.insert(EPISODE_ID, call.episode_id.clone());
    let mut response = line.send(request).await.map_err(Broken::before_answer)?;
    let status = response.status();
    if status.is_redirection() {
        let target = response.headers().get(LOCATION).map_or_else(String::new, |target| {
            format!(" to `{}`", String::from_utf8_lossy(target.as_bytes()).chars().take(200).collect::<String>())
        });
        let detail = format!("status {}{target}: redirects are not followed", status.as_u16());
        return Err(Fault::new(MinerFault::RedirectNotAllowed, detail).into());
    }
    if let Some(encoding) = foreign_encoding(response.headers()) {
        let detail = format!("content encoding `{}` was not asked for", plain_header(encoding));
        return Err(Fault::new(MinerFault::UnsupportedEncoding, detail).into());
    }
    if status != StatusCode::OK {
        let text = excerpt(line, &mut response).await;
        let reason = if is_not_ready(status) { call.busy } else { MinerFault::HttpError };
        return Err(Fault::new(reason, format!("status {}: {text}", status.as_u16())).into());
    }
    read(line, &mut response, limit).await
}

async fn read(line: &mut Line, response: &mut Response<Incoming>, limit: usize) -> Result<Bytes, Broken> {
    let too_large = || {
        let detail = format!("the answer is larger than {limit} bytes, or comes in more than {MOST_CHUNKS} chunks");
        Broken::from(Fault::new(MinerFault::ResponseTooLarge, detail))
    };
    if response.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut chunks = 0;
    while let Some(frame) = line.next(response.body_mut()).await {
        chunks += 1;
        // What is not data is trailers, which say nothing to us.
        let Ok(data) = frame.map_err(Broken::in_answer)?.into_data() else { continue };
        if first.len() + more.len() + data.len() > limit || chunks > MOST_CHUNKS {
            return Err(too_large());
        }
        if first.is_empty() {
            first = data;
        } else {
            more.extend_from_slice(&data);
        }
    }
    if more.is_empty() {
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    body.unsplit(more);
    Ok(body.freeze())
}

fn request(method: Method, target: &Uri, host: &HeaderValue, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.clone();
    let headers = request.headers_mut();
    headers.reserve(8);
    headers.insert(HOST, host.clone());
    // Saying nothing would mean that any encoding is fine.
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    headers.insert(USER_AGENT, OURSELVES);
    request
}

/// Why an exchange has no answer.
enum Broken {
    Fault(Fault),
    /// The connection closed before the answer began.
    Closed(Condition, String),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Broken {
    fn before_answer(error: hyper::Error) -> Self {
        let detail = describe(&error);
        if error.is_parse_too_large() || is_flood(&error) {
            return Fault::new(MinerFault::ResponseTooLarge, detail).into();
        }
        if error.is_parse() {
            return Fault::new(MinerFault::MalformedResponse, detail).into();
        }
        match cause(&error) {
            Some(cause) => Self::Closed(Condition::of(cause), detail),
            None if error.is_incomplete_message() || error.is_canceled() => Self::Closed(Condition::Closed, detail),
            None => Fault::new(MinerFault::ConnectionError, detail).into(),
        }
    }

    fn in_answer(error: hyper::Error) -> Self {
        let detail = format!("in the middle of the answer: {}", describe(&error));
        // A chunk that is no chunk comes as an input error, a closed connection as any other.
        let is_input =
            |cause: &io::Error| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        match cause(&error) {
            _ if is_flood(&error) => Fault::new(MinerFault::ResponseTooLarge, detail),
            Some(cause) if is_input(cause) => Fault::new(MinerFault::MalformedResponse, detail),
            Some(cause) => Fault::of(Condition::of(cause), detail),
            None => Fault::new(MinerFault::ConnectionError, detail),
        }
        .into()
    }

    fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Closed(condition, detail) => {
                Fault::of(condition, format!("the connection closed before an answer: {detail}"))
            }
        }
    }
}

impl Failed {
    fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) | Self::Unread(fault) => fault,
        }
    }
}

fn late(call: &Call<'_>, passed: Passed) -> Fault {
    let fault = Fault::new(call.late, format!("no complete answer within {} ms", call.deadline.as_millis()));
    match passed {
        Passed::Stalled(lost) => Fault {
            party: Party::Infrastructure(InfraFault::Overloaded),
            detail: format!(
                "{}, but the environment server did not get the processor for {} ms of that time",
                fault.detail,
                lost.as_millis()
            ),
            ..fault
        },
        // Perhaps the network did not carry the request or the answer.
        Passed::Silent => fault.undecided(),
        Passed::Late | Passed::NotTaken | Passed::Extended => fault,
    }
}

fn foreign_encoding(headers: &HeaderMap) -> Option<&HeaderValue> {
    let encoding = headers.get(CONTENT_ENCODING)?;
    let known =
        encoding.to_str().is_ok_and(|text| text.trim().is_empty() || text.trim().eq_ignore_ascii_case("identity"));
    if known { None } else { Some(encoding) }
}

fn plain_header(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect()
}

/// The beginning of an error answer; what cannot be read is left out.
async fn excerpt(line: &mut Line, response: &mut Response<Incoming>) -> String {
    let mut text = Vec::new();
    while text.len() < EXCERPT
        && let Some(Ok(frame)) = line.next(response.body_mut()).await
    {
        let piece = frame.into_data().unwrap_or_default();
        text.extend_from_slice(&piece[..piece.len().min(EXCERPT - text.len())]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The innermost cause, which says most.
fn describe(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What the system said, where it was the system.
fn cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(found) = source.downcast_ref() {
            return Some(found);
        }
        cause = source.source();
    }
    None
}

fn is_flood(error: &hyper::Error) -> bool {
    cause(error).and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Flood>())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
