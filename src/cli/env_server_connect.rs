//! `robo env-server-connect`: join standard input and output with a TCP address (started by robo itself, in a container).
//!
//! The way into a container that publishes no port: its engine starts this program there for every connection.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::exit::{Exit, Result};

/// How long a server that has just been started may take to listen.
const PATIENCE: Duration = Duration::from_secs(8);

/// A pause between two tries: nobody tells us when it listens.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to connect to
    #[arg(value_name = "HOST:PORT")]
    address: SocketAddr,
}

/// Threads and not tasks: one that reads standard input cannot be cancelled, and the process must end without it.
pub(super) fn run(args: &Args) -> Result {
    let server = connect(args.address)?;
    server.set_nodelay(true)?;
    let to_server = server.try_clone()?;
    std::thread::spawn(move || {
        // Whatever ends it, the server hears the end.
        let _ = copy(io::stdin().lock(), &to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    copy(&server, io::stdout().lock())?;
    Ok(Exit::Ok)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && begin.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            connected => return connected,
        }
    }
}

/// Every piece as soon as it is there.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&chunk[..length])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
