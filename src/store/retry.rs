//! A database that is away for a moment: try again, and start our own server again if it is the one that has gone.
//!
//! Only idempotent work goes through here. After a lost acknowledgement it is done a second time.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{CONNECTIONS, Error, Store, error::Trouble, location::Location};

/// For how long a lost connection is tried again before the caller is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest one try may take: a connection that died without a word must not hold us for ever.
const ONE_TRY: Duration = Duration::from_secs(20);

/// The first and the longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Say that it works again, to whoever was told that it does not. Losing to another transaction is no absence.
fn report_return(since: Instant) {
    if since.elapsed() > WAITS.1 {
        tracing::warn!("the database works again after {:.1} s; nothing was lost", since.elapsed().as_secs_f64());
    }
}

impl Store {
    /// Run `work` until it succeeds, fails for good, or the database has been away for too long.
    pub(super) async fn persist<T, F>(&self, work: impl Fn() -> F + Send) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
        T: Send,
    {
        let mut deadline = Instant::now() + PATIENCE;
        let mut wait = WAITS.0;
        let mut was_away = None;
        loop {
            let result = timeout(ONE_TRY, work()).await.unwrap_or(Err(Trouble::Store(Error::Timeout)));
            let error = match result {
                Err(Trouble::Store(error)) if error.is_transient() => error,
                other => {
                    if let (Some(since), Ok(_)) = (was_away, &other) {
                        report_return(since);
                    }
                    return other;
                }
            };
            if is_busy(&error, self.pool.size()) {
                // Their holders are given up on when they do not answer, so a place in the queue is worth keeping.
                tracing::debug!("every connection is in use; waiting for one");
                deadline = Instant::now() + PATIENCE;
                continue;
            }
            if Instant::now() + wait > deadline {
                return Err(error.into());
            }
            was_away.get_or_insert_with(Instant::now);
            let what = error.absence().unwrap_or_default();
            tracing::warn!(error = &error as &dyn std::error::Error, "the database {what}; trying again");
            // Not polling for anybody: the pause leaves room for a server that is starting.
            sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
            if let Location::Embedded { server, .. } = &*self.location {
                server.revive().await.map_err(Error::from)?;
            }
        }
    }

    /// The same for questions that are no part of the journal.
    pub(super) async fn ask<T, F>(&self, work: impl Fn() -> F + Send + Sync) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let result = self.persist(|| async { work().await.map_err(Trouble::from) }).await;
        result.map_err(|trouble| match trouble {
            Trouble::Store(error) => error,
            Trouble::Journal(error) => Error::Corrupt(error.to_string()),
        })
    }
}

/// Whether the try only waited for a connection while all of them were at work: the disk is slow, the database is there. With
/// fewer open than there may be, one was waited for that could not be made.
fn is_busy(error: &Error, open: u32) -> bool {
    matches!(error, Error::Query(sqlx::Error::PoolTimedOut)) && open >= CONNECTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_told_from_a_database_that_is_away() {
        let timed_out = || Error::Query(sqlx::Error::PoolTimedOut);
        assert!(is_busy(&timed_out(), CONNECTIONS));
        assert!(!is_busy(&timed_out(), CONNECTIONS - 1) && !is_busy(&timed_out(), 0));
        assert!(!is_busy(&Error::Timeout, CONNECTIONS));
        assert!(timed_out().is_transient(), "or it would not be tried again at all");
    }
}
