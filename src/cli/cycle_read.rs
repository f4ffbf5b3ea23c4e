//! A stored cycle as the verbs about it need it: found by name, its definition read, what had succeeded known.

use std::collections::BTreeSet;

use super::{
    db,
    desk::Desk,
    drive::journal_failure,
    exit::{Exit, Failure, Result},
};
use crate::cycle::{CycleId, CycleRecord, CycleStatus, Journal, StageId, TaskStatus};
use crate::engine;
use crate::plan::{Definition, Phase, Stage};
use crate::store::{Lineage, Store};

/// A cycle that was read from the database.
pub(super) struct Stored {
    /// Its id.
    pub(super) id: CycleId,
    /// Everything the journal knows.
    pub(super) record: CycleRecord,
    /// The definition it is pinned to.
    pub(super) definition: Definition,
    /// Where it comes from and what is left of it.
    pub(super) lineage: Lineage,
}

impl Stored {
    /// The cycle that `name` means.
    pub(super) async fn find(store: &Store, name: &str) -> Result<Self> {
        Self::load(store, store.resolve(name).await.map_err(db::failure)?).await
    }

    /// The cycle of that id.
    pub(super) async fn load(store: &Store, id: CycleId) -> Result<Self> {
        let record = store.load(id).await.map_err(journal_failure)?;
        let definition = definition(&record)?;
        let lineage = store.lineage(id).await.map_err(db::failure)?;
        Ok(Self { id, record, definition, lineage })
    }

    /// Refuse a cycle whose episodes and journal have been deleted.
    pub(super) fn require_detail(&self) -> Result<()> {
        match self.lineage.aged_out_at {
            Some(_) => Err(db::failure(crate::store::Error::AgedOut(self.id))),
            None => Ok(()),
        }
    }

    /// Refuse a cycle that somebody may still play.
    pub(super) fn require_ended(&self) -> Result<()> {
        match self.record.status {
            CycleStatus::Open => Err(db::failure(crate::store::Error::NotEnded(self.id))),
            _ => Ok(()),
        }
    }

    /// Stages all of whose tasks have succeeded.
    pub(super) fn done(&self) -> BTreeSet<StageId> {
        let mut done = BTreeSet::new();
        for stage in &self.definition.stages {
            let mut tasks = self.record.tasks.iter().filter(|task| task.key.stage == stage.id).peekable();
            if tasks.peek().is_some() && tasks.all(|task| matches!(task.status, TaskStatus::Succeeded { .. })) {
                done.insert(stage.id.clone());
            }
        }
        done
    }
}

/// The definition of a cycle, or why it cannot be read.
pub(super) fn definition(record: &CycleRecord) -> Result<Definition> {
    serde_json::from_value(record.definition.clone()).map_err(|error| {
        let error = engine::Error::Definition(record.id, error);
        Failure::new(Exit::Mismatch, error).hint("use the version of robo that started it")
    })
}

/// Refuse a stage that the cycle does not have: to find nothing about it would look like good news.
pub(super) fn require_stage(stored: &Stored, id: &StageId) -> Result<()> {
    let stages = &stored.definition.stages;
    if stages.iter().any(|stage| stage.id == *id) {
        return Ok(());
    }
    let names: Vec<&str> = stages.iter().map(|stage| stage.id.as_str()).collect();
    Err(Failure::new(Exit::Usage, anyhow::anyhow!("cycle {} has no stage `{id}`", stored.id))
        .hint(format!("its stages are: {}", names.join(", "))))
}

/// The stage of that id in the main body of a definition.
pub(super) fn main_stage<'a>(definition: &'a Definition, id: &StageId) -> Result<&'a Stage> {
    let main = || definition.stages.iter().filter(|stage| stage.phase == Phase::Main);
    main().find(|stage| stage.id == *id).ok_or_else(|| {
        let names: Vec<&str> = main().map(|stage| stage.id.as_str()).collect();
        Failure::new(Exit::Usage, anyhow::anyhow!("there is no stage `{id}` to begin with"))
            .hint(format!("its stages are: {}", names.join(", ")))
    })
}

/// What a person types to see a cycle.
pub(super) fn show_hint(desk: &Desk, cycle: CycleId) -> String {
    format!("see every task with: {}", desk.command(&format!("cycle show {cycle}")))
}
