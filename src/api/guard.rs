//! Who may pass: what every request goes through before anything answers it.
//!
//! Requests with a key are never limited. All others are counted by client, and those with a key that nobody knows are counted
//! before it is looked for.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    body::{LARGEST, too_large},
    caller::{Caller, Operator},
    client::{Proxies, counted},
    keys::Keys,
    page,
    problem::Problem,
    protection::secure,
    rate::Rate,
    token::Token,
};

/// Where a connection comes from; whoever accepts it says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Whether nobody needs a key to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// Nobody.
    Public,
    /// Everybody, but for /health and the page for people, which has nothing in it before it is given a key.
    WithKey,
}

/// What decides.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) keys: Keys,
    pub(super) reads: Reads,
    pub(super) proxies: Proxies,
    pub(super) rate: Option<Arc<Rate>>,
    /// Whether clients reach us by TLS of our own.
    pub(super) is_encrypted: bool,
    pub(super) stop: CancellationToken,
}

/// Let a request pass, with what is known of who sends it, or answer it.
pub(super) async fn pass(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.admit(request).await {
        Ok(request) => until(&guard.stop, next.run(request).await),
        Err(problem) => problem.into_response(),
    };
    secure(response.headers_mut(), guard.is_encrypted);
    if guard.reads == Reads::WithKey {
        keep_private(response.headers_mut());
    }
    response
}

/// What needs a key is not for caches that answer everybody.
fn keep_private(headers: &mut HeaderMap) {
    let is_public = |value: &HeaderValue| value.as_bytes().starts_with(b"public");
    if headers.get(CACHE_CONTROL).is_some_and(is_public) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}

impl Guard {
    async fn admit(&self, mut request: Request) -> Result<Request, Problem> {
        let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
        let client = self.proxies.client(peer, request.headers());
        if let Some(operator) = self.operator(client, request.headers()).await? {
            request.extensions_mut().insert(operator);
        }
        if is_too_large(request.headers()) {
            return Err(too_large());
        }
        let (method, path) = (request.method(), request.uri().path());
        match Caller::of(request.extensions()) {
            Caller::Operator(name) => tracing::debug!(api_key = name, %client, "{method} {path}"),
            Caller::Anybody if self.reads == Reads::WithKey && !is_open(path) => {
                return Err(Problem::unauthorised("this backend asks for an API key, for reads too"));
            }
            Caller::Anybody => {}
        }
        Ok(request)
    }

    /// Who shows a key; none who shows none.
    async fn operator(&self, client: IpAddr, headers: &HeaderMap) -> Result<Option<Operator>, Problem> {
        let Some(shown) = shown(headers) else {
            self.count(client)?;
            return Ok(None);
        };
        let known = shown.as_ref().and_then(|token| self.keys.find(token));
        let key = match (known, shown) {
            (Some(key), _) => key,
            (None, shown) => {
                self.count(client)?;
                self.keys.holder(&shown.ok_or_else(Problem::wrong_key)?).await?
            }
        };
        Ok(Some(Operator { key: key.id, name: key.name, client }))
    }

    fn count(&self, client: IpAddr) -> Result<(), Problem> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.count(counted(client), Instant::now()).map_err(too_many)
    }
}

/// A stream of events has no end of its own, and must not hold us up when we stop.
fn until(stop: &CancellationToken, response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
        return response;
    }
    let stop = stop.clone().cancelled_owned();
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(stop)))
}

fn too_many(wait: Duration) -> Problem {
    let seconds = HeaderValue::from(wait.as_secs() + 1);
    let detail = "too many requests; `Retry-After` says when to go on, and holders of an API key are not limited";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).with(RETRY_AFTER, seconds)
}

/// What is asked for by those who look after processes, and hold no keys; and the page that asks people for theirs.
fn is_open(path: &str) -> bool {
    path == "/health" || path.starts_with("/health/") || page::ADDRESSES.contains(&path)
}

/// Whether a body is announced that nobody here would read to its end.
fn is_too_large(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > LARGEST as u64)
}

/// The key that a request shows, if it shows one; nothing inside when that can be none. Other schemes of authentication are those
/// of proxies before us.
fn shown(headers: &HeaderMap) -> Option<Option<Token>> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes();
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        scheme.eq_ignore_ascii_case(b"bearer").then_some(rest)
    });
    let text = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))?;
    Some(std::str::from_utf8(text).ok().and_then(|text| Token::parse(text.trim())))
}

/// What a client reads of a mistake of ours: that there was one. The rest is in the log, where the panic itself stands.
pub(super) fn crashed(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this is a mistake of the backend; its log says more")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_in_one_of_two_headers() {
        let token = Token::random();
        let of = |name: &'static str, value: String| {
            shown(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        for value in ["Bearer ", "bearer ", "BEARER  "] {
            assert_eq!(of("authorization", format!("{value}{}", token.expose())), Some(Some(token.clone())));
        }
        assert_eq!(of("x-api-key", token.expose().to_owned()), Some(Some(token.clone())));
        assert_eq!(of("authorization", "Bearer robo_1".into()), Some(None));
        assert_eq!(of("authorization", "Bearer".into()), Some(None), "a variable that was empty");
        assert_eq!(of("authorization", "Basic cm9ibzpyb2Jv".into()), None);
        assert_eq!(of("authorization", "é".into()), None);
        assert_eq!(shown(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_stream_of_events_ends_when_we_stop() {
        let stop = CancellationToken::new();
        let endless =
            futures::stream::iter([Ok::<_, std::convert::Infallible>("data: 1\n\n")]).chain(futures::stream::pending());
        let response = ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(endless)).into_response();
        let mut body = until(&stop, response).into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "data: 1\n\n");
        stop.cancel();
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_and_says_nothing_of_itself() {
        let crash = async || -> &'static str { panic!("the secret") };
        let router = axum::Router::new().route("/", axum::routing::get(crash));
        let mut router = router.layer(tower_http::catch_panic::CatchPanicLayer::custom(crashed));
        let answer = tower_service::Service::call(&mut router, Request::new(Body::empty())).await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()[CONTENT_TYPE]),
            (StatusCode::INTERNAL_SERVER_ERROR, &HeaderValue::from_static("application/problem+json"))
        );
        let body = axum::body::to_bytes(answer.into_body(), LARGEST).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }

    #[test]
    fn waiting_is_told_in_whole_seconds() {
        let retry_after = |wait| too_many(wait).into_response().headers()[RETRY_AFTER].clone();
        assert_eq!(retry_after(Duration::from_millis(20)), "1");
        assert_eq!(retry_after(Duration::from_millis(4020)), "5");
    }
}
