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
    /// Wait for SIGINT, SIGTERM or, where asked for, the end of standard input.
    pub(super) async fn end(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = end_of_input(), if self.until_eof => {}
        }
        Ok(())
    }
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
