//! How much a client may ask for: a bucket for each, filled at a steady rate (the generic cell rate algorithm: one moment for each
//! client, before which it has nothing left).
//!
//! Memory is bounded: of more clients than fit, those who have been quiet the longest are forgotten, and have a full bucket when
//! they come back.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

/// Clients that are remembered: some megabytes.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// The buckets of all clients.
#[derive(Debug)]
pub(super) struct Rate {
    /// From one request to the next.
    pace: Duration,
    /// How far a client may be ahead of its pace.
    ahead: Duration,
    /// When each would be, had it kept to its pace.
    clients: Mutex<LruCache<IpAddr, Instant>>,
}

impl Rate {
    /// So many requests a second, so many at once; none when there is no limit.
    pub(super) fn new(a_second: u32, at_once: u32) -> Option<Self> {
        Self::of(a_second, at_once, CLIENTS)
    }

    fn of(a_second: u32, at_once: u32, clients: NonZeroUsize) -> Option<Self> {
        let pace = Duration::from_secs(1).checked_div(a_second)?;
        // Not so many paces: of a rate above what a nanosecond can tell apart they would come to nothing.
        let ahead = Duration::from_secs(at_once.saturating_sub(1).into()) / a_second;
        Some(Self { pace, ahead, clients: Mutex::new(LruCache::new(clients)) })
    }

    /// Count a request.
    ///
    /// # Errors
    /// For how long there is nothing for this client; the request is not counted.
    pub(super) fn count(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let next = clients.get_or_insert_mut(client, || now);
        let earliest = (*next).max(now);
        let early = earliest - now;
        if early > self.ahead {
            return Err(early - self.ahead);
        }
        *next = earliest + self.pace;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_pace() {
        let (rate, start) = (Rate::new(10, 5).unwrap(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for _ in 0..5 {
            assert_eq!(rate.count(address(1), start), Ok(()));
        }
        assert_eq!(rate.count(address(1), start), Err(Duration::from_millis(100)));
        assert_eq!(rate.count(address(2), start), Ok(()), "another has its own");
        assert_eq!(rate.count(address(1), at(99)), Err(Duration::from_millis(1)));
        assert_eq!(rate.count(address(1), at(100)), Ok(()));
        assert!(rate.count(address(1), at(100)).is_err());
        // After a rest the bucket is full, and not fuller.
        let passed = (0..20).filter(|_| rate.count(address(1), at(10_000)).is_ok()).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn a_rate_beyond_the_clock_has_its_burst_all_the_same() {
        let (rate, start) = (Rate::new(u32::MAX, u32::MAX).unwrap(), Instant::now());
        rate.count(address(1), start + Duration::from_micros(1)).unwrap();
        assert_eq!(rate.count(address(1), start), Ok(()), "threads read the clock in any order");
    }

    #[test]
    fn no_limit_is_no_limit() {
        assert!(Rate::new(0, 5).is_none());
    }

    #[test]
    fn memory_has_a_bound_and_the_quietest_are_forgotten() {
        let rate = Rate::of(1, 1, NonZeroUsize::new(2).unwrap()).unwrap();
        let now = Instant::now();
        for last in [1, 2, 1, 3] {
            let _ = rate.count(address(last), now);
        }
        assert_eq!(rate.clients.lock().unwrap().len(), 2);
        assert!(rate.count(address(1), now).is_err(), "still known");
        assert!(rate.count(address(2), now).is_ok(), "forgotten");
    }
}
