//! What speaks for and against this machine's network when a call to a miner failed in a way that the network explains.
//!
//! Pure: no clock, no socket. Two kinds of evidence count. A **canary** that worked before and fails at the same time accuses
//! the network; one that works clears it. Where no canary can speak, the share of **strangers** decides: other miners that
//! failed in the same window, against those that were answered.
//!
//! One miner alone never makes its failure an infrastructure fault. Strangers are counted by the network of their address,
//! so that many hotkeys at one address are one stranger, and never the failing miner's own. A canary that fails while
//! strangers are answered is itself the one that is down.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::cycle::Hotkey;

use super::stranger::{Neighbourhood, Who};

/// A moment, since the monitor began.
pub(super) type At = Duration;

/// How far around a failure others are looked at.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// How long after its last success a canary still says something.
const USABLE: Duration = Duration::from_secs(600);

/// The least number of strangers that must have failed, and their least share among those that were heard of.
pub(super) const LEAST: usize = 2;
pub(super) const SHARE: f64 = 0.8;

/// How often a canary is probed so that it is known whether it works from here, and how often when that matters.
const IDLE: Duration = Duration::from_secs(10);
const ALERT: Duration = Duration::from_millis(500);

/// Answers of a miner that are closer together than this are kept as one.
const GRAIN: Duration = Duration::from_millis(100);

/// What is older says nothing any more.
const KEPT: Duration = Duration::from_secs(60);

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: At,
    pub(super) to: At,
}

impl Span {
    fn overlaps(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    fn is_within(self, other: Self) -> bool {
        other.from <= self.from && self.to <= other.to
    }
}

/// What a call failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// The name could not be looked up.
    Lookup,
    /// No connection, or nothing on it.
    Connection,
}

/// A call that failed in a way that a dead network explains.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) who: Who,
    pub(super) span: Span,
    pub(super) manner: Manner,
}

/// Who answers for a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is too early to say.
    Wait,
    /// The miner.
    Miner,
    /// The network of this machine, and the evidence.
    Network(String),
}

#[derive(Debug)]
struct Stranger {
    who: Who,
    in_flight: u32,
    last: At,
    failures: VecDeque<Span>,
    answers: VecDeque<Span>,
}

#[derive(Debug)]
struct Canary {
    name: String,
    is_named: bool,
    /// Whether it stands in a private network: what is beyond that network it knows nothing of.
    is_local: bool,
    probes: VecDeque<(Span, bool)>,
    worked: Option<At>,
}

/// Everything that was seen lately.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    strangers: BTreeMap<Hotkey, Stranger>,
    canaries: Vec<Canary>,
}

/// What the canaries say of a failure.
enum Testimony {
    /// None of them can say anything.
    Nothing,
    /// A probe is on its way.
    Pending,
    /// One works.
    Works,
    /// All that worked before fail: the name of the first, and from when to when it is known to have failed.
    Fails(String, Span),
}

/// The others of a window, by neighbourhood.
#[derive(Debug, Default)]
struct Others {
    failed: usize,
    answered: usize,
    /// Of whom nothing has been heard yet.
    open: usize,
}

impl Evidence {
    /// A call to a miner begins.
    pub(super) fn sent(&mut self, who: &Who, at: At) {
        let stranger = self.stranger(who);
        stranger.in_flight += 1;
        stranger.last = at;
    }

    /// A call that was [`sent`](Self::sent) was answered.
    pub(super) fn answered(&mut self, who: &Who, span: Span) {
        let stranger = self.ended(who, span.to);
        if stranger.answers.back().is_none_or(|last| span.from >= last.from + GRAIN) {
            stranger.answers.push_back(span);
        }
        prune(&mut stranger.answers, span.to, |answer| answer.to);
    }

    /// A call that was [`sent`](Self::sent) failed in a way that a dead network explains.
    pub(super) fn failed(&mut self, who: &Who, span: Span) {
        let stranger = self.ended(who, span.to);
        stranger.failures.push_back(span);
        prune(&mut stranger.failures, span.to, |failure| failure.to);
    }

    /// A call that was [`sent`](Self::sent) ended otherwise, or was given up.
    pub(super) fn ended_otherwise(&mut self, who: &Who, at: At) {
        self.ended(who, at);
    }

    fn ended(&mut self, who: &Who, at: At) -> &mut Stranger {
        let stranger = self.stranger(who);
        stranger.in_flight = stranger.in_flight.saturating_sub(1);
        stranger.last = at;
        stranger
    }

    fn stranger(&mut self, who: &Who) -> &mut Stranger {
        let stranger = self.strangers.entry(who.hotkey.clone()).or_insert_with(|| Stranger {
            who: who.clone(),
            in_flight: 0,
            last: At::ZERO,
            failures: VecDeque::new(),
            answers: VecDeque::new(),
        });
        // It may have moved.
        if stranger.who != *who {
            stranger.who = who.clone();
        }
        stranger
    }

    /// The number of a canary, which is new or known.
    pub(super) fn canary(&mut self, name: &str, is_named: bool) -> usize {
        self.canaries.iter().position(|canary| canary.name == name).unwrap_or_else(|| {
            let name = name.to_owned();
            self.canaries.push(Canary { name, is_named, is_local: false, probes: VecDeque::new(), worked: None });
            self.canaries.len() - 1
        })
    }

    /// A canary was probed.
    pub(super) fn probed(&mut self, canary: usize, span: Span, found: Found) {
        let canary = &mut self.canaries[canary];
        if let Found::Works { is_local } = found {
            canary.is_local = is_local;
            canary.worked = Some(span.to);
        }
        canary.probes.push_back((span, matches!(found, Found::Works { .. })));
        prune(&mut canary.probes, span.to, |(span, _)| span.to);
    }

    /// When a canary is due, which is sooner after it went down and while a verdict is awaited.
    pub(super) fn is_due_at(&self, canary: usize, is_awaited: bool) -> At {
        let canary = &self.canaries[canary];
        let Some((span, works)) = canary.probes.back() else { return At::ZERO };
        let went_down = !works && canary.worked.is_some();
        span.to + if is_awaited || went_down { ALERT } else { IDLE }
    }

    /// Who answers for a failure. From `until` on it is never too early.
    pub(super) fn judge(&self, failure: &Failure, now: At, until: At) -> Verdict {
        let is_last = now >= until;
        let others = self.others(failure, now, is_last);
        match self.testimony(failure) {
            Testimony::Works => return Verdict::Miner,
            Testimony::Pending if !is_last => return Verdict::Wait,
            Testimony::Fails(name, run) if !self.contradicts(failure, run) => {
                // Time for those who are answered all the same to contradict it.
                if !is_last && 2 * others.failed < others.known() + others.open {
                    return Verdict::Wait;
                }
                return Verdict::Network(format!("the canary {name} failed at the same time"));
            }
            _ => {}
        }
        others.judge(is_last)
    }

    fn testimony(&self, failure: &Failure) -> Testimony {
        let (mut fails, mut pending) = (None, false);
        for canary in &self.canaries {
            match canary.says(failure) {
                Testimony::Nothing => {}
                Testimony::Works => return Testimony::Works,
                Testimony::Pending => pending = true,
                found @ Testimony::Fails(..) => fails = fails.or(Some(found)),
            }
        }
        match fails {
            _ if pending => Testimony::Pending,
            Some(fails) => fails,
            None => Testimony::Nothing,
        }
    }

    /// Whether another miner was answered in the midst of `run`, in which a canary failed.
    fn contradicts(&self, failure: &Failure, run: Span) -> bool {
        let answered = |stranger: &Stranger| stranger.answers.iter().any(|answer| answer.is_within(run));
        self.strangers.values().any(|stranger| stranger.who.can_clear(&failure.who) && answered(stranger))
    }

    fn others(&self, failure: &Failure, now: At, is_last: bool) -> Others {
        let window = Span { from: failure.span.from.saturating_sub(WINDOW), to: failure.span.to + WINDOW };
        let others = || self.strangers.values().filter(|stranger| stranger.who.is_other_than(&failure.who));
        let has_failed = |stranger: &Stranger| stranger.failures.iter().any(|failed| failed.overlaps(window));
        let ends = others().flat_map(|stranger| &stranger.failures).filter(|failed| failed.overlaps(window));
        let first_end = ends.map(|failed| failed.to).min().unwrap_or(failure.span.to).min(failure.span.to);
        // Only the answer to a question that was asked when somebody had failed already says something. As long as others may
        // still fail, it must have been asked when this one had.
        let after = Span { from: if is_last { first_end } else { failure.span.to }, to: window.to };
        let knows_names = |stranger: &Stranger| failure.manner == Manner::Connection || stranger.who.is_named;
        let counts = |stranger: &Stranger| stranger.who.can_clear(&failure.who) && knows_names(stranger);
        let (mut failed, mut answered, mut open) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for stranger in others() {
            let at: &Neighbourhood = &stranger.who.at;
            if has_failed(stranger) {
                failed.insert(at);
            } else if counts(stranger) && stranger.answers.iter().any(|answer| answer.is_within(after)) {
                answered.insert(at);
            } else if !counts(stranger) {
                // Whether it is answered says nothing.
            } else if stranger.in_flight > 0 || stranger.last + WINDOW >= now.min(failure.span.to) {
                open.insert(at);
            }
        }
        failed.retain(|at| !answered.contains(at));
        open.retain(|at| !answered.contains(at) && !failed.contains(at));
        Others { failed: failed.len(), answered: answered.len(), open: open.len() }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It answers.
    Works {
        /// From a private network.
        is_local: bool,
    },
    /// It does not.
    Fails,
}

impl Canary {
    /// What it says of a failure: whether it was down during it, from a failed probe until the next one is answered, or at
    /// the first probe after it.
    fn says(&self, failure: &Failure) -> Testimony {
        let span = failure.span;
        let after = self.probes.iter().find(|(probe, _)| probe.from >= span.to);
        let nexts = self.probes.iter().skip(1).map(|(probe, _)| probe.to).chain([At::MAX]);
        let down = self
            .probes
            .iter()
            .zip(nexts)
            .filter(|((probe, works), next)| !works && Span { from: probe.from, to: *next }.overlaps(span));
        let failed = down.map(|(probe, _)| probe).chain(after.filter(|(_, works)| !works)).next();
        let has_worked = |until: At| self.probes.iter().any(|(probe, works)| *works && probe.to <= until);
        match failed {
            Some((probe, _)) if has_worked(probe.to) || self.worked_lately(probe.to) => self.run(*probe),
            Some(_) => Testimony::Nothing,
            None if self.worked.is_none() && !self.probes.is_empty() => Testimony::Nothing,
            None if after.is_none() => Testimony::Pending,
            None if self.speaks_for(failure) => Testimony::Works,
            None => Testimony::Nothing,
        }
    }

    fn worked_lately(&self, at: At) -> bool {
        self.worked.is_some_and(|worked| worked <= at && at - worked <= USABLE)
    }

    /// Whether its success clears the network for this miner.
    fn speaks_for(&self, failure: &Failure) -> bool {
        let knows_names = self.is_named || failure.manner == Manner::Connection;
        knows_names && (!self.is_local || failure.who.at.is_local())
    }

    /// The failed probes in a row of which this is one: the network was down from the end of the first, which had failed by
    /// then, to the start of the last, which had not begun to work.
    fn run(&self, probe: Span) -> Testimony {
        let at = self.probes.iter().position(|(span, _)| *span == probe).unwrap_or_default();
        let failed = |probe: &&(Span, bool)| !probe.1;
        let first = self.probes.iter().take(at + 1).rev().take_while(failed).last();
        let last = self.probes.iter().skip(at).take_while(failed).last();
        let run = first.zip(last).map_or(probe, |(first, last)| Span { from: first.0.to, to: last.0.from });
        Testimony::Fails(self.name.clone(), run)
    }
}

impl Others {
    /// Neighbourhoods that were heard of.
    fn known(&self) -> usize {
        self.failed + self.answered
    }

    fn judge(&self, is_last: bool) -> Verdict {
        let share = |whole: usize| if whole == 0 { 0.0 } else { self.failed as f64 / whole as f64 };
        let most = self.failed + self.open;
        let can_reach = most >= LEAST && most as f64 >= SHARE * (most + self.answered) as f64;
        let sure = share(self.known() + self.open) >= SHARE || is_last && share(self.known()) >= SHARE;
        if self.failed >= LEAST && sure {
            let (failed, known, seconds) = (self.failed, self.known(), WINDOW.as_secs());
            return Verdict::Network(format!(
                "{failed} of {known} other miners failed the same way within {seconds} s"
            ));
        }
        if is_last || !can_reach { Verdict::Miner } else { Verdict::Wait }
    }
}

fn prune<T>(kept: &mut VecDeque<T>, now: At, end: impl Fn(&T) -> At) {
    while kept.front().is_some_and(|first| end(first) + KEPT < now) {
        kept.pop_front();
    }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
