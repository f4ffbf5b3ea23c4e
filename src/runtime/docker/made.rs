//! What is made on an engine under one row of the ledger: a container or a service, and where it needs one a network.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::{
    engine::Engine,
    keeper::{self, Kind},
    spec,
};
use crate::host::ledger::{Fate, Ledger};
use crate::runtime::Error;

/// What one row of the ledger stands for. Dropping it removes it, as long as the process lives; else the ledger knows of it.
pub(super) struct Made {
    pub(super) engine: Engine,
    /// The name of the container or service, and of its network.
    pub(super) name: String,
    kind: Kind,
    id: Uuid,
    ledger: Arc<dyn Ledger>,
    is_removed: bool,
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
            kind,
            id,
            ledger: Arc::clone(ledger),
            is_removed: false,
        })
    }

    /// What it carries to be found by.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        spec::labels(self.id, self.ledger.lease())
    }

    /// Remove it, and then its row.
    pub(super) async fn remove(mut self) {
        self.is_removed = true;
        remove(&self.engine, (self.kind, &self.name), (self.id, &self.ledger)).await;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !self.is_removed) else { return };
        let (engine, name, kind) = (self.engine.clone(), self.name.clone(), self.kind);
        let (id, ledger) = (self.id, Arc::clone(&self.ledger));
        runtime.spawn(async move { remove(&engine, (kind, &name), (id, &ledger)).await });
    }
}

async fn remove(engine: &Engine, (kind, name): (Kind, &str), (id, ledger): (Uuid, &Arc<dyn Ledger>)) {
    match keeper::remove(engine, kind, name).await {
        Fate::Gone | Fate::Killed => ledger.leave(id).await,
        Fate::Survives | Fate::Unknown => tracing::warn!("{name} on {} is left to the next sweep", engine.url()),
    }
}
