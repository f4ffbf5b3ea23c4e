//! The whole database at a glance, for `robo db status`.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    CycleSummary, Error, PublicationRow, Store, admin,
    cycle::{self, Which},
};

/// What is in the database.
#[derive(Debug, Clone)]
pub struct DatabaseStatus {
    /// Where it is.
    pub location: String,
    /// Version of the server.
    pub server_version: String,
    /// Version of its schema; none where it was never initialised.
    pub schema_version: Option<i64>,
    /// Newest version of the schema that this program knows.
    pub known_version: i64,
    /// Its contents; none unless its schema is the one this program knows.
    pub contents: Option<Contents>,
}

/// What its tables hold.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Cycles ever created.
    pub cycles: u64,
    /// Different miners ever planned.
    pub miners: u64,
    /// The cycle that completed last.
    pub last_completed: Option<CycleSummary>,
    /// The cycles that run now, newest first.
    pub running: Vec<CycleSummary>,
    /// The weights that count.
    pub latest: Option<PublicationRow>,
}

impl Store {
    /// What is in the database, whatever its schema.
    pub async fn status(&self) -> Result<DatabaseStatus, Error> {
        let server_version: String =
            sqlx::query_scalar("select current_setting('server_version')").fetch_one(&self.pool).await?;
        let schema_version = self.schema_version().await?;
        let known_version = admin::newest();
        let contents = if schema_version == Some(known_version) { Some(self.contents().await?) } else { None };
        Ok(DatabaseStatus { location: self.location(), server_version, schema_version, known_version, contents })
    }

    /// How far the database's clock is ahead of ours.
    pub async fn clock_ahead(&self) -> Result<TimeDelta, Error> {
        let theirs: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?;
        Ok(theirs - Utc::now())
    }

    /// Refuse a database whose schema is not the one this program knows. For verbs that only read.
    ///
    /// # Errors
    /// [`Error::NotInitialised`], [`Error::NewerSchema`] or [`Error::OtherSchema`].
    pub async fn require_schema(&self) -> Result<(), Error> {
        match self.schema().await? {
            admin::Schema::Known => Ok(()),
            admin::Schema::Older => Err(Error::NotInitialised),
        }
    }

    /// What is in a database of the schema that this program knows.
    pub async fn contents(&self) -> Result<Contents, Error> {
        let (cycles, miners): (i64, i64) =
            // One look into the index for every miner, however many episodes it has.
            sqlx::query_as(
                "with recursive miner as (
                     (select hotkey from episode order by hotkey limit 1)
                     union all
                     select (select episode.hotkey from episode where episode.hotkey > miner.hotkey order by episode.hotkey limit 1)
                     from miner where miner.hotkey is not null
                 )
                 select (select count(*) from cycle), (select count(hotkey) from miner)",
            )
            .fetch_one(&self.pool)
            .await?;
        let completed: Option<Uuid> = sqlx::query_scalar(
            "select cycle_id from cycle where status = 'completed' order by finished_at desc limit 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        let last_completed = match completed {
            Some(id) => cycle::summaries(&self.pool, Which::Only(id.into()), 1).await?.pop(),
            None => None,
        };
        let mut running = Vec::new();
        for id in admin::running(&mut *self.pool.acquire().await?).await? {
            running.extend(cycle::summaries(&self.pool, Which::Only(id), 1).await?);
        }
        Ok(Contents {
            cycles: cycles.unsigned_abs(),
            miners: miners.unsigned_abs(),
            last_completed,
            running,
            latest: self.latest_publication().await?,
        })
    }
}
