//! What is played: the eight tasks of the reference, by miners that never fail, and one server for all of it.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use robo::{
    cycle::{EpisodeReport, Outcome},
    manifest::simulation::Simulation,
    rollout::{
        Client,
        protocol::{EpisodeOrder, EpisodesRequest, Open, ServerMessage},
    },
};
use serde_json::json;

use super::mock::Mock;
use crate::children;

pub(crate) const TASKS: [&str; 8] = [
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
];
pub(crate) const STEPS: u32 = 150;

/// So many of each task in flight, with miners that take so long over an action.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) miner: Duration,
    pub(crate) of_each: u32,
}

impl Load {
    pub(crate) fn in_flight(self) -> u32 {
        self.of_each * TASKS.len() as u32
    }

    pub(crate) fn slots(self, workers: u32) -> u32 {
        self.in_flight().div_ceil(workers)
    }
}

/// A server whose environments are loaded, and a client of it.
pub(crate) struct Table {
    pub(crate) server: children::Serving,
    pub(crate) client: Client,
}

impl Table {
    pub(crate) async fn set(load: Load, workers: u32) -> Self {
        let server = children::Serving::env_server(&children::package(), &[]);
        let client = Client::new(server.url(), children::TOKEN).expect("a client starts");
        let open = Open { simulations: simulations(), workers, slots_per_worker: load.slots(workers) };
        client.open(&open).await.expect("the environments load");
        Self { server, client }
    }

    /// Episodes of all tasks at once.
    pub(crate) async fn play_many(&self, load: Load, mock: &Mock, first_seed: u32) -> Vec<(String, EpisodeReport)> {
        let plays = TASKS.map(|task| {
            let request = request(task, mock, first_seed, load.of_each);
            async move { self.play(&request).await }
        });
        join_all(plays).await.into_iter().flatten().collect()
    }

    /// As the reference plays: an episode at a time, a step at a time, by the same worker and the same client.
    pub(crate) async fn play_one(&self, mock: &Mock, seed: u32) -> f64 {
        let request = request("reach-v3", mock, seed, 1);
        let started = Instant::now();
        let reports = self.play(&request).await;
        let steps: u32 = reports.iter().map(|(_, report)| report.steps).sum();
        f64::from(steps) / started.elapsed().as_secs_f64()
    }

    async fn play(&self, request: &EpisodesRequest) -> Vec<(String, EpisodeReport)> {
        let mut reports = Vec::new();
        let mut messages = std::pin::pin!(self.client.episodes(request).await.expect("it is accepted"));
        while let Some(message) = messages.next().await {
            if let ServerMessage::Episode { order, report } = message.expect("the stream is whole") {
                assert!(matches!(report.outcome, Outcome::Success | Outcome::Failure), "{report:?}");
                reports.push((request.episodes[order as usize].episode_id.clone(), report));
            }
        }
        reports
    }
}

pub(crate) fn simulations() -> Vec<Simulation> {
    TASKS.map(simulation).to_vec()
}

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

fn request(task: &str, mock: &Mock, first_seed: u32, episodes: u32) -> EpisodesRequest {
    EpisodesRequest {
        environment: format!("metaworld/{task}").parse().expect("it is an id"),
        // The machine may be busy; lateness shows in the figures, not in faults.
        action_timeout_ms: 10_000,
        reset_timeout_ms: 10_000,
        per_miner: episodes,
        budget_ms: None,
        cold_start_ms: 10_000,
        rules: robo::address::Rules::default(),
        episodes: (0..episodes).map(|order| order_of(task, "mock", &mock.url(), order, first_seed + order)).collect(),
    }
}

/// An episode of a miner.
pub(crate) fn order_of(task: &str, hotkey: &str, endpoint: &str, order: u32, seed: u32) -> EpisodeOrder {
    EpisodeOrder {
        order,
        seed,
        episode_id: format!("{task}-{hotkey}-{seed}"),
        hotkey: hotkey.parse().expect("it is a hotkey"),
        endpoint: endpoint.to_owned(),
        origin: robo::rollout::protocol::Origin::Ourselves,
        keep: robo::cycle::Keep::Nothing,
    }
}
