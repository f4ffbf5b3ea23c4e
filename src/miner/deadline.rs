//! The one deadline of a call: from the last byte of its first request to the last byte of its answer. No clock is read here but
//! to begin; moments come from whoever saw them.

use std::time::{Duration, Instant};

use crate::host::Stalls;

/// Stalls of this process that are shorter than this, in all, excuse nothing.
const SHORTEST_EXCUSE: Duration = Duration::from_millis(10);

/// Nor do those that took less than this part of the time that a call has.
const EXCUSE_SHARE: u32 = 20;

/// A deadline that runs.
#[derive(Debug)]
pub(super) struct Deadline {
    allowed: Duration,
    /// How long a miner may take to take a request.
    patience: Duration,
    /// When the call began.
    began: Instant,
    /// When the try that is being made began.
    try_began: Instant,
    /// When the last byte of the first request was taken.
    sent: Option<Instant>,
    /// What is added since this process was stalled: to tell an answer that comes a little late from one that does not come.
    extension: Duration,
}

/// What it means that the deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// This process was stalled meanwhile: there is more time, once.
    Extended,
    /// This process was stalled for so long that the answer cannot be judged.
    Stalled(Duration),
    /// Not one byte came.
    Silent,
    /// Some bytes came, or all of them too late.
    Late,
    /// The request was not taken.
    NotTaken,
}

impl Deadline {
    pub(super) fn new(allowed: Duration, patience: Duration) -> Self {
        let now = Instant::now();
        Self { allowed, patience, began: now, try_began: now, sent: None, extension: Duration::ZERO }
    }

    /// A connection is about to be used.
    pub(super) fn try_begins(&mut self) {
        self.try_began = Instant::now();
    }

    /// The last byte of a request was taken. Only the first counts.
    pub(super) fn note_sent(&mut self, sent: Option<Instant>) {
        self.sent = self.sent.or(sent);
    }

    /// When the answer must have come, once a request was sent.
    pub(super) fn ends(&self) -> Option<Instant> {
        Some(self.sent? + self.allowed + self.extension)
    }

    /// When to look for the first time whether a request was sent and answered. It is seldom noted as sent before.
    pub(super) fn first_look(&self) -> Instant {
        self.ends().unwrap_or(self.try_began + self.patience.min(self.allowed))
    }

    /// When the try is over.
    pub(super) fn last_look(&self) -> Instant {
        self.ends().unwrap_or(self.try_began + self.patience)
    }

    /// The time is over, and there is no answer.
    pub(super) fn passed(&mut self, now: Instant, stalls: &Stalls, has_arrived: bool) -> Passed {
        let Some(sent) = self.sent else { return Passed::NotTaken };
        if let Some(lost) = self.excuse(stalls, sent, now).filter(|_| self.extension.is_zero()) {
            self.extension = self.allowed + lost;
            return Passed::Extended;
        }
        if has_arrived { Passed::Late } else { Passed::Silent }
    }

    /// The latency of an answer whose last byte came at `came`, if that was in time.
    pub(super) fn judge(&self, came: Instant, stalls: &Stalls) -> Result<Duration, Passed> {
        // An answer may come before all of the request was taken.
        let latency = self.sent.map_or(Duration::ZERO, |sent| came.saturating_duration_since(sent));
        if latency <= self.allowed {
            return Ok(latency);
        }
        let excuse = self.sent.and_then(|sent| self.excuse(stalls, sent, came));
        Err(excuse.map_or(Passed::Late, Passed::Stalled))
    }

    /// How long the call took, dialling included.
    pub(super) fn wall(&self, came: Instant) -> Duration {
        came.saturating_duration_since(self.began)
    }

    /// How long this process was stalled, if that was long enough to matter.
    fn excuse(&self, stalls: &Stalls, sent: Instant, until: Instant) -> Option<Duration> {
        let lost = stalls.within(sent, until);
        (lost >= SHORTEST_EXCUSE.max(self.allowed / EXCUSE_SHARE)).then_some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn sent(allowed: u64) -> (Deadline, Instant) {
        let mut deadline = Deadline::new(ms(allowed), ms(2000));
        let sent = deadline.began + ms(30);
        deadline.note_sent(Some(sent));
        (deadline, sent)
    }

    #[test]
    fn the_first_request_starts_the_clock_and_a_second_one_does_not_restart_it() {
        let (mut deadline, sent) = sent(100);
        deadline.try_begins();
        deadline.note_sent(Some(sent + ms(80)));
        assert_eq!(deadline.ends(), Some(sent + ms(100)));
        let stalls = Stalls::default();
        assert_eq!(deadline.judge(sent + ms(100), &stalls), Ok(ms(100)));
        assert_eq!(deadline.judge(sent + ms(101), &stalls), Err(Passed::Late));
        assert_eq!(deadline.wall(sent + ms(50)), ms(80), "what it took to connect counts");
    }

    #[test]
    fn a_request_that_nobody_takes_has_as_long_as_a_connection() {
        let mut deadline = Deadline::new(ms(100), ms(2000));
        assert_eq!(deadline.first_look(), deadline.try_began + ms(100));
        assert_eq!(deadline.last_look(), deadline.try_began + ms(2000));
        assert_eq!(deadline.passed(Instant::now(), &Stalls::default(), false), Passed::NotTaken);
    }

    #[test]
    fn silence_and_a_late_answer_are_told_apart() {
        let (mut deadline, sent) = sent(100);
        assert_eq!(deadline.passed(sent + ms(100), &Stalls::default(), false), Passed::Silent);
        assert_eq!(deadline.passed(sent + ms(100), &Stalls::default(), true), Passed::Late);
    }

    #[test]
    fn a_stall_extends_the_deadline_once_and_what_comes_then_is_not_judged() {
        let (mut deadline, sent) = sent(100);
        let stalls = Stalls::stalled(sent + ms(40), sent + ms(90));
        assert_eq!(deadline.passed(sent + ms(100), &stalls, false), Passed::Extended);
        assert_eq!(deadline.ends(), Some(sent + ms(250)));
        assert_eq!(deadline.judge(sent + ms(99), &stalls), Ok(ms(99)), "in time is in time");
        assert_eq!(deadline.judge(sent + ms(120), &stalls), Err(Passed::Stalled(ms(50))));
        assert_eq!(deadline.passed(sent + ms(250), &stalls, false), Passed::Silent, "no answer at all is the miner's");
    }

    #[test]
    fn a_short_stall_excuses_nothing() {
        let (mut deadline, sent) = sent(100);
        let stalls = Stalls::stalled(sent + ms(40), sent + ms(49));
        assert_eq!(deadline.passed(sent + ms(100), &stalls, true), Passed::Late);
        let (mut long, sent) = super::tests::sent(10_000);
        let stalls = Stalls::stalled(sent + ms(40), sent + ms(500));
        assert_eq!(long.passed(sent + ms(10_000), &stalls, true), Passed::Late);
    }
}
