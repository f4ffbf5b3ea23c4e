//! How miners were found. Rows that explain scores and never decide them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::cycle::{CycleId, Hotkey, Lease, MinerStatus, Seen, Sighting};

use super::{Error, Store, append::storable, error::Trouble, lease};

/// Write down what was seen, in the transaction that `connection` is in. The same again only moves its time.
pub(super) async fn record(connection: &mut PgConnection, lease: &Lease, sighting: &Sighting) -> Result<(), Trouble> {
    lease::fence(connection, lease).await?;
    let Sighting { environment, hotkey, seen } = sighting;
    let text = |text: &Option<String>| storable(text.as_deref().unwrap_or_default());
    sqlx::query(
        "insert into miner_sighting (cycle_id, environment, hotkey, status, detail, address, certificate, model)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (cycle_id, environment, hotkey, status, address, certificate, model)
         do update set seen_at = clock_timestamp(), detail = excluded.detail",
    )
    .bind(lease.cycle.as_uuid())
    .bind(environment.as_str())
    .bind(hotkey.as_str())
    .bind(seen.status.word())
    .bind(seen.detail.as_deref().map(storable))
    .bind(text(&seen.address))
    .bind(text(&seen.certificate))
    .bind(text(&seen.model))
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    environment: String,
    hotkey: String,
    status: String,
    detail: Option<String>,
    address: String,
    certificate: String,
    model: String,
}

#[derive(sqlx::FromRow)]
struct TimedRow {
    #[sqlx(flatten)]
    row: Row,
    seen_at: DateTime<Utc>,
}

impl Row {
    fn sighting(self) -> Result<Sighting, Error> {
        let status = MinerStatus::from_word(&self.status)
            .ok_or_else(|| Error::Corrupt(format!("a status `{}` of a miner that nobody knows", self.status)))?;
        let corrupt = |error| Error::Corrupt(format!("a miner whose name is wrong: {error}"));
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Sighting {
            environment: self.environment.parse().map_err(corrupt)?,
            hotkey: self.hotkey.parse().map_err(corrupt)?,
            seen: Seen {
                status,
                detail: self.detail,
                address: said(self.address),
                certificate: said(self.certificate),
                model: said(self.model),
            },
        })
    }
}

/// One reason for which a miner's episodes were not played to the end.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultCount {
    /// The miner.
    pub hotkey: Hotkey,
    /// The reason that is stored.
    pub reason: String,
    /// Episodes that ended so.
    pub count: u64,
    /// What was said of the first of them.
    pub detail: Option<String>,
}

impl Store {
    /// Everything that was seen of the miners of a cycle: by miner and environment, what was seen last at the end.
    pub async fn sightings(&self, cycle: CycleId) -> Result<Vec<Sighting>, Error> {
        let rows: Vec<Row> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select environment, hotkey, status, detail, address, certificate, model from miner_sighting
                     where cycle_id = $1 order by hotkey, environment, seen_at",
                )
                .bind(cycle.as_uuid())
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        rows.into_iter().map(Row::sighting).collect()
    }

    /// What was seen of one miner in a cycle, by environment, what was seen last at the end, each with when.
    pub async fn sightings_of(&self, cycle: CycleId, hotkey: &Hotkey) -> Result<Vec<(DateTime<Utc>, Sighting)>, Error> {
        let rows: Vec<TimedRow> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select environment, hotkey, status, detail, address, certificate, model, seen_at from miner_sighting
                     where cycle_id = $1 and hotkey = $2 order by environment, seen_at",
                )
                .bind(cycle.as_uuid())
                .bind(hotkey.as_str())
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        rows.into_iter().map(|row| Ok((row.seen_at, row.row.sighting()?))).collect()
    }

    /// The faults of each miner of a cycle, the most frequent first, with the words of one of them.
    pub async fn miner_faults(&self, cycle: CycleId) -> Result<Vec<FaultCount>, Error> {
        let rows: Vec<(String, String, i64, Option<String>)> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select hotkey, reason, count(*), (array_agg(detail order by environment, seed_index))[1]
                     from episode where cycle_id = $1 and outcome = 'miner_fault'
                     group by hotkey, reason order by hotkey, count(*) desc, reason",
                )
                .bind(cycle.as_uuid())
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        let faults = rows.into_iter().map(|(hotkey, reason, count, detail)| {
            let hotkey =
                hotkey.parse().map_err(|error| Error::Corrupt(format!("a miner whose name is wrong: {error}")))?;
            Ok(FaultCount { hotkey, reason, count: count.unsigned_abs(), detail })
        });
        faults.collect()
    }
}
