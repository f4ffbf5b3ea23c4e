//! A database that is away for a moment: try again, and start our own server again if it is the one that has gone.
//!
//! Only idempotent work goes through here. After a lost acknowledgement it is done a second time. What people are told meanwhile: `absence.rs`.

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{CONNECTIONS, Error, Store, absence::Waiting, error::Trouble, location::Location};

/// For how long a lost connection is tried again before the caller is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest one try may take: a connection that died without a word must not hold us for ever.
const ONE_TRY: Duration = Duration::from_secs(20);

/// The first and the longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// After how long without an answer people want to know what is going on.
const SILENCE: Duration = Duration::from_secs(3);

impl Store {
    /// Run `work` until it succeeds, fails for good, or the database has been away for too long.
    pub(super) async fn persist<T, F>(&self, work: impl Fn() -> F + Send) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
        T: Send,
    {
        let mut deadline = Instant::now() + PATIENCE;
        let mut wait = WAITS.0;
        let mut waiting = None;
        loop {
            let error = match self.attempt(work(), &mut waiting).await {
                Err(Trouble::Store(error)) if error.is_transient() => error,
                other => {
                    if let (Some(waiting), Ok(_)) = (waiting, &other) {
                        waiting.end();
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
            if error.is_rivalry() {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "another transaction was in the way; trying again"
                );
            } else {
                let what = format!("{}; trying again", error.absence().unwrap_or_default());
                match &waiting {
                    None => waiting = Some(self.absence.notice(&what, Some(&error))),
                    Some(waiting) => waiting.go_on(&what, Some(&error)),
                }
            }
            // Not polling for anybody: the pause leaves room for a server that is starting.
            sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
            if let Location::Embedded { server, .. } = &*self.location {
                server.revive().await.map_err(Error::from)?;
            }
        }
    }

    /// One try. A database that hangs says nothing, so it is said for it.
    async fn attempt<T>(
        &self,
        work: impl Future<Output = Result<T, Trouble>>,
        waiting: &mut Option<Waiting>,
    ) -> Result<T, Trouble> {
        let mut one_try = pin!(timeout(ONE_TRY, work));
        let ended = match timeout(SILENCE, &mut one_try).await {
            Ok(ended) => ended,
            Err(_) => {
                let seconds = SILENCE.as_secs();
                let what = format!("has not answered for {seconds} s; waiting for it");
                match waiting {
                    None => *waiting = Some(self.absence.notice(&what, None)),
                    Some(waiting) => waiting.go_on(&what, None),
                }
                one_try.await
            }
        };
        ended.unwrap_or(Err(Trouble::Store(Error::Timeout)))
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
