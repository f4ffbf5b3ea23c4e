//! Whether a salt may still become the seeds of a game. Who knows it knows every seed, so it is shown (see `cycle.rs`) only when nothing
//! that began while it was a secret plays, or can be made to play.
//!
//! A salt is a secret until the first cycle with it completes. For as long, one cycle with it may be open: others are neither made nor
//! opened again. What ended without success before that moment stays ended after it. So a cycle that completes has no company to give away.
//! Asked under the lock of `turn.rs`, which everything takes that makes or reopens such a cycle.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::cycle::{CycleId, CycleStatus, JournalError, Salt};

use super::{Error, error::Trouble};

/// The open cycle with this salt, while it is a secret.
pub(super) async fn playing(
    connection: &mut PgConnection,
    salt: &Salt,
    except: CycleId,
) -> Result<Option<CycleId>, sqlx::Error> {
    let open: Option<Uuid> = sqlx::query_scalar(
        "select cycle_id from cycle other
         where salt = $1 and cycle_id <> $2 and status = 'open'
           and not exists (select from cycle known where known.salt = $1 and known.status = 'completed')
         order by place limit 1",
    )
    .bind(salt.as_bytes().as_slice())
    .bind(except.as_uuid())
    .fetch_optional(connection)
    .await?;
    Ok(open.map(CycleId::from))
}

/// Refuse a new cycle with the salt of one that plays.
pub(super) async fn require_unused(connection: &mut PgConnection, salt: &Salt, new: CycleId) -> Result<(), Error> {
    match playing(connection, salt, new).await? {
        Some(open) => Err(Error::SaltInUse(open)),
        None => Ok(()),
    }
}

/// Refuse to open a cycle again whose salt somebody else plays with, or has shown since it began.
pub(super) async fn require_secret(connection: &mut PgConnection, cycle: CycleId) -> Result<(), Trouble> {
    let row: Option<(Vec<u8>, Option<Uuid>)> = sqlx::query_as(
        "select salt, (select cycle_id from cycle known
                       where known.salt = this.salt and known.status = 'completed' and known.cycle_id <> this.cycle_id
                         and known.finished_at > this.created_at
                       order by known.finished_at limit 1)
         from cycle this where cycle_id = $1",
    )
    .bind(cycle.as_uuid())
    .fetch_optional(&mut *connection)
    .await?;
    // Who asks for a cycle that is not there is told so by the next question.
    let Some((salt, shown)) = row else { return Ok(()) };
    if let Some(by) = shown {
        return Err(JournalError::SaltShown(cycle, by.into()).into());
    }
    match playing(connection, &super::cycle::salt(&salt)?, cycle).await? {
        Some(open) => Err(JournalError::SaltInUse(cycle, open).into()),
        None => Ok(()),
    }
}

/// Refuse to make a cycle of one that has not ended: with its salt, and of what it has not come to yet.
pub(super) async fn require_ended(connection: &mut PgConnection, parent: CycleId) -> Result<(), Error> {
    let status: Option<String> = sqlx::query_scalar("select status from cycle where cycle_id = $1")
        .bind(parent.as_uuid())
        .fetch_optional(connection)
        .await?;
    if status.as_deref() == Some(CycleStatus::Open.word()) { Err(Error::NotEnded(parent)) } else { Ok(()) }
}
