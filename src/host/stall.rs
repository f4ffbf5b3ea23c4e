//! When this process did not get the processor: a task that wakes up every few milliseconds and notes how late it was.
//!
//! It runs on the runtime whose delays matter, so a busy event loop, a starved process and a paused machine look alike. Nothing is
//! decided here: whoever judges a deadline asks how much of its time was lost.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How often the process looks at the clock.
const PERIOD: Duration = Duration::from_millis(5);

/// A delay up to this is that of any timer.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Stalls older than this matter to no deadline any more.
const KEPT: Duration = Duration::from_secs(120);

/// The stalls of this process.
#[derive(Debug, Default)]
pub struct Stalls(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    /// When the watching task ran last. None while nothing watches.
    looked: Option<Instant>,
    /// Begin and end, oldest first.
    stalls: VecDeque<(Instant, Instant)>,
    total: Duration,
}

impl Stalls {
    /// Watch the clock for as long as the future is polled.
    pub async fn watch(&self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.lock().look(Instant::now());
        }
    }

    /// How much of the time from `begin` to `end` the process was stalled. A stall that has not ended yet counts.
    pub fn within(&self, begin: Instant, end: Instant) -> Duration {
        self.lock().within(begin, end)
    }

    /// All stalls so far.
    pub fn total(&self) -> Duration {
        self.lock().total
    }

    /// A process that was stalled once.
    #[cfg(test)]
    pub(crate) fn stalled(from: Instant, to: Instant) -> Self {
        let record = Record { looked: None, stalls: [(from, to)].into(), total: to - from };
        Self(Mutex::new(record))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Nothing between lock and unlock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// The watching task runs.
    fn look(&mut self, now: Instant) {
        if let Some(stall) = self.looked.replace(now).and_then(|looked| stall(looked, now)) {
            self.total += stall.1 - stall.0;
            self.stalls.push_back(stall);
        }
        while self.stalls.front().is_some_and(|(_, end)| now.saturating_duration_since(*end) > KEPT) {
            self.stalls.pop_front();
        }
    }

    fn within(&self, begin: Instant, end: Instant) -> Duration {
        let open = self.looked.and_then(|looked| stall(looked, end));
        let stalls = self.stalls.iter().copied().chain(open);
        stalls.map(|(from, to)| to.min(end).saturating_duration_since(from.max(begin))).sum()
    }
}

/// The stall between two looks at the clock, if there was one.
fn stall(looked: Instant, now: Instant) -> Option<(Instant, Instant)> {
    let due = looked + PERIOD;
    (now.saturating_duration_since(due) > TOLERANCE).then_some((due, now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_late_look_is_a_stall_and_a_punctual_one_is_not() {
        let start = Instant::now();
        let mut record = Record::default();
        for look in [0, 5, 11, 80, 85] {
            record.look(start + ms(look));
        }
        assert_eq!(record.total, ms(64), "from 16 ms, when it was due, to 80 ms");
        assert_eq!(record.within(start, start + ms(85)), ms(64));
        assert_eq!(record.within(start + ms(20), start + ms(50)), ms(30), "the part that overlaps");
        assert_eq!(record.within(start + ms(80), start + ms(90)), ms(0));
    }

    #[test]
    fn a_stall_that_goes_on_counts() {
        let start = Instant::now();
        let mut record = Record::default();
        record.look(start);
        assert_eq!(record.within(start, start + ms(105)), ms(100));
        assert_eq!(record.within(start, start + ms(9)), ms(0));
    }

    #[test]
    fn nothing_is_known_before_somebody_watches() {
        let start = Instant::now();
        assert_eq!(Record::default().within(start, start + ms(1000)), ms(0));
    }

    proptest! {
        #[test]
        fn stalls_never_exceed_the_time_that_passed(looks in proptest::collection::vec(0u64..200, 1..50), from in 0u64..500, length in 0u64..500) {
            let start = Instant::now();
            let (mut record, mut now) = (Record::default(), start);
            for look in looks {
                now += ms(look);
                record.look(now);
            }
            prop_assert!(record.total <= now - start);
            let (from, to) = (start + ms(from), start + ms(from + length));
            prop_assert!(record.within(from, to) <= to - from);
        }
    }
}
