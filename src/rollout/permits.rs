//! Permits to start episodes, as the side counts them that plays. Pure.
//!
//! A permit is good for one start. Totals only grow: a message about them that is lost, late or repeated can be sent again
//! without giving anything twice.

/// The permits of one miner in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permits {
    /// All that were ever granted.
    granted: u64,
    /// Those used for a start, and those given back.
    spent: u64,
    /// Fewest that were left at any time since [`Permits::give_back`] was last called.
    idle: u64,
}

impl Permits {
    /// So many have been granted since the request began.
    pub fn grant(&mut self, total: u64) {
        self.granted = self.granted.max(total);
    }

    /// Those left.
    pub fn left(self) -> u64 {
        self.granted - self.spent
    }

    /// Use one for a start, if one is left.
    pub fn take(&mut self) -> bool {
        let is_there = self.left() > 0;
        self.spent += u64::from(is_there);
        self.idle = self.idle.min(self.left());
        is_there
    }

    /// Give back what has not been needed since this was last called, so that another request can use it. How many that are.
    pub fn give_back(&mut self) -> u64 {
        let idle = self.idle.min(self.left());
        self.spent += idle;
        self.idle = self.left();
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_used_once_and_a_repeated_grant_grants_nothing() {
        let mut permits = Permits::default();
        assert!(!permits.take());
        permits.grant(2);
        permits.grant(2);
        permits.grant(1);
        assert!(permits.take() && permits.take() && !permits.take());
    }

    #[test]
    fn what_was_not_needed_between_two_calls_goes_back() {
        let mut permits = Permits::default();
        permits.grant(3);
        assert_eq!(permits.give_back(), 0, "they have only just come");
        assert!(permits.take());
        permits.grant(4);
        assert_eq!(permits.give_back(), 2, "one of the three was needed, and the fourth has only just come");
        assert_eq!((permits.left(), permits.give_back(), permits.left()), (1, 1, 0));
        permits.grant(4);
        assert!(!permits.take(), "what was given back is gone");
    }
}
