//! How long a miner has said "not ready" to `/reset` in a cycle. Pure: the caller tells the time.
//!
//! One allowance holds for all environments, servers and rounds of the cycle. Time that several of them report at once counts
//! once.

use std::time::Duration;

/// A miner in a cycle. Points in time are told as the time since one and the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Patience {
    used: Duration,
    /// Time up to here is counted already.
    counted_to: Duration,
}

impl Patience {
    /// A run says at `now` that it has lost this much time. It is counted from `now` on, since the rest that follows is part
    /// of it.
    pub(super) fn lose(&mut self, now: Duration, lost: Duration) {
        let (from, to) = (now.max(self.counted_to), now + lost);
        self.used += to.saturating_sub(from);
        self.counted_to = self.counted_to.max(to);
    }

    /// What is left of what the pipeline allows.
    pub(super) fn left(&self, allowed: Duration) -> Duration {
        allowed.saturating_sub(self.used)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOWED: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_one_environment_uses_is_missing_in_the_next() {
        let mut patience = Patience::default();
        patience.lose(seconds(100), seconds(40));
        assert_eq!(patience.left(ALLOWED), seconds(20));
        patience.lose(seconds(500), seconds(15));
        assert_eq!(patience.left(ALLOWED), seconds(5));
        patience.lose(seconds(900), seconds(15));
        assert_eq!(patience.left(ALLOWED), Duration::ZERO);
    }

    #[test]
    fn sixteen_episodes_that_wait_at_once_lose_the_time_of_one() {
        let mut patience = Patience::default();
        (0..16).for_each(|_| patience.lose(seconds(100), seconds(5)));
        assert_eq!(patience.left(ALLOWED), seconds(55));
    }

    proptest! {
        /// However a miner spreads its waiting: what it waits one after the other is counted in full.
        #[test]
        fn no_way_of_waiting_is_cheaper_than_the_time_it_takes(waits in proptest::collection::vec((0u64..500, 0u64..500), 1..40)) {
            let (mut patience, mut now, mut waited) = (Patience::default(), Duration::ZERO, Duration::ZERO);
            for (pause, wait) in waits {
                now += Duration::from_millis(pause);
                patience.lose(now, Duration::from_millis(wait));
                waited += Duration::from_millis(wait);
                now += Duration::from_millis(wait);
            }
            prop_assert_eq!(patience.used, waited);
        }
    }
}
