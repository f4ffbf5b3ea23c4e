//! The ledger of resources: what every lease has started, who takes a cycle over ends what older leases left, and a
//! reaper for what belongs to no live lease.
//!
//! Decides from rows and leases; how a resource is ended is the business of [`crate::host::ledger`] and of the keeper that
//! the store was given. It never touches processes of another machine; what is known by an address is ended from anywhere.

use std::sync::OnceLock;

use futures::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Store, error::Trouble, holder::Holder, lease};
use crate::cycle::{CycleId, JournalError, Lease};
use crate::host::ledger::{self, Fate, Ledger, LedgerError, Resource};

/// What a sweep has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Resources that still ran and were ended, in words.
    pub ended: Vec<String>,
    /// Rows of resources that had ended by themselves.
    pub forgotten: usize,
}

/// The ledger of one cycle, from the moment its lease is known.
#[derive(Debug)]
pub struct CycleLedger {
    store: Store,
    lease: OnceLock<Lease>,
    taken_over: tokio::sync::OnceCell<()>,
}

#[derive(sqlx::FromRow)]
struct Row {
    resource_id: Uuid,
    cycle_id: Uuid,
    epoch: i64,
    kind: String,
    name: String,
    host: String,
    identity: Value,
}

impl Row {
    fn resource(&self) -> Resource {
        Resource {
            id: self.resource_id,
            kind: self.kind.clone(),
            name: self.name.clone(),
            host: self.host.clone(),
            identity: self.identity.clone(),
        }
    }

    fn describe(&self) -> String {
        let which = self.identity["pid"].as_u64().map(|pid| pid.to_string());
        let which = which.or_else(|| self.identity["name"].as_str().map(str::to_owned));
        let which = which.map(|which| format!(" {which}")).unwrap_or_default();
        let cycle = CycleId::from(self.cycle_id);
        format!("{} ({}{which}) of cycle {cycle}, epoch {}", self.name, self.kind, self.epoch)
    }
}

/// A row with what is known of the cycle it belongs to.
#[derive(sqlx::FromRow)]
struct Owned {
    #[sqlx(flatten)]
    row: Row,
    /// Whether the cycle is still held under the lease that started the resource.
    is_held: bool,
    /// Whether that lease has not run out.
    is_live: bool,
    holder: Option<Value>,
}

impl Owned {
    /// Whether somebody may still need it. A holder that is late with its heartbeats and lives on this machine keeps what
    /// it has started: its lease is good again with the next one.
    fn is_needed(&self) -> bool {
        let holder = self.holder.as_ref();
        self.is_held && if self.is_live { !Holder::is_known_dead(holder) } else { Holder::is_known_alive(holder) }
    }
}

impl Store {
    /// Those of which nothing runs any more.
    async fn gone_of(&self, rows: impl Iterator<Item = &Row>) -> Vec<Uuid> {
        let mut gone = Vec::new();
        for row in rows {
            let resource = row.resource();
            let is_gone = match &self.keeper {
                Some(keeper) if keeper.keeps(&row.kind) => keeper.is_gone(&resource).await,
                _ => ledger::is_gone(&resource).await,
            };
            if is_gone {
                gone.push(row.resource_id);
            }
        }
        gone
    }

    async fn end_one(&self, row: &Row) -> Fate {
        match &self.keeper {
            Some(keeper) if keeper.keeps(&row.kind) => keeper.end(&row.resource()).await,
            _ => ledger::end(&row.resource()).await,
        }
    }

    /// The ledger of a cycle that is about to be taken up.
    pub fn ledger(&self) -> CycleLedger {
        CycleLedger { store: self.clone(), lease: OnceLock::new(), taken_over: tokio::sync::OnceCell::new() }
    }

    /// End everything on this machine that belongs to no live lease, and forget what has ended by itself. Safe at any
    /// time and from any number of processes; meant to be called at start and every minute or so.
    ///
    /// # Errors
    /// [`Error`] when the database cannot be asked; what was ended until then stays ended.
    pub async fn reap(&self) -> Result<Reaped, Error> {
        let Some(here) = Holder::current() else { return Ok(Reaped::default()) };
        let found: Vec<Owned> = self
            .ask(|| async {
                let rows = sqlx::query_as(
                    "select resource_id, resource.cycle_id, resource.epoch, kind, name, host, identity, holder,
                            cycle.owner is not null and cycle.epoch = resource.epoch as is_held,
                            coalesce(cycle.lease_until > clock_timestamp(), false) as is_live
                     from resource join cycle using (cycle_id)
                     where host = $1 or host like '%://%' order by resource.created_at",
                )
                .bind(here.hostname())
                .fetch_all(&self.pool)
                .await?;
                Ok(rows)
            })
            .await?;
        let (needed, orphans): (Vec<Owned>, Vec<Owned>) = found.into_iter().partition(Owned::is_needed);
        let gone = self.gone_of(needed.iter().map(|owned| &owned.row)).await;
        let mut reaped = self.end_all(orphans.into_iter().map(|owned| owned.row)).await?;
        reaped.forgotten += gone.len();
        self.forget(&gone).await?;
        Ok(reaped)
    }

    /// End what older leases of this cycle have left on this machine.
    async fn end_older(&self, lease: &Lease) -> Result<Reaped, Error> {
        let Some(here) = Holder::current() else { return Ok(Reaped::default()) };
        let rows: Vec<Row> = self
            .ask(|| async {
                let rows = sqlx::query_as(
                    "select resource_id, cycle_id, epoch, kind, name, host, identity from resource
                     where cycle_id = $1 and epoch < $2 and (host = $3 or host like '%://%') order by created_at",
                )
                .bind(lease.cycle.as_uuid())
                .bind(lease.epoch)
                .bind(here.hostname())
                .fetch_all(&self.pool)
                .await?;
                Ok(rows)
            })
            .await?;
        self.end_all(rows.into_iter()).await
    }

    async fn end_all(&self, rows: impl Iterator<Item = Row>) -> Result<Reaped, Error> {
        let (mut reaped, mut gone) = (Reaped::default(), Vec::new());
        for row in rows {
            match self.end_one(&row).await {
                Fate::Gone => reaped.forgotten += 1,
                Fate::Killed => {
                    tracing::warn!("ended {}, which nobody needed any more", row.describe());
                    reaped.ended.push(row.describe());
                }
                Fate::Survives => {
                    tracing::error!("{} was killed and does not end", row.describe());
                    continue;
                }
                // Of an earlier start of this machine or container: it has ended with that.
                Fate::Unknown if row.kind == ledger::PROCESS => reaped.forgotten += 1,
                Fate::Unknown => continue,
            }
            gone.push(row.resource_id);
        }
        self.forget(&gone).await?;
        Ok(reaped)
    }

    async fn forget(&self, resources: &[Uuid]) -> Result<(), Error> {
        if resources.is_empty() {
            return Ok(());
        }
        self.ask(|| async {
            sqlx::query("delete from resource where resource_id = any($1)").bind(resources).execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    /// What `name` stands for in a cycle: the first id that was given for it.
    async fn pin(&self, lease: &Lease, name: &str, id: &str) -> Result<String, Trouble> {
        self.persist(|| async {
            let mut transaction = self.pool.begin().await?;
            lease::fence(&mut transaction, lease).await?;
            sqlx::query(
                "insert into cycle_image (cycle_id, name, image) values ($1, $2, $3)
                 on conflict (cycle_id, name) do nothing",
            )
            .bind(lease.cycle.as_uuid())
            .bind(name)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
            let pinned = sqlx::query_scalar("select image from cycle_image where cycle_id = $1 and name = $2")
                .bind(lease.cycle.as_uuid())
                .bind(name)
                .fetch_one(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(pinned)
        })
        .await
    }

    async fn enter(&self, lease: &Lease, resource: &Resource) -> Result<(), Trouble> {
        self.persist(|| async {
            let mut transaction = self.pool.begin().await?;
            lease::fence(&mut transaction, lease).await?;
            sqlx::query(
                "insert into resource (resource_id, cycle_id, epoch, kind, name, host, identity)
                 values ($1, $2, $3, $4, $5, $6, $7) on conflict (resource_id) do nothing",
            )
            .bind(resource.id)
            .bind(lease.cycle.as_uuid())
            .bind(lease.epoch)
            .bind(&resource.kind)
            .bind(&resource.name)
            .bind(&resource.host)
            .bind(&resource.identity)
            .execute(&mut *transaction)
            .await?;
            Ok(transaction.commit().await?)
        })
        .await
    }
}

impl CycleLedger {
    /// Begin to write under `lease`, and end what older leases of the cycle have left on this machine. Only the first
    /// call does anything; the others wait for it.
    ///
    /// # Errors
    /// [`JournalError::Storage`] when the database cannot be asked: nothing may be started before.
    pub async fn take_over(&self, lease: Lease) -> Result<(), JournalError> {
        let work = async || -> Result<(), JournalError> {
            let _ = self.lease.set(lease);
            self.store.end_older(&lease).await.map_err(|error| JournalError::Storage(Box::new(error)))?;
            Ok(())
        };
        self.taken_over.get_or_try_init(work).await.copied()
    }

    /// Forget what this lease has started and what has ended without a word to the ledger.
    pub async fn close(&self) {
        let Some(lease) = self.lease.get() else { return };
        // Whatever goes wrong here is put right by the next sweep.
        if let Err(error) = self.forget_ended(lease).await {
            tracing::debug!(%error, "the ledger keeps rows of what has ended");
        }
    }

    async fn forget_ended(&self, lease: &Lease) -> Result<(), Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "select resource_id, cycle_id, epoch, kind, name, host, identity from resource
             where cycle_id = $1 and epoch = $2",
        )
        .bind(lease.cycle.as_uuid())
        .bind(lease.epoch)
        .fetch_all(&self.store.pool)
        .await?;
        self.store.forget(&self.store.gone_of(rows.iter()).await).await
    }
}

impl Ledger for CycleLedger {
    fn enter<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let lease = self.lease.get().ok_or_else(|| LedgerError("the cycle is not held yet".into()))?;
            self.store.enter(lease, resource).await.map_err(|error| LedgerError(Box::new(error)))
        })
    }

    fn leave(&self, resource: Uuid) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.store.forget(&[resource]).await {
                tracing::debug!(%error, "the ledger keeps a row of what has ended");
            }
        })
    }

    fn lease(&self) -> Option<Lease> {
        self.lease.get().copied()
    }

    fn pin<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, Result<String, LedgerError>> {
        Box::pin(async move {
            let lease = self.lease.get().ok_or_else(|| LedgerError("the cycle is not held yet".into()))?;
            self.store.pin(lease, name, id).await.map_err(|error| LedgerError(Box::new(error)))
        })
    }
}
