//! A Postgres of a test's own, to be restarted, stopped and made read-only, and a proxy in front of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use robo::{config, host::Progress, store::embedded::Server};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
};

use super::{
    database::{embedded_config, scratch},
    program::parents,
};

/// The server, as somebody would run it who names it with `--database-url`: nobody but the test starts it again.
pub(crate) struct OwnServer {
    server: Server,
    _data: TempDir,
}

impl OwnServer {
    pub(crate) async fn start() -> Self {
        let data = scratch();
        let server = Server::start(&embedded_config(data.path()), &Progress::silent()).await.unwrap();
        let own = Self { server, _data: data };
        let mut connection = PgConnection::connect(&own.url_of("postgres")).await.unwrap();
        sqlx::query("create database faults").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        own
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("faults")
    }

    fn url_of(&self, database: &str) -> String {
        url(database, self.server.sockets())
    }

    pub(crate) fn config(&self) -> config::Database {
        config::Database { database_url: Some(self.url()), ..Default::default() }
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// The process that makes the others.
    fn postmaster(&self) -> Pid {
        postmaster(&self.server.directory().join("postmaster.pid"))
    }

    /// Let nothing of it answer, though every connection stays open.
    pub(crate) fn freeze(&self) {
        freeze(self.postmaster());
    }

    /// Let it go on where it was.
    pub(crate) fn thaw(&self) {
        thaw(self.postmaster());
    }

    /// Since when it runs.
    pub(crate) async fn started(&self) -> String {
        let asked = sqlx::query_scalar("select pg_postmaster_start_time()::text");
        asked.fetch_one(&mut self.connection().await).await.unwrap()
    }

    /// Stop it in its fast way, which cuts every connection, and start it again.
    pub(crate) async fn restart(&self) {
        kill(self.postmaster(), Signal::SIGINT).unwrap();
        let marker = self.server.directory().join("postmaster.pid");
        while marker.exists() {
            tokio::task::yield_now().await;
        }
        // Its supervisor may not have noticed yet.
        while PgConnection::connect(&self.url()).await.is_err() {
            self.server.revive().await.unwrap();
        }
    }
}

/// Whom a server's file names.
pub(crate) fn postmaster(file: &Path) -> Pid {
    let text = fs::read_to_string(file).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap())
}

/// Stop a server, first the process that makes the others: one that it makes in between would answer.
pub(crate) fn freeze(postmaster: Pid) {
    stop(postmaster);
    children(postmaster).for_each(stop);
}

/// Let it go on where it was.
pub(crate) fn thaw(postmaster: Pid) {
    for process in children(postmaster).chain([postmaster]) {
        kill(process, Signal::SIGCONT).unwrap();
    }
}

fn children(of: Pid) -> impl Iterator<Item = Pid> {
    parents().into_iter().filter(move |(_, parent)| *parent == of.as_raw()).map(|(process, _)| Pid::from_raw(process))
}

/// Stop a process and wait until it stands, or has ended and waits for its parent.
fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    let stat = format!("/proc/{process}/stat");
    while !fs::read_to_string(&stat).unwrap().rsplit_once(')').unwrap().1.trim_start().starts_with(['T', 'Z']) {
        std::thread::yield_now();
    }
}

fn url(database: &str, sockets: &Path) -> String {
    format!("postgresql://robo@localhost/{database}?host={}", sockets.display())
}

/// What lies between the program and its server.
#[derive(Debug)]
pub(crate) struct Proxy {
    sockets: TempDir,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    delay_ms: AtomicU64,
    /// Commits that are passed on and whose answers are not, each with its connection.
    commits_to_cut: AtomicUsize,
    /// Commits that are held back for ever, as by a process that is stopped.
    commits_to_hold: AtomicUsize,
}

impl Proxy {
    pub(crate) fn start(server: &OwnServer) -> Self {
        Self::to(server.server.sockets().join(".s.PGSQL.5432"))
    }

    fn to(target: PathBuf) -> Self {
        let (sockets, state) = (tempfile::tempdir().unwrap(), Arc::new(State::default()));
        let listener = UnixListener::bind(sockets.path().join(".s.PGSQL.5432")).unwrap();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&target).await else { continue };
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { sockets, state }
    }

    pub(crate) fn url(&self) -> String {
        url("faults", self.sockets.path())
    }

    pub(crate) fn config(&self) -> config::Database {
        config::Database { database_url: Some(self.url()), ..Default::default() }
    }

    /// Every packet takes this long in each direction.
    pub(crate) fn delay(&self, milliseconds: u64) {
        self.state.delay_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// Lose the acknowledgement of this many commits.
    pub(crate) fn cut_commits(&self, count: usize) {
        self.state.commits_to_cut.store(count, Ordering::Relaxed);
    }

    /// Commits that are still to be cut.
    pub(crate) fn commits_to_cut(&self) -> usize {
        self.state.commits_to_cut.load(Ordering::Relaxed)
    }

    /// Hold back this many commits for ever.
    pub(crate) fn hold_commits(&self, count: usize) {
        self.state.commits_to_hold.store(count, Ordering::Relaxed);
    }

    /// Commits that are still to be held.
    pub(crate) fn commits_to_hold(&self) -> usize {
        self.state.commits_to_hold.load(Ordering::Relaxed)
    }
}

async fn pass(client: UnixStream, server: UnixStream, state: Arc<State>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one direction ends, both do: dropping the other closes its sockets.
    tokio::select! {
        () = requests(from_client, to_server, &state) => {}
        () = answers(from_server, to_client, &state) => {}
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let is_commit = buffer[..count].windows(6).any(|window| window == b"COMMIT");
        wait(state).await;
        if is_commit && take(&state.commits_to_hold) {
            return std::future::pending().await;
        }
        if server.write_all(&buffer[..count]).await.is_err() || (is_commit && take(&state.commits_to_cut)) {
            return;
        }
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        wait(state).await;
        if client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn wait(state: &State) {
    let delay = state.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

fn take(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}
