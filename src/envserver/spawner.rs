//! Starts worker processes, all from one thread that lives as long as the server: the kernel kills a worker when the
//! thread that started it ends, and tokio's threads come and go.

use std::{
    fs::DirBuilder,
    io,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

use crate::host::{
    environment::{self, Role, from_anywhere, private_directory, python_options},
    process::die_with_parent,
};

/// The Python that simulates.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter, of an environment that has the simulator installed.
    pub interpreter: PathBuf,
    /// The directory that holds the package `robo_eval_env`.
    pub package: PathBuf,
}

impl Python {
    fn worker(&self, directory: &Path) -> Command {
        let mut command = environment::command(Role::Simulator, &self.interpreter);
        command
            .args(python_options(Role::Simulator))
            .args(["-m", "robo_eval_env", "worker"])
            .current_dir(directory)
            .env("HOME", directory)
            .env("TMPDIR", directory)
            .env("PYTHONPATH", from_anywhere(&self.package))
            .env("PYTHONDONTWRITEBYTECODE", "1")
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
    /// Holds the workers' directories, which go with the last handle.
    _directories: Arc<TempDir>,
}

impl Spawner {
    /// Start the thread. Within a runtime.
    pub(super) fn start(python: Python) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let runtime = tokio::runtime::Handle::current();
        let directories = private_directory()?;
        let parent = directories.path().to_owned();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            let mut started = 0_u64;
            while let Some(job) = queue.blocking_recv() {
                started += 1;
                let directory = parent.join(format!("worker-{started}"));
                let made = DirBuilder::new().mode(0o700).create(&directory);
                // Whoever asked may be gone; the child then dies as it is dropped.
                let _ = job.send(made.and_then(|()| python.worker(&directory).spawn()));
            }
        })?;
        Ok(Self { jobs, _directories: Arc::new(directories) })
    }

    /// Start a worker process with its standard streams piped.
    pub(super) async fn spawn(&self) -> io::Result<Child> {
        let ended = || io::Error::other("the thread that starts workers has ended");
        let (job, child) = oneshot::channel();
        self.jobs.send(job).map_err(|_| ended())?;
        child.await.map_err(|_| ended())?
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::config::{INHERITED, fixed};

    /// A worker that says where it is and what it was given.
    const REPORT: &str = "#!/bin/sh\npwd; stat -c %a .; ls -A | wc -l; echo \"$@\"; env\n";

    #[tokio::test]
    async fn a_worker_works_alone_with_what_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let (draft, interpreter) = (folder.path().join("draft"), folder.path().join("python"));
        fs::write(&draft, REPORT).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        // Our own handle may be held open by a process that another test forks meanwhile.
        let copied = environment::command(Role::Tool, Path::new("cp")).arg(&draft).arg(&interpreter).status();
        assert!(copied.unwrap().success());
        let spawner = Spawner::start(Python { interpreter, package: "eval-env".into() }).unwrap();
        let mut directories = BTreeSet::new();
        for _ in 0..2 {
            let mut worker = spawner.spawn().await.unwrap();
            let mut text = String::new();
            worker.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
            worker.wait().await.unwrap();
            let (said, variables) = text.split_at(text.find("worker\n").unwrap() + "worker\n".len());
            let said: Vec<&str> = said.lines().map(str::trim).collect();
            assert_eq!(said[1..], ["700", "0", "-P -s -m robo_eval_env worker"]);
            directories.insert(PathBuf::from(said[0]));
            let mut allowed =
                vec!["HOME", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PWD", "OLDPWD", "SHLVL", "_"];
            allowed.extend(fixed(Role::Simulator).iter().map(|(name, _)| *name));
            allowed.extend(INHERITED.iter().filter(|it| it.roles.contains(&Role::Simulator)).map(|it| it.variable));
            // Cargo gives a test plenty of variables that must not be passed on.
            let more: Vec<_> = variables.lines().filter_map(|line| line.split_once('=')).collect();
            assert!(more.iter().all(|(name, _)| allowed.contains(name)), "{more:?}");
            let package = std::env::current_dir().unwrap().join("eval-env").display().to_string();
            assert!(more.contains(&("PYTHONPATH", &package)) && more.contains(&("HOME", said[0])), "{more:?}");
        }
        assert_eq!(directories.len(), 2, "each has its own");
        drop(spawner);
        assert!(directories.iter().all(|it| !it.exists()));
    }
}
