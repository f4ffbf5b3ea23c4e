//! Schedules as they stand: which there are, how far they are decided, and pauses.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::schedule::{Due, Schedule};

use super::{
    Error, Fired, Store,
    append::{json, storable},
    fire,
};

/// A schedule that some backend has read.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// The pipeline's name.
    pub pipeline: String,
    /// The schedule.
    pub schedule: Schedule,
    /// The file it was read from.
    pub file: String,
    /// All due times up to this one are decided. None for blocks before the chain has answered.
    pub decided_until: Option<Due>,
    /// What became of the last due time.
    pub last: Option<Fired>,
}

/// The last pause of a pipeline's schedules.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PauseRow {
    /// The pipeline's name.
    pub pipeline: String,
    /// Since when.
    pub paused_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
    /// Until when; none while it lasts.
    pub resumed_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    pipeline: String,
    entry: String,
    file: String,
    decided_time: Option<DateTime<Utc>>,
    decided_block: Option<i64>,
    due_time: Option<DateTime<Utc>>,
    due_block: Option<i64>,
    cycle_id: Option<Uuid>,
    reason: Option<String>,
}

impl Store {
    /// Make the schedules of a pipeline's file known. One that was not known is due from `now` on; one that is no longer
    /// there is due no more.
    pub async fn register_schedules(
        &self,
        (pipeline, file): (&str, &str),
        schedules: &[Schedule],
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            for (position, schedule) in schedules.iter().enumerate() {
                upsert(&mut transaction, (pipeline, file), (position, schedule), now).await?;
            }
            let keys: Vec<String> = schedules.iter().map(Schedule::key).collect();
            sqlx::query(
                "update schedule set retired_at = $3
                 where pipeline = $1 and schedule <> all($2) and retired_at is null",
            )
            .bind(pipeline)
            .bind(keys)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Every schedule that is in force, by pipeline and place in its file.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, Error> {
        let rows: Vec<Row> = self
            .ask(|| async {
                let rows = sqlx::query_as(
                    "select schedule.pipeline, entry::text, file, decided_time, decided_block,
                            due_time, due_block, cycle_id, reason
                     from schedule left join lateral (
                         select due_time, due_block, cycle_id, reason from schedule_fire fire
                         where fire.pipeline = schedule.pipeline and fire.schedule = schedule.schedule
                         order by fire_id desc limit 1
                     ) last on true
                     where retired_at is null
                     order by schedule.pipeline, position",
                )
                .fetch_all(&self.pool)
                .await?;
                Ok(rows)
            })
            .await?;
        rows.into_iter().map(Row::schedule).collect()
    }

    /// Pause the schedules of a pipeline. Whether that changed anything.
    pub async fn pause_schedules(&self, pipeline: &str, reason: &str, now: DateTime<Utc>) -> Result<bool, Error> {
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            let changed = pause_in(&mut transaction, pipeline, &storable(reason), now).await?;
            self.note_operation(&mut transaction, if changed { "paused" } else { "paused already" }, None).await?;
            transaction.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// End the pause of a pipeline's schedules. Whether there was one.
    pub async fn resume_schedules(&self, pipeline: &str, now: DateTime<Utc>) -> Result<bool, Error> {
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            let resumed = sqlx::query(
                "update schedule_pause set resumed_at = greatest($2, paused_at)
                 where pipeline = $1 and resumed_at is null",
            )
            .bind(pipeline)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            let changed = resumed.rows_affected() == 1;
            self.note_operation(&mut transaction, if changed { "resumed" } else { "not paused" }, None).await?;
            transaction.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// The pauses that last.
    pub async fn pauses(&self) -> Result<Vec<PauseRow>, Error> {
        self.ask(|| async {
            let rows = sqlx::query_as(
                "select pipeline, paused_at, reason, resumed_at from schedule_pause
                 where resumed_at is null order by pipeline",
            )
            .fetch_all(&self.pool)
            .await?;
            Ok(rows)
        })
        .await
    }
}

impl Row {
    fn schedule(self) -> Result<ScheduleRow, Error> {
        let schedule = serde_json::from_str(&self.entry).map_err(|error| {
            Error::Corrupt(format!("a schedule of `{}` that cannot be read: {error}", self.pipeline))
        })?;
        Ok(ScheduleRow {
            schedule,
            decided_until: fire::due(self.decided_time, self.decided_block),
            last: fire::fired(fire::due(self.due_time, self.due_block), self.cycle_id, self.reason),
            pipeline: self.pipeline,
            file: self.file,
        })
    }
}

async fn upsert(
    connection: &mut PgConnection,
    (pipeline, file): (&str, &str),
    (position, schedule): (usize, &Schedule),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let from = (!schedule.timing.is_by_block()).then_some(now);
    sqlx::query(
        "insert into schedule (pipeline, schedule, position, entry, file, decided_time)
         values ($1, $2, $3, $4::text::json, $5, $6)
         on conflict (pipeline, schedule) do update
         set position = $3, entry = excluded.entry, file = $5, retired_at = null,
             -- What would have been due while it was not in the file was not due.
             decided_time = case when schedule.retired_at is null then schedule.decided_time
                                 else greatest(schedule.decided_time, excluded.decided_time) end,
             decided_block = case when schedule.retired_at is null then schedule.decided_block end",
    )
    .bind(pipeline)
    .bind(schedule.key())
    .bind(i32::try_from(position).unwrap_or(i32::MAX))
    .bind(json(schedule)?)
    .bind(file)
    .bind(from)
    .execute(connection)
    .await?;
    Ok(())
}

/// The last pause of a pipeline. Nobody else changes it before the transaction that `connection` is in ends.
pub(super) async fn pause_of(connection: &mut PgConnection, pipeline: &str) -> Result<Option<PauseRow>, Error> {
    let row = sqlx::query_as(
        "select pipeline, paused_at, reason, resumed_at from schedule_pause where pipeline = $1 for update",
    )
    .bind(pipeline)
    .fetch_optional(connection)
    .await?;
    Ok(row)
}

/// Pause a pipeline, unless it is. Whether that changed anything.
pub(super) async fn pause_in(
    connection: &mut PgConnection,
    pipeline: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let paused = sqlx::query(
        "insert into schedule_pause (pipeline, paused_at, reason) values ($1, $2, $3)
         on conflict (pipeline) do update set paused_at = $2, reason = $3, resumed_at = null
         where schedule_pause.resumed_at is not null",
    )
    .bind(pipeline)
    .bind(now)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(paused.rows_affected() == 1)
}
