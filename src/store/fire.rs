//! What became of due times: the decision, its row and its cycle in one transaction.
//!
//! Those transactions come one after the other, and each begins behind the last due time that was decided: any number of
//! backends look at the same schedule, and each of its due times gets one row and at most one cycle.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::cycle::{CycleId, Salt};
use crate::schedule::{self, Clock, Decision, Due, Pause, Reason, Schedule, Start, State, Verdict};

use super::{
    Admission, Earlier, Error, NewCycle, Store, operation,
    schedule::{PauseRow, pause_in, pause_of},
    turn,
};

/// What stands in place of a schedule's key when a person has asked for the cycle.
const MANUAL: &str = "manual";

/// One look at a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// The schedule, of the pipeline that `new` names.
    pub schedule: &'a Schedule,
    /// What time it is.
    pub clock: Clock,
    /// The cycle that starts when one is due; each gets a salt of its own.
    pub new: &'a NewCycle,
}

/// What became of a due time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The due time.
    pub due: Due,
    /// What became of it.
    pub outcome: Outcome,
}

/// A cycle, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was created.
    Cycle(CycleId),
    /// The word of a [`Reason`].
    Skipped(String),
}

impl Store {
    /// Decide what has become due since the last time anybody did.
    pub async fn run_schedule(&self, round: &Round<'_>) -> Result<Vec<Fired>, Error> {
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            let fired = decide(&mut transaction, round).await?;
            transaction.commit().await?;
            Ok(fired)
        })
        .await
    }

    /// Create a cycle because a person has asked for it, and note it among those that were due.
    pub async fn trigger(&self, new: &NewCycle, now: DateTime<Utc>) -> Result<Admission, Error> {
        // One id for all tries: if an acknowledgement is lost, the next try finds the cycle to be there, and its row too.
        let id = CycleId::generate();
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            turn::lock(&mut transaction).await?;
            if let Some(cycle) = self.was_triggered(&mut transaction, id).await? {
                return Ok(Admission::Created(cycle));
            }
            let admission = turn::admit(&mut transaction, id, new).await?;
            let outcome = match &admission {
                Admission::Created(cycle) => Outcome::Cycle(*cycle),
                Admission::Refused { .. } => Outcome::Skipped(Reason::Concurrency.word().into()),
            };
            let fired = [Fired { due: Due::Time(now), outcome }];
            note(&mut transaction, (&new.pipeline, MANUAL), &fired).await?;
            match &admission {
                Admission::Created(cycle) => self.note_operation(&mut transaction, "created", Some(*cycle)).await?,
                Admission::Refused { .. } => self.note_operation(&mut transaction, "refused", None).await?,
            }
            transaction.commit().await?;
            Ok(admission)
        })
        .await
    }

    /// The cycle that is there already: a try whose acknowledgement was lost has made it, or a request that is sent again.
    async fn was_triggered(&self, connection: &mut PgConnection, id: CycleId) -> Result<Option<CycleId>, Error> {
        if super::cycle::is_there(connection, id).await? {
            return Ok(Some(id));
        }
        let Some(operation) = &self.operation else { return Ok(None) };
        match operation::earlier(connection, operation).await? {
            Earlier::None => Ok(None),
            Earlier::Same(cycle) => Ok(Some(cycle)),
            Earlier::Other => Err(Error::OtherRequest),
        }
    }

    /// What became of the last due times of a pipeline, newest first.
    pub async fn fires(&self, pipeline: &str, limit: u32) -> Result<Vec<Fired>, Error> {
        self.ask(|| async {
            let rows: Vec<FireRow> = sqlx::query_as(
                "select due_time, due_block, cycle_id, reason from schedule_fire
                 where pipeline = $1 order by fire_id desc limit $2",
            )
            .bind(pipeline)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
            rows.into_iter().map(FireRow::fired).collect()
        })
        .await
    }
}

#[derive(Debug, sqlx::FromRow)]
struct FireRow {
    due_time: Option<DateTime<Utc>>,
    due_block: Option<i64>,
    cycle_id: Option<Uuid>,
    reason: Option<String>,
}

impl FireRow {
    fn fired(self) -> Result<Fired, Error> {
        fired(due(self.due_time, self.due_block), self.cycle_id, self.reason)
            .ok_or_else(|| Error::Corrupt("a due time without an outcome".into()))
    }
}

/// A due time and its outcome from their columns.
pub(super) fn fired(due: Option<Due>, cycle: Option<Uuid>, reason: Option<String>) -> Option<Fired> {
    let outcome = cycle.map(|id| Outcome::Cycle(id.into())).or(reason.map(Outcome::Skipped))?;
    Some(Fired { due: due?, outcome })
}

/// A due time from its two columns.
pub(super) fn due(time: Option<DateTime<Utc>>, block: Option<i64>) -> Option<Due> {
    time.map(Due::Time).or_else(|| block.and_then(|block| u64::try_from(block).ok()).map(Due::Block))
}

/// A due time as its two columns.
fn columns(due: Due) -> (Option<DateTime<Utc>>, Option<i64>) {
    match due {
        Due::Time(time) => (Some(time), None),
        Due::Block(block) => (None, Some(i64::try_from(block).unwrap_or(i64::MAX))),
    }
}

async fn decide(connection: &mut PgConnection, round: &Round<'_>) -> Result<Vec<Fired>, Error> {
    turn::lock(connection).await?;
    let (pipeline, key) = (round.new.pipeline.as_str(), round.schedule.key());
    let names = (pipeline, key.as_str());
    let decided: Option<(Option<DateTime<Utc>>, Option<i64>)> = sqlx::query_as(
        "select decided_time, decided_block from schedule
         where pipeline = $1 and schedule = $2 and retired_at is null for update",
    )
    .bind(pipeline)
    .bind(&key)
    .fetch_optional(&mut *connection)
    .await?;
    // Another backend may read a newer file, in which this entry is no more.
    let Some((time, block)) = decided else { return Ok(Vec::new()) };
    let Some(decided_until) = due(time, block) else {
        // The chain has answered for the first time: what lies behind it was never due.
        if let Some(block) = round.clock.block {
            advance(connection, names, Due::Block(block)).await?;
        }
        return Ok(Vec::new());
    };
    let pause = match pause_of(connection, pipeline).await? {
        Some(pause) if pause.resumed_at.is_none() => Some(pause),
        earlier => pause_after_failures(connection, round, &key).await?.or(earlier),
    };
    let open: i64 = sqlx::query_scalar("select count(*) from cycle where pipeline = $1 and status = 'open'")
        .bind(pipeline)
        .fetch_one(&mut *connection)
        .await?;
    let pause = pause.map(|pause| Pause { from: pause.paused_at, until: pause.resumed_at });
    let state = State { pipeline, decided_until, pause, open: usize::try_from(open).unwrap_or_default() };
    let mut all = Vec::new();
    for Decision { due, verdict } in schedule::decide(round.schedule, &state, &round.clock) {
        let outcome = match verdict {
            Verdict::Fire(start) => create(connection, round.new, start).await?,
            Verdict::Skip(reason) => Outcome::Skipped(reason.word().into()),
        };
        all.push(Fired { due, outcome });
    }
    note(connection, names, &all).await?;
    if let Some(last) = all.last() {
        advance(connection, names, last.due).await?;
    }
    Ok(all)
}

/// Pause the pipeline when as many of this schedule's last cycles failed as it bears with. Those from before the last pause
/// are forgiven; cancelled ones say nothing.
async fn pause_after_failures(
    connection: &mut PgConnection,
    round: &Round<'_>,
    key: &str,
) -> Result<Option<PauseRow>, Error> {
    let Some(most) = round.schedule.pause_on_failure else { return Ok(None) };
    let pipeline = round.new.pipeline.as_str();
    let statuses: Vec<String> = sqlx::query_scalar(
        "select cycle.status from schedule_fire join cycle using (cycle_id)
         where schedule_fire.pipeline = $1 and schedule = $2 and cycle.status in ('completed', 'failed')
           and cycle.finished_at > coalesce(
               (select resumed_at from schedule_pause where schedule_pause.pipeline = $1), '-infinity')
         order by cycle.finished_at desc limit $3",
    )
    .bind(pipeline)
    .bind(key)
    .bind(i64::from(most))
    .fetch_all(&mut *connection)
    .await?;
    if statuses.len() < most as usize || statuses.iter().any(|status| status != "failed") {
        return Ok(None);
    }
    let reason = match most {
        1 => "its last cycle failed".to_owned(),
        most => format!("its last {most} cycles failed"),
    };
    pause_in(connection, pipeline, &reason, round.clock.now).await?;
    pause_of(connection, pipeline).await
}

async fn create(connection: &mut PgConnection, new: &NewCycle, start: Start) -> Result<Outcome, Error> {
    if start == Start::InsteadOfOthers {
        sqlx::query("update cycle set cancel_requested = true where pipeline = $1 and status = 'open'")
            .bind(&new.pipeline)
            .execute(&mut *connection)
            .await?;
    }
    let new = NewCycle { salt: Salt::random(), ..new.clone() };
    let Admission::Created(cycle) = turn::admit(connection, CycleId::generate(), &new).await? else {
        return Ok(Outcome::Skipped(Reason::Concurrency.word().into()));
    };
    if start != Start::Now {
        sqlx::query("update cycle set waits_for_pipeline = true where cycle_id = $1")
            .bind(cycle.as_uuid())
            .execute(connection)
            .await?;
    }
    Ok(Outcome::Cycle(cycle))
}

async fn note(connection: &mut PgConnection, (pipeline, key): (&str, &str), all: &[Fired]) -> Result<(), Error> {
    let (times, blocks): (Vec<_>, Vec<_>) = all.iter().map(|fired| columns(fired.due)).unzip();
    let (cycles, reasons): (Vec<Option<Uuid>>, Vec<Option<&str>>) = all
        .iter()
        .map(|fired| match &fired.outcome {
            Outcome::Cycle(cycle) => (Some(cycle.as_uuid()), None),
            Outcome::Skipped(reason) => (None, Some(reason.as_str())),
        })
        .unzip();
    sqlx::query(
        "insert into schedule_fire (pipeline, schedule, due_time, due_block, cycle_id, reason)
         select $1, $2, * from unnest($3::timestamptz[], $4::bigint[], $5::uuid[], $6::text[])",
    )
    .bind(pipeline)
    .bind(key)
    .bind(times)
    .bind(blocks)
    .bind(cycles)
    .bind(reasons)
    .execute(connection)
    .await?;
    Ok(())
}

async fn advance(connection: &mut PgConnection, (pipeline, key): (&str, &str), until: Due) -> Result<(), Error> {
    let (time, block) = columns(until);
    sqlx::query("update schedule set decided_time = $3, decided_block = $4 where pipeline = $1 and schedule = $2")
        .bind(pipeline)
        .bind(key)
        .bind(time)
        .bind(block)
        .execute(connection)
        .await?;
    Ok(())
}
