//! Connections that close under a call, and answers that arrive while nobody reads. Sockets are real.

use std::io::{Read, Write};

use tokio::net::TcpListener;

use super::*;
use crate::address::{Reach, Rules};

const AN_HOUR: Duration = Duration::from_secs(3600);

fn client(stalls: Stalls) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let limits = Limits { connect: Duration::from_secs(60), ..Limits::default() };
    Client::beside(limits, Arc::new(stalls)).unwrap()
}

/// A listener and the way to it.
async fn listener() -> (TcpListener, Route) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rules = Rules { reach: Reach::Private, ..Rules::default() };
    let route = Route::new(&format!("http://{}", listener.local_addr().unwrap()), rules).unwrap();
    (listener, route)
}

fn call<'a>(route: &'a Route, resends: &'a AtomicU32, episode_id: &'a HeaderValue, deadline: Duration) -> Call<'a> {
    Call {
        route,
        target: &route.endpoint.targets.act,
        episode_id,
        body: Bytes::from_static(b"{}"),
        deadline,
        late: MinerFault::ActionTimeout,
        busy: MinerFault::HttpError,
        resends,
    }
}

/// A connection to a miner, and the miner's end of it.
async fn connected(client: &Client) -> (Line, Route, std::net::TcpStream) {
    let (listener, route) = listener().await;
    let (line, accepted) = tokio::join!(client.dial(&route), listener.accept());
    let theirs = accepted.unwrap().0.into_std().unwrap();
    theirs.set_nonblocking(false).unwrap();
    (line.unwrap(), route, theirs)
}

/// Wait until the other side's kernel has told ours whatever it has to tell.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_request_to_a_connection_that_was_closed_before_is_unread() {
    let client = client(Stalls::default());
    let (line, route, theirs) = connected(&client).await;
    drop(theirs);
    settle().await;
    let (resends, id) = (AtomicU32::new(1), HeaderValue::from_static("e"));
    let call = call(&route, &resends, &id, AN_HOUR);
    let failed = client.attempt(&call, line, &mut Deadline::new(AN_HOUR, AN_HOUR)).await.unwrap_err();
    assert!(matches!(failed, Failed::Unread(_)));
    assert!(call.may_resend(), "once");
    assert!(!call.may_resend(), "and then no more in this episode");
}

#[tokio::test]
async fn a_request_that_reached_the_miner_is_not_unread_whatever_the_miner_does_to_the_connection() {
    for reset in [false, true] {
        let client = client(Stalls::default());
        let (line, route, mut theirs) = connected(&client).await;
        let reads = std::thread::spawn(move || {
            let most = if reset { 1 } else { 4096 };
            // Closing with bytes unread resets the connection.
            assert!(theirs.read(&mut vec![0; most]).unwrap() > 0);
        });
        let (resends, id) = (AtomicU32::new(1), HeaderValue::from_static("e"));
        let call = call(&route, &resends, &id, AN_HOUR);
        let failed = client.attempt(&call, line, &mut Deadline::new(AN_HOUR, AN_HOUR)).await.unwrap_err();
        reads.join().unwrap();
        assert!(matches!(failed, Failed::Fault(Fault { reason: MinerFault::ConnectionError, .. })), "reset: {reset}");
    }
}

#[tokio::test]
async fn an_answer_that_arrived_in_time_is_in_time_although_nobody_read_it() {
    let client = client(Stalls::default());
    let (line, route, mut theirs) = connected(&client).await;
    let (resends, id) = (AtomicU32::new(0), HeaderValue::from_static("e"));
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let deadline = Duration::from_millis(1500);
    let (answered, wait) = std::sync::mpsc::channel();
    let answers = std::thread::spawn(move || {
        assert!(theirs.read(&mut [0; 4096]).unwrap() > 0);
        theirs.write_all(answer).unwrap();
        answered.send(()).unwrap();
        theirs
    });
    let call = call(&route, &resends, &id, deadline);
    let mut deadline = Deadline::new(deadline, AN_HOUR);
    let mut attempt = pin!(client.attempt(&call, line, &mut deadline));
    assert!(attempt.as_mut().now_or_never().is_none(), "the request is sent");
    // This thread stands still until the answer is there and the deadline has passed.
    wait.recv().unwrap();
    std::thread::sleep(call.deadline);
    let Ok(reply) = attempt.await else { panic!("the answer arrived in time") };
    assert!(reply.latency < call.deadline, "{:?}", reply.latency);
    drop(answers.join().unwrap());
}
