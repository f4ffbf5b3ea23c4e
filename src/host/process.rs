//! How child processes are tied to us: the kernel ends them when we end, however that happens.

use std::{
    io,
    process::Command,
    sync::{OnceLock, mpsc},
};

use nix::sys::signal::Signal;

/// Have the kernel send `signal` to the child when the thread that spawned it ends.
///
/// The rule follows the *thread*: spawn from one that lives as long as the process, as [`on_lasting_thread`] does. It
/// survives `exec`, so the program itself needs no help, and it holds when we are killed with `SIGKILL`.
#[expect(unsafe_code, reason = "`pre_exec` is the only door to prctl in the child")]
pub fn die_with_parent(command: &mut Command, signal: Signal) -> &mut Command {
    use std::os::unix::process::CommandExt;
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid and raise.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(signal)?;
            // The parent may have died before the rule was set.
            if nix::unistd::getppid() != parent {
                nix::sys::signal::raise(Signal::SIGKILL)?;
            }
            Ok(())
        })
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Run `work` on a thread that lives until the process ends, and hand back what it returns.
///
/// Meant for spawning, which takes about a millisecond; anything slower would keep other spawns waiting.
///
/// # Errors
/// When that thread cannot be started.
pub async fn on_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    // The one thread belongs to the process as a whole, because what the kernel watches is its end.
    static THREAD: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes has ended");
    let jobs = match THREAD.get() {
        Some(jobs) => jobs.clone(),
        None => {
            let (jobs, queue) = mpsc::channel::<Job>();
            std::thread::Builder::new().name("robo-spawner".into()).spawn(move || {
                // A second thread started by a race loses its sender here below and ends without having spawned.
                for job in queue {
                    job();
                }
            })?;
            THREAD.get_or_init(|| jobs).clone()
        }
    };
    let (answer, result) = tokio::sync::oneshot::channel();
    jobs.send(Box::new(move || {
        // The caller may have stopped waiting; what it asked for is then dropped, which ends a child.
        let _ = answer.send(work());
    }))
    .map_err(|_| gone())?;
    result.await.map_err(|_| gone())
}
