//! The embedded database in a directory that goes away with the bench.

use robo::{config, host::Progress, store::Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::database;

/// A database of the bench's own.
pub(crate) struct Place {
    pub(crate) store: Store,
    /// For connections beside the store's.
    pub(crate) url: String,
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) async fn start() -> Self {
        let directory = database::scratch();
        let config: config::Database = database::embedded_config(directory.path());
        let store = Store::open(&config, &Progress::silent()).await.expect("the embedded database starts");
        let sockets =
            std::fs::read_to_string(directory.path().join("postgres.ready")).expect("it has said where it is");
        let url = format!("postgresql://robo@localhost/robo?host={sockets}");
        Self { store, url, directory }
    }

    pub(crate) fn server(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        format!("{cores} cores; {}", self.store.location())
    }

    /// Run a statement on a connection of its own.
    pub(crate) async fn execute(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.url).await.expect("the server takes connections");
        connection.execute(AssertSqlSafe(sql)).await.expect("the statement is right");
    }

    /// Wait for the server to stop, so that its directory can be taken away.
    pub(crate) async fn stop(self) {
        self.store.close().await;
        drop(self.directory);
    }
}
