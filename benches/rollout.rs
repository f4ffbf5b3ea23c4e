//! What the rollout loop costs, and what it gains over playing one episode at a time.
//!
//! Starts the real environment server with the real simulator, and a mock miner that takes 20 ms over each action and keeps
//! book of how long it really took. Prints each figure next to its target and fails when one is missed.
//! `ROBO_TEST_PYTHON` names the interpreter, as for the tests: `cargo bench --bench rollout`.
#![expect(clippy::print_stdout, reason = "a bench is there to print")]

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../src/tests/children.rs"]
mod children;
mod rollout_support;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use robo::{
    cycle::{EpisodeReport, Outcome},
    manifest::simulation::Simulation,
    rollout::{
        Client,
        protocol::{EpisodeOrder, EpisodesRequest, Open, ServerMessage},
    },
};
use rollout_support::{
    cpu::{cpu_seconds, with_children},
    mock::Mock,
    raw,
};
use serde_json::json;

const TASKS: [&str; 8] = [
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
];
const STEPS: u32 = 150;
/// In flight of each task: 64 in all.
const EPISODES: u32 = 8;
const MINER: Duration = Duration::from_millis(20);
const ROUNDS: u32 = 15;
/// Playing one episode at a time is slow; in so many rounds it is tried.
const SLOW_ROUNDS: u32 = 5;

fn simulation(task: &str) -> Simulation {
    serde_json::from_value(json!({
        "environment": format!("metaworld/{task}"),
        "gymnasium": { "make": "Meta-World/MT1", "kwargs": { "env_name": task }, "hook": "metaworld" },
        "observation": { "state": [{ "slice": [0, 4] }] },
        "action": { "size": 4, "low": -1.0, "high": 1.0, "out_of_range": "clip" },
        "success": { "rule": { "info": "success" } },
        "determinism": "bitwise",
        "max_steps": STEPS,
        // All episodes have the same length, so that all are in flight together.
        "stop_on_success": false,
    }))
    .expect("it is a simulation")
}

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("it is the first");
    let mock = Mock::start(MINER);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let simulations = TASKS.map(simulation);
    let slots = (EPISODES * TASKS.len() as u32).div_ceil(workers);
    let server = children::Serving::env_server(&children::package(), &[]);
    let client = Client::new(server.url(), children::TOKEN).expect("a client starts");
    runtime.block_on(async {
        let open = Open { simulations: simulations.to_vec(), workers, slots_per_worker: slots };
        client.open(&open).await.expect("the environments load");
        // Once for the environments to be made.
        play_many(&client, &mock, 0).await;
    });
    let mut alone = raw::Raw::start(&simulations, workers, slots);
    // The machine may be faster in one second than in the next: rounds are short, and what is compared takes turns.
    let rounds = (1..=ROUNDS).map(|round| {
        let raw = alone.cpu_ms_per_step(1000 * round, STEPS);
        runtime.block_on(async {
            let watch = watch(&mock, server.id());
            let (reports, many) = tokio::join!(play_many(&client, &mock, 1000 * round), watch);
            let one = if round > SLOW_ROUNDS { None } else { Some(play_one(&client, &mock, 1000 * round + 500).await) };
            Round { raw, one, inflation: inflation(&reports, &mock), ..many }
        })
    });
    verdict(workers, &rounds.collect::<Vec<_>>())
}

/// Episodes of all tasks at once.
async fn play_many(client: &Client, mock: &Mock, first_seed: u32) -> Vec<(String, EpisodeReport)> {
    let plays = TASKS.map(|task| {
        let request = request(task, mock, first_seed, EPISODES);
        async move { play(client, &request).await }
    });
    join_all(plays).await.into_iter().flatten().collect()
}

/// As the reference plays: an episode at a time, a step at a time, by the same worker and the same client.
async fn play_one(client: &Client, mock: &Mock, seed: u32) -> f64 {
    let request = request("reach-v3", mock, seed, 1);
    let started = Instant::now();
    let reports = play(client, &request).await;
    let steps: u32 = reports.iter().map(|(_, report)| report.steps).sum();
    f64::from(steps) / started.elapsed().as_secs_f64()
}

fn request(task: &str, mock: &Mock, first_seed: u32, episodes: u32) -> EpisodesRequest {
    EpisodesRequest {
        environment: format!("metaworld/{task}").parse().expect("it is an id"),
        // The machine may be busy; lateness shows in the figures, not in faults.
        action_timeout_ms: 10_000,
        reset_timeout_ms: 10_000,
        per_miner: episodes,
        episodes: (0..episodes)
            .map(|order| EpisodeOrder {
                order,
                seed: first_seed + order,
                episode_id: format!("{task}-{}", first_seed + order),
                hotkey: "mock".parse().expect("it is a hotkey"),
                endpoint: mock.url(),
                keep: robo::cycle::Keep::Nothing,
            })
            .collect(),
    }
}

async fn play(client: &Client, request: &EpisodesRequest) -> Vec<(String, EpisodeReport)> {
    let mut reports = Vec::new();
    let mut messages = std::pin::pin!(client.episodes(request).await.expect("it is accepted"));
    while let Some(message) = messages.next().await {
        if let ServerMessage::Episode { order, report } = message.expect("the stream is whole") {
            assert!(matches!(report.outcome, Outcome::Success | Outcome::Failure), "{report:?}");
            reports.push((request.episodes[order as usize].episode_id.clone(), report));
        }
    }
    reports
}

/// What was measured in a round: the workers alone, many episodes in flight, one episode at a time.
#[derive(Default)]
struct Round {
    raw: f64,
    /// Steps per second of one episode at a time, in a round that tried it.
    one: Option<f64>,
    steps_per_second: f64,
    cpu_ms_per_step: f64,
    server_share: f64,
    inflation: Inflation,
}

/// Measure the middle of a run, without the resets at its begin and the thinning out at its end.
async fn watch(mock: &Mock, server: u32) -> Round {
    let all = u64::from(STEPS * EPISODES) * TASKS.len() as u64;
    let base = mock.acts();
    let at = async |share: f64| {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while ((mock.acts() - base) as f64) < share * all as f64 {
            ticks.tick().await;
        }
        let processes = with_children(server);
        (Instant::now(), mock.acts(), cpu_seconds(&processes), cpu_seconds(&processes[..1]))
    };
    let (began, acts, cpu, own) = at(0.15).await;
    let (ended, acts_then, cpu_then, own_then) = at(0.85).await;
    let steps = (acts_then - acts) as f64;
    Round {
        steps_per_second: steps / (ended - began).as_secs_f64(),
        cpu_ms_per_step: (cpu_then - cpu) * 1000.0 / steps,
        server_share: (own_then - own) / (cpu_then - cpu),
        ..Round::default()
    }
}

/// Latency in milliseconds as recorded and as the mock took it, averaged over episodes.
#[derive(Default)]
struct Inflation {
    recorded: [f64; 2],
    taken: [f64; 2],
    worst_p95: f64,
}

fn inflation(reports: &[(String, EpisodeReport)], mock: &Mock) -> Inflation {
    let mut sums = Inflation::default();
    for (episode_id, report) in reports {
        let recorded = report.latency.expect("actions were answered");
        let taken = mock.taken(episode_id);
        let share = 1.0 / reports.len() as f64;
        sums.recorded[0] += recorded.p50_ms * share;
        sums.recorded[1] += recorded.p95_ms * share;
        sums.taken[0] += taken[0] * share;
        sums.taken[1] += taken[1] * share;
        sums.worst_p95 = sums.worst_p95.max(recorded.p95_ms - taken[1]);
    }
    sums
}

/// The middle one of an odd number of rounds.
fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    middle(rounds.iter().map(figure).collect())
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn verdict(workers: u32, rounds: &[Round]) -> ExitCode {
    let of = |figure: fn(&Round) -> f64| median(rounds, figure);
    let one = middle(rounds.iter().filter_map(|round| round.one).collect());
    println!("\n64 episodes in flight, {workers} workers, a miner of {} ms, proprioception only", MINER.as_millis());
    println!("medians of {ROUNDS} rounds");
    println!("  steps per second           {:>9.0}", of(|round| round.steps_per_second));
    println!("  one episode at a time      {:>9.1}", one);
    println!("  step of the workers alone  {:>9.3} ms of CPU", of(|round| round.raw));
    println!(
        "  step of server + workers   {:>9.3} ms of CPU, {:.0} % of it the server",
        of(|round| round.cpu_ms_per_step),
        of(|round| round.server_share) * 100.0
    );
    let [recorded, taken] = [|round: &Round| round.inflation.recorded, |round: &Round| round.inflation.taken];
    for (name, latency) in [("recorded          ", recorded), ("the miner took    ", taken)] {
        let [p50, p95] = [median(rounds, |round| latency(round)[0]), median(rounds, |round| latency(round)[1])];
        println!("  latency {name} {p50:>9.2} ms p50 {p95:>9.2} ms p95");
    }
    println!("  worst episode's inflation  {:>9.2} ms p95\n", of(|round| round.inflation.worst_p95));
    let ratios: Vec<String> = rounds.iter().map(|round| format!("{:.2}", round.cpu_ms_per_step / round.raw)).collect();
    println!("  CPU ratio of each round    {}\n", ratios.join("  "));
    let checks = [
        ("CPU per step against raw", of(|round| round.cpu_ms_per_step / round.raw), "x <=", 1.25),
        (
            "p95 latency inflation in ms",
            of(|round| round.inflation.recorded[1] - round.inflation.taken[1]),
            "  <=",
            2.0,
        ),
        ("steps/s against one at a time", of(|round| round.steps_per_second) / one, "x >=", 40.0),
    ];
    let mut passed = true;
    for (name, value, relation, target) in checks {
        let holds = if relation.ends_with("<=") { value <= target } else { value >= target };
        passed &= holds;
        println!("{} {name:<31} {value:>8.2} {relation} {target}", if holds { "PASS" } else { "FAIL" });
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
