//! What verbs about cycles work with: the database, the data directory, and how a person names both again.

use std::{path::PathBuf, sync::Arc};

use super::{db, exit::Result};
use crate::config::Database;
use crate::runtime::docker::Containers;
use crate::store::Store;

/// An open database with the directory where simulators' environments live.
pub(super) struct Desk {
    /// The database.
    pub(super) store: Arc<Store>,
    /// The data directory.
    pub(super) data_dir: PathBuf,
    /// Flags that lead another command to the same place.
    flags: String,
}

impl Desk {
    /// Open the database, and start or fetch what it needs.
    pub(super) async fn open(config: &Database) -> Result<Self> {
        let data_dir = db::data_dir(&config.data)?;
        let store = Store::open(config, &db::progress()).await.map_err(db::failure)?;
        let store = store.with_keeper(Arc::new(Containers));
        Ok(Self { store: Arc::new(store), data_dir, flags: config.flags() })
    }

    /// A command line as a person would type it to stay with this database.
    pub(super) fn command(&self, words: &str) -> String {
        format!("robo {words}{}", self.flags)
    }

    /// Leave: the embedded server is gone when this returns, if nobody else uses it.
    pub(super) async fn close(self) {
        // Every task that shared the store has ended by now; if not, dropping it is all that is left to do.
        if let Some(store) = Arc::into_inner(self.store) {
            store.close().await;
        }
    }
}
