//! The bytes of a call and when they moved: a stream that notes the moment the last byte of a request was taken and the moment the
//! last byte of an answer arrived. These two are the miner's clock. The stream also counts what comes: a miner can send interim
//! answers, tiny chunks and headers without end, each of which would be read and thrown away.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Most that is read in one call, whatever it is: several times what an answer may have.
const MOST_READ: usize = 256 * 1024;

/// More came than any answer needs.
#[derive(Debug, thiserror::Error)]
#[error("more than {MOST_READ} bytes came in one answer")]
pub(super) struct Flood;

/// When bytes moved in the call that is being made, and how many came.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Marks>);

#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    /// Bytes were written that are perhaps not all that is to be written.
    writing: bool,
    sent: Option<Instant>,
    came: Option<Instant>,
    read: usize,
    /// When the last byte arrived at this machine, below TLS.
    arrived: Option<Instant>,
    /// Bytes given to the kernel, below TLS.
    left: usize,
    /// The connection was closed, and so many of the bytes were not acknowledged then.
    unacknowledged: Option<usize>,
    last_look: bool,
}

impl Clock {
    /// Forget the last call.
    pub(super) fn start(&self) {
        *self.lock() = Marks::default();
    }

    /// When the last byte written so far was taken, if nothing more waits to be written.
    pub(super) fn sent(&self) -> Option<Instant> {
        self.lock().sent
    }

    /// When the last byte read so far came.
    pub(super) fn came(&self) -> Option<Instant> {
        self.lock().came
    }

    /// From now on whatever has arrived is read, whether or not the runtime has heard of it.
    pub(super) fn take_last_look(&self) {
        self.lock().last_look = true;
    }

    pub(super) fn is_last_look(&self) -> bool {
        self.lock().last_look
    }

    /// Bytes of an answer arrived at this machine.
    pub(super) fn arrived(&self, when: Instant) {
        self.lock().arrived = Some(when);
    }

    pub(super) fn has_arrived(&self) -> bool {
        self.lock().arrived.is_some()
    }

    /// Bytes were given to the kernel.
    pub(super) fn left(&self, bytes: usize) {
        self.lock().left += bytes;
    }

    /// The connection is closed, and the kernel says so much of the rest.
    pub(super) fn closed(&self, unacknowledged: Option<usize>) {
        self.lock().unacknowledged = unacknowledged;
    }

    /// Whether the connection was closed before any byte of the request reached the other side.
    pub(super) fn closed_unread(&self) -> bool {
        let marks = self.lock();
        marks.arrived.is_none() && (marks.left == 0 || marks.unacknowledged.is_some_and(|bytes| bytes >= marks.left))
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        // Nothing between lock and unlock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream with a clock.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    clock: Arc<Clock>,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, clock: Arc<Clock>) -> Self {
        Self { stream, clock }
    }

    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = outcome {
            let mut marks = self.clock.lock();
            marks.writing = true;
            marks.sent = None;
        }
        outcome
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            let mut marks = self.clock.lock();
            marks.came = Some(marks.arrived.unwrap_or_else(Instant::now));
            marks.read += read;
            if marks.read > MOST_READ {
                return Poll::Ready(Err(io::Error::other(Flood)));
            }
        }
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when all of a request has been written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        let mut marks = self.clock.lock();
        if marks.writing && matches!(outcome, Poll::Ready(Ok(()))) {
            marks.writing = false;
            marks.sent = Some(Instant::now());
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
