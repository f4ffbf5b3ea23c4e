//! Starting the supervisor from the process of a user, one at a time.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    config,
    host::{
        Progress,
        environment::{self, Role},
    },
};

use super::{Error, Layout, Orders, Report, account::Account, cluster, is_taken, programs, wait_for_lock};

/// How often a server that somebody else is starting is looked at, and how often at most (a minute in all).
const LOOK: (Duration, u32) = (Duration::from_millis(50), 1200);

/// What is needed to start the server.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    config: config::Database,
    progress: Progress,
}

impl Launch {
    pub(super) fn new(config: &config::Database, progress: &Progress) -> Self {
        Self { config: config.clone(), progress: progress.clone() }
    }

    /// See to it that the server takes connections, and say where its socket is. The caller is a user already, so a
    /// server that runs does not stop.
    pub(super) async fn ensure(&self, layout: &Layout) -> Result<PathBuf, Error> {
        // One at a time: whoever comes second finds the server running.
        let starter = wait_for_lock(layout.lock("start")?, File::lock).await.map_err(Error::file(&layout.data_dir))?;
        let sockets = self.ensure_alone(layout).await;
        drop(starter);
        sockets
    }

    async fn ensure_alone(&self, layout: &Layout) -> Result<PathBuf, Error> {
        let server = layout.lock("server")?;
        // There is nobody to notify us: whoever began to start this server has died, and its supervisor goes on alone.
        for _ in 0..LOOK.1 {
            if !is_taken(server.try_lock_shared()) {
                let _ = server.unlock();
                if let Some(sockets) = self.start(layout).await? {
                    return Ok(sockets);
                }
            }
            if let Ok(sockets) = fs::read_to_string(layout.ready()) {
                return Ok(sockets.into());
            }
            tokio::time::sleep(LOOK.0).await;
        }
        Err(Error::Start(format!("its supervisor says nothing; see {}", layout.log().display())))
    }

    /// Start a supervisor and hear it out. None means that another one was faster.
    async fn start(&self, layout: &Layout) -> Result<Option<PathBuf>, Error> {
        let account = Account::of(&layout.cluster())?;
        let made_by = cluster::major(&layout.cluster())?;
        let programs = programs::find(&self.config, layout, made_by, &self.progress).await?;
        account.check_passage(&layout.data_dir)?;
        account.check_passage(&programs)?;
        if made_by.is_none() {
            self.progress.say(format!("creating a database in {}", layout.cluster().display()));
        }
        let orders = Orders { data_dir: layout.data_dir.clone(), programs };
        let child = spawn(&self.config, &orders, layout)?;
        let report = tokio::task::spawn_blocking(move || first_word(child)).await;
        match report.ok().flatten() {
            Some(Report::Ready { sockets }) => Ok(Some(sockets)),
            Some(Report::Taken) => Ok(None),
            Some(Report::Failed { reason }) => Err(Error::Start(reason)),
            None => Err(Error::Start(format!("its supervisor died; see {}", layout.log().display()))),
        }
    }
}

/// Start the supervisor, apart from our terminal: Ctrl-C is for us, and it has to outlive us.
fn spawn(config: &config::Database, orders: &Orders, layout: &Layout) -> Result<Child, Error> {
    let executable = match &config.supervisor {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(Error::file("/proc/self/exe".as_ref()))?,
    };
    let log = File::options().append(true).create(true).open(layout.log()).map_err(Error::file(&layout.log()))?;
    environment::command(Role::Robo, &executable)
        .args(["db", "supervise", "--directory"])
        .arg(&orders.data_dir)
        .arg("--programs")
        .arg(&orders.programs)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(Error::file(&executable))
}

/// What the supervisor says, or nothing if it dies without a word.
fn first_word(mut child: Child) -> Option<Report> {
    let mut line = String::new();
    let read = child.stdout.take().map(|output| BufReader::new(output).read_line(&mut line));
    // Somebody has to collect it when it ends, which may be long after this, or after us.
    std::thread::spawn(move || child.wait());
    read.and_then(Result::ok).and_then(|_| serde_json::from_str(&line).ok())
}
