//! Which infrastructure faults are a miner's failures: those that keep returning for this miner alone, at seeds that the
//! other miners could play.
//!
//! A miner can answer in a way that breaks the simulator or a third-party server, and such an episode ends in an
//! infrastructure fault without a known cause. If it stayed missing, a miner could choose which of its episodes count. The
//! decision is pure and uses only the rows of one task, so a resumed cycle decides the same.
//!
//! Evidence, in this order:
//! 1. The fault is one that answers can cause. A fault of the network or of a machine never blames a miner.
//! 2. Most of the other miners ended an episode at the same seed. A seed that fails for most miners stays missing.
//! 3. The other miners' faults at such seeds do not explain the number of this miner's: its probability is below
//!    [`CHANCE`]. A lone miner has no others, so nothing blames it.

use std::collections::{BTreeMap, BTreeSet};

use super::{EnvironmentId, Episode, Hotkey, InfraFault, MinerFault, Outcome, PendingEpisode};

/// A number of faults that is less probable than this is not chance.
const CHANCE: f64 = 1e-4;

/// The share of attempts that is assumed to fail without a known cause where other miners saw fewer faults.
const RARE: f64 = 0.01;

/// How the last attempt at an episode failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFault {
    /// The reason.
    pub fault: InfraFault,
    /// Steps the simulator took.
    pub steps: u32,
    /// What exactly went wrong.
    pub detail: Option<String>,
}

impl LastFault {
    /// Whether a miner's answers can be the cause.
    pub fn may_be_caused(&self) -> bool {
        use InfraFault::*;
        matches!(self.fault, SimulatorError | SimulatorTimeout | ServerLost | OutOfMemory)
    }

    /// Whether the environment server survived and reported the fault. A server that is lost loses the episodes of a moment,
    /// whoever plays them; such a fault needs all attempts before it says anything about a miner.
    fn is_reported(&self) -> bool {
        match self.fault {
            InfraFault::SimulatorError | InfraFault::SimulatorTimeout => true,
            // A worker that died in the middle of an episode.
            InfraFault::ServerLost | InfraFault::OutOfMemory => self.steps > 0,
            _ => false,
        }
    }
}

/// What blames a miner for an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Failed attempts at the episode.
    pub attempts: u32,
    /// Other miners that ended an episode at the same seed.
    pub played: u32,
    /// Other miners that tried to.
    pub others: u32,
}

/// An episode as its row tells it.
#[derive(Debug)]
enum Row<'a> {
    /// Success or failure: the seed could be played.
    Played,
    /// The miner's known fault: says nothing about the simulator.
    Known,
    /// Counted as unexplained before.
    Blamed,
    /// Without a scored outcome.
    Open(&'a PendingEpisode),
}

impl Row<'_> {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Whether its miner may be the cause, when the episode has used up its attempts or before.
    fn is_suspect(&self, is_used_up: bool) -> bool {
        match self {
            Self::Open(PendingEpisode { last: Some(last), .. }) => {
                last.may_be_caused() && (is_used_up || last.is_reported())
            }
            Self::Blamed => true,
            _ => false,
        }
    }
}

/// The rows of one miner, by seed index, with the number of attempts that failed.
type Rows<'a> = BTreeMap<u32, (u32, Row<'a>)>;

/// The episodes of an environment that count as their miner's failures.
///
/// `scored` and `pending` are the rows of all miners; rows of other environments are ignored. An episode without an attempt
/// left is judged by all its attempts; one that still has attempts is judged when its miner's faults are too many already,
/// so that a miner cannot use such faults to play its episodes again.
pub fn unexplained(
    environment: &EnvironmentId,
    scored: &[Episode],
    pending: &[PendingEpisode],
    attempts: u32,
) -> BTreeMap<(Hotkey, u32), Evidence> {
    let mut miners: BTreeMap<&Hotkey, Rows<'_>> = BTreeMap::new();
    for episode in scored.iter().filter(|episode| episode.key.environment == *environment) {
        let row = match episode.report.outcome {
            Outcome::Success | Outcome::Failure => Row::Played,
            Outcome::MinerFault(MinerFault::Unexplained) => Row::Blamed,
            _ => Row::Known,
        };
        let rows = miners.entry(&episode.key.hotkey).or_default();
        rows.insert(episode.key.seed_index, (episode.attempt.saturating_sub(1), row));
    }
    for episode in pending.iter().filter(|episode| episode.key.environment == *environment) {
        let rows = miners.entry(&episode.key.hotkey).or_default();
        rows.insert(episode.key.seed_index, (episode.counted, Row::Open(episode)));
    }
    let seeds = Seeds::of(&miners);
    let mut verdicts = BTreeMap::new();
    for (hotkey, rows) in &miners {
        for seed_index in blamed(hotkey, rows, &miners, (&seeds, attempts.max(1))) {
            let (played, others) = seeds.beside(rows, seed_index);
            let attempts = rows.get(&seed_index).map_or(0, |(faults, _)| *faults);
            verdicts.insert(((*hotkey).clone(), seed_index), Evidence { attempts, played, others });
        }
    }
    verdicts
}

/// Seeds at which a miner's open episodes are its failures.
fn blamed(
    hotkey: &Hotkey,
    rows: &Rows<'_>,
    miners: &BTreeMap<&Hotkey, Rows<'_>>,
    (seeds, attempts): (&Seeds, u32),
) -> BTreeSet<u32> {
    if !rows.values().any(|(failures, row)| row.is_open() && row.is_suspect(*failures >= attempts)) {
        return BTreeSet::new();
    }
    // A seed that most of the others could not play is broken: it says nothing about anybody.
    let playable: BTreeSet<u32> = rows.keys().copied().filter(|seed| seeds.is_playable(rows, *seed)).collect();
    let others: Vec<Faults> = miners
        .iter()
        .filter(|(other, _)| **other != hotkey)
        .map(|(_, rows)| Faults::at(rows, &playable, attempts))
        .collect();
    let usual_rate = lower_median(others.iter().map(Faults::rate)).unwrap_or(0.0).max(RARE);
    let mut found = BTreeSet::new();
    for times in 1..=attempts {
        let suspects: Vec<(u32, &Row<'_>)> = playable
            .iter()
            .filter_map(|seed| rows.get(seed).map(|(failures, row)| (*seed, *failures, row)))
            .filter(|(_, failures, row)| *failures >= times && row.is_suspect(times == attempts))
            .map(|(seed, _, row)| (seed, row))
            .collect();
        let usual_share = lower_median(others.iter().map(|faults| faults.share(times))).unwrap_or(0.0);
        let expected = usual_share.max(usual_rate.powf(f64::from(times)));
        if !suspects.is_empty() && tail(playable.len(), suspects.len(), expected) < CHANCE {
            found.extend(suspects.into_iter().filter(|(_, row)| row.is_open()).map(|(seed, _)| seed));
        }
    }
    found
}

/// By seed index: miners that ended an episode there, and miners whose episode there is open or unexplained.
struct Seeds(BTreeMap<u32, (u32, u32)>);

impl Seeds {
    fn of(miners: &BTreeMap<&Hotkey, Rows<'_>>) -> Self {
        let mut seeds: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for (seed, (_, row)) in miners.values().flatten() {
            let (played, not_played) = seeds.entry(*seed).or_default();
            match row {
                Row::Played => *played += 1,
                Row::Open(_) | Row::Blamed => *not_played += 1,
                Row::Known => {}
            }
        }
        Self(seeds)
    }

    /// How many of the miners other than the one with these rows ended an episode at a seed, and how many there are.
    fn beside(&self, rows: &Rows<'_>, seed: u32) -> (u32, u32) {
        let (played, not_played) = self.0.get(&seed).copied().unwrap_or_default();
        match rows.get(&seed) {
            Some((_, Row::Played)) => (played - 1, played + not_played - 1),
            Some((_, Row::Open(_) | Row::Blamed)) => (played, played + not_played - 1),
            Some((_, Row::Known)) | None => (played, played + not_played),
        }
    }

    fn is_playable(&self, rows: &Rows<'_>, seed: u32) -> bool {
        let (played, others) = self.beside(rows, seed);
        2 * played > others
    }
}

/// The faults of one miner at some seeds.
struct Faults {
    attempts: u32,
    failed: u32,
    /// Episodes without an outcome that failed at least once, at least twice and so on.
    open: Vec<u32>,
    episodes: usize,
}

impl Faults {
    fn at(rows: &Rows<'_>, seeds: &BTreeSet<u32>, limit: u32) -> Self {
        let mut faults = Self { attempts: 0, failed: 0, open: vec![0; limit as usize], episodes: seeds.len() };
        for (failures, row) in seeds.iter().filter_map(|seed| rows.get(seed)) {
            faults.failed += failures;
            faults.attempts += failures + u32::from(matches!(row, Row::Played | Row::Known));
            if matches!(row, Row::Open(_) | Row::Blamed) {
                faults.open.iter_mut().take(*failures as usize).for_each(|count| *count += 1);
            }
        }
        faults
    }

    /// The share of its attempts that failed.
    fn rate(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.attempts.max(1))
    }

    /// The share of its episodes that have no outcome after so many attempts.
    fn share(&self, times: u32) -> f64 {
        let open = self.open.get(times as usize - 1).copied().unwrap_or(0);
        f64::from(open) / self.episodes.max(1) as f64
    }
}

/// The middle value, the smaller of the two middle ones of an even number. A minority of miners cannot raise it at will.
fn lower_median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// How probable it is that at least `least` of `count` independent events happen, each of probability `each`.
fn tail(count: usize, least: usize, each: f64) -> f64 {
    if least == 0 || each >= 1.0 {
        return 1.0;
    }
    if least > count || each <= 0.0 {
        return 0.0;
    }
    // The first term by logarithms, every further one by its ratio to the one before.
    let choices: f64 = (1..=least).map(|k| (((count - least + k) as f64) / k as f64).ln()).sum();
    let mut term = (choices + least as f64 * each.ln() + (count - least) as f64 * (1.0 - each).ln()).exp();
    let mut total = 0.0;
    for k in least..=count {
        total += term;
        term *= (count - k) as f64 / (k + 1) as f64 * each / (1.0 - each);
    }
    total.min(1.0)
}

#[cfg(test)]
#[path = "unexplained_tests.rs"]
pub(crate) mod tests;
