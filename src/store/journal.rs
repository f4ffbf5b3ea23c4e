//! [`Journal`] on Postgres: every write in one transaction with its fence, tried again while the database is away.

use std::collections::BTreeMap;

use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::cycle::{
    Appended, CycleId, CycleRecord, CycleStatus, Entry, EnvironmentId, Episode, EpisodeKey, EpisodeTally, Heartbeat,
    Hotkey, Journal, JournalError, Lease, PendingEpisode, Sighting, Standing, TaskKey,
};

use super::{Store, cycle, episode, error::Trouble, lease, publication, sighting, standing};

/// How a transaction of lines begins. Its statements are large and look every row up by its key, so one plan serves all calls:
/// making it anew each time takes longer than the rest of the transaction.
const LINES: &str = "begin; set local plan_cache_mode = force_generic_plan";

impl Store {
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, Trouble> {
        Ok(self.pool.begin().await?)
    }
}

impl Journal for Store {
    async fn load(&self, cycle: CycleId) -> Result<CycleRecord, JournalError> {
        Ok(self.persist(|| async move { cycle::load(&self.pool, cycle).await }).await?)
    }

    async fn acquire(&self, cycle: CycleId) -> Result<Lease, JournalError> {
        // One owner for all tries: if an acknowledgement is lost, the next try finds the lease to be ours.
        let owner = Uuid::new_v4();
        let work = || async move {
            let mut transaction = self.begin().await?;
            super::turn::check(&mut transaction, cycle).await?;
            let lease = lease::acquire(&mut transaction, cycle, owner).await?;
            transaction.commit().await?;
            Ok(lease)
        };
        Ok(self.persist(work).await?)
    }

    async fn heartbeat(&self, lease: &Lease) -> Result<Heartbeat, JournalError> {
        let work = || async move {
            let mut connection = self.pool.acquire().await?;
            lease::heartbeat(&mut connection, lease).await
        };
        Ok(self.persist(work).await?)
    }

    async fn expand(&self, lease: &Lease, tasks: &[TaskKey]) -> Result<(), JournalError> {
        let work = || async move {
            let mut transaction = self.begin().await?;
            super::append::expand(&mut transaction, lease, tasks).await?;
            Ok(transaction.commit().await?)
        };
        Ok(self.persist(work).await?)
    }

    async fn append_all(&self, lease: &Lease, entries: &[Entry]) -> Result<Vec<Appended>, JournalError> {
        let work = || async move {
            let mut transaction = self.pool.begin_with(LINES).await?;
            let appended = super::append::append_all(&mut transaction, lease, entries).await?;
            transaction.commit().await?;
            Ok(appended)
        };
        Ok(self.persist(work).await?)
    }

    async fn plan_episodes(&self, lease: &Lease, task: &TaskKey, keys: &[EpisodeKey]) -> Result<(), JournalError> {
        let work = || async move {
            let mut transaction = self.begin().await?;
            episode::plan(&mut transaction, lease, task, keys).await?;
            Ok(transaction.commit().await?)
        };
        Ok(self.persist(work).await?)
    }

    async fn pending_episodes(&self, cycle: CycleId, task: &TaskKey) -> Result<Vec<PendingEpisode>, JournalError> {
        Ok(self.persist(|| async move { Ok(episode::pending(&self.pool, cycle, task).await?) }).await?)
    }

    async fn record_episode(&self, lease: &Lease, episode: &Episode) -> Result<Appended, JournalError> {
        let work = || async move {
            let mut transaction = self.begin().await?;
            let appended = episode::record(&mut transaction, lease, episode).await?;
            transaction.commit().await?;
            Ok(appended)
        };
        Ok(self.persist(work).await?)
    }

    async fn record_sighting(&self, lease: &Lease, seen: &Sighting) -> Result<(), JournalError> {
        let work = || async move {
            let mut transaction = self.begin().await?;
            sighting::record(&mut transaction, lease, seen).await?;
            Ok(transaction.commit().await?)
        };
        Ok(self.persist(work).await?)
    }

    async fn standings(&self, genesis: &str, netuid: u16) -> Result<BTreeMap<Hotkey, Standing>, JournalError> {
        Ok(self.persist(|| async move { Ok(standing::known(&self.pool, genesis, netuid).await?) }).await?)
    }

    async fn scored_episodes(&self, cycle: CycleId) -> Result<Vec<Episode>, JournalError> {
        Ok(self.persist(|| async move { Ok(episode::scored(&self.pool, cycle).await?) }).await?)
    }

    async fn tally(&self, cycle: CycleId, environment: &EnvironmentId) -> Result<EpisodeTally, JournalError> {
        Ok(self.persist(|| async move { Ok(episode::tally(&self.pool, cycle, environment).await?) }).await?)
    }

    async fn finish(
        &self,
        lease: &Lease,
        status: CycleStatus,
        reason: Option<&str>,
    ) -> Result<CycleStatus, JournalError> {
        let reason = reason.map(super::append::storable);
        let work = || async {
            let mut transaction = self.begin().await?;
            let ended = lease::leave(&mut transaction, lease, status, reason.as_deref()).await?;
            if ended == CycleStatus::Completed {
                publication::publish(&mut transaction, lease.cycle).await?;
            }
            transaction.commit().await?;
            Ok(ended)
        };
        Ok(self.persist(work).await?)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.finish(lease, CycleStatus::Open, None).await.map(drop)
    }

    async fn pause(&self, lease: &Lease) -> Result<(), JournalError> {
        let work = || async {
            let mut transaction = self.begin().await?;
            lease::leave(&mut transaction, lease, CycleStatus::Open, None).await?;
            super::reopen::mark_paused(&mut transaction, lease).await?;
            Ok(transaction.commit().await?)
        };
        Ok(self.persist(work).await?)
    }

    async fn reopen(&self, cycle: CycleId, tasks: &[TaskKey]) -> Result<(), JournalError> {
        let work = || async move {
            let mut transaction = self.begin().await?;
            super::reopen::reopen(&mut transaction, cycle, tasks).await?;
            super::takeover::forgive(&mut transaction, cycle, tasks).await?;
            self.note_operation(&mut transaction, "reopened", Some(cycle)).await?;
            Ok(transaction.commit().await?)
        };
        Ok(self.persist(work).await?)
    }
}
