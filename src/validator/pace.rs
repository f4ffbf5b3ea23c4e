//! When something is done again: the next weights by the chain's blocks, the next try after a failure by the clock, and how
//! long may pass without success. Pure but for a little chance, so that many validators do not ask at the same moment.

use std::time::{Duration, Instant};

use crate::chain::Subnet;

/// The first and the longest pause after failures.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(120);
/// By how much a pause may be longer or shorter.
const JITTER: f64 = 0.2;

/// An epoch as most subnets have it, for as long as the chain has not been read.
const USUAL: Duration = Duration::from_secs(360 * 12);

/// How often weights are set anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// Once an epoch.
    EachTempo,
    /// Every so often.
    Every(Duration),
}

impl Cadence {
    /// The blocks from one submission to the next: never fewer than the chain allows, and at least one.
    pub fn blocks(self, subnet: &Subnet) -> u64 {
        let wanted = match self {
            Self::EachTempo => u64::from(subnet.rules.tempo),
            Self::Every(span) => (span.as_secs_f64() / subnet.block_time.as_secs_f64().max(0.001)).round() as u64,
        };
        wanted.max(subnet.rules.rate_limit).max(1)
    }

    /// The block from which on weights are to be set. The chain itself remembers when they last were: a restart changes
    /// nothing.
    pub fn due(self, subnet: &Subnet) -> u64 {
        let last = subnet.seat.as_ref().map_or(0, |seat| seat.last_update);
        if last == 0 { subnet.block } else { last + self.blocks(subnet) }
    }
}

/// The pause after so many failures in a row, with none the usual one.
pub(super) fn pause(usual: Duration, failures: u32) -> Duration {
    let doubled = FIRST * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let pause = if failures == 0 { usual } else { doubled.min(LONGEST).min(usual.max(FIRST)) };
    pause.mul_f64(rand::random_range(1.0 - JITTER..=1.0 + JITTER))
}

/// Whether success is overdue.
#[derive(Debug)]
pub struct Watchdog {
    /// Submissions that may be missed.
    missed: u32,
    /// When it was last known that all was well, by the clock and on the chain.
    well_at: (Instant, Option<u64>),
    /// How long one submission is from the next.
    period: Option<Duration>,
    overdue: bool,
}

impl Watchdog {
    /// One that barks after so many periods without success.
    pub fn new(missed: u32, now: Instant) -> Self {
        Self { missed, well_at: (now, None), period: None, overdue: false }
    }

    /// The chain was read: what it says of the last weights is what counts, whoever set them.
    pub fn saw(&mut self, subnet: &Subnet, cadence: Cadence, now: Instant) {
        let blocks = cadence.blocks(subnet);
        self.period = Some(subnet.block_time * u32::try_from(blocks).unwrap_or(u32::MAX));
        let last = subnet.seat.as_ref().map_or(0, |seat| seat.last_update);
        let since = match self.well_at.1 {
            Some(before) => before.max(last),
            // What was before this program began is not its failure.
            None => subnet.block,
        };
        let age = subnet.block.saturating_sub(since);
        // The same moment by the clock, for when the chain cannot be read.
        let ago = subnet.block_time * u32::try_from(age).unwrap_or(u32::MAX);
        self.well_at = (now.checked_sub(ago).unwrap_or(now), Some(since));
        self.overdue = age > blocks.saturating_mul(u64::from(self.missed));
    }

    /// Weights were set.
    pub fn succeeded(&mut self, block: u64, now: Instant) {
        self.well_at = (now, Some(block));
        self.overdue = false;
    }

    /// Whether all is well; without the chain, by the clock.
    pub fn is_well(&self, now: Instant) -> bool {
        let span = self.period.unwrap_or(USUAL);
        !self.overdue && now.saturating_duration_since(self.well_at.0) <= span.saturating_mul(self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::example;

    fn subnet(block: u64, last_update: u64) -> Subnet {
        let mut subnet = example::subnet(block, &[("owner", 0), ("validator", 0)]);
        subnet.seat.as_mut().unwrap().last_update = last_update;
        subnet
    }

    #[test]
    fn weights_are_due_once_a_tempo_after_the_last() {
        let tempo = Cadence::EachTempo;
        assert_eq!((tempo.due(&subnet(1000, 0)), tempo.due(&subnet(1000, 900))), (1000, 1260));
        let half_an_hour = Cadence::Every(Duration::from_secs(1800));
        assert_eq!(half_an_hour.due(&subnet(1000, 900)), 1050);
        // Never sooner than the chain takes them.
        assert_eq!(Cadence::Every(Duration::from_secs(60)).due(&subnet(1000, 900)), 1000);
        let mut odd = subnet(1000, 900);
        (odd.rules.tempo, odd.rules.rate_limit) = (0, 0);
        assert_eq!(tempo.due(&odd), 901);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let minute = Duration::from_secs(60);
        let seconds = |failures| pause(minute, failures).as_secs_f64();
        assert!((48.0..=72.0).contains(&seconds(0)) && (1.6..=2.4).contains(&seconds(1)));
        assert!((6.4..=9.6).contains(&seconds(3)) && (48.0..=72.0).contains(&seconds(1000)));
        assert!(pause(Duration::from_millis(1), 50).as_secs_f64() <= 2.4);
        let hour = Duration::from_secs(3600);
        assert!(pause(hour, 1000) <= LONGEST.mul_f64(1.0 + JITTER));
    }

    #[test]
    fn the_watchdog_counts_blocks_and_without_a_chain_seconds() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(3, start);
        // Nothing is known of the chain yet.
        assert!(watchdog.is_well(start + 3 * USUAL) && !watchdog.is_well(start + 3 * USUAL + Duration::from_secs(1)));
        watchdog.saw(&subnet(1000, 10), Cadence::EachTempo, start);
        watchdog.saw(&subnet(1000 + 3 * 360, 10), Cadence::EachTempo, start);
        assert!(watchdog.is_well(start));
        watchdog.saw(&subnet(1001 + 3 * 360, 10), Cadence::EachTempo, start);
        assert!(!watchdog.is_well(start));
        watchdog.saw(&subnet(1002 + 3 * 360, 1001 + 3 * 360), Cadence::EachTempo, start);
        assert!(watchdog.is_well(start), "weights were set, whoever did it");
        let tempo = Duration::from_secs(360 * 12);
        watchdog.succeeded(3000, start);
        assert!(watchdog.is_well(start + 3 * tempo) && !watchdog.is_well(start + 3 * tempo + Duration::from_secs(1)));
    }
}
