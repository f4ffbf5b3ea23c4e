//! Published weights: an append-only chain, one link per cycle.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::cycle::{CycleId, Publication};

use super::{Error, Store, error::Trouble};

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
}

type Row = (Uuid, i64, String, String, String, Option<String>, Option<i64>, DateTime<Utc>);

impl From<Row> for PublicationRow {
    fn from((cycle, sequence, scores, weights, digest, previous_digest, block, created_at): Row) -> Self {
        let publication = Publication { scores, weights, digest };
        let block = block.and_then(|block| u64::try_from(block).ok());
        Self { cycle: cycle.into(), sequence, publication, previous_digest, block, created_at }
    }
}

/// Keep the documents of a cycle until it ends, in the transaction that `connection` is in: nobody is given them before.
pub(super) async fn keep(
    connection: &mut PgConnection,
    cycle: CycleId,
    publication: &Publication,
) -> Result<(), Trouble> {
    sqlx::query("insert into draft (cycle_id, scores, weights, digest) values ($1, $2, $3, $4)")
        .bind(cycle.as_uuid())
        .bind(&publication.scores)
        .bind(&publication.weights)
        .bind(&publication.digest)
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
    sqlx::query(
        "with ready as (delete from draft where cycle_id = $1 returning scores, weights, digest)
         insert into publication (cycle_id, sequence, scores, weights, digest, previous_digest, block)
         select $1, coalesce(last.sequence, 0) + 1, scores, weights, ready.digest, last.digest, cycle.block
         from ready join cycle on cycle.cycle_id = $1
         left join (select sequence, digest from publication order by sequence desc limit 1) last on true",
    )
    .bind(cycle.as_uuid())
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// What validators are given: the last publication.
    pub async fn latest_publication(&self) -> Result<Option<PublicationRow>, Error> {
        self.ask(|| async {
            let row: Option<Row> = sqlx::query_as(
                "select cycle_id, sequence, scores, weights, digest, previous_digest, block, created_at
                 from publication order by sequence desc limit 1",
            )
            .fetch_optional(&self.pool)
            .await?;
            Ok(row.map(PublicationRow::from))
        })
        .await
    }

    /// What a cycle has published.
    pub async fn publication(&self, cycle: CycleId) -> Result<Option<PublicationRow>, Error> {
        self.ask(|| async {
            let row: Option<Row> = sqlx::query_as(
                "select cycle_id, sequence, scores, weights, digest, previous_digest, block, created_at
                 from publication where cycle_id = $1",
            )
            .bind(cycle.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
            Ok(row.map(PublicationRow::from))
        })
        .await
    }
}
