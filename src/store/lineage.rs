//! Forks: a new cycle that begins with what another has finished. Rows are copied in one transaction; nothing of the
//! parent is changed, and nothing is shared with it that could change later.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::cycle::{CycleId, Publication, PublishGuard, StageId};

use super::{
    Admission, Error, NewCycle, Store,
    append::{json, storable},
    cycle, secrecy, turn,
};

/// How a cycle came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a pipeline.
    Run,
    /// With the outputs and episodes of another cycle up to a stage.
    Fork,
    /// With all but the scoring of another cycle.
    Rescore,
}

impl Origin {
    /// The word stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Fork => "fork",
            Self::Rescore => "rescore",
        }
    }
}

/// Whether the weights of a cycle become the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// Validators are given them.
    Public,
    /// They are kept beside the chain of publications.
    Draft,
}

/// A cycle to be made of another one.
#[derive(Debug, Clone)]
pub struct NewFork {
    /// The new cycle. Its salt is the parent's, so that episodes stay what they are.
    pub cycle: NewCycle,
    /// The cycle it is made of.
    pub parent: CycleId,
    /// Fork or rescore.
    pub origin: Origin,
    /// The first stage that runs again.
    pub from: StageId,
    /// Stages whose tasks, events and episodes are kept. All their tasks have succeeded in the parent.
    pub kept: Vec<StageId>,
    /// Stages that are no part of it, with the reason.
    pub skipped: Vec<(StageId, String)>,
    /// Whether its weights become the latest.
    pub publishing: Publishing,
}

/// The cycle that another one is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Ancestor {
    /// Which.
    pub cycle: CycleId,
    /// The first stage that was run again.
    pub from: StageId,
}

/// Where a cycle comes from and what is left of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lineage {
    /// How it came to be.
    pub origin: Origin,
    /// What it was made of.
    pub parent: Option<Ancestor>,
    /// Whether its weights become the latest.
    pub publishing: Publishing,
    /// Stages that were taken over from the parent.
    pub kept: Vec<StageId>,
    /// When its detail was deleted.
    pub aged_out_at: Option<DateTime<Utc>>,
}

type LineageRow = (String, Option<Uuid>, Option<String>, bool, Vec<String>, Option<DateTime<Utc>>);

impl Store {
    /// Write down a fork with everything it keeps, if its `concurrency` lets it. A rescore plays nothing, takes a moment, and is not
    /// counted: to check the result of a cycle nobody has to wait for the next one.
    ///
    /// # Errors
    /// [`Error::AgedOut`] when what it would keep is not there any more, [`Error::NotEnded`] and [`Error::SaltInUse`] while somebody
    /// plays with its salt.
    pub async fn create_fork(&self, new: &NewFork) -> Result<Admission, Error> {
        // One id for all tries: if an acknowledgement is lost, the next try finds the fork to be there.
        let id = CycleId::generate();
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            turn::lock(&mut transaction).await?;
            if is_there(&mut transaction, id).await? {
                return Ok(Admission::Created(id));
            }
            require_detail(&mut transaction, new.parent).await?;
            secrecy::require_ended(&mut transaction, new.parent).await?;
            secrecy::require_unused(&mut transaction, &new.cycle.salt, id).await?;
            let admission = match new.origin {
                Origin::Rescore => {
                    cycle::insert_into(&mut transaction, id, &new.cycle).await?;
                    turn::forget_limit(&mut transaction, id).await?;
                    Admission::Created(id)
                }
                Origin::Run | Origin::Fork => turn::admit(&mut transaction, id, &new.cycle).await?,
            };
            if admission == Admission::Created(id) {
                fill(&mut transaction, id, new).await?;
            }
            transaction.commit().await?;
            Ok(admission)
        })
        .await
    }

    /// Where a cycle comes from and what is left of it.
    pub async fn lineage(&self, cycle: CycleId) -> Result<Lineage, Error> {
        let row: Option<LineageRow> = self
            .ask(|| async {
                // Lines under epoch 0 were written before anybody held the cycle: they came with the fork.
                Ok(sqlx::query_as(
                    "select origin, parent_cycle_id, from_stage, publishes,
                            array(select distinct stage::text from task_event kept
                                  where kept.cycle_id = cycle.cycle_id and epoch = 0 and kind = 'succeeded'
                                  order by 1),
                            (select began_at from aged_out where aged_out.cycle_id = cycle.cycle_id)
                     from cycle where cycle_id = $1",
                )
                .bind(cycle.as_uuid())
                .fetch_optional(&self.pool)
                .await?)
            })
            .await?;
        let row = row.ok_or_else(|| Error::UnknownCycle { given: cycle.to_string(), recent: vec![] })?;
        lineage(row)
    }

    /// The cycle of the same pipeline before this one.
    pub async fn previous(&self, cycle: CycleId) -> Result<Option<CycleId>, Error> {
        self.ask(|| async {
            let id: Option<Uuid> = sqlx::query_scalar(
                "select before.cycle_id from cycle join cycle before using (pipeline)
                 where cycle.cycle_id = $1 and before.cycle_id < $1 order by before.cycle_id desc limit 1",
            )
            .bind(cycle.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
            Ok(id.map(CycleId::from))
        })
        .await
    }

    /// The documents a cycle has come to, published or not.
    pub async fn result(&self, cycle: CycleId) -> Result<Option<Publication>, Error> {
        self.ask(|| async {
            let row: Option<(String, String, String, Json<PublishGuard>)> = sqlx::query_as(
                "select scores, weights, digest, guard from publication where cycle_id = $1
                 union all select scores, weights, digest, guard from draft where cycle_id = $1",
            )
            .bind(cycle.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
            Ok(row.map(|(scores, weights, digest, Json(guard))| Publication { scores, weights, digest, guard }))
        })
        .await
    }
}

fn lineage((origin, parent, from, publishes, kept, aged_out_at): LineageRow) -> Result<Lineage, Error> {
    let unreadable = || Error::Corrupt("a lineage that cannot be read".into());
    let known = [Origin::Run, Origin::Fork, Origin::Rescore].into_iter().find(|known| known.word() == origin);
    let stage = |name: String| name.parse::<StageId>().map_err(|_| unreadable());
    let parent = match parent.zip(from) {
        Some((cycle, from)) => Some(Ancestor { cycle: cycle.into(), from: stage(from)? }),
        None => None,
    };
    Ok(Lineage {
        origin: known.ok_or_else(unreadable)?,
        parent,
        publishing: if publishes { Publishing::Public } else { Publishing::Draft },
        kept: kept.into_iter().map(stage).collect::<Result<_, _>>()?,
        aged_out_at,
    })
}

async fn is_there(connection: &mut PgConnection, cycle: CycleId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from cycle where cycle_id = $1)")
        .bind(cycle.as_uuid())
        .fetch_one(connection)
        .await
}

/// Hold off the deletion of a cycle's detail until this transaction ends, unless it has begun.
pub(super) async fn require_detail(connection: &mut PgConnection, cycle: CycleId) -> Result<(), Error> {
    let found: Option<i32> = sqlx::query_scalar("select 1 from cycle where cycle_id = $1 for share")
        .bind(cycle.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
    if found.is_none() {
        return Err(Error::UnknownCycle { given: cycle.to_string(), recent: vec![] });
    }
    let is_gone: bool = sqlx::query_scalar("select exists (select from aged_out where cycle_id = $1)")
        .bind(cycle.as_uuid())
        .fetch_one(connection)
        .await?;
    if is_gone { Err(Error::AgedOut(cycle)) } else { Ok(()) }
}

async fn fill(connection: &mut PgConnection, id: CycleId, new: &NewFork) -> Result<(), Error> {
    sqlx::query(
        "update cycle set origin = $2, parent_cycle_id = $3, from_stage = $4, publishes = $5 where cycle_id = $1",
    )
    .bind(id.as_uuid())
    .bind(new.origin.word())
    .bind(new.parent.as_uuid())
    .bind(new.from.as_str())
    .bind(new.publishing == Publishing::Public)
    .execute(&mut *connection)
    .await?;
    let kept: Vec<&str> = new.kept.iter().map(StageId::as_str).collect();
    for copy in COPIES {
        sqlx::query(copy).bind(id.as_uuid()).bind(new.parent.as_uuid()).bind(&kept).execute(&mut *connection).await?;
    }
    for (stage, reason) in &new.skipped {
        let event = crate::cycle::TaskEvent::Skipped { reason: storable(reason) };
        for statement in SKIPS {
            sqlx::query(statement)
                .bind(id.as_uuid())
                .bind(stage.as_str())
                .bind(storable(reason))
                .bind(json(&event)?)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// What a fork ($1) takes over from its parent ($2) for the stages it keeps ($3), in an order that foreign keys allow.
const COPIES: [&str; 7] = [
    "update task
     set status = old.status, attempt = old.attempt, failed_attempts = old.failed_attempts, output = old.output,
         started_at = old.started_at, finished_at = old.finished_at
     from task old
     where task.cycle_id = $1 and old.cycle_id = $2 and old.stage = any($3) and old.status = 'succeeded'
       and old.stage = task.stage and old.cell = task.cell",
    // Tasks of a matrix that only became known while the parent ran.
    "insert into task (cycle_id, stage, cell, position, status, attempt, failed_attempts, output, started_at, finished_at)
     select $1, stage, cell,
            (select coalesce(max(position), -1) from task where cycle_id = $1) + row_number() over (order by position),
            status, attempt, failed_attempts, output, started_at, finished_at
     from task old
     where cycle_id = $2 and stage = any($3) and status = 'succeeded'
       and not exists (select from task planned
                       where planned.cycle_id = $1 and planned.stage = old.stage and planned.cell = old.cell)",
    // Epoch 0 is before the first owner: these lines came with the fork.
    "insert into task_event (cycle_id, stage, cell, attempt, kind, epoch, payload, at)
     select $1, stage, cell, attempt, kind, 0, payload, at from task_event where cycle_id = $2 and stage = any($3)
     order by event_id",
    "insert into episode (cycle_id, environment, seed_index, hotkey, stage, cell, attempt, outcome, reason, detail, steps,
                          return, trajectory_hash, latency_p50_ms, latency_p95_ms, latency_max_ms, wall_ms, finished_at,
                          score)
     select $1, environment, seed_index, hotkey, stage, cell, attempt, outcome, reason, detail, steps, return,
            trajectory_hash, latency_p50_ms, latency_p95_ms, latency_max_ms, wall_ms, finished_at, score
     from episode where cycle_id = $2 and stage = any($3)",
    "insert into episode_attempt (cycle_id, environment, seed_index, hotkey, attempt, reason, detail, steps, wall_ms, at)
     select $1, old.environment, old.seed_index, old.hotkey, old.attempt, old.reason, old.detail, old.steps,
            old.wall_ms, old.at
     from episode_attempt old join episode using (cycle_id, environment, seed_index, hotkey)
     where cycle_id = $2 and stage = any($3)",
    "insert into episode_actions (cycle_id, environment, seed_index, hotkey, actions)
     select $1, old.environment, old.seed_index, old.hotkey, old.actions
     from episode_actions old join episode using (cycle_id, environment, seed_index, hotkey)
     where cycle_id = $2 and stage = any($3)",
    "insert into miner_sighting
         (cycle_id, environment, hotkey, status, detail, address, certificate, model, first_seen_at, seen_at)
     select $1, environment, hotkey, status, detail, address, certificate, model, first_seen_at, seen_at
     from miner_sighting seen
     where cycle_id = $2 and exists (select from episode where episode.cycle_id = $2 and stage = any($3)
                                     and episode.environment = seen.environment and episode.hotkey = seen.hotkey)",
];

/// Tasks of a stage ($2) that is no part of the fork: first the line, then what follows from it.
const SKIPS: [&str; 2] = [
    "insert into task_event (cycle_id, stage, cell, attempt, kind, epoch, payload)
     select $1, stage, cell, 0, 'skipped', 0, $4::text::json from task
     where cycle_id = $1 and stage = $2 and $3::text is not null",
    "update task set status = 'skipped', reason = $3, finished_at = clock_timestamp()
     where cycle_id = $1 and stage = $2 and $4::text is not null",
];
