//! What the operator is told while the database is away: once that it is, and each reason once, however many wait for it; and once
//! that it is back.
//!
//! Said once for everything that waits at the time. Who has waited and gives up says so itself, in the error it returns.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::Error;

/// One for all clones of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Absence(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when it is known to be away, until it is known to be back.
    since: Option<Instant>,
    /// What was told of it since.
    told: BTreeSet<String>,
    /// How many wait.
    waiting: usize,
}

impl State {
    /// It is not away, as far as anybody knows; since when it was.
    fn forget(&mut self) -> Option<Instant> {
        self.told.clear();
        self.since.take()
    }
}

impl Absence {
    /// Wait for the database, and say why.
    pub(super) fn notice(&self, what: &str, error: Option<&Error>) -> Waiting {
        self.state().waiting += 1;
        self.tell(what, error);
        Waiting(self.clone())
    }

    /// Say why, unless that has been said. `what` it does goes on from "the database".
    fn tell(&self, what: &str, error: Option<&Error>) {
        let mut state = self.state();
        state.since.get_or_insert_with(Instant::now);
        if state.told.insert(what.to_owned()) {
            tracing::warn!(error = error.map(|error| error as &dyn std::error::Error), "the database {what}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers, a time and what was told: no panic leaves them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits. Dropped, it has given up.
#[derive(Debug)]
pub(super) struct Waiting(Absence);

impl Waiting {
    /// It is still away, perhaps for another reason. When others have found it back, this is the end of what they were told of.
    pub(super) fn go_on(&self, what: &str, error: Option<&Error>) {
        let is_over = self.0.state().since.is_none();
        if !is_over {
            self.0.tell(what, error);
        }
    }

    /// It answers again: say so, to whoever was told that it does not.
    pub(super) fn end(self) {
        let since = self.0.state().forget();
        if let Some(since) = since {
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
            state.forget();
        }
    }
}
