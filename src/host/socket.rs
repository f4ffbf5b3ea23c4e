//! What the kernel knows of a TCP connection beyond its bytes.

use std::os::fd::{AsFd, AsRawFd};

/// Bytes that were written to the connection and that the other side's kernel has not acknowledged. Also known after the connection was
/// reset. None where the kernel does not tell.
#[expect(unsafe_code, reason = "no safe wrapper of this ioctl exists")]
pub fn unacknowledged(socket: &impl AsFd) -> Option<usize> {
    let mut bytes: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes one `int` to the address given.
    let status =
        unsafe { nix::libc::ioctl(socket.as_fd().as_raw_fd(), nix::libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) };
    if status == 0 { usize::try_from(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn a_request_that_was_delivered_is_acknowledged_even_if_the_other_side_closes() {
        let (mut ours, mut theirs) = pair();
        ours.write_all(b"request").unwrap();
        theirs.read_exact(&mut [0; 7]).unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(unacknowledged(&ours), Some(0));
    }

    #[test]
    fn a_request_to_a_connection_that_was_closed_before_it_came_is_not_acknowledged() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        ours.write_all(b"request").unwrap();
        // The end of the stream came first, then the reset for the request.
        while ours.read(&mut [0; 8]).is_ok_and(|read| read > 0) {}
        let _ = ours.write(b"x");
        assert!(unacknowledged(&ours).is_some_and(|bytes| bytes >= 7));
    }
}
