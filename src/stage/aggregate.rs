//! `scores/aggregate`: success rates from episode rows. A pure function of the rows: their order of arrival, the number
//! of workers, retries and resumes cannot change it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::json;

use super::documents::{ScoreEntry, Scores};
use super::{Context, Error, Invocation, Output, config};
use crate::cycle::{EnvironmentId, Episode, FailureClass, Journal, Miner, Outcome, TaskFailure};
use crate::scoring::{wilson, wilson_of_mean};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    miners: Vec<Miner>,
    #[serde(default)]
    measure: Measure,
}

/// What of an episode makes a miner's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    /// Whether it was a success.
    #[default]
    Success,
    /// What it was worth, by the score that its environment declares.
    Score,
}

pub(super) async fn run<J: Journal>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, Error> {
    let settings: Settings = invocation.settings()?;
    let episodes = context.journal.scored_episodes(context.lease.cycle).await?;
    let scores = aggregate(settings.miners, &episodes, settings.measure)?;
    Ok(json!({ "scores": scores }).into())
}

/// The least share of the typical miner's scored episodes that every miner must have in an environment. Faults that a miner can
/// cause are scored as its failures before (`cycle::unexplained`), so only infrastructure faults bring a miner below it.
const FLOOR: f64 = 0.5;

/// One entry per miner and environment that has episodes.
///
/// # Errors
/// When infrastructure faults have left a miner too few scored episodes in an environment, or an episode that is measured by
/// its score has none: a rate would have to be invented.
fn aggregate(mut miners: Vec<Miner>, episodes: &[Episode], measure: Measure) -> Result<Scores, TaskFailure> {
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
    let typical: HashMap<&EnvironmentId, usize> =
        environments.iter().map(|environment| (*environment, typical(&miners, &cells, environment))).collect();
    let mut entries = Vec::new();
    for miner in &miners {
        for environment in &environments {
            let cell = cells.get_mut(&(miner.hotkey.as_str(), *environment)).map_or(&mut [][..], Vec::as_mut_slice);
            let typical = typical[environment];
            if cell.is_empty() || (cell.len() as f64) < FLOOR * typical as f64 {
                let (hotkey, count) = (&miner.hotkey, cell.len());
                let message = format!(
                    "`{hotkey}` has {count} scored episodes in `{environment}`, and the typical miner has {typical}: \
                     infrastructure faults took the others, and a rate of so few episodes is no fair comparison"
                );
                return Err(TaskFailure { class: FailureClass::BelowQuorum, message });
            }
            cell.sort_by_key(|episode| episode.key.seed_index);
            entries.push(entry(miner, environment, cell, measure)?);
        }
    }
    Ok(Scores { environments: environments.into_iter().cloned().collect(), entries })
}

/// How many scored episodes the typical (median) miner has in an environment.
fn typical(
    miners: &[Miner],
    cells: &HashMap<(&str, &EnvironmentId), Vec<&Episode>>,
    environment: &EnvironmentId,
) -> usize {
    let count = |miner: &Miner| cells.get(&(miner.hotkey.as_str(), environment)).map_or(0, Vec::len);
    let mut counts: Vec<usize> = miners.iter().map(count).collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}

fn entry(
    miner: &Miner,
    environment: &EnvironmentId,
    episodes: &[&Episode],
    measure: Measure,
) -> Result<ScoreEntry, TaskFailure> {
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for episode in episodes {
        *outcomes.entry(episode.report.outcome.to_string()).or_default() += 1;
    }
    let count = episodes.len() as u32;
    let successes = outcomes.get(Outcome::Success.word()).copied().unwrap_or(0);
    // Also in seed order, and only when every episode has one.
    let worth: Option<f64> = episodes.iter().map(|episode| episode.report.score).sum();
    let score = worth.map(|worth| worth / f64::from(count));
    let (rate, interval) = match (measure, score) {
        (Measure::Success, _) => (f64::from(successes) / f64::from(count), wilson(successes, count)),
        (Measure::Score, Some(score)) => (score, wilson_of_mean(score, count)),
        (Measure::Score, None) => {
            let message = format!("`measure: score` needs a `score` in the manifest of `{environment}`");
            return Err(config(message));
        }
    };
    // Summed in seed order: floating-point sums depend on it.
    let total: f64 = episodes.iter().map(|episode| episode.report.total_reward).sum();
    Ok(ScoreEntry {
        uid: miner.uid,
        hotkey: miner.hotkey.clone(),
        first_block: miner.first_block,
        environment: environment.clone(),
        success_rate: rate,
        interval: [interval.low, interval.high],
        mean_return: total / f64::from(count),
        mean_score: score,
        episodes: count,
        successes,
        outcomes,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cycle::{
        EpisodeKey, EpisodeReport, InfraFault, MinerFault,
        unexplained_tests::{hotkey, world},
    };

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
            score: None,
            actions: None,
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
        let scores = aggregate(vec![miner(7)], &episodes, Measure::Success).unwrap();
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
        assert_eq!(aggregate(vec![miner(1)], &episodes, Measure::Success).unwrap().entries[0].success_rate, 1.0);
        let failure = aggregate(vec![miner(1), miner(2)], &episodes, Measure::Success).unwrap_err();
        assert_eq!(failure.class, FailureClass::BelowQuorum);
        assert!(failure.message.contains("m2"), "{failure}");
    }

    #[test]
    fn a_miner_that_infrastructure_faults_left_too_few_episodes_is_not_compared() {
        let of = |uid: u16, count: u32| (0..count).map(move |seed| episode(uid, "a", seed, Outcome::Success));
        let miners = || vec![miner(1), miner(2), miner(3)];
        let enough: Vec<Episode> = of(1, 10).chain(of(2, 10)).chain(of(3, 5)).collect();
        assert_eq!(aggregate(miners(), &enough, Measure::Success).unwrap().entries[2].episodes, 5);
        let few: Vec<Episode> = of(1, 10).chain(of(2, 10)).chain(of(3, 4)).collect();
        let failure = aggregate(miners(), &few, Measure::Success).unwrap_err();
        assert_eq!(failure.class, FailureClass::BelowQuorum);
        assert!(failure.message.contains("`m3` has 4 scored episodes"), "{failure}");
    }

    #[test]
    fn partial_credit_counts_only_when_asked_for() {
        let mut episodes = vec![episode(1, "a", 0, Outcome::Success), episode(1, "a", 1, Outcome::Failure)];
        let unscored = aggregate(vec![miner(1)], &episodes, Measure::Success).unwrap();
        assert!(!serde_json::to_string(&unscored).unwrap().contains("mean_score"));
        let refused = aggregate(vec![miner(1)], &episodes, Measure::Score).unwrap_err();
        assert_eq!((refused.class, refused.message.contains("`e/a`")), (FailureClass::Config, true));

        for (episode, score) in episodes.iter_mut().zip([1.0, 0.5]) {
            episode.report.score = Some(score);
        }
        let by_success = aggregate(vec![miner(1)], &episodes, Measure::Success).unwrap().entries.remove(0);
        assert_eq!((by_success.success_rate, by_success.mean_score), (0.5, Some(0.75)));
        assert_eq!(by_success.interval, unscored.entries[0].interval);
        let by_score = aggregate(vec![miner(1)], &episodes, Measure::Score).unwrap().entries.remove(0);
        assert_eq!((by_score.success_rate, by_score.successes), (0.75, 1));
        assert!(by_score.interval[0] < 0.75 && 0.75 < by_score.interval[1]);
    }

    #[test]
    fn nobody_to_score_is_an_error() {
        assert!(aggregate(vec![], &[], Measure::Success).unwrap_err().message.contains("No miners found"));
        assert!(aggregate(vec![miner(1)], &[], Measure::Success).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever one miner does, everybody is scored, the other miners get what they would have got, and the miner gets no more.
        #[test]
        fn no_behaviour_of_one_miner_brings_it_below_the_floor_or_pays(world in world()) {
            let miners = || (0..world.miners).map(|uid| Miner { hotkey: hotkey(uid), ..miner(uid as u16) }).collect();
            let of = |is_honest: bool| aggregate(miners(), &world.play(is_honest).scored, Measure::Success);
            let Ok(honest) = of(true) else { return Ok(()) };
            let cheated = of(false);
            prop_assert!(cheated.is_ok(), "{}", cheated.unwrap_err());
            for (honest, cheated) in honest.entries.iter().zip(&cheated.unwrap().entries) {
                match honest.uid {
                    0 => prop_assert!(cheated.success_rate <= honest.success_rate),
                    _ => prop_assert_eq!(serde_json::to_string(honest).unwrap(), serde_json::to_string(cheated).unwrap()),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn order_of_rows_and_miners_does_not_matter(seed: u64, wins in prop::collection::vec(any::<bool>(), 24)) {
            let outcome = |won| if won { Outcome::Success } else { Outcome::Failure };
            let mut episodes: Vec<_> = wins.iter().enumerate().map(|(k, won)| {
                episode((k % 3) as u16, ["a", "b"][k / 3 % 2], (k / 6) as u32, outcome(*won))
            }).collect();
            let straight = aggregate(vec![miner(0), miner(1), miner(2)], &episodes, Measure::Success).unwrap();
            let mut state = seed;
            episodes.sort_by_cached_key(|_| { state = state.wrapping_mul(6364136223846793005).wrapping_add(1); state });
            let shuffled = aggregate(vec![miner(2), miner(0), miner(1)], &episodes, Measure::Success).unwrap();
            prop_assert_eq!(serde_json::to_string(&straight).unwrap(), serde_json::to_string(&shuffled).unwrap());
        }
    }
}
