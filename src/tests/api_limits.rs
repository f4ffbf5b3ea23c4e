//! What the API bears: floods, forged addresses, slow and endless clients, pages of others, and a stop while somebody listens.

use std::{net::IpAddr, time::Duration};

use reqwest::{StatusCode, header};
use robo::config::Guarding;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    database::{TestDatabase, Version},
    program::Place,
    served::{Served, key, told},
};

/// A rate at which nothing comes back while a test runs.
fn stingy(burst: u32) -> Guarding {
    Guarding { rate_limit: 1, rate_burst: burst, ..Guarding::default() }
}

#[tokio::test]
async fn a_flood_is_told_to_wait_and_a_key_is_not() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::guarded(&store, stingy(5)).await;
    let (token, _) = key(&store, "ci", None).await;
    let mut statuses = Vec::new();
    for _ in 0..50 {
        statuses.push(served.get("/health/live").send().await.unwrap().status());
    }
    let passed = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    assert!((5..50).contains(&passed), "{passed}");
    // One comes back each second, perhaps just now.
    let mut refused = served.get("/v1/cycles").send().await.unwrap();
    for _ in 0..20 {
        if refused.status() == StatusCode::OK {
            refused = served.get("/v1/cycles").send().await.unwrap();
        }
    }
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "pages can read why");
    // The first request with a key that is not known yet is counted like anybody's.
    while told(served.get("/v1/cycles").bearer_auth(token.expose())).await.0 == 429 {}
    for _ in 0..50 {
        assert_eq!(told(served.get("/v1/cycles").bearer_auth(token.expose())).await.0, 200);
    }
    let mut guessed = 401;
    for _ in 0..20 {
        if guessed == 401 {
            guessed = told(served.get("/v1/cycles").bearer_auth("robo_wrong")).await.0;
        }
    }
    assert_eq!(guessed, 429, "guessing is counted");
}

#[tokio::test]
async fn no_limit_is_asked_for_with_nought() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::guarded(&database.store().await, Guarding { rate_limit: 0, ..stingy(1) }).await;
    for _ in 0..20 {
        assert_eq!(told(served.get("/health/live")).await.0, 200);
    }
}

#[tokio::test]
async fn an_address_is_believed_of_a_trusted_proxy_alone() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let from = async |served: &Served, forwarded: String| {
        let request = served.get("/health/live").header("x-forwarded-for", forwarded);
        request.send().await.unwrap().status().as_u16()
    };
    let direct = Served::guarded(&store, stingy(2)).await;
    let mut refused = 0;
    for number in 0..20 {
        refused += u32::from(from(&direct, format!("203.0.113.{number}")).await == 429);
    }
    assert!(refused >= 10, "a made-up address helps nobody: {refused}");

    let proxy: IpAddr = [127, 0, 0, 1].into();
    let behind = Served::guarded(&store, Guarding { trusted_proxies: vec![proxy.into()], ..stingy(2) }).await;
    for number in 0..20 {
        assert_eq!(from(&behind, format!("203.0.113.{number}")).await, 200, "everybody has their own");
    }
    // One client: what it has sent itself stands left of what the proxy saw; and its whole /64 is one.
    for forged in [true, false] {
        let mut refused = 0;
        for number in 0..20 {
            let forwarded = match forged {
                true => format!("198.51.100.{number}, 192.0.2.1"),
                false => format!("2001:db8:1:2::{number}"),
            };
            refused += u32::from(from(&behind, forwarded).await == 429);
        }
        assert!(refused >= 10, "{forged}: {refused}");
    }
}

#[tokio::test]
async fn bodies_have_a_bound() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let (token, _) = key(&store, "ci", None).await;
    let large = json!({ "reason": "x".repeat(70_000) });
    let (status, problem) = told(served.post(&token, "/v1/schedules/nightly/pause", &large)).await;
    assert!(status == 413 && problem["detail"] == "a body has at most 65536 bytes", "{problem}");
    // One that does not say how long it is going to be.
    let chunks = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 8192])));
    let endless =
        served.post(&token, "/v1/schedules/nightly/pause", &json!({})).body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(told(endless).await.0, 413);
    assert_eq!(told(served.get("/v1/cycles").body("x".repeat(70_000))).await.0, 413, "where none is read, too");
}

/// What the server says to this, until it closes the connection.
async fn said(served: &Served, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // It may close before all of it has arrived.
    let _ = stream.write_all(sent).await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn heads_have_a_bound() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::of(&database.store().await).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x-header: y\r\n".repeat(500));
    for (sent, status) in [(&*long, ["414", "431"]), (&many, ["431", "431"]), ("\x16\x03\x01\r\n\r\n", ["400", "400"])]
    {
        let said = said(&served, sent.as_bytes()).await;
        assert!(status.iter().any(|status| said.starts_with(&format!("HTTP/1.1 {status} "))), "{said}");
    }
}

#[tokio::test]
async fn whoever_sends_no_whole_head_is_cut_off() {
    let database = TestDatabase::new(Version::Default).await;
    let hasty = Guarding { idle_timeout: Duration::from_millis(50), ..Guarding::default() };
    let served = Served::guarded(&database.store().await, hasty).await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    for (stream, answered) in [(&mut slow, false), (&mut idle, true)] {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert_eq!(said.starts_with(b"HTTP/1.1 200 "), answered, "{}", String::from_utf8_lossy(&said));
    }
}

#[tokio::test]
async fn one_client_does_not_take_every_connection() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::guarded(&database.store().await, Guarding { max_connections: 8, ..Guarding::default() }).await;
    let ask = async || {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut byte = [0];
        let answered = matches!(stream.read(&mut byte).await, Ok(1));
        (stream, answered)
    };
    let held = [ask().await, ask().await];
    assert!(held.iter().all(|(_, answered)| *answered));
    assert!(!ask().await.1, "a quarter of eight are two");
    drop(held);
    while !ask().await.1 {}
}

#[tokio::test]
async fn browsers_are_told_what_not_to_do() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::of(&database.store().await).await;
    for path in ["/health", "/nothing", "/v1/cycles"] {
        let answer = served.get(path).send().await.unwrap();
        let headers = answer.headers();
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("access-control-allow-origin", "*"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
        assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert!(!headers.contains_key("strict-transport-security"), "{path}: this is no TLS");
    }
    let preflight = served.client.request(reqwest::Method::OPTIONS, format!("http://{}/v1/cycles", served.address));
    let preflight =
        preflight.header("origin", "https://elsewhere.example").header("access-control-request-method", "POST");
    let allowed =
        preflight.send().await.unwrap().headers()["access-control-allow-methods"].to_str().unwrap().to_owned();
    assert!(!allowed.contains("POST"), "pages of others do not write: {allowed}");
}

#[tokio::test]
async fn a_stop_waits_for_nobody_who_only_listens() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::of(&database.store().await).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    served.stop().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).ends_with('}'), "the answer was whole");
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    let place = Place::new();
    for (flags, words) in [
        (&["--trusted-proxy", "10.0.0.0/33"][..], "write an address or a network"),
        (&["--tls-cert", "/none.pem"], "--tls-key"),
        (&["--tls-cert", "/none.pem", "--tls-key", "/none.key"], "cannot read `/none.pem`"),
        (&["--rate-burst", "0"], "--rate-burst"),
    ] {
        let ran = place.run(&[&["backend", "--role", "api", "--port", "0"], flags].concat());
        assert!(ran.code == 2 && ran.stderr.contains(words), "{flags:?}: {}", ran.stderr);
    }
}
