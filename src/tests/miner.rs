//! The client for miners against sockets that misbehave, and the demo miner as a process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use robo::{
    address::{Reach, Rules},
    cycle::{MinerFault, MinerStatus},
    manifest::simulation::{Action, ActionKind, OutOfRange},
    miner::{Answer, Client, Fault, Frame, Limits, Route, TaskConfig, Timeouts},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::children::Serving;

/// Long enough never to pass in a test that does not wait for it.
const AN_HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(100);

const SPACE: Action = Action {
    size: 4,
    low: -1.0,
    high: 1.0,
    out_of_range: OutOfRange::Refuse,
    kind: ActionKind::Direct,
    channels: Vec::new(),
};

fn client() -> Client {
    crate::install_tls();
    Client::new(Limits::default()).unwrap()
}

/// The way to a miner of a test: on this machine.
fn route(endpoint: &str) -> Route {
    Route::new(endpoint, Rules { reach: Reach::Private, ..Rules::default() }).unwrap()
}

async fn act(client: &Client, route: &Route, deadline: Duration) -> Result<Answer, Fault> {
    let task = TaskConfig::new(&"metaworld/push-v3".parse().unwrap(), "e1");
    let session = client.session(route, task, Timeouts { reset: deadline, action: deadline });
    let frame = Frame { observation: vec![0.1, 0.2, 0.3, 1.0], ..Frame::default() };
    session.act(&frame, &SPACE).await
}

async fn reset(client: &Client, route: &Route, deadline: Duration) -> Result<(), Fault> {
    let task = TaskConfig::new(&"metaworld/push-v3".parse().unwrap(), "e1");
    client.session(route, task, Timeouts { reset: deadline, action: deadline }).reset().await
}

/// A miner that does `answer` with each connection, given how many came before it.
async fn miner<F: Future<Output = ()> + Send>(
    answer: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static,
) -> (Route, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = route(&format!("http://{}", listener.local_addr().unwrap()));
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move { answer(stream, number).await });
        }
    });
    (endpoint, connections)
}

/// A request, read to its last byte.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let read = stream.read_buf(&mut text).await.unwrap_or(0);
        let said = String::from_utf8_lossy(&text).to_lowercase();
        if let Some((head, body)) = said.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
                return String::from_utf8(text).unwrap();
            }
        }
        if read == 0 {
            return String::new();
        }
    }
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const GOOD: &str = r#"{"action": [0.5, -0.5, 0, 1]}"#;

/// The fault of a miner that answers with these bytes and then keeps silent.
async fn fault_of(answer: impl Into<Vec<u8>>, deadline: Duration) -> Fault {
    let answer = answer.into();
    let (endpoint, _) = miner(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            request(&mut stream).await;
            let _ = stream.write_all(&answer).await;
            std::future::pending().await
        }
    })
    .await;
    act(&client(), &endpoint, deadline).await.unwrap_err()
}

/// The fault of a miner that answers with a piece of text again and again.
async fn fault_of_flood(head: &'static str, again: &'static str) -> Fault {
    let (endpoint, _) = miner(move |mut stream, _| async move {
        request(&mut stream).await;
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(again.as_bytes()).await.is_ok() {}
    })
    .await;
    act(&client(), &endpoint, AN_HOUR).await.unwrap_err()
}

#[tokio::test]
async fn a_good_answer_is_an_action_and_its_latency() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let (endpoint, connections) = miner(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            loop {
                let text = request(&mut stream).await;
                let received = Instant::now();
                stream.write_all(&ok(GOOD)).await.unwrap();
                let _ = sender.send((text, received, Instant::now()));
            }
        }
    })
    .await;
    let client = client();
    let before = Instant::now();
    let answer = act(&client, &endpoint, AN_HOUR).await.unwrap();
    let whole = before.elapsed();
    assert_eq!(answer.action, [0.5, -0.5, 0.0, 1.0]);
    let (text, received, _) = receiver.recv().await.unwrap();
    // The last byte was sent before it was received, and the clock stopped before we looked at ours.
    assert!(answer.latency <= whole && before + whole >= received);
    assert!(text.starts_with("POST /act HTTP/1.1\r\n"), "{text}");
    let lower = text.to_lowercase();
    assert!(lower.contains("x-episode-id: e1\r\n") && lower.contains("content-type: application/json\r\n"), "{text}");
    assert!(lower.contains("\r\naccept-encoding: identity\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n{\"observation\":[0.1,0.2,0.3,1.0]}"), "{text}");
    settle().await;
    reset(&client, &endpoint, AN_HOUR).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1, "the connection is kept");
}

/// Let the client's own tasks put a connection back where the next call finds it.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn latency_covers_all_the_time_the_miner_took() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let (endpoint, _) = miner(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            request(&mut stream).await;
            let received = Instant::now();
            let (first, rest) = (&ok(GOOD)[..20], &ok(GOOD)[20..]);
            stream.write_all(first).await.unwrap();
            settle().await;
            let _ = sender.send(received.elapsed());
            stream.write_all(rest).await.unwrap();
        }
    })
    .await;
    let answer = act(&client(), &endpoint, AN_HOUR).await.unwrap();
    assert!(answer.latency >= receiver.recv().await.unwrap());
}

#[tokio::test]
async fn no_connection_is_a_connection_error() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = route(&format!("http://{address}"));
    let fault = act(&client(), &endpoint, AN_HOUR).await.unwrap_err();
    assert_eq!(fault.reason, MinerFault::ConnectionError);
    assert!(fault.detail.contains("refused"), "{fault}");
    assert_eq!(client().health(&endpoint, SOON).await.unwrap_err().status, MinerStatus::Unreachable);
}

#[tokio::test]
async fn a_miner_that_is_not_ready_is_asked_for_its_health_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let (endpoint, _) = miner(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            while request(&mut stream).await.starts_with("GET /health HTTP/1.1\r\n") {
                let status = if counter.fetch_add(1, Ordering::SeqCst) < 2 { "503 Cold" } else { "404 Fine" };
                let answer = format!("HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    client().health(&endpoint, AN_HOUR).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_new_connection_that_closes_is_not_tried_again() {
    let (endpoint, connections) = miner(|mut stream, _| async move {
        request(&mut stream).await;
    })
    .await;
    let fault = act(&client(), &endpoint, AN_HOUR).await.unwrap_err();
    assert_eq!(fault.reason, MinerFault::ConnectionError);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_miner_has_closed_is_no_fault() {
    let (endpoint, connections) = miner(move |mut stream, _| async move {
        request(&mut stream).await;
        stream.write_all(&ok(GOOD)).await.unwrap();
    })
    .await;
    let client = client();
    act(&client, &endpoint, AN_HOUR).await.unwrap();
    settle().await;
    assert_eq!(act(&client, &endpoint, AN_HOUR).await.unwrap().action.len(), 4);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_miner_that_takes_a_request_and_closes_the_connection_gets_no_second_one() {
    let (endpoint, connections) = miner(move |mut stream, _| async move {
        request(&mut stream).await;
        stream.write_all(&ok(GOOD)).await.unwrap();
        request(&mut stream).await;
    })
    .await;
    let client = client();
    act(&client, &endpoint, AN_HOUR).await.unwrap();
    settle().await;
    let fault = act(&client, &endpoint, AN_HOUR).await.unwrap_err();
    assert_eq!((fault.reason, connections.load(Ordering::SeqCst)), (MinerFault::ConnectionError, 1));
}

#[tokio::test]
async fn silence_is_a_timeout() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"action\""] {
        let fault = fault_of(answer, SOON).await;
        assert_eq!(
            (fault.reason, fault.detail.as_str()),
            (MinerFault::ActionTimeout, "no complete answer within 100 ms")
        );
    }
    let (endpoint, _) = miner(|stream, _| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    assert_eq!(reset(&client(), &endpoint, SOON).await.unwrap_err().reason, MinerFault::ResetTimeout);
}

#[tokio::test]
async fn bytes_that_trickle_do_not_stop_the_clock() {
    for (head, byte) in [("HTTP/1.1 200 OK\r\nX: ", "x"), ("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", " ")] {
        let (endpoint, _) = miner(move |mut stream, _| async move {
            request(&mut stream).await;
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(byte.as_bytes()).await.is_ok() {
                pace.tick().await;
            }
        })
        .await;
        assert_eq!(act(&client(), &endpoint, SOON).await.unwrap_err().reason, MinerFault::ActionTimeout);
    }
}

#[tokio::test]
async fn answers_without_end_are_cut_short() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(fault_of_flood(chunked, "4\r\n    \r\n").await.reason, MinerFault::ResponseTooLarge);
    let until_closed = "HTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(fault_of_flood(until_closed, "        ").await.reason, MinerFault::ResponseTooLarge);
    // Refused by its length alone: not a byte of it comes.
    let announced = fault_of("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n", AN_HOUR).await;
    assert_eq!(announced.reason, MinerFault::ResponseTooLarge);
    assert!(announced.detail.contains("65536 bytes"), "{announced}");
    // Headers, interim answers and chunks of one byte are bounded by their size, long before the deadline.
    let bomb = fault_of_flood("HTTP/1.1 200 OK\r\n", "X-Bomb: xxxxxxxxxxxxxxxxxxxxxxxx\r\n").await;
    assert_eq!(bomb.reason, MinerFault::ResponseTooLarge);
    let interim = fault_of_flood("", "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(interim.reason, MinerFault::ResponseTooLarge);
    let crumbs = fault_of_flood(chunked, "1\r\n \r\n").await;
    assert_eq!(crumbs.reason, MinerFault::ResponseTooLarge, "{crumbs}");
}

#[tokio::test]
async fn an_answer_may_come_in_many_chunks_but_not_in_any_number() {
    let spaces =
        |count: usize| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1\r\n \r\n".repeat(count));
    let many = format!("{}{:x}\r\n{GOOD}\r\n0\r\n\r\n", spaces(255), GOOD.len());
    let (endpoint, _) = miner(move |mut stream, _| {
        let many = many.clone();
        async move {
            request(&mut stream).await;
            stream.write_all(many.as_bytes()).await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    assert_eq!(act(&client(), &endpoint, AN_HOUR).await.unwrap().action, [0.5, -0.5, 0.0, 1.0]);
    let crumbs = fault_of(spaces(257), AN_HOUR).await;
    assert_eq!(crumbs.reason, MinerFault::ResponseTooLarge);
    assert!(crumbs.detail.contains("more than 256 chunks"), "{crumbs}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, visits) = miner(|_, _| async {}).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "300 Many"] {
        let answer =
            format!("HTTP/1.1 {status}\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.endpoint().act);
        assert_eq!(fault_of(answer, AN_HOUR).await.reason, MinerFault::RedirectNotAllowed);
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn other_statuses_are_http_errors_in_harmless_words() {
    for status in [204, 400, 404, 429, 500, 503] {
        let body = "\u{1b}[31m<b>no\u{1b}[0m\r\nway\u{7}";
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let fault = fault_of(answer, AN_HOUR).await;
        assert_eq!(fault.reason, MinerFault::HttpError);
        let words = if status == 204 { "status 204:".to_owned() } else { format!("status {status}: <b>no way") };
        assert_eq!(fault.detail, words);
    }
    let endless = fault_of_flood("HTTP/1.1 500 X\r\n\r\n", "no no no ").await;
    assert_eq!((endless.reason, endless.detail.chars().count()), (MinerFault::HttpError, 500));
}

#[tokio::test]
async fn encodings_nobody_asked_for_are_refused() {
    for encoding in ["gzip", "br", "zstd", "deflate", "x, gzip"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 3\r\n\r\nxxx");
        let fault = fault_of(answer, AN_HOUR).await;
        assert_eq!(fault.reason, MinerFault::UnsupportedEncoding);
        assert!(fault.detail.contains(encoding), "{fault}");
    }
    let fault = fault_of("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", AN_HOUR).await;
    assert_eq!(fault.reason, MinerFault::MalformedResponse);
}

#[tokio::test]
async fn what_is_no_answer_is_malformed() {
    let deep = format!("{{\"action\": {}", "[".repeat(60_000));
    let mut not_text = ok("{\"action\": [0, 0, 0, 0], \"x\": \"?\"}");
    let at = not_text.len() - 3;
    not_text[at] = 0xff;
    for answer in [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
        // HTTP/2: settings, then streams that are taken back.
        [&b"\0\0\0\x04\0\0\0\0\0"[..], &b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08".repeat(1000)].concat(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n".to_vec(),
        ok(""),
        ok("[]"),
        ok("{}"),
        ok(r#"{"action": [0, 0, 0, 0], "action": [1, 1, 1, 1]}"#),
        ok(&deep),
        not_text,
    ] {
        let fault = fault_of(answer, AN_HOUR).await;
        assert_eq!(fault.reason, MinerFault::MalformedResponse, "{fault}");
    }
}

#[tokio::test]
async fn numbers_that_are_no_action_are_invalid() {
    for action in [
        "[0, 0, 0]",
        "[0, 0, 0, 0, 0]",
        "[0, 0, 0, NaN]",
        "[0, 0, 0, 1e309]",
        "[0, 0, 0, 1e300]",
        "[0, 0, 0, null]",
        "[0, 0, 0, \"0\"]",
        "[0, 0, 0, true]",
        "[[0, 0, 0, 0]]",
        "null",
    ] {
        let fault = fault_of(ok(&format!("{{\"action\": {action}}}")), AN_HOUR).await;
        assert_eq!(fault.reason, MinerFault::InvalidAction, "{action}: {fault}");
    }
}

#[tokio::test]
async fn what_a_miner_sends_unasked_is_no_answer() {
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = answered.clone();
    let (endpoint, connections) = miner(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            while !request(&mut stream).await.is_empty() {
                // Each answer brings one to a question that nobody has asked yet.
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let answer = ok(&format!("{{\"action\": [{}, 0, 0, 0]}}", number as f64 / 10.0));
                let unasked = ok("{\"action\": [1, 1, 1, 1]}");
                stream.write_all(&[answer, unasked].concat()).await.unwrap();
            }
        }
    })
    .await;
    let client = client();
    for number in 0..3 {
        let answer = act(&client, &endpoint, AN_HOUR).await.unwrap();
        assert_eq!(answer.action, [f64::from(number) / 10.0, 0.0, 0.0, 0.0]);
        settle().await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3, "such a connection is not used again");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_answer_is_a_connection_error() {
    let (endpoint, connections) = miner(|mut stream, number| async move {
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"act").await.unwrap();
        if number == 0 {
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    for _ in 0..2 {
        assert_eq!(act(&client(), &endpoint, AN_HOUR).await.unwrap_err().reason, MinerFault::ConnectionError);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2, "what has begun to answer is not asked again");
}

#[tokio::test]
async fn every_failure_of_the_demo_miner_has_its_reason() {
    for (kind, reason) in [
        ("timeout", MinerFault::ActionTimeout),
        ("http-500", MinerFault::HttpError),
        ("malformed", MinerFault::MalformedResponse),
        ("nan", MinerFault::InvalidAction),
        ("wrong-size", MinerFault::InvalidAction),
        ("out-of-range", MinerFault::InvalidAction),
        ("huge", MinerFault::ResponseTooLarge),
        ("redirect", MinerFault::RedirectNotAllowed),
        ("gzip", MinerFault::UnsupportedEncoding),
        ("close", MinerFault::ConnectionError),
        ("slow-body", MinerFault::ActionTimeout),
    ] {
        let miner = Serving::demo_miner("noop", &["--fail", &format!("{kind}-after:1")]);
        let (client, endpoint) = (client(), route(&miner.url()));
        client.health(&endpoint, AN_HOUR).await.unwrap();
        reset(&client, &endpoint, AN_HOUR).await.unwrap();
        assert_eq!(act(&client, &endpoint, AN_HOUR).await.unwrap().action, [0.0; 4], "{kind}");
        let deadline = if reason == MinerFault::ActionTimeout { SOON } else { AN_HOUR };
        let fault = act(&client, &endpoint, deadline).await.unwrap_err();
        assert_eq!(fault.reason, reason, "{kind}: {fault}");
    }
    let slow = Serving::demo_miner("noop", &["--fail", "reset-timeout"]);
    let fault = reset(&client(), &route(&slow.url()), SOON).await.unwrap_err();
    assert_eq!(fault.reason, MinerFault::ResetTimeout);
}

#[tokio::test]
async fn a_demo_miner_that_goes_down_is_gone() {
    let mut miner = Serving::demo_miner("noop", &["--fail", "down-after:1"]);
    let (client, endpoint) = (client(), route(&miner.url()));
    reset(&client, &endpoint, AN_HOUR).await.unwrap();
    act(&client, &endpoint, AN_HOUR).await.unwrap();
    let fault = act(&client, &endpoint, AN_HOUR).await.unwrap_err();
    assert_eq!(fault.reason, MinerFault::ConnectionError);
    assert_eq!(miner.wait(), Some(0));
}

#[tokio::test]
async fn a_demo_miner_needs_a_reset() {
    let miner = Serving::demo_miner("heuristic", &[]);
    let fault = act(&client(), &route(&miner.url()), AN_HOUR).await.unwrap_err();
    assert_eq!(fault.reason, MinerFault::HttpError);
    assert!(fault.detail.contains("no /reset"), "{fault}");
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_robo"))
        .args(["demo-miner", "--policy", "noop", "--port", &port])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("error: cannot listen on 127.0.0.1:{port}\n")), "{said}");
    assert!(said.contains("hint: choose another port"), "{said}");
}

#[test]
fn a_polite_signal_ends_a_demo_miner() {
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let mut miner = Serving::demo_miner("noop", &[]);
        let process = nix::unistd::Pid::from_raw(miner.id().try_into().unwrap());
        nix::sys::signal::kill(process, signal).unwrap();
        assert_eq!(miner.wait(), Some(0));
    }
}
