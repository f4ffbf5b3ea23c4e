//! A connection to a miner and the one call at a time that is made on it. Nothing drives it in the background: it moves
//! only while a call waits for it, in the task of whoever waits.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{
    route::Peer,
    wire::{Clock, Stream, Wire},
};

/// Most that is kept of an answer's head, and of what came with it.
const BUFFER: usize = 128 * 1024;

type Driver = Connection<TokioIo<Wire>, Full<Bytes>>;

/// A connection.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// What moves the bytes, until the connection ends.
    driver: Option<Driver>,
    pub(super) clock: Arc<Clock>,
    /// Who is at the other end.
    pub(super) peer: Peer,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

impl Line {
    /// A connection over a stream that is open and keeps this clock.
    pub(super) async fn new(stream: Box<dyn Stream>, clock: Arc<Clock>, peer: Peer) -> Result<Self, hyper::Error> {
        let wire = TokioIo::new(Wire::new(stream, clock.clone()));
        let (sender, driver) = http1::Builder::new().max_buf_size(BUFFER).handshake(wire).await?;
        Ok(Self { sender, driver: Some(driver), clock, peer })
    }

    /// Send a request and wait for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        self.clock.start();
        let mut answer = pin!(self.sender.send_request(request));
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// The next piece of an answer's body, or its end.
    pub(super) async fn next(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Pin::new(&mut *body).poll_frame(cx)
        })
        .await
    }

    /// Whether another call can be made, as far as one can know: the miner may be closing it at this moment.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.clock.start();
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Poll::Ready(())
        })
        .await;
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Move what can be moved. How a connection ended is told to the call that waits on it.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    let ended = driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(cx).is_ready());
    if ended {
        *driver = None;
    }
}
