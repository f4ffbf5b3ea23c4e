//! How long a serving process lives: until it is told to stop or, started by another program, until that one is gone.

use tokio::signal::unix::{SignalKind, signal};

/// Flags of a verb that serves.
#[derive(Debug, clap::Args)]
pub(super) struct Lifetime {
    /// End when standard input closes, as it does when the program that holds its other end dies
    #[arg(long)]
    until_eof: bool,
}

impl Lifetime {
    /// Start to watch for SIGINT, SIGTERM and, where asked for, the end of standard input; the future is the wait for it.
    /// Called before the process says that it serves, so that whoever read that can rely on it.
    pub(super) fn watch(&self) -> std::io::Result<impl Future<Output = ()> + use<>> {
        let signals = signals()?;
        let until_eof = self.until_eof;
        Ok(async move {
            tokio::select! {
                () = signals => {}
                () = end_of_input(), if until_eof => {}
            }
        })
    }
}

/// Start to watch for SIGINT and SIGTERM; the future is the wait for one.
pub(super) fn signals() -> std::io::Result<impl Future<Output = ()> + use<>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// A thread of its own, not one of tokio's: the read cannot be cancelled, and nothing should wait for it.
async fn end_of_input() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An input that cannot be read has ended as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}
