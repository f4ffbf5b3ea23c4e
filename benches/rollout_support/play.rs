//! What is played: the eight tasks of the reference, by miners that never fail, and one server for all of it.

use std::{
    any::Any,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, future::join_all};
use robo::{
    cycle::{EpisodeReport, Outcome},
    manifest::{Network, Resources, simulation::Simulation},
    plan,
    rollout::{
        Client,
        protocol::{EpisodeOrder, EpisodesRequest, Open, ServerMessage},
    },
    runtime::{
        Order, Runtime,
        docker::{Defaults, Docker, Hosts},
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
/// The machine may be busy; lateness shows in the figures, not in faults.
const PATIENT: Duration = Duration::from_secs(10);
/// This machine, to a server on it.
pub(crate) const HERE: &str = "127.0.0.1";

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

/// How MetaWorld is played.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// By its own code, without what robo makes quicker; the numbers are the same to the bit.
    Shipped,
    /// By robo's quick steps.
    Quick,
    /// By robo's quick steps, seen through two cameras.
    Cameras,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Shipped => "as it ships",
            Kind::Quick => "quick steps",
            Kind::Cameras => "cameras",
        }
    }
}

/// A server whose environments are loaded, and a client of it.
pub(crate) struct Table {
    /// The server's process.
    pub(crate) process: u32,
    client: Client,
    /// Where miners of this machine are, as the server sees it.
    host: String,
    /// Ends with the table.
    _server: Box<dyn Any>,
}

impl Table {
    /// On this machine, as runtime `process` has it.
    pub(crate) async fn set(load: Load, workers: u32, kind: Kind) -> Self {
        let server = children::Serving::env_server(&children::package(), &[]);
        let client = Client::new(server.url(), children::TOKEN).expect("a client starts");
        let table = Self { process: server.id(), client, host: HERE.into(), _server: Box::new(server) };
        table.open(load, workers, kind).await
    }

    /// In a container of this image, as runtime `docker` has it.
    pub(crate) async fn in_container(load: Load, workers: u32, image: &str) -> Self {
        let hosts = ["unix:///var/run/docker.sock".parse().expect("it is a host")];
        let runtime = Docker::new(Arc::new(Hosts::new(&hosts)), Defaults { image: image.to_owned(), memory: 8 << 30 });
        let build_digest = docker(&["inspect", "--format", "{{index .Config.Labels \"robo.builds\"}}", image]);
        let server = plan::Server {
            protocol: "robo/v1".into(),
            workers: Some(workers),
            slots_per_worker: load.slots(workers),
            context: "eval-env".into(),
            requirements: "eval-env/requirements/metaworld.lock".into(),
            build_digest,
            image: Some(image.to_owned()),
            recycle_after: None,
            resources: Resources { network: Network::Full, ..Resources::default() },
        };
        let order = Order { family: "metaworld".into(), server, root: ".".into(), kinds: 1 };
        let mut running = runtime.start(&order).await.expect("the container starts");
        // This machine's address on the container's network. Miners elsewhere are not reached through robo, nor are ours here.
        let through = running.reach(&["http://127.0.0.1:9".to_owned()]).await.expect("it may reach this machine");
        let host =
            through[0].strip_prefix("http://").and_then(|rest| rest.split(':').next()).expect("it is an address");
        let address = running.address();
        let name = address.description.split(' ').nth(1).expect("it is named");
        let process = docker(&["inspect", "--format", "{{.State.Pid}}", name]).parse().expect("it runs");
        let client = Client::new(&address.url, &address.token).expect("a client starts");
        let table = Self { process, client, host: host.to_owned(), _server: Box::new(running) };
        table.open(load, workers, Kind::Quick).await
    }

    async fn open(self, load: Load, workers: u32, kind: Kind) -> Self {
        let open = Open { simulations: simulations(kind), workers, slots_per_worker: load.slots(workers) };
        self.client.open(&open).await.expect("the environments load");
        self
    }

    /// Episodes of all tasks at once. None of them fails.
    pub(crate) async fn play_many(&self, load: Load, mock: &Mock, first_seed: u32) -> Vec<(String, EpisodeReport)> {
        let reports = self.play_many_within(load, mock, first_seed, PATIENT).await;
        for (_, report) in &reports {
            assert!(matches!(report.outcome, Outcome::Success | Outcome::Failure), "{report:?}");
        }
        reports
    }

    /// The same with this time-out of an action, whatever comes of them.
    pub(crate) async fn play_many_within(
        &self,
        load: Load,
        mock: &Mock,
        first_seed: u32,
        action_timeout: Duration,
    ) -> Vec<(String, EpisodeReport)> {
        let plays = TASKS.map(|task| {
            let request = EpisodesRequest {
                action_timeout_ms: action_timeout.as_millis() as u64,
                ..request(task, &mock.url(&self.host), first_seed, load.of_each)
            };
            async move { self.play(&request).await }
        });
        join_all(plays).await.into_iter().flatten().collect()
    }

    /// As the reference plays: an episode at a time, a step at a time, by the same worker and the same client.
    pub(crate) async fn play_one(&self, mock: &Mock, seed: u32) -> f64 {
        let request = request("reach-v3", &mock.url(&self.host), seed, 1);
        let started = Instant::now();
        let reports = self.play(&request).await;
        let steps: u32 = reports.iter().map(|(_, report)| report.steps).sum();
        f64::from(steps) / started.elapsed().as_secs_f64()
    }

    /// The server's messages about these episodes.
    pub(crate) async fn ask(&self, request: &EpisodesRequest) -> impl Stream<Item = ServerMessage> {
        let messages = self.client.episodes(request).await.expect("it is accepted");
        messages.map(|message| message.expect("the stream is whole"))
    }

    /// The client of the server.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Where miners of this machine are, as the server sees it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    async fn play(&self, request: &EpisodesRequest) -> Vec<(String, EpisodeReport)> {
        let mut reports = Vec::new();
        let mut messages = std::pin::pin!(self.ask(request).await);
        while let Some(message) = messages.next().await {
            if let ServerMessage::Episode { order, report } = message {
                reports.push((request.episodes[order as usize].episode_id.clone(), report));
            }
        }
        reports
    }
}

pub(crate) fn simulations(kind: Kind) -> Vec<Simulation> {
    TASKS.map(|task| simulation(task, kind)).to_vec()
}

fn simulation(task: &str, kind: Kind) -> Simulation {
    let hook = if matches!(kind, Kind::Shipped) { "metaworld_plain" } else { "metaworld" };
    let mut observation = json!({ "state": [{ "slice": [0, 4] }] });
    if matches!(kind, Kind::Cameras) {
        let camera = |name: &str| json!({ "camera": name, "width": 84, "height": 84 });
        observation["cameras"] = json!({ "corner": camera("corner"), "gripper": camera("gripperPOV") });
        observation["encodings"] = json!(["base64"]);
    }
    serde_json::from_value(json!({
        "environment": format!("metaworld/{task}"),
        "gymnasium": { "make": "Meta-World/MT1", "kwargs": { "env_name": task }, "hook": hook },
        "observation": observation,
        "action": { "size": 4, "low": -1.0, "high": 1.0, "out_of_range": "clip" },
        "success": { "rule": { "info": "success" } },
        "determinism": "bitwise",
        "max_steps": STEPS,
        // All episodes have the same length, so that all are in flight together.
        "stop_on_success": false,
    }))
    .expect("it is a simulation")
}

fn request(task: &str, miner: &str, first_seed: u32, episodes: u32) -> EpisodesRequest {
    EpisodesRequest {
        run: uuid::Uuid::nil(),
        environment: format!("metaworld/{task}").parse().expect("it is an id"),
        action_timeout_ms: PATIENT.as_millis() as u64,
        reset_timeout_ms: 10_000,
        per_miner: episodes,
        permits: false,
        budget_ms: None,
        spent_ms: std::collections::BTreeMap::default(),
        cold_start_ms: 10_000,
        rules: robo::address::Rules::default(),
        canary: Vec::new(),
        episodes: (0..episodes).map(|order| order_of(task, "mock", miner, order, first_seed + order)).collect(),
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

/// What `docker ARGUMENTS` prints.
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker is installed");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
