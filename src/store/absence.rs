//! What the operator is told while the database is away: once that it is, however many wait for it, and once that it is back.
//!
//! Said once for everything that waits at the time. Who has waited and gives up says so itself, in the error it returns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Error;

/// One for all clones of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Absence(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when it is known to be away, until it is known to be back.
    since: Option<Instant>,
    /// How many wait.
    waiting: usize,
}

impl Absence {
    /// Wait for the database, and say so unless that has been said. `what` it does goes on from "the database".
    pub(super) fn notice(&self, what: &str, error: Option<&Error>) -> Waiting {
        let mut state = self.state();
        state.waiting += 1;
        if state.since.is_none() {
            state.since = Some(Instant::now());
            tracing::warn!(error = error.map(|error| error as &dyn std::error::Error), "the database {what}");
        }
        Waiting(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers and a time: no panic leaves them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits. Dropped, it has given up.
#[derive(Debug)]
pub(super) struct Waiting(Absence);

impl Waiting {
    /// It answers again: say so, to whoever was told that it does not.
    pub(super) fn end(self) {
        if let Some(since) = self.0.state().since.take() {
            tracing::warn!("the database works again after {:.1} s; nothing was lost", since.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        // Whoever comes next finds out anew, and says so.
        if state.waiting == 0 {
            state.since = None;
        }
    }
}
