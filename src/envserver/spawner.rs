//! Starts worker processes, all from one thread that lives as long as the server: the kernel kills a worker when the
//! thread that started it ends, and tokio's threads come and go.

use std::{io, os::unix::process::CommandExt, path::PathBuf, process::Stdio, thread};

use nix::sys::signal::Signal;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

use crate::host::process::die_with_parent;

/// The Python that simulates.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter, of an environment that has the simulator installed.
    pub interpreter: PathBuf,
    /// The directory that holds the package `robo_eval_env`.
    pub package: PathBuf,
}

impl Python {
    fn worker(&self) -> Command {
        let mut command = std::process::Command::new(&self.interpreter);
        command
            .args(["-m", "robo_eval_env", "worker"])
            .env("PYTHONPATH", &self.package)
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("ROBO_ENV_SERVER_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal is for us; workers end when we say so.
            .process_group(0);
        die_with_parent(&mut command, Signal::SIGKILL);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }
}

type Job = oneshot::Sender<io::Result<Child>>;

/// A handle to the thread. Workers die when the last handle is gone.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Spawner {
    /// Start the thread. Within a runtime.
    pub(super) fn start(python: Python) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let runtime = tokio::runtime::Handle::current();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            while let Some(job) = queue.blocking_recv() {
                // Whoever asked may be gone; the child then dies as it is dropped.
                let _ = job.send(python.worker().spawn());
            }
        })?;
        Ok(Self { jobs })
    }

    /// Start a worker process with its standard streams piped.
    pub(super) async fn spawn(&self) -> io::Result<Child> {
        let ended = || io::Error::other("the thread that starts workers has ended");
        let (job, child) = oneshot::channel();
        self.jobs.send(job).map_err(|_| ended())?;
        child.await.map_err(|_| ended())?
    }
}
