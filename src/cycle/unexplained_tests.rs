//! Tests of the decision about unexplained faults: known situations, and random behaviours of one miner among honest ones.

use proptest::prelude::*;

use super::*;
use crate::cycle::{EpisodeKey, EpisodeReport};

const ATTEMPTS: u32 = 5;
const UNEXPLAINED: Outcome = Outcome::MinerFault(MinerFault::Unexplained);
const BROKEN: (Outcome, u32) = (Outcome::InfraFault(InfraFault::SimulatorError), 7);
const LOST: (Outcome, u32) = (Outcome::InfraFault(InfraFault::ServerLost), 0);
const WON: (Outcome, u32) = (Outcome::Success, 9);

/// The rows of a task. Rounds are played and judged as the stage does it.
pub(crate) struct Task {
    pub(crate) scored: Vec<Episode>,
    pending: Vec<PendingEpisode>,
}

fn report(outcome: Outcome, steps: u32) -> EpisodeReport {
    EpisodeReport {
        outcome,
        detail: None,
        steps,
        total_reward: 0.0,
        score: None,
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms: 0.0,
    }
}

fn environment() -> EnvironmentId {
    "a/b".parse().unwrap()
}

pub(crate) fn hotkey(miner: u32) -> Hotkey {
    format!("m{miner:03}").parse().unwrap()
}

fn miner(key: &EpisodeKey) -> u32 {
    key.hotkey.as_str()[1..].parse().unwrap()
}

impl Task {
    fn new(miners: u32, seeds: u32) -> Self {
        let key = |seed_index, miner| EpisodeKey { environment: environment(), seed_index, hotkey: hotkey(miner) };
        let episode = |key| PendingEpisode { key, attempt: 0, counted: 0, last: None };
        let pending = (0..seeds).flat_map(|seed| (0..miners).map(move |miner| episode(key(seed, miner)))).collect();
        Self { scored: Vec::new(), pending }
    }

    /// Record what [`unexplained`] decides, for the episodes that `is_recorded` takes.
    fn judge(&mut self, is_recorded: impl Fn(&EpisodeKey) -> bool) -> BTreeMap<(Hotkey, u32), Evidence> {
        let mut blamed = unexplained(&environment(), &self.scored, &self.pending, ATTEMPTS);
        for episode in std::mem::take(&mut self.pending) {
            let key = (episode.key.hotkey.clone(), episode.key.seed_index);
            if blamed.contains_key(&key) && is_recorded(&episode.key) {
                blamed.remove(&key);
                let report = report(UNEXPLAINED, 0);
                self.scored.push(Episode { key: episode.key, attempt: episode.attempt + 1, report });
            } else {
                self.pending.push(episode);
            }
        }
        blamed
    }

    /// Play every round. `behaviour` says how an attempt (from 0) of a miner at a seed ends, and after how many steps.
    fn play(mut self, behaviour: impl Fn(u32, u32, u32) -> (Outcome, u32)) -> Self {
        loop {
            self.judge(|_| true);
            let (exhausted, left) =
                std::mem::take(&mut self.pending).into_iter().partition(|episode| episode.counted >= ATTEMPTS);
            self.pending = exhausted;
            if left.is_empty() {
                return self;
            }
            for mut episode in left {
                let (outcome, steps) = behaviour(miner(&episode.key), episode.key.seed_index, episode.counted);
                episode.attempt += 1;
                if let Outcome::InfraFault(fault) = outcome {
                    episode.counted += 1;
                    episode.last = Some(LastFault { fault, steps, detail: None });
                    self.pending.push(episode);
                } else {
                    let PendingEpisode { key, attempt, .. } = episode;
                    self.scored.push(Episode { key, attempt, report: report(outcome, steps) });
                }
            }
        }
    }

    fn outcomes(&self, of: u32) -> BTreeMap<u32, Outcome> {
        let rows = self.scored.iter().filter(|episode| miner(&episode.key) == of);
        rows.map(|episode| (episode.key.seed_index, episode.report.outcome)).collect()
    }

    fn count(&self, of: u32, outcome: Outcome) -> usize {
        self.outcomes(of).values().filter(|found| **found == outcome).count()
    }

    /// A miner's success rate over its scored episodes, as `scores/aggregate` makes it. None without any.
    fn rate(&self, of: u32) -> Option<f64> {
        let (all, won) = (self.outcomes(of).len(), self.count(of, Outcome::Success));
        (all > 0).then(|| won as f64 / all as f64)
    }

    fn all_won(&self) -> bool {
        self.scored.iter().all(|episode| episode.report.outcome == Outcome::Success)
    }
}

#[test]
fn nonsense_that_breaks_the_server_counts_against_the_miner_that_answers_it() {
    for fault in [BROKEN, LOST] {
        for (seeds, every) in [(3, 1), (10, 1), (10, 2), (10, 7)] {
            let task =
                Task::new(3, seeds).play(|miner, seed, _| if miner == 2 && seed % every == 0 { fault } else { WON });
            assert_eq!(task.outcomes(2).len(), seeds as usize, "every episode is scored");
            assert_eq!(task.count(2, UNEXPLAINED), seeds.div_ceil(every) as usize, "{fault:?} {seeds} {every}");
            assert_eq!((task.rate(0), task.rate(1)), (Some(1.0), Some(1.0)));
        }
    }
}

#[test]
fn a_miner_that_breaks_its_bad_episodes_gets_no_second_attempt_at_them() {
    // The second attempt would be a success.
    let behaviour = |miner, seed, attempt| if miner == 2 && seed < 7 && attempt == 0 { BROKEN } else { WON };
    assert_eq!(Task::new(3, 10).play(behaviour).count(2, UNEXPLAINED), 7);
}

#[test]
fn a_lone_miner_and_a_broken_simulator_blame_nobody() {
    let alone = Task::new(1, 10).play(|_, seed, _| if seed < 5 { BROKEN } else { WON });
    assert_eq!((alone.scored.len(), alone.pending.len()), (5, 5));
    for miners in [2, 3, 20] {
        let broken = Task::new(miners, 6).play(|_, _, _| BROKEN);
        assert!(broken.scored.is_empty());
        let seed = Task::new(miners, 6).play(|_, seed, _| if seed == 4 { BROKEN } else { WON });
        assert_eq!((seed.scored.len(), seed.pending.len()), (5 * miners as usize, miners as usize));
    }
}

#[test]
fn faults_that_answers_cannot_cause_blame_nobody() {
    use InfraFault::*;
    let faults = [
        ImageMissing,
        StartTimeout,
        Unhealthy,
        HostUnreachable,
        DiskFull,
        NoCapacity,
        Network,
        Overloaded,
        ResourcesExhausted,
    ];
    for fault in faults {
        let task = Task::new(4, 8).play(|miner, _, _| if miner == 1 { (Outcome::InfraFault(fault), 5) } else { WON });
        assert_eq!((task.scored.len(), task.pending.len()), (24, 8), "{fault:?}");
    }
}

#[test]
fn a_few_faults_that_do_not_return_cost_a_miner_nothing() {
    let killed_twice = |miner, _, attempt| if miner == 1 && attempt < 2 { LOST } else { WON };
    let task = Task::new(3, 4).play(killed_twice);
    assert!(task.all_won() && task.pending.is_empty());
    let broke_once = |miner, seed, attempt| if miner == 1 && seed < 2 && attempt < 1 { BROKEN } else { WON };
    let task = Task::new(3, 10).play(broke_once);
    assert!(task.all_won() && task.pending.is_empty());
}

#[test]
fn up_to_half_of_the_miners_together_do_not_hide_behind_each_other() {
    for (miners, colluding) in [(4, 2), (5, 2), (20, 10)] {
        let behaviour = |miner, seed, _| if miner < colluding && seed < 6 { BROKEN } else { WON };
        let task = Task::new(miners, 10).play(behaviour);
        assert_eq!(task.scored.len(), 10 * miners as usize);
        assert!((0..colluding).all(|miner| task.count(miner, UNEXPLAINED) == 6), "{miners} {colluding}");
    }
}

#[test]
fn trouble_that_hits_all_miners_alike_explains_a_miners_share_of_it() {
    // Two episodes of 18 fail for each miner, each at seeds of its own.
    let task = Task::new(9, 18).play(|miner, seed, _| if (miner * 7 + seed * 5) % 9 == 0 { BROKEN } else { WON });
    assert!(task.all_won());
    assert_eq!(task.pending.len(), 9 * 2);
}

#[test]
fn the_probability_of_a_tail_is_the_binomials() {
    assert!((tail(10, 3, 0.01) - 1.138e-4).abs() < 1e-6, "{}", tail(10, 3, 0.01));
    assert!((tail(10, 1, 0.5) - (1.0 - 0.5f64.powi(10))).abs() < 1e-12);
    assert!((tail(3, 3, 0.01) - 1e-6).abs() < 1e-12);
    assert_eq!((tail(5, 0, 0.1), tail(5, 6, 0.9), tail(5, 5, 1.0), tail(5, 1, 0.0)), (1.0, 0.0, 1.0, 0.0));
    assert!((1..2000).all(|k| (0.0..=1.0).contains(&tail(2000, k, 0.3))));
}

/// What the miner under test does in an attempt: its best action in time, or something that ends the episode so.
#[derive(Debug, Clone, Copy)]
enum Act {
    Best,
    Give(Outcome, u32),
}

fn act() -> impl Strategy<Value = Act> {
    let infra = |fault| (0u32..3).prop_map(move |steps| Act::Give(Outcome::InfraFault(fault), steps));
    prop_oneof![
        3 => Just(Act::Best),
        3 => infra(InfraFault::SimulatorError),
        1 => infra(InfraFault::SimulatorTimeout),
        1 => infra(InfraFault::ServerLost),
        1 => infra(InfraFault::OutOfMemory),
        1 => Just(Act::Give(Outcome::MinerFault(MinerFault::ActionTimeout), 2)),
        1 => Just(Act::Give(Outcome::MinerFault(MinerFault::ConnectionError), 0)),
        1 => Just(Act::Give(Outcome::Failure, 9)),
    ]
}

/// A task of honest miners and one, miner 0, that does as it likes.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) miners: u32,
    seeds: u32,
    /// Bits of the seeds that the simulator cannot play.
    broken: u32,
    /// Policies: bits of the seeds that each miner wins.
    wins: Vec<u32>,
    /// A miner and a seed whose first attempt fails without the miner.
    unlucky: (u32, u32),
    acts: Vec<Act>,
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    (4u32..9, 3u32..16).prop_flat_map(|(miners, seeds)| {
        let broken = prop_oneof![2 => Just(0u32), 1 => any::<u32>()];
        let wins = prop::collection::vec(any::<u32>(), miners as usize);
        let acts = prop::collection::vec(act(), (seeds * ATTEMPTS) as usize);
        (broken, wins, (0..miners, 0..seeds), acts).prop_map(move |(broken, wins, unlucky, acts)| World {
            miners,
            seeds,
            broken,
            wins,
            unlucky,
            acts,
        })
    })
}

impl World {
    fn is_broken(&self, seed: u32) -> bool {
        self.broken >> seed & 1 == 1
    }

    /// The task, in which miner 0 does as it likes or answers its best action in time.
    pub(crate) fn play(&self, is_honest: bool) -> Task {
        Task::new(self.miners, self.seeds).play(|miner, seed, attempt| {
            let is_unlucky = attempt == 0 && self.unlucky == (miner, seed);
            let won = self.wins[miner as usize] >> seed & 1 == 1;
            let best = match (self.is_broken(seed) || is_unlucky, won) {
                (true, _) => BROKEN,
                (false, true) => WON,
                (false, false) => (Outcome::Failure, 9),
            };
            match self.acts[(seed * ATTEMPTS + attempt) as usize] {
                // Nobody ends an episode that the simulator cannot play.
                Act::Give(Outcome::Failure, _) if self.is_broken(seed) => best,
                Act::Give(outcome, steps) if miner == 0 && !is_honest => (outcome, steps),
                _ => best,
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_behaviour_of_one_miner_changes_anothers_outcomes_or_raises_its_own_score(world in world()) {
        let (honest, cheat) = (world.play(true), world.play(false));
        for miner in 1..world.miners {
            prop_assert_eq!(honest.outcomes(miner), cheat.outcomes(miner));
            prop_assert!(honest.outcomes(miner).values().all(|outcome| *outcome != UNEXPLAINED));
        }
        // No episode of the cheat is missing that the simulator could play.
        let outcomes = cheat.outcomes(0);
        for seed in (0..world.seeds).filter(|seed| !world.is_broken(*seed)) {
            prop_assert!(outcomes.contains_key(&seed), "seed {} is missing", seed);
        }
        if let Some(best) = honest.rate(0) {
            let rate = cheat.rate(0).unwrap_or(0.0);
            prop_assert!(rate <= best, "{} > {}", rate, best);
        }
    }

    /// A process that dies between two verdicts decides the rest as if it had not died.
    #[test]
    fn a_crash_between_two_verdicts_changes_none_of_them(world in world(), recorded in any::<u64>()) {
        let mut task = Task::new(world.miners, world.seeds).play(|_, _, _| WON);
        let fails = |key: &EpisodeKey| {
            world.wins[miner(key) as usize] >> key.seed_index & 1 == 1 && miner(key) < world.miners / 2
        };
        let (failed, scored): (Vec<_>, Vec<_>) = task.scored.into_iter().partition(|episode| fails(&episode.key));
        task.scored = scored;
        let last = Some(LastFault { fault: InfraFault::SimulatorError, steps: 1, detail: None });
        let open = |episode: Episode| PendingEpisode { key: episode.key, attempt: 5, counted: 5, last: last.clone() };
        task.pending = failed.into_iter().map(open).collect();
        let left = task.judge(|key| recorded >> ((miner(key) * 16 + key.seed_index) % 64) & 1 == 1);
        prop_assert_eq!(unexplained(&environment(), &task.scored, &task.pending, ATTEMPTS), left);
    }
}
