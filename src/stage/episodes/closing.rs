//! Miners that keep a third-party server so busy that the stage would run out of time.
//!
//! Such a server drives its own calls to miners, so nothing here can measure how long a miner keeps it waiting. What can be
//! measured is how long its episodes take. After three quarters of the stage's time-out, a miner is out of budget when its
//! episodes have taken more than [`FACTOR`] times as long as all episodes of the typical miner that is done. The last quarter
//! is for the other miners.
//!
//! A server that is slow for everybody blames nobody: most miners must be done before any miner is out of budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Work, not_played};
use crate::cycle::{EnvironmentId, Episode, Hotkey, Journal, MinerFault, Outcome, PendingEpisode};
use crate::stage::Error;

/// How much longer than the typical miner a miner may take.
const FACTOR: u32 = 2;

impl<J: Journal> Work<'_, J> {
    /// Record the pending episodes of miners that are out of budget, and give back the others.
    pub(super) async fn close(&mut self, pending: Vec<PendingEpisode>) -> Result<Vec<PendingEpisode>, Error> {
        if pending.is_empty() || self.closes.is_none_or(|closes| Instant::now() < closes) {
            return Ok(pending);
        }
        let scored = self.context.journal.scored_episodes(self.context.lease.cycle).await?;
        let over = over_budget(&self.settings.environment, &scored, &pending, &self.spent);
        let mut rest = Vec::with_capacity(pending.len());
        for episode in pending {
            match over.get(&episode.key.hotkey) {
                Some(typical) => {
                    let spent = self.spent.get(&episode.key.hotkey).copied().unwrap_or_default();
                    let detail = format!(
                        "the miner's episodes have kept the server busy for {:.1} s; all episodes of the typical miner took {:.1} s",
                        spent.as_secs_f64(),
                        typical.as_secs_f64()
                    );
                    let outcome = Outcome::MinerFault(MinerFault::BudgetExhausted);
                    self.record(episode, not_played(outcome, &detail, self.environment)).await?;
                }
                None => rest.push(episode),
            }
        }
        Ok(rest)
    }
}

/// The miners that are out of budget, with the time that the typical miner took for all its episodes. `spent` is the time that
/// the server was busy with a miner's episodes, faults included.
fn over_budget(
    environment: &EnvironmentId,
    scored: &[Episode],
    pending: &[PendingEpisode],
    spent: &BTreeMap<Hotkey, Duration>,
) -> BTreeMap<Hotkey, Duration> {
    let unfinished: BTreeSet<&Hotkey> = pending.iter().map(|episode| &episode.key.hotkey).collect();
    // Miners that were never played say nothing of the time that episodes take.
    let mut done: BTreeMap<&Hotkey, Duration> = BTreeMap::new();
    for Episode { key, report, .. } in scored.iter().filter(|episode| episode.key.environment == *environment) {
        if matches!(report.outcome, Outcome::Success | Outcome::Failure) && !unfinished.contains(&key.hotkey) {
            *done.entry(&key.hotkey).or_default() += Duration::from_secs_f64((report.wall_ms / 1000.0).max(0.0));
        }
    }
    let mut times: Vec<Duration> = done.into_values().collect();
    times.sort_unstable();
    let Some(typical) = times.get(times.len() / 2).filter(|_| times.len() >= unfinished.len()) else {
        return BTreeMap::new();
    };
    let is_over = |hotkey: &&&Hotkey| spent.get(**hotkey).is_some_and(|spent| *spent > FACTOR * *typical);
    unfinished.iter().filter(is_over).map(|hotkey| ((*hotkey).clone(), *typical)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cycle::{EpisodeKey, EpisodeReport};

    fn key(miner: usize, seed_index: u32) -> EpisodeKey {
        EpisodeKey { environment: "a/b".parse().unwrap(), seed_index, hotkey: format!("miner{miner}").parse().unwrap() }
    }

    fn scored(miner: usize, seed_index: u32, outcome: Outcome, seconds: u64) -> Episode {
        let report = EpisodeReport {
            outcome,
            detail: None,
            steps: 1,
            total_reward: 0.0,
            score: None,
            actions: None,
            trajectory_hash: None,
            latency: None,
            wall_ms: seconds as f64 * 1000.0,
        };
        Episode { key: key(miner, seed_index), attempt: 1, report }
    }

    fn pending(miner: usize, seed_index: u32) -> PendingEpisode {
        PendingEpisode { key: key(miner, seed_index), attempt: 0, counted: 0, last: None }
    }

    fn over(scored: &[Episode], pending: &[PendingEpisode], spent: &[(usize, u64)]) -> Vec<String> {
        let spent =
            spent.iter().map(|(miner, seconds)| (key(*miner, 0).hotkey, Duration::from_secs(*seconds))).collect();
        over_budget(&"a/b".parse().unwrap(), scored, pending, &spent).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_miner_that_takes_more_than_twice_as_long_as_the_typical_one_is_out_of_budget() {
        let done = [scored(0, 0, Outcome::Success, 10), scored(1, 0, Outcome::Failure, 12)];
        let late = [pending(2, 0), pending(3, 0)];
        assert_eq!(over(&done, &late, &[(2, 25), (3, 24)]), ["miner2"]);
        assert_eq!(over(&done, &late, &[]), [""; 0], "none of its episodes has begun");
    }

    #[test]
    fn a_server_that_is_slow_for_everybody_blames_nobody() {
        let late = [pending(2, 0), pending(3, 0)];
        assert_eq!(over(&[], &late, &[(2, 900), (3, 900)]), [""; 0]);
        assert_eq!(over(&[scored(0, 0, Outcome::Success, 10)], &late, &[(2, 900), (3, 900)]), [""; 0]);
        let dead = Outcome::MinerFault(MinerFault::ConnectionError);
        let unreachable = [scored(0, 0, dead, 0), scored(1, 0, dead, 0)];
        assert_eq!(over(&unreachable, &late, &[(2, 900), (3, 900)]), [""; 0], "they were not played");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever one miner does, no other miner runs out of budget by it.
        #[test]
        fn one_miner_takes_nothing_from_another(
            honest in proptest::collection::vec(5u64..=10, 2..8),
            waiting in 0usize..3,
            cheat in proptest::collection::vec((0u64..1000, any::<bool>()), 0..6),
            spent in 0u64..100_000,
        ) {
            let waiting = waiting.min(honest.len() / 2);
            let (late, done) = honest.split_at(waiting);
            let mut rows: Vec<Episode> = (0..).zip(done).map(|(miner, s)| scored(miner, 0, Outcome::Success, *s)).collect();
            let mut open: Vec<PendingEpisode> = (0..late.len()).map(|miner| pending(100 + miner, 0)).collect();
            let mut times: Vec<(usize, u64)> = late.iter().enumerate().map(|(miner, s)| (100 + miner, *s)).collect();
            for (seed, (seconds, is_open)) in (0..).zip(&cheat) {
                match is_open {
                    true => open.push(pending(999, seed)),
                    false => rows.push(scored(999, seed, Outcome::Failure, *seconds)),
                }
            }
            times.push((999, spent));
            let found = over(&rows, &open, &times);
            prop_assert!(found.iter().all(|hotkey| hotkey == "miner999"), "{found:?}");
        }
    }
}
