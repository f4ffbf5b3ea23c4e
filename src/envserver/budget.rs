//! How long a miner may keep us waiting in a request, over all its episodes. A miner that is always just in time would
//! otherwise hold a cycle up as long as it likes.
//!
//! What counts is wall time with at least one call to the miner open, dialling included: several episodes at a time cost no more of it
//! than one.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::cycle::MinerFault;
use crate::miner::Fault;

/// What a miner may take and has taken.
#[derive(Debug)]
pub(super) struct Budget {
    /// Without limit when none.
    allowed: Option<Duration>,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Spent {
    /// Before the calls that are open now.
    before: Duration,
    open: usize,
    /// When the first of the open calls began.
    since: Option<Instant>,
}

/// A call to the miner. It has ended when this is dropped.
#[derive(Debug)]
pub(super) struct OpenCall<'a>(&'a Budget);

impl Budget {
    /// A budget of which so much was spent in earlier requests.
    pub(super) fn new(allowed: Option<Duration>, earlier: Duration) -> Self {
        Self { allowed: allowed.map(|allowed| allowed.saturating_sub(earlier)), spent: Mutex::default() }
    }

    /// What was spent in this request.
    pub(super) fn spent(&self) -> Duration {
        self.lock().spent(Instant::now())
    }

    /// A call to the miner begins.
    pub(super) fn begin(&self) -> OpenCall<'_> {
        self.lock().begin(Instant::now());
        OpenCall(self)
    }

    /// Whether the miner may take longer.
    ///
    /// # Errors
    /// `budget_exhausted` when it may not.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.allowed {
            Some(allowed) if self.lock().spent(Instant::now()) >= allowed => {
                let detail =
                    "the miner has kept the environment server waiting for longer than the stage allows one miner";
                Err(Fault::new(MinerFault::BudgetExhausted, detail))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        // Nothing between lock and unlock can panic half-way.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.0.lock().end(Instant::now());
    }
}

impl Spent {
    fn begin(&mut self, now: Instant) {
        self.open += 1;
        self.since.get_or_insert(now);
    }

    fn end(&mut self, now: Instant) {
        self.open -= 1;
        if self.open == 0 {
            self.before = self.spent(now);
            self.since = None;
        }
    }

    fn spent(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn calls_one_after_the_other_add_up_and_pauses_between_them_are_free() {
        let start = Instant::now();
        let mut spent = Spent::default();
        for (begin, end) in [(0, 2), (10, 13), (13, 14)] {
            spent.begin(start + s(begin));
            spent.end(start + s(end));
        }
        assert_eq!(spent.spent(start + s(100)), s(6));
    }

    #[test]
    fn calls_at_the_same_time_count_once() {
        let start = Instant::now();
        let mut spent = Spent::default();
        spent.begin(start);
        spent.begin(start + s(1));
        spent.end(start + s(3));
        assert_eq!(spent.spent(start + s(4)), s(4), "one is still open");
        spent.end(start + s(5));
        assert_eq!(spent.spent(start + s(9)), s(5));
    }

    #[test]
    fn a_budget_ends_when_it_is_used_up() {
        let budget = Budget::new(Some(s(5)), s(2));
        assert!(budget.check().is_ok());
        budget.lock().before = s(4);
        let fault = budget.check().unwrap_err();
        assert_eq!(fault.reason, MinerFault::BudgetExhausted);
        assert_eq!(
            fault.detail,
            "the miner has kept the environment server waiting for longer than the stage allows one miner"
        );
        assert!(Budget::new(None, s(9)).check().is_ok());
    }
}
