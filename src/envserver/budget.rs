//! How long a miner may keep us waiting in a request, over all its episodes. One that is always just in time would
//! otherwise hold a cycle up as long as it likes. Pure.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::cycle::MinerFault;
use crate::miner::Fault;

/// What a miner may take and has taken.
#[derive(Debug)]
pub(super) struct Budget {
    /// Without limit when none.
    allowed: Option<Duration>,
    /// In microseconds.
    spent: AtomicU64,
}

impl Budget {
    pub(super) fn new(allowed: Option<Duration>) -> Self {
        Self { allowed, spent: AtomicU64::new(0) }
    }

    /// The miner took so long for an answer.
    pub(super) fn spend(&self, time: Duration) {
        self.spent.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it may take longer.
    ///
    /// # Errors
    /// `budget_exhausted` when it may not.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.allowed {
            Some(allowed) if Duration::from_micros(self.spent.load(Ordering::Relaxed)) > allowed => {
                let detail = format!("all answers in this environment together may take {} s", allowed.as_secs_f64());
                Err(Fault::new(MinerFault::BudgetExhausted, detail))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_adds_up() {
        let budget = Budget::new(Some(Duration::from_secs(3)));
        for _ in 0..3 {
            budget.spend(Duration::from_secs(1));
            assert!(budget.check().is_ok());
        }
        budget.spend(Duration::from_micros(1));
        let fault = budget.check().unwrap_err();
        assert_eq!(fault.reason, MinerFault::BudgetExhausted);
        assert_eq!(fault.detail, "all answers in this environment together may take 3 s");
    }

    #[test]
    fn without_a_budget_there_is_no_limit() {
        let budget = Budget::new(None);
        budget.spend(Duration::from_secs(1 << 40));
        assert!(budget.check().is_ok());
    }
}
