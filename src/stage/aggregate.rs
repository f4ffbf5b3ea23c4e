//! `scores/aggregate`: success rates from episode rows. A pure function of the rows: their order of arrival, the number
//! of workers, retries and resumes cannot change it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::json;

use super::documents::{ScoreEntry, Scores};
use super::{Context, Error, Invocation, Output, config};
use crate::cycle::{EnvironmentId, Episode, FailureClass, Journal, Miner, Outcome, TaskFailure};
use crate::scoring::wilson;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    miners: Vec<Miner>,
}

pub(super) async fn run<J: Journal>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, Error> {
    let settings: Settings = invocation.settings()?;
    let episodes = context.journal.scored_episodes(context.lease.cycle).await?;
    let scores = aggregate(settings.miners, &episodes)?;
    Ok(json!({ "scores": scores }).into())
}

/// One entry per miner and environment that has episodes.
///
/// # Errors
/// When a miner has no scored episode in an environment where others have: a rate would have to be invented.
fn aggregate(mut miners: Vec<Miner>, episodes: &[Episode]) -> Result<Scores, TaskFailure> {
    if miners.is_empty() {
        return Err(config("No miners found: there is nobody to score"));
    }
    miners.sort_by_key(|miner| miner.uid);
    let mut cells: HashMap<(&str, &EnvironmentId), Vec<&Episode>> = HashMap::new();
    let mut environments: BTreeSet<&EnvironmentId> = BTreeSet::new();
    for episode in episodes.iter().filter(|episode| episode.report.outcome.is_scored()) {
        environments.insert(&episode.key.environment);
        cells.entry((episode.key.hotkey.as_str(), &episode.key.environment)).or_default().push(episode);
    }
    if environments.is_empty() {
        let message = "no episode has been scored: is `episodes/run` upstream of this stage?".into();
        return Err(TaskFailure { class: FailureClass::Config, message });
    }
    let mut entries = Vec::new();
    for miner in &miners {
        for environment in &environments {
            let Some(cell) = cells.get_mut(&(miner.hotkey.as_str(), *environment)) else {
                let message = format!("`{}` has no scored episode in `{environment}`", miner.hotkey);
                return Err(TaskFailure { class: FailureClass::BelowQuorum, message });
            };
            cell.sort_by_key(|episode| episode.key.seed_index);
            entries.push(entry(miner, environment, cell));
        }
    }
    Ok(Scores { environments: environments.into_iter().cloned().collect(), entries })
}

fn entry(miner: &Miner, environment: &EnvironmentId, episodes: &[&Episode]) -> ScoreEntry {
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for episode in episodes {
        *outcomes.entry(episode.report.outcome.to_string()).or_default() += 1;
    }
    let count = episodes.len() as u32;
    let successes = outcomes.get(Outcome::Success.word()).copied().unwrap_or(0);
    let interval = wilson(successes, count);
    // Summed in seed order: floating-point sums depend on it.
    let total: f64 = episodes.iter().map(|episode| episode.report.total_reward).sum();
    ScoreEntry {
        uid: miner.uid,
        hotkey: miner.hotkey.clone(),
        first_block: miner.first_block,
        environment: environment.clone(),
        success_rate: f64::from(successes) / f64::from(count),
        interval: [interval.low, interval.high],
        mean_return: total / f64::from(count),
        episodes: count,
        successes,
        outcomes,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cycle::{EpisodeKey, EpisodeReport, InfraFault, MinerFault};

    fn miner(uid: u16) -> Miner {
        Miner { uid, hotkey: format!("m{uid}").parse().unwrap(), endpoint: "demo:noop".into(), first_block: None }
    }

    fn episode(uid: u16, task: &str, seed_index: u32, outcome: Outcome) -> Episode {
        let key =
            EpisodeKey { environment: format!("e/{task}").parse().unwrap(), seed_index, hotkey: miner(uid).hotkey };
        let total_reward = 0.1 + f64::from(seed_index) * 1e10;
        let report = EpisodeReport {
            outcome,
            detail: None,
            steps: 1,
            total_reward,
            trajectory_hash: None,
            latency: None,
            wall_ms: 0.0,
        };
        Episode { key, attempt: 1, report }
    }

    #[test]
    fn rates_intervals_and_reasons() {
        let timeout = Outcome::MinerFault(MinerFault::ActionTimeout);
        let outcomes = [Outcome::Success, timeout, Outcome::Failure, Outcome::Success];
        let episodes: Vec<_> = (0..).zip(outcomes).map(|(k, outcome)| episode(7, "a", k, outcome)).collect();
        let scores = aggregate(vec![miner(7)], &episodes).unwrap();
        let [entry] = scores.entries.as_slice() else { panic!("one entry") };
        assert_eq!((entry.episodes, entry.successes, entry.success_rate), (4, 2, 0.5));
        assert_eq!(entry.outcomes["miner_fault(action_timeout)"], 1);
        // Wilson, 2 of 4: (0.5 + z²/8 ∓ z·sqrt(1/16 + z²/64)) / (1 + z²/4) with z = 1.959964.
        assert!((entry.interval[0] - 0.150_039).abs() < 1e-6 && (entry.interval[1] - 0.849_961).abs() < 1e-6);
    }

    #[test]
    fn faults_of_ours_are_never_scored_as_zero() {
        let lost = Outcome::InfraFault(InfraFault::ServerLost);
        let episodes = [episode(1, "a", 0, Outcome::Success), episode(1, "a", 1, lost)];
        assert_eq!(aggregate(vec![miner(1)], &episodes).unwrap().entries[0].success_rate, 1.0);
        let failure = aggregate(vec![miner(1), miner(2)], &episodes).unwrap_err();
        assert_eq!(failure.class, FailureClass::BelowQuorum);
        assert!(failure.message.contains("m2"), "{failure}");
    }

    #[test]
    fn nobody_to_score_is_an_error() {
        assert!(aggregate(vec![], &[]).unwrap_err().message.contains("No miners found"));
        assert!(aggregate(vec![miner(1)], &[]).is_err());
    }

    proptest! {
        #[test]
        fn order_of_rows_and_miners_does_not_matter(seed: u64, wins in prop::collection::vec(any::<bool>(), 24)) {
            let outcome = |won| if won { Outcome::Success } else { Outcome::Failure };
            let mut episodes: Vec<_> = wins.iter().enumerate().map(|(k, won)| {
                episode((k % 3) as u16, ["a", "b"][k / 3 % 2], (k / 6) as u32, outcome(*won))
            }).collect();
            let straight = aggregate(vec![miner(0), miner(1), miner(2)], &episodes).unwrap();
            let mut state = seed;
            episodes.sort_by_cached_key(|_| { state = state.wrapping_mul(6364136223846793005).wrapping_add(1); state });
            let shuffled = aggregate(vec![miner(2), miner(0), miner(1)], &episodes).unwrap();
            prop_assert_eq!(serde_json::to_string(&straight).unwrap(), serde_json::to_string(&shuffled).unwrap());
        }
    }
}
