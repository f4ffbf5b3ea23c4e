//! What is made on an engine under one row of the ledger: a container or a service, and where it needs one a network.

use std::{collections::HashMap, sync::Arc};

use bollard::errors::Error as Refusal;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    engine::Engine,
    keeper::{self, Kind},
    spec,
};
use crate::cycle::InfraFault;
use crate::host::ledger::{Fate, Ledger};
use crate::runtime::{Error, Fault};

/// What one row of the ledger stands for. Dropping it removes it, as long as the process lives; else the ledger knows of it.
pub(super) struct Made {
    pub(super) engine: Engine,
    /// The name of the container or service, and of its network.
    pub(super) name: String,
    row: Row,
    is_removed: bool,
}

/// Its row, and what has to be known to remove it.
#[derive(Clone)]
struct Row {
    kind: Kind,
    id: Uuid,
    ledger: Arc<dyn Ledger>,
    /// Held while the engine makes something of it. Whoever removes it waits for that.
    making: Arc<Mutex<()>>,
}

impl Made {
    /// Write down that something is about to be made.
    pub(super) async fn enter(
        engine: &Engine,
        ledger: &Arc<dyn Ledger>,
        (kind, what): (Kind, String),
    ) -> Result<Self, Error> {
        let id = Uuid::new_v4();
        ledger.enter(&keeper::resource(engine, id, (kind, what))).await?;
        Ok(Self {
            engine: engine.clone(),
            name: spec::name(id),
            row: Row { kind, id, ledger: Arc::clone(ledger), making: Arc::default() },
            is_removed: false,
        })
    }

    /// What it carries to be found by.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        spec::labels(self.row.id, self.row.ledger.lease())
    }

    /// Have the engine make something, as part of `doing`. It is waited for even when whoever asked has gone: what is removed before it
    /// is there comes after all, and nobody knows of it.
    pub(super) async fn make<T, F>(&self, doing: &str, making: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let turn = Arc::clone(&self.row.making).lock_owned().await;
        let made = tokio::spawn(async move {
            let made = making.await;
            drop(turn);
            made
        });
        match made.await {
            Ok(made) => made.map_err(|error| self.engine.fault(doing, &error)),
            Err(error) => Err(Box::new(Fault::new(InfraFault::ServerLost, format!("{doing}: {error}"))).into()),
        }
    }

    /// Remove it, and then its row.
    pub(super) async fn remove(mut self) {
        self.is_removed = true;
        remove(&self.engine, &self.name, &self.row).await;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !self.is_removed) else { return };
        let (engine, name, row) = (self.engine.clone(), self.name.clone(), self.row.clone());
        runtime.spawn(async move { remove(&engine, &name, &row).await });
    }
}

async fn remove(engine: &Engine, name: &str, row: &Row) {
    let _made = row.making.lock().await;
    match keeper::remove(engine, row.kind, name).await {
        Fate::Gone | Fate::Killed => row.ledger.leave(row.id).await,
        Fate::Survives | Fate::Unknown => tracing::warn!("{name} on {} is left to the next sweep", engine.url()),
    }
}
