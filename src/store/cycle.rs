//! Cycles and their tasks: create, find by name, list, ask to stop.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::cycle::{
    CycleId, CycleName, CycleNumber, CycleRecord, CycleStatus, JournalError, Pin, Salt, StageId, TaskKey, TaskState,
};

use super::{
    Error, Store,
    append::{StateRow, json},
    error::Trouble,
    holder::Holder,
    standing::{self, PinRow},
};

/// How many cycles an error lists.
const CANDIDATES: i64 = 5;

/// From so many tasks on, reading all of them for one is felt.
const MANY_TASKS: usize = 500;

/// A cycle to be created.
#[derive(Debug, Clone)]
pub struct NewCycle {
    /// The pipeline's name.
    pub pipeline: String,
    /// The resolved definition.
    pub definition: Value,
    /// Its content hash.
    pub definition_hash: String,
    /// Directory that relative paths in the definition start from.
    pub root: String,
    /// The secret its seeds come from.
    pub salt: Salt,
    /// Block it is pinned to from its start: that of the cycle it keeps the miners of.
    pub pin: Option<Pin>,
    /// Every task of the plan, in the plan's order.
    pub tasks: Vec<TaskKey>,
}

/// A cycle as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct CycleSummary {
    /// Its id.
    pub id: CycleId,
    /// Its number.
    pub number: CycleNumber,
    /// The pipeline's name.
    pub pipeline: String,
    /// The content hash of its definition.
    pub definition_hash: String,
    /// Where it stands.
    pub status: CycleStatus,
    /// Why it ended as it did.
    pub reason: Option<String>,
    /// Whether some process runs it now: its lease is live and its holder not known to be dead.
    pub is_running: bool,
    /// Whether it is open but waits for a person: a loop that takes up what nobody runs leaves it alone.
    pub paused: bool,
    /// Whether somebody has ever run it.
    pub has_begun: bool,
    /// Whether somebody has asked for it to stop.
    pub cancel_requested: bool,
    /// Block it is pinned to.
    pub block: Option<u64>,
    /// SHA-256 of the salt in hex.
    pub salt_sha256: String,
    /// The salt, once the cycle has completed: one that failed or was cancelled can still be retried under it.
    pub salt: Option<Salt>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Tasks that have ended, and all.
    pub tasks: (u64, u64),
    /// Episodes that are scored, and all that are planned.
    pub episodes: (u64, u64),
    /// Digest of the weights it has published.
    pub weights_digest: Option<String>,
}

/// A task as `cycle show` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// The task and where it stands.
    pub state: TaskState,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// What came of asking a cycle to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// The process that runs it will see it at its next heartbeat.
    Requested,
    /// Nobody runs it: whoever takes its lease next has to end it.
    NobodyRuns,
    /// It has ended already.
    Ended(CycleStatus),
}

impl Store {
    /// Write down a new cycle with all its tasks.
    pub async fn create_cycle(&self, new: &NewCycle) -> Result<CycleId, Error> {
        // One id for all tries: if an acknowledgement is lost, the next try finds the cycle to be there.
        let id = CycleId::generate();
        self.ask(|| insert(&self.pool, id, new)).await?;
        Ok(id)
    }

    /// The cycle that `given` means: `@latest`, a number, a UUID, or the start of one.
    ///
    /// # Errors
    /// [`Error::UnknownCycle`], [`Error::AmbiguousCycle`] and [`Error::NoCycle`] say what there is instead.
    pub async fn resolve(&self, given: &str) -> Result<CycleId, Error> {
        if given == "@latest" {
            return self.recent(1).await?.first().copied().ok_or(Error::NoCycle);
        }
        let given = given.trim().to_ascii_lowercase();
        let unknown = async || -> Result<CycleId, Error> {
            let recent = self.recent(CANDIDATES).await?;
            let numbers = self.cycle_numbers(&recent).await?;
            let word = |id: &CycleId| numbers.get(id).map_or(id.to_string(), |number| format!("{number} ({id})"));
            Err(Error::UnknownCycle { given: given.clone(), recent: recent.iter().map(word).collect() })
        };
        if let Ok(number) = given.parse() {
            return match self.cycle_named(CycleName::Number(number)).await? {
                Some(cycle) => Ok(cycle),
                None => unknown().await,
            };
        }
        // Only what an id is made of reaches the pattern, so nothing in it is a wildcard.
        if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return unknown().await;
        }
        let found = self.starting_with(&given).await?;
        match found.as_slice() {
            [] => unknown().await,
            [only] => Ok(*only),
            several => {
                let candidates = several.iter().map(CycleId::to_string).collect();
                Err(Error::AmbiguousCycle { given, candidates })
            }
        }
    }

    /// The cycle of a name, if there is one.
    pub async fn cycle_named(&self, name: CycleName) -> Result<Option<CycleId>, Error> {
        self.ask(|| async {
            let (sql, number, id) = match name {
                CycleName::Number(number) => {
                    ("select cycle_id from cycle where number = $1 and $2::uuid is null", Some(number.as_i64()), None)
                }
                CycleName::Id(id) => {
                    ("select cycle_id from cycle where cycle_id = $2 and $1::bigint is null", None, Some(id.as_uuid()))
                }
            };
            let found: Option<Uuid> = sqlx::query_scalar(sql).bind(number).bind(id).fetch_optional(&self.pool).await?;
            Ok(found.map(CycleId::from))
        })
        .await
    }

    /// The numbers of some cycles.
    pub async fn cycle_numbers(&self, cycles: &[CycleId]) -> Result<BTreeMap<CycleId, CycleNumber>, Error> {
        if cycles.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<Uuid> = cycles.iter().map(|cycle| cycle.as_uuid()).collect();
        let rows: Vec<(Uuid, i64)> = self
            .ask(|| async {
                let sql = "select cycle_id, number from cycle where cycle_id = any($1)";
                Ok(sqlx::query_as(sql).bind(&ids).fetch_all(&self.pool).await?)
            })
            .await?;
        rows.into_iter().map(|(id, number)| Ok((id.into(), self::number(number)?))).collect()
    }

    async fn starting_with(&self, start: &str) -> Result<Vec<CycleId>, Error> {
        self.ask(|| async {
            let ids: Vec<Uuid> = sqlx::query_scalar(
                "select cycle_id from cycle where cycle_id::text like $1 || '%' order by cycle_id desc limit $2",
            )
            .bind(start)
            .bind(CANDIDATES)
            .fetch_all(&self.pool)
            .await?;
            Ok(ids.into_iter().map(CycleId::from).collect())
        })
        .await
    }

    async fn recent(&self, limit: i64) -> Result<Vec<CycleId>, Error> {
        self.ask(|| async {
            // Ids sort as cycles were created.
            let ids: Vec<Uuid> = sqlx::query_scalar("select cycle_id from cycle order by cycle_id desc limit $1")
                .bind(limit)
                .fetch_all(&self.pool)
                .await?;
            Ok(ids.into_iter().map(CycleId::from).collect())
        })
        .await
    }

    /// The latest cycles, newest first.
    pub async fn cycles(&self, limit: u32) -> Result<Vec<CycleSummary>, Error> {
        self.cycles_of(&CycleFilter::default(), limit).await
    }

    /// The next page of a list: cycles that are older than one, newest first. A cycle that begins meanwhile shifts nothing.
    pub async fn cycles_before(&self, before: CycleId, limit: u32) -> Result<Vec<CycleSummary>, Error> {
        self.cycles_of(&CycleFilter { before: Some(before), ..CycleFilter::default() }, limit).await
    }

    /// The latest of some cycles, newest first.
    pub async fn cycles_of(&self, filter: &CycleFilter, limit: u32) -> Result<Vec<CycleSummary>, Error> {
        self.ask(|| summaries(&self.pool, Which::Some(filter), limit.into())).await
    }

    /// One cycle.
    pub async fn cycle_summary(&self, cycle: CycleId) -> Result<CycleSummary, Error> {
        let found = self.ask(|| summaries(&self.pool, Which::Only(cycle), 1)).await?;
        found.into_iter().next().ok_or_else(|| Error::UnknownCycle { given: cycle.to_string(), recent: vec![] })
    }

    /// The tasks of a cycle in the plan's order.
    pub async fn task_rows(&self, cycle: CycleId) -> Result<Vec<TaskRow>, Error> {
        self.rows_in_order(cycle, None).await
    }

    /// Ask for a cycle to stop.
    pub async fn request_cancel(&self, cycle: CycleId) -> Result<CancelAnswer, Error> {
        self.cancel(cycle, "update cycle set cancel_requested = true where cycle_id = $1 and status = 'open'").await?;
        let summary = self.cycle_summary(cycle).await?;
        Ok(match summary.status {
            CycleStatus::Open if summary.is_running => CancelAnswer::Requested,
            CycleStatus::Open => CancelAnswer::NobodyRuns,
            ended => CancelAnswer::Ended(ended),
        })
    }

    /// Ask for a cycle to stop, and take it from whoever runs it: they can write nothing more, and whoever takes its lease next
    /// ends it.
    pub async fn force_cancel(&self, cycle: CycleId) -> Result<CancelAnswer, Error> {
        self.cancel(
            cycle,
            "update cycle set cancel_requested = true, owner = null, lease_until = null, holder = null
             where cycle_id = $1 and status = 'open'",
        )
        .await?;
        match self.cycle_summary(cycle).await?.status {
            CycleStatus::Open => Ok(CancelAnswer::NobodyRuns),
            ended => Ok(CancelAnswer::Ended(ended)),
        }
    }

    async fn cancel(&self, cycle: CycleId, sql: &'static str) -> Result<(), Error> {
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            let asked = sqlx::query(sql).bind(cycle.as_uuid()).execute(&mut *transaction).await?;
            if asked.rows_affected() == 1 {
                self.note_operation(&mut transaction, "requested", Some(cycle)).await?;
            }
            Ok(transaction.commit().await?)
        })
        .await
    }
}

async fn insert(pool: &PgPool, id: CycleId, new: &NewCycle) -> Result<(), Error> {
    let mut transaction = pool.begin().await?;
    insert_into(&mut transaction, id, new).await?;
    Ok(transaction.commit().await?)
}

/// Whether a cycle has been written down.
pub(super) async fn is_there(connection: &mut PgConnection, cycle: CycleId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from cycle where cycle_id = $1)")
        .bind(cycle.as_uuid())
        .fetch_one(connection)
        .await
}

/// Write down a cycle in the transaction that `connection` is in; whether it was not there yet.
pub(super) async fn insert_into(connection: &mut PgConnection, id: CycleId, new: &NewCycle) -> Result<bool, Error> {
    let is_new = sqlx::query(
        "insert into cycle (cycle_id, pipeline, definition, definition_hash, root, salt, salt_sha256, genesis, netuid, block,
                            block_hash)
         values ($1, $2, $3::text::json, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (cycle_id) do nothing",
    )
    .bind(id.as_uuid())
    .bind(&new.pipeline)
    .bind(json(&new.definition)?)
    .bind(&new.definition_hash)
    .bind(&new.root)
    .bind(new.salt.as_bytes().as_slice())
    .bind(new.salt.commitment())
    .bind(new.pin.as_ref().map(|pin| &pin.genesis))
    .bind(new.pin.as_ref().map(|pin| i32::from(pin.netuid)))
    .bind(new.pin.as_ref().map(|pin| standing::number(pin.block)))
    .bind(new.pin.as_ref().map(|pin| &pin.hash))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if is_new == 1 {
        let stages: Vec<&str> = new.tasks.iter().map(|task| task.stage.as_str()).collect();
        let cells: Vec<&str> = new.tasks.iter().map(|task| task.cell.as_str()).collect();
        sqlx::query(
            "insert into task (cycle_id, stage, cell, position)
             select $1, stage, cell, place - 1
             from unnest($2::text[], $3::text[]) with ordinality as planned (stage, cell, place)",
        )
        .bind(id.as_uuid())
        .bind(stages)
        .bind(cells)
        .execute(&mut *connection)
        .await?;
        note_growth(connection, new.tasks.len()).await?;
        super::turn::note_limit(connection, id, new).await?;
    }
    Ok(is_new == 1)
}

/// So many new tasks make the server's idea of the table worthless, and with it the plans that sessions keep: those that check a
/// line's task may have been made for a table of a few rows, where every index is as good, and would read all tasks of the
/// cycle for each line until the server happens to look again, a minute later.
pub(super) async fn note_growth(connection: &mut PgConnection, tasks: usize) -> Result<(), sqlx::Error> {
    if tasks >= MANY_TASKS {
        sqlx::query("analyze task").execute(connection).await?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct RecordRow {
    definition: String,
    root: String,
    salt: Vec<u8>,
    #[sqlx(flatten)]
    pin: PinRow,
    status: String,
    cancel_requested: bool,
    paused: bool,
    created_at: DateTime<Utc>,
}

/// Everything known about a cycle.
pub(super) async fn load(pool: &PgPool, cycle: CycleId) -> Result<CycleRecord, Trouble> {
    let row: Option<RecordRow> = sqlx::query_as(
        "select definition::text, root, salt, genesis, netuid, block, block_hash, status, cancel_requested,
                paused_at is not null as paused, created_at
         from cycle where cycle_id = $1",
    )
    .bind(cycle.as_uuid())
    .fetch_optional(pool)
    .await?;
    let row = row.ok_or(JournalError::Unknown(cycle))?;
    let definition = serde_json::from_str(&row.definition)
        .map_err(|error| Error::Corrupt(format!("a definition of cycle `{cycle}` that is not JSON: {error}")))?;
    let tasks = task_rows(pool, cycle, None).await?.into_iter().map(|task| task.state).collect();
    Ok(CycleRecord {
        id: cycle,
        definition,
        root: row.root,
        salt: salt(&row.salt)?,
        pin: row.pin.pin(),
        status: status(&row.status)?,
        cancel_requested: row.cancel_requested,
        paused: row.paused,
        created_at: row.created_at,
        tasks,
    })
}

#[derive(sqlx::FromRow)]
struct TimedRow {
    #[sqlx(flatten)]
    state: StateRow,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// The tasks of a cycle, or of some of its stages, as they were made: the plan's order, and then those that were made late.
pub(super) async fn task_rows(
    pool: &PgPool,
    cycle: CycleId,
    stages: Option<&[StageId]>,
) -> Result<Vec<TaskRow>, Error> {
    let rows: Vec<TimedRow> = sqlx::query_as(
        "select stage, cell, attempt, failed_attempts, status, output::text, failure::text, reason,
                started_at, finished_at
         from task where cycle_id = $1 and ($2::text[] is null or stage = any($2)) order by position",
    )
    .bind(cycle.as_uuid())
    .bind(stages.map(|stages| stages.iter().map(StageId::as_str).collect::<Vec<_>>()))
    .fetch_all(pool)
    .await?;
    let rows = rows
        .into_iter()
        .map(|row| Ok(TaskRow { state: row.state.state()?, started_at: row.started_at, finished_at: row.finished_at }));
    rows.collect()
}

#[derive(sqlx::FromRow)]
struct SummaryRow {
    cycle_id: Uuid,
    number: i64,
    pipeline: String,
    definition_hash: String,
    status: String,
    reason: Option<String>,
    is_leased: bool,
    holder: Option<Value>,
    paused: bool,
    has_begun: bool,
    cancel_requested: bool,
    block: Option<i64>,
    salt_sha256: String,
    salt: Option<Vec<u8>>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    tasks_ended: i64,
    tasks_all: i64,
    episodes_scored: i64,
    episodes_all: i64,
    weights_digest: Option<String>,
}

/// Which cycles of a list: those of which everything holds that is said.
#[derive(Debug, Clone, Default)]
pub struct CycleFilter {
    /// Older than this one.
    pub before: Option<CycleId>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// How they stand.
    pub status: Option<CycleStatus>,
}

/// Which cycles to summarise.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// These.
    Some(&'a CycleFilter),
    /// This one.
    Only(CycleId),
}

/// Keep how many episodes an ended cycle has come to: from now on nobody has to count them, and they age out. When that has begun it
/// is too late.
pub(super) async fn keep_episode_count(connection: &mut PgConnection, cycle: Uuid) -> Result<(), Error> {
    sqlx::query(
        "insert into episode_count (cycle_id, epoch, planned, scored)
         select cycle_id, epoch, every.planned, every.planned - open.pending
         from cycle
         cross join lateral (
             select count(*) as planned from episode where episode.cycle_id = cycle.cycle_id
         ) every
         cross join lateral (
             select count(*) as pending from episode
             where episode.cycle_id = cycle.cycle_id and (outcome is null or outcome = 'infra_fault')
         ) open
         where cycle_id = $1 and not exists (select from aged_out where aged_out.cycle_id = $1)
         on conflict do nothing",
    )
    .bind(cycle)
    .execute(connection)
    .await?;
    Ok(())
}

/// The latest of some cycles, newest first.
pub(super) async fn summaries(pool: &PgPool, which: Which<'_>, limit: i64) -> Result<Vec<CycleSummary>, Error> {
    let (only, filter) = match which {
        Which::Some(filter) => (None, filter.clone()),
        Which::Only(cycle) => (Some(cycle.as_uuid()), CycleFilter::default()),
    };
    let rows: Vec<SummaryRow> = sqlx::query_as(
        "select cycle_id, number, pipeline, definition_hash, status, reason, holder, cancel_requested, block, salt_sha256,
                coalesce(lease_until > clock_timestamp(), false) as is_leased, paused_at is not null as paused,
                -- The secret leaves the database only when it is one no longer.
                case when status = 'completed' then salt end as salt, epoch > 0 as has_begun,
                created_at, finished_at,
                task.ended as tasks_ended, task.planned as tasks_all,
                episode.scored as episodes_scored, episode.planned as episodes_all,
                (select digest from publication where publication.cycle_id = cycle.cycle_id) as weights_digest
         from cycle
         cross join lateral (
             select count(*) as planned, count(*) filter (where status not in ('pending', 'running', 'paused')) as ended
             from task where task.cycle_id = cycle.cycle_id
         ) task
         left join episode_count kept using (cycle_id, epoch)
         cross join lateral (
             select coalesce(kept.planned, every.planned) as planned,
                    coalesce(kept.scored, every.planned - open.pending) as scored
             -- Two counts that indexes alone can answer, of a cycle that is open: it may have a quarter of a million.
             from (select count(*) as planned from episode
                   where kept.planned is null and episode.cycle_id = cycle.cycle_id) every,
                  (select count(*) as pending from episode
                   where kept.planned is null and episode.cycle_id = cycle.cycle_id
                         and (outcome is null or outcome = 'infra_fault')) open
         ) episode
         where ($1::uuid is null or cycle_id = $1) and ($3::uuid is null or cycle_id < $3)
               and ($4::text is null or pipeline = $4) and ($5::text is null or status = $5)
         order by cycle_id desc
         limit $2",
    )
    .bind(only)
    .bind(limit)
    .bind(filter.before.map(CycleId::as_uuid))
    .bind(filter.pipeline.as_deref().map(super::append::storable))
    .bind(filter.status.map(CycleStatus::word))
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(SummaryRow::summary).collect()
}

impl SummaryRow {
    fn summary(self) -> Result<CycleSummary, Error> {
        Ok(CycleSummary {
            id: self.cycle_id.into(),
            number: number(self.number)?,
            pipeline: self.pipeline,
            definition_hash: self.definition_hash,
            status: status(&self.status)?,
            reason: self.reason,
            is_running: self.is_leased && !Holder::is_known_dead(self.holder.as_ref()),
            paused: self.paused,
            has_begun: self.has_begun,
            cancel_requested: self.cancel_requested,
            block: self.block.and_then(|block| u64::try_from(block).ok()),
            salt_sha256: self.salt_sha256,
            salt: self.salt.as_deref().map(salt).transpose()?,
            created_at: self.created_at,
            finished_at: self.finished_at,
            tasks: (self.tasks_ended.unsigned_abs(), self.tasks_all.unsigned_abs()),
            episodes: (self.episodes_scored.unsigned_abs(), self.episodes_all.unsigned_abs()),
            weights_digest: self.weights_digest,
        })
    }
}

pub(super) fn number(number: i64) -> Result<CycleNumber, Error> {
    number.try_into().map_err(|error| Error::Corrupt(format!("a cycle whose number is none: {error}")))
}

pub(super) fn salt(bytes: &[u8]) -> Result<Salt, Error> {
    hex::encode(bytes).parse().map_err(|_| Error::Corrupt("a salt that is not 32 bytes".into()))
}

pub(super) fn status(word: &str) -> Result<CycleStatus, Error> {
    use CycleStatus::{Cancelled, Completed, Failed, Open};
    let found = [Open, Completed, Failed, Cancelled].into_iter().find(|status| status.word() == word);
    found.ok_or_else(|| Error::Corrupt(format!("a cycle status `{word}` that nobody knows")))
}
