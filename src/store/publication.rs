//! Published weights: an append-only chain for each subnet and one for what is local, one link per cycle. A link that the publish guard holds is in the chain, and
//! validators are not given it before a person has released it.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, types::Json};
use uuid::Uuid;

use crate::cycle::{
    Course, CycleId, Facts, MinerFault, Outcome, Publication, PublishGuard, Shares, Turnout, burnt, distance, shares,
};

use super::{Error, Store, error::Trouble, scope::Target};

/// A publication with its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct PublicationRow {
    /// The cycle it is the result of.
    pub cycle: CycleId,
    /// Its place, from 1.
    pub sequence: i64,
    /// The documents.
    pub publication: Publication,
    /// Digest of the one before.
    pub previous_digest: Option<String>,
    /// Block the cycle was pinned to.
    pub block: Option<u64>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// Since when it can be known: the time of its block, and that of its publication where it has none.
    pub as_of: DateTime<Utc>,
    /// Why it was held, if it was.
    pub held: Option<String>,
    /// Who let it pass all the same.
    pub release: Option<Release>,
}

/// A person's word that a held vector is given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// What that person says.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What validators are given, and what they are not.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The vector that counts.
    pub latest: Option<PublicationRow>,
    /// A newer one that is held.
    pub held: Option<PublicationRow>,
}

/// What came of the wish to release a vector.
#[derive(Debug, Clone, PartialEq)]
pub enum ReleaseAnswer {
    /// It is the latest now.
    Released,
    /// It had been released before.
    AlreadyReleased,
    /// It was never held.
    NotHeld,
    /// This cycle's vector came later and counts: an older one is not put in its place.
    Outdated(CycleId),
    /// The cycle has published nothing.
    Unpublished,
}

impl PublicationRow {
    /// Whether validators may be given it.
    pub fn is_given_out(&self) -> bool {
        self.held.is_none() || self.release.is_some()
    }
}

#[derive(FromRow)]
struct Row {
    cycle_id: Uuid,
    sequence: i64,
    scores: String,
    weights: String,
    digest: String,
    guard: Json<PublishGuard>,
    previous_digest: Option<String>,
    block: Option<i64>,
    created_at: DateTime<Utc>,
    began_at: Option<DateTime<Utc>>,
    held: Option<String>,
    reason: Option<String>,
    released_at: Option<DateTime<Utc>>,
}

impl From<Row> for PublicationRow {
    fn from(row: Row) -> Self {
        let Row { scores, weights, digest, guard: Json(guard), .. } = row;
        Self {
            cycle: row.cycle_id.into(),
            sequence: row.sequence,
            publication: Publication { scores, weights, digest, guard },
            previous_digest: row.previous_digest,
            block: row.block.and_then(|block| u64::try_from(block).ok()),
            created_at: row.created_at,
            as_of: row.began_at.unwrap_or(row.created_at),
            held: row.held,
            release: row.reason.zip(row.released_at).map(|(reason, at)| Release { reason, at }),
        }
    }
}

/// Everything of the publications that fit.
macro_rules! rows {
    ($which:literal) => {
        concat!(
            "select cycle_id, sequence, scores, weights, digest, guard, previous_digest, block, created_at, held, reason,
                    released_at,
                    -- A fork keeps the block of the cycle that it is a fork of, which read it before it did anything else.
                    (select at from task_event
                     where task_event.cycle_id = (
                         select pinned.cycle_id from cycle own join cycle pinned
                             on pinned.block = own.block and pinned.block_hash is not distinct from own.block_hash
                         where own.cycle_id = publication.cycle_id order by pinned.cycle_id limit 1)
                     order by event_id limit 1) as began_at
             from publication left join publication_release using (cycle_id) ",
            $which
        )
    };
}

/// Keep the documents of a cycle until it ends, in the transaction that `connection` is in: nobody is given them before.
pub(super) async fn keep(
    connection: &mut PgConnection,
    cycle: CycleId,
    publication: &Publication,
) -> Result<(), Trouble> {
    sqlx::query("insert into draft (cycle_id, scores, weights, digest, guard) values ($1, $2, $3, $4, $5)")
        .bind(cycle.as_uuid())
        .bind(&publication.scores)
        .bind(&publication.weights)
        .bind(&publication.digest)
        .bind(Json(publication.guard))
        .execute(connection)
        .await?;
    Ok(())
}

/// Make what a cycle has come to the last link of the chain, in the transaction that ends it. The documents of a cycle that does
/// not publish stay where they are, beside the chain: validators never see them.
pub(super) async fn publish(connection: &mut PgConnection, cycle: CycleId) -> Result<(), Trouble> {
    let publishes: bool = sqlx::query_scalar(
        "select exists (select from draft join cycle using (cycle_id) where cycle_id = $1 and publishes)",
    )
    .bind(cycle.as_uuid())
    .fetch_one(&mut *connection)
    .await?;
    if !publishes {
        return Ok(());
    }
    // Writers take turns until they commit, so that the chain has neither gaps nor forks; readers are not held up.
    sqlx::query("lock table publication in share row exclusive mode").execute(&mut *connection).await?;
    let held = objection(connection, cycle).await?;
    sqlx::query(
        "with ready as (delete from draft where cycle_id = $1 returning scores, weights, digest, guard)
         insert into publication (cycle_id, sequence, scores, weights, digest, guard, previous_digest, block, held)
         select $1, coalesce(last.sequence, 0) + 1, scores, weights, ready.digest, guard, last.digest, cycle.block, $2
         from ready join cycle on cycle.cycle_id = $1
         left join (select sequence, digest from publication order by sequence desc limit 1) last on true",
    )
    .bind(cycle.as_uuid())
    .bind(held)
    .execute(connection)
    .await?;
    Ok(())
}

/// Why the vector of a cycle is held, if it is. Nothing is measured for a guard without limits.
async fn objection(connection: &mut PgConnection, cycle: CycleId) -> Result<Option<String>, Trouble> {
    let (weights, Json(guard)): (String, Json<PublishGuard>) =
        sqlx::query_as("select weights, guard from draft where cycle_id = $1")
            .bind(cycle.as_uuid())
            .fetch_one(&mut *connection)
            .await?;
    if guard == PublishGuard::default() {
        return Ok(None);
    }
    let [planned, scored, lost]: [i64; 3] = sqlx::query_as(
        "select count(*), count(*) filter (where outcome <> 'infra_fault'),
                (select count(*) from episode_attempt where cycle_id = $1)
         from episode where cycle_id = $1",
    )
    .bind(cycle.as_uuid())
    .fetch_one(&mut *connection)
    .await
    .map(|(planned, scored, lost): (i64, i64, i64)| [planned, scored, lost])?;
    let course = Course { planned: planned.unsigned_abs(), scored: scored.unsigned_abs(), lost: lost.unsigned_abs() };
    let turnout = turnout(&mut *connection, cycle).await?;
    let now = read(&weights)?;
    let target = Target::of(&mut *connection, cycle).await?;
    let jump = match latest(&mut *connection, &target).await? {
        Some(last) => Some(distance(&read(&last.publication.weights)?, &now)),
        None => None,
    };
    Ok(guard.objection(&Facts { course, turnout, jump, burnt: burnt(&now) }))
}

/// How many miners a cycle had, and how many of them have answered anything: taken a step, come to an end, or made a mistake
/// that only an answer can be.
async fn turnout(connection: &mut PgConnection, cycle: CycleId) -> Result<Turnout, Trouble> {
    let answers = MinerFault::ALL.into_iter().filter(|fault| fault.shows_an_answer());
    let answers: Vec<&str> = answers.filter_map(|fault| Outcome::MinerFault(fault).reason()).collect();
    let (miners, answered): (i64, i64) = sqlx::query_as(
        "select count(distinct hotkey),
                count(distinct hotkey) filter (where steps > 0 or outcome in ('success', 'failure')
                    or (outcome = 'miner_fault' and reason = any($2)))
         from episode where cycle_id = $1",
    )
    .bind(cycle.as_uuid())
    .bind(answers)
    .fetch_one(connection)
    .await?;
    Ok(Turnout { miners: miners.unsigned_abs(), answered: answered.unsigned_abs() })
}

fn read(weights: &str) -> Result<Shares, Error> {
    shares(weights).map_err(|error| Error::Corrupt(format!("weights that cannot be read: {error}")))
}

/// The vector that counts.
async fn latest(connection: &mut PgConnection, target: &Target) -> Result<Option<PublicationRow>, sqlx::Error> {
    let sql = rows!(
        "where ($1 or (netuid is not distinct from $2 and ($3::text is null or genesis = $3)))
               and (held is null or released_at is not null)
         order by sequence desc limit 1"
    );
    let row: Option<Row> = sqlx::query_as(sql)
        .bind(target.is_all)
        .bind(target.netuid)
        .bind(&target.genesis)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(PublicationRow::from))
}

async fn of_cycle(connection: &mut PgConnection, cycle: CycleId) -> Result<Option<PublicationRow>, sqlx::Error> {
    let sql = rows!("where cycle_id = $1");
    let row: Option<Row> = sqlx::query_as(sql).bind(cycle.as_uuid()).fetch_optional(connection).await?;
    Ok(row.map(PublicationRow::from))
}

impl Store {
    /// What validators are given: the last publication that is not held.
    pub async fn latest_publication(&self) -> Result<Option<PublicationRow>, Error> {
        self.ask(|| async {
            let mut connection = self.pool.acquire().await?;
            let target = self.target(&mut connection).await?;
            Ok(latest(&mut connection, &target).await?)
        })
        .await
    }

    /// What validators are given, and the newest vector after it that they are not.
    pub async fn standing(&self) -> Result<Standing, Error> {
        self.ask(|| async {
            let mut connection = self.pool.acquire().await?;
            let target = self.target(&mut connection).await?;
            let latest = latest(&mut connection, &target).await?;
            let sql = rows!(
                "where ($1 or (netuid is not distinct from $2 and ($3::text is null or genesis = $3))) and sequence > $4
                 order by sequence desc limit 1"
            );
            let after = latest.as_ref().map_or(0, |row| row.sequence);
            let newer: Option<Row> = sqlx::query_as(sql)
                .bind(target.is_all)
                .bind(target.netuid)
                .bind(&target.genesis)
                .bind(after)
                .fetch_optional(&mut *connection)
                .await?;
            // One that was published between the two questions is for the next who asks.
            let held = newer.map(PublicationRow::from).filter(|row| !row.is_given_out());
            Ok(Standing { latest, held })
        })
        .await
    }

    /// What a cycle has published.
    pub async fn publication(&self, cycle: CycleId) -> Result<Option<PublicationRow>, Error> {
        self.ask(|| async { Ok(of_cycle(&mut *self.pool.acquire().await?, cycle).await?) }).await
    }

    /// The last vector that was given out of a cycle pinned to this block.
    pub async fn publication_at(&self, block: u64) -> Result<Option<PublicationRow>, Error> {
        self.ask(|| async {
            // A number that the column cannot hold is that of no block.
            let Ok(block) = i64::try_from(block) else { return Ok(None) };
            let mut connection = self.pool.acquire().await?;
            let target = self.target(&mut connection).await?;
            let sql = rows!(
                "where ($1 or (netuid is not distinct from $2 and ($3::text is null or genesis = $3))) and block = $4
                       and (held is null or released_at is not null)
                 order by sequence desc limit 1"
            );
            let row: Option<Row> = sqlx::query_as(sql)
                .bind(target.is_all)
                .bind(target.netuid)
                .bind(&target.genesis)
                .bind(block)
                .fetch_optional(&mut *connection)
                .await?;
            Ok(row.map(PublicationRow::from))
        })
        .await
    }

    /// The last publications, newest first.
    pub async fn publications(&self, count: u32) -> Result<Vec<PublicationRow>, Error> {
        self.ask(|| async {
            let sql = rows!("order by sequence desc limit $1");
            let rows: Vec<Row> = sqlx::query_as(sql).bind(i64::from(count)).fetch_all(&self.pool).await?;
            Ok(rows.into_iter().map(PublicationRow::from).collect())
        })
        .await
    }

    /// Give a held vector out after all. Said twice it is the same as once.
    pub async fn release_publication(&self, cycle: CycleId, reason: &str) -> Result<ReleaseAnswer, Error> {
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("lock table publication in share row exclusive mode").execute(&mut *transaction).await?;
            let target = Target::of(&mut transaction, cycle).await?;
            let answer = match of_cycle(&mut transaction, cycle).await? {
                None => ReleaseAnswer::Unpublished,
                Some(row) if row.held.is_none() => ReleaseAnswer::NotHeld,
                Some(row) if row.release.is_some() => ReleaseAnswer::AlreadyReleased,
                Some(row) => match latest(&mut transaction, &target).await? {
                    Some(latest) if latest.sequence > row.sequence => ReleaseAnswer::Outdated(latest.cycle),
                    _ => {
                        sqlx::query("insert into publication_release (cycle_id, reason) values ($1, $2)")
                            .bind(cycle.as_uuid())
                            .bind(super::append::storable(reason))
                            .execute(&mut *transaction)
                            .await?;
                        self.note_operation(&mut transaction, "released", Some(cycle)).await?;
                        ReleaseAnswer::Released
                    }
                },
            };
            transaction.commit().await?;
            Ok(answer)
        })
        .await
    }
}
