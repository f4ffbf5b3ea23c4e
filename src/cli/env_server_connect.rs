//! `robo env-server-connect`: join standard input and output with a TCP address (started by robo itself, in a container).
//!
//! The way to a server that publishes no port: an engine starts this program in the server's container, or in one beside
//! it, for every connection.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use super::demo_miner::duration;
use super::exit::{Exit, Result};

/// A pause between two tries: nobody tells us when it listens.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to connect to
    #[arg(value_name = "HOST:PORT")]
    address: String,

    /// How long it may take until somebody listens there
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "8s")]
    patience: Duration,
}

/// Threads and not tasks: one that reads standard input cannot be cancelled, and the process must end without it.
pub(super) fn run(args: &Args) -> Result {
    let server = connect(args)?;
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

/// A server that has just been started does not listen yet; one on another machine has no name and no way to it at first.
fn connect(args: &Args) -> io::Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(&args.address) {
            Err(_) if begin.elapsed() < args.patience => std::thread::sleep(PAUSE),
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
