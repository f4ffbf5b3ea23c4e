//! `robo db supervise`: one process per running server, which starts it and stops it after its last user.
//!
//! It blocks: it is to be called on the thread that lives as long as the process, because the kernel stops the server
//! when that thread ends. It talks to nobody but its starter, and to that one only once.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::host::{
    environment::{self, Role},
    process::die_with_parent,
};

use super::{Error, Layout, account::Account, cluster, is_taken, sockets};

/// How often the server is asked whether it is ready or gone. It has no way to call us; `pg_ctl` asks as well.
const LOOK: Duration = Duration::from_millis(20);

/// How long a server may take to stop before it is stopped the hard way, which costs nothing but a recovery.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the recovery after a crash may take.
const RECOVERY: Duration = Duration::from_secs(300);

/// What the supervisor is to look after.
#[derive(Debug, Clone, clap::Args)]
pub struct Orders {
    /// The data directory
    #[arg(long = "directory")]
    pub data_dir: PathBuf,
    /// The directory with `initdb` and `postgres`
    #[arg(long)]
    pub programs: PathBuf,
}

/// What the supervisor tells its starter: one line of JSON on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// The server takes connections.
    Ready {
        /// The directory of its socket.
        sockets: PathBuf,
    },
    /// Another supervisor is at it.
    Taken,
    /// It does not, and why.
    Failed {
        /// With the last lines of the log.
        reason: String,
    },
}

/// Start the server, `tell` the starter how that went, and stay until the last user has gone.
///
/// # Errors
/// What went wrong after the starter was told that all is well.
pub fn supervise(orders: &Orders, tell: impl FnOnce(&Report)) -> Result<(), Error> {
    let layout = Layout::new(orders.data_dir.clone());
    let server = layout.lock("server")?;
    if is_taken(server.try_lock()) {
        tell(&Report::Taken);
        return Ok(());
    }
    let log_start = fs::metadata(layout.log()).map_or(0, |metadata| metadata.len());
    match start(&layout, &orders.programs) {
        Ok((child, sockets)) => {
            tell(&Report::Ready { sockets: sockets.clone() });
            let users = stay(&layout, child)?;
            clean_up(&layout, &sockets);
            // The kernel gives the locks back when this process has ended, so that whoever waits for one of them finds
            // nothing of ours running.
            std::mem::forget((server, users));
            Ok(())
        }
        Err(error) => {
            tell(&Report::Failed { reason: explain(&error, &layout.log(), log_start) });
            Ok(())
        }
    }
}

fn start(layout: &Layout, programs: &Path) -> Result<(Child, PathBuf), Error> {
    // Left by a supervisor that was killed.
    remove_if_there(&layout.ready())?;
    let account = Account::of(&layout.cluster())?;
    cluster::make(layout, programs, &account)?;
    end_leftovers(&layout.cluster())?;
    let sockets = sockets::make(&layout.data_dir, &account)?;
    let mut child = spawn(layout, programs, &account, &sockets)?;
    wait_until_ready(&mut child, &layout.cluster())?;
    fs::write(layout.ready(), sockets.as_os_str().as_encoded_bytes()).map_err(Error::file(&layout.ready()))?;
    Ok((child, sockets))
}

fn spawn(layout: &Layout, programs: &Path, account: &Account, sockets: &Path) -> Result<Child, Error> {
    let program = programs.join("postgres");
    let mut command = environment::command(Role::Database, &program);
    command.arg("-D").arg(layout.cluster()).arg("-k").arg(sockets);
    let port = super::Server::PORT.to_string();
    for setting in [
        "listen_addresses=",
        &format!("port={port}"),
        // Settings left in the directory by hand must not take the promises away.
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "shared_buffers=32MB",
        "max_connections=200",
        "logging_collector=off",
        "log_destination=stderr",
        "timezone=UTC",
        "log_timezone=UTC",
    ] {
        command.args(["-c", setting]);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(std::io::stderr());
    account.apply(&mut command);
    // `SIGINT` is Postgres' word for: end the sessions and stop in order.
    die_with_parent(&mut command, Signal::SIGINT).spawn().map_err(Error::file(&program))
}

/// Wait for the server's own word in its file of state.
fn wait_until_ready(child: &mut Child, cluster: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + RECOVERY;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().map_err(Error::file(cluster))? {
            return Err(Error::Start(format!("`postgres` ended ({status})")));
        }
        if postmaster(cluster).is_some_and(|found| found.pid.as_raw() as u32 == child.id() && found.is_ready) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    // The server is our child: it goes when we go.
    Err(Error::Start(format!("`postgres` was not ready within {} seconds", RECOVERY.as_secs())))
}

/// Stay until the server has ended: because the last user has gone, or by itself.
fn stay(layout: &Layout, mut child: Child) -> Result<Option<File>, Error> {
    let users = layout.lock("users")?;
    let pid = Pid::from_raw(child.id() as i32);
    let stopper = thread::spawn(move || stop_after_last_user(users, pid));
    let status = child.wait().map_err(Error::file(&layout.cluster()))?;
    if !stopper.is_finished() {
        // It waits for a lock that users hold. They have lost their connections and will start another server.
        tracing::warn!(%status, "the server has ended by itself");
        return Ok(None);
    }
    Ok(stopper.join().ok().flatten())
}

/// Wait until no user is left and tell the server to stop. The lock is handed on, to be kept until it has.
fn stop_after_last_user(users: File, server: Pid) -> Option<File> {
    users.lock().ok()?;
    // A signal that cannot be sent means that the server has ended, which is what was wanted.
    let _ = kill(server, Signal::SIGINT);
    let started = Instant::now();
    thread::spawn(move || {
        thread::sleep(PATIENCE.saturating_sub(started.elapsed()));
        let _ = kill(server, Signal::SIGQUIT);
    });
    Some(users)
}

fn clean_up(layout: &Layout, sockets: &Path) {
    // Whatever cannot be removed is dealt with by the next start.
    let _ = remove_if_there(&layout.ready());
    let _ = fs::remove_dir_all(sockets);
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

struct Postmaster {
    pid: Pid,
    is_ready: bool,
}

/// What the server's file of state says: its process on the first line, its state on the eighth.
fn postmaster(cluster: &Path) -> Option<Postmaster> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?);
    Some(Postmaster { pid, is_ready: lines.nth(6).is_some_and(|state| state.trim() == "ready") })
}

/// Wait out, and help along, what a killed supervisor left behind: its server was told to stop and may still be at it.
///
/// The file of state of a server that was killed too names a process number that may belong to anybody by now (after
/// the restart of a container even to us), which Postgres could take for a server that runs. Once no process of this
/// cluster is left, it is only in the way.
fn end_leftovers(cluster: &Path) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let left = processes_of(cluster);
        if left.is_empty() {
            return remove_if_there(&cluster.join("postmaster.pid"));
        }
        let signal = if started.elapsed() < PATIENCE { Signal::SIGINT } else { Signal::SIGQUIT };
        if started.elapsed() > PATIENCE * 2 {
            return Err(Error::Start(format!("the processes {left:?} of an earlier server do not end")));
        }
        // Its own children end with the postmaster; to them the signal would only mean to drop a query.
        if let Some(found) = postmaster(cluster).filter(|found| left.contains(&found.pid.as_raw())) {
            let _ = kill(found.pid, signal);
        }
        thread::sleep(LOOK);
    }
}

/// Processes of a server of this cluster: named `postgres`, and at home in its directory.
fn processes_of(cluster: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let home = fs::read_link(format!("/proc/{pid}/cwd"));
        home.is_ok_and(|home| home == cluster) && read("comm").trim() == "postgres"
    };
    numbers.filter(is_ours).collect()
}

/// The error with its causes, and what the log has gained since the start.
fn explain(error: &Error, log: &Path, since: u64) -> String {
    let mut reason = match error {
        // The starter says the rest of this sentence.
        Error::Start(reason) => reason.clone(),
        error => error.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(since))?;
        file.read_to_end(&mut text)
    });
    if read.is_ok() {
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines.split_off(lines.len().saturating_sub(8));
        reason = [reason.as_str()].into_iter().chain(tail).collect::<Vec<_>>().join("\n    ");
    }
    format!("{reason}\n    (all of it in {})", log.display())
}
