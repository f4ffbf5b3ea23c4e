//! A TCP connection that knows when its bytes arrived: by the kernel's clock where the kernel tells, so that an answer that waited for
//! us to run is not late.
//!
//! The kernel stamps each segment as it arrives (`SO_TIMESTAMPNS`) and hands the stamp of the last one out with the bytes. It
//! works below TLS, and reads nothing that a plain `read` would not.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::{Arc, Once},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use nix::{
    cmsg_space,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns},
        time::TimeSpec,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::wire::Clock;
use crate::host::socket::unacknowledged;

/// Keeps the kernel stamping from the first connection on: it begins a moment after the first socket asks for it.
#[derive(Debug)]
pub(super) struct Stamping(#[expect(dead_code, reason = "it works by being open")] Option<UdpSocket>);

impl Stamping {
    pub(super) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").ok();
        Self(socket.filter(|socket| setsockopt(socket, ReceiveTimestampns, &true).is_ok()))
    }
}

/// A connection.
pub(super) struct Socket {
    stream: TcpStream,
    clock: Arc<Clock>,
    /// Where the kernel puts its stamps. None where it takes no orders for them.
    control: Option<Vec<u8>>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, clock: Arc<Clock>) -> Self {
        let stamps = setsockopt(&stream, ReceiveTimestampns, &true).is_ok();
        if !stamps {
            tell_that_there_are_none();
        }
        Self { stream, clock, control: stamps.then(|| cmsg_space!(TimeSpec)) }
    }

    /// Read what is there, without waiting.
    fn receive(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let descriptor = self.stream.as_raw_fd();
        let (read, arrived) = receive(descriptor, buffer.initialize_unfilled(), self.control.as_deref_mut())?;
        buffer.advance(read);
        if read > 0 {
            if arrived.is_none() && self.control.is_some() {
                tell_that_there_are_none();
            }
            self.clock.arrived(arrived.unwrap_or_else(Instant::now));
        }
        Ok(())
    }

    /// The connection is over.
    fn closed(&self) {
        self.clock.closed(unacknowledged(&self.stream));
    }

    fn note<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = outcome {
            self.closed();
        }
        outcome
    }

    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.clock.left(bytes);
        }
        self.note(outcome)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = loop {
            let ready = self.stream.poll_read_ready(cx);
            let received = match ready {
                Poll::Ready(Ok(())) => {
                    let received = self.receive(buffer);
                    if matches!(&received, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                        // What tokio believed of the socket is out of date: it is told so, and asked again.
                        let _ =
                            self.stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                        continue;
                    }
                    received
                }
                Poll::Ready(Err(error)) => Err(error),
                // The deadline has passed. What has arrived counts, whether or not tokio has heard of it.
                Poll::Pending if self.clock.is_last_look() => match self.receive(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                    received => received,
                },
                Poll::Pending => {
                    if self.clock.has_arrived() {
                        // More of the answer is to come, and its sender may wait for the acknowledgement of this part (Nagle).
                        let _ = self.stream.set_quickack(true);
                    }
                    return Poll::Pending;
                }
            };
            break received;
        };
        if outcome.is_err() || buffer.filled().len() == before && buffer.capacity() > before {
            self.closed();
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Socket {
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Bytes that are there, how many, and when the last of them arrived.
fn receive(descriptor: RawFd, bytes: &mut [u8], control: Option<&mut [u8]>) -> io::Result<(usize, Option<Instant>)> {
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(descriptor, &mut parts, control, MsgFlags::MSG_DONTWAIT)?;
    let stamp = message.cmsgs().ok().into_iter().flatten().find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => moment(stamp),
        _ => None,
    });
    Ok((message.bytes, stamp))
}

/// A time of the system's clock as a moment. A clock that was set back since says less than now.
fn moment(stamp: TimeSpec) -> Option<Instant> {
    let since_epoch = Duration::new(u64::try_from(stamp.tv_sec()).ok()?, u32::try_from(stamp.tv_nsec()).ok()?);
    let ago = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since_epoch).unwrap_or(Duration::ZERO);
    Instant::now().checked_sub(ago)
}

fn tell_that_there_are_none() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "the kernel does not tell when answers arrive: an answer counts from when it is read, so a busy machine makes miners look slower"
        );
    });
}
