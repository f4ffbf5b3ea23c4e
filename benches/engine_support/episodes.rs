//! The episodes of a large cycle: planned, half of them played, taken up again, all read for the scores, and counted for lists.

use std::time::{Duration, Instant};

use robo::{
    cycle::{CycleId, CycleStatus, EpisodeKey, Journal, Lease, TaskKey},
    store::Store,
};

use super::{cycles, memory};
use crate::engine_support::server::Place;

const MINERS: u32 = 256;
const ENVIRONMENTS: u32 = 20;
const SEEDS: u32 = 50;

/// What was measured.
pub(crate) struct Large {
    pub(crate) planned: Duration,
    pub(crate) resumed: Duration,
    read: Duration,
    /// In a list while it was open, its end, in a list from then on.
    counted: [Duration; 3],
    pub(crate) peak_mb: f64,
    base_mb: f64,
    pending: usize,
}

impl Large {
    pub(crate) fn print(&self) {
        let rows = MINERS * ENVIRONMENTS * SEEDS;
        println!("\n{MINERS} miners, {ENVIRONMENTS} environments, {SEEDS} episodes: {rows} rows");
        println!("  planned           {:>9.2} s", self.planned.as_secs_f64());
        println!("  resumed           {:>9.2} s, {} episodes pending", self.resumed.as_secs_f64(), self.pending);
        println!("  read for scores   {:>9.2} s", self.read.as_secs_f64());
        let [open, end, ended] = self.counted.map(|time| time.as_secs_f64() * 1000.0);
        println!(
            "  listed            {open:>9.1} ms while open, {ended:.1} ms once it has ended, which took {end:.1} ms"
        );
        println!("  memory at most    {:>9.0} MB, {:.0} MB of it before", self.peak_mb, self.base_mb);
    }
}

/// Plan, take up again with half of the episodes played, and read the scored ones when all are.
pub(crate) async fn measure(place: &Place) -> Large {
    let store = &place.store;
    memory::reset_peak();
    let base_mb = memory::peak_mb();
    let definition = cycles::definition(vec![cycles::stage("episodes", &[], ENVIRONMENTS as usize)]);
    let new = cycles::new_cycle(&definition);
    let cycle = store.create_cycle(&new).await.expect("the cycle is created");
    let lease = store.acquire(cycle).await.expect("nobody holds it");
    let planned = plan(store, &lease, &new.tasks).await;
    play(place, "seed_index < 25").await;
    let (resumed, pending) = resume(store, cycle, &new.tasks).await;
    play(place, "outcome is null").await;
    let started = Instant::now();
    let scored = store.scored_episodes(cycle).await.expect("they are there");
    let read = started.elapsed();
    assert_eq!(scored.len() as u32, MINERS * ENVIRONMENTS * SEEDS);
    drop(scored);
    let peak_mb = memory::peak_mb();
    let open = list(store).await;
    let started = Instant::now();
    store.finish(&lease, CycleStatus::Failed, Some("enough is known")).await.expect("it is ours");
    let counted = [open, started.elapsed(), list(store).await];
    Large { planned, resumed, read, counted, peak_mb, base_mb, pending }
}

/// Show the one cycle that there is, the second time: the first one finds nothing in memory.
async fn list(store: &Store) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        let started = Instant::now();
        let cycles = store.cycles(1).await.expect("the database answers");
        took = started.elapsed();
        assert_eq!(cycles[0].episodes, (256_000, 256_000));
    }
    took
}

/// As the engine does: each task plans its own, several at a time.
async fn plan(store: &Store, lease: &Lease, tasks: &[TaskKey]) -> Duration {
    let started = Instant::now();
    let plans = tasks.iter().enumerate().map(|(place, task)| async move {
        store.plan_episodes(lease, task, &keys(place)).await.expect("the episodes are written down");
    });
    futures::future::join_all(plans).await;
    started.elapsed()
}

/// What a process does that takes the cycle up: the cycle, and of every task what is left to run.
async fn resume(store: &Store, cycle: CycleId, tasks: &[TaskKey]) -> (Duration, usize) {
    let started = Instant::now();
    let record = store.load(cycle).await.expect("it is there");
    assert_eq!(record.tasks.len(), tasks.len());
    let looks = tasks.iter().map(|task| store.pending_episodes(cycle, task));
    let pending = futures::future::join_all(looks).await;
    let pending = pending.into_iter().map(|found| found.expect("the database answers").len()).sum();
    (started.elapsed(), pending)
}

/// Episodes of one environment, for all miners.
fn keys(place: usize) -> Vec<EpisodeKey> {
    let environment: robo::cycle::EnvironmentId = format!("bench/task-{place}").parse().expect("it is an id");
    let hotkey =
        |miner: u32| format!("5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5{miner:05}").parse().expect("it is a hotkey");
    let hotkeys: Vec<robo::cycle::Hotkey> = (0..MINERS).map(hotkey).collect();
    (0..SEEDS)
        .flat_map(|seed_index| hotkeys.iter().map(move |hotkey| (seed_index, hotkey.clone())))
        .map(|(seed_index, hotkey)| EpisodeKey { environment: environment.clone(), seed_index, hotkey })
        .collect()
}

/// As if these episodes had been played: what is measured is how they are read.
async fn play(place: &Place, which: &'static str) {
    let sql = format!(
        "update episode set attempt = 1, outcome = 'failure', steps = 500, return = 1.5, wall_ms = 12.25,
                trajectory_hash = repeat('ab', 32), latency_p50_ms = 20.5, latency_p95_ms = 21.5, latency_max_ms = 40.25,
                finished_at = now()
         where {which}"
    );
    place.execute(sql).await;
}
