//! How many episodes a machine bears: fewer after one that the machine itself disturbed, slowly more while none is. Pure.
//!
//! Additive increase, multiplicative decrease, as TCP shares a line (RFC 5681): the number goes down until calls are undisturbed, and
//! finds its way back when the other work on the machine has ended.

use std::time::{Duration, Instant};

/// Episodes that one overload disturbs end together. They count once.
const ONE_OVERLOAD: Duration = Duration::from_secs(1);

/// The limit on episodes in flight.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// None while there is none.
    limit: Option<usize>,
    lowered: Option<Instant>,
    /// Undisturbed episodes since the limit was changed.
    undisturbed: usize,
}

impl Throttle {
    /// Whether another episode may start beside so many.
    pub(super) fn allows(&self, in_flight: usize) -> bool {
        self.limit.is_none_or(|limit| in_flight < limit)
    }

    /// An episode was disturbed while so many were in flight. The new limit, if it was lowered.
    pub(super) fn disturbed(&mut self, now: Instant, in_flight: usize) -> Option<usize> {
        let is_same = self.lowered.is_some_and(|lowered| now.saturating_duration_since(lowered) < ONE_OVERLOAD);
        if is_same {
            return None;
        }
        let limit = self.limit.map_or(in_flight, |limit| limit.min(in_flight));
        (self.lowered, self.undisturbed) = (Some(now), 0);
        self.limit.replace((limit / 2).max(1)).is_none_or(|old| old > 1).then_some((limit / 2).max(1))
    }

    /// An episode has ended undisturbed. With as many as there are places the limit is gone.
    pub(super) fn undisturbed(&mut self, places: usize) {
        let Some(limit) = self.limit else { return };
        self.undisturbed += 1;
        if self.undisturbed >= limit {
            self.undisturbed = 0;
            self.limit = Some(limit + 1).filter(|limit| *limit < places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_halves_what_is_in_flight_and_counts_once() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert!(throttle.allows(1000));
        assert_eq!(throttle.disturbed(now, 16), Some(8));
        assert_eq!(throttle.disturbed(now + ONE_OVERLOAD / 2, 15), None, "the same overload");
        assert!(throttle.allows(7) && !throttle.allows(8));
        for (second, limit) in [(2, Some(4)), (4, Some(2)), (6, Some(1)), (8, None)] {
            assert_eq!(throttle.disturbed(now + Duration::from_secs(second), 16), limit);
        }
        assert!(throttle.allows(0), "one is always played");
    }

    #[test]
    fn undisturbed_episodes_lift_the_limit_step_by_step() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.disturbed(now, 4);
        assert!(!throttle.allows(2));
        (0..2).for_each(|_| throttle.undisturbed(4));
        assert!(throttle.allows(2) && !throttle.allows(3));
        (0..3).for_each(|_| throttle.undisturbed(4));
        assert!(throttle.allows(1000), "all places may be used again");
    }
}
