//! `robo env-server` with the real simulator, demo miners and the client the engine uses.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path};

use futures::StreamExt;
use robo::{
    address::{Reach, Rules},
    cycle::{EpisodeReport, InfraFault, MinerFault, Outcome},
    manifest::simulation::Simulation,
    rollout::{
        Client, Error,
        protocol::{EpisodeOrder, EpisodesRequest, Open, Opened, Origin, ServerMessage},
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::children::{self, Serving, TOKEN};

/// A MetaWorld task as its manifest describes it, with fewer steps.
pub(crate) fn metaworld(task: &str, max_steps: u32) -> Simulation {
    simulation(json!({
        "environment": format!("metaworld/{task}"),
        "gymnasium": { "make": "Meta-World/MT1", "kwargs": { "env_name": task }, "hook": "metaworld" },
        "observation": { "state": [{ "slice": [0, 4] }] },
        "action": { "size": 4, "low": -1.0, "high": 1.0, "out_of_range": "clip" },
        "success": { "rule": { "info": "success" }, "when": "any" },
        "determinism": "bitwise",
        "max_steps": max_steps,
        "stop_on_success": true,
    }))
}

/// An environment made for tests: it goes wrong at its third step when its seed is 13.
pub(crate) fn faulty(how: &str) -> Simulation {
    simulation(json!({
        "environment": format!("faulty/{how}"),
        "gymnasium": { "make": "Faulty-v0", "kwargs": { "how": how }, "imports": ["faulty"] },
        "observation": { "state": [{}] },
        "action": { "size": 4, "low": -1.0, "high": 1.0 },
        "success": { "rule": "survive" },
        "determinism": "bitwise",
        "max_steps": 5,
        "stop_on_success": false,
    }))
}

fn simulation(value: serde_json::Value) -> Simulation {
    serde_json::from_value(value).unwrap()
}

const FAULTY: &str = r#"
import os, time
import gymnasium
import numpy

class Faulty(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), numpy.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), numpy.float64)

    def __init__(self, how):
        self.how, self.seed, self.steps = how, 0, 0

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        return numpy.zeros(2), {}

    def step(self, action):
        self.steps += 1
        if self.seed == 13 and self.steps == 3:
            if self.how == "crash":
                os._exit(7)
            if self.how == "hang":
                time.sleep(3600)
            raise RuntimeError("the arm fell off")
        return numpy.zeros(2), 1.0, False, False, {}

gymnasium.register("Faulty-v0", Faulty)
"#;

/// A package directory that holds the faulty environment next to the real package.
pub(crate) fn faulty_package() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    symlink(children::package().join("robo_eval_env"), directory.path().join("robo_eval_env")).unwrap();
    fs::write(directory.path().join("faulty.py"), FAULTY).unwrap();
    directory
}

pub(crate) fn client(server: &Serving) -> Client {
    crate::install_tls();
    Client::new(server.url(), TOKEN).unwrap()
}

pub(crate) async fn open(
    server: &Serving,
    simulations: Vec<Simulation>,
    workers: u32,
    slots_per_worker: u32,
) -> Opened {
    client(server).open(&Open { simulations, workers, slots_per_worker }).await.unwrap()
}

/// Orders of `seeds` for each miner, by seed first.
pub(crate) fn request(
    environment: &str,
    miners: &[(&str, String)],
    seeds: impl IntoIterator<Item = u32>,
) -> EpisodesRequest {
    let orders = seeds.into_iter().flat_map(|seed| miners.iter().map(move |miner| (seed, miner)));
    EpisodesRequest {
        run: uuid::Uuid::nil(),
        environment: environment.parse().unwrap(),
        // Long, because tests share the machine: time-outs have tests of their own.
        action_timeout_ms: 120_000,
        reset_timeout_ms: 120_000,
        per_miner: 8,
        permits: false,
        budget_ms: None,
        spent_ms: std::collections::BTreeMap::default(),
        // Miners that are not there are part of many tests, which need not wait for them.
        cold_start_ms: 2000,
        rules: Rules { reach: Reach::Private, ..Rules::default() },
        canary: Vec::new(),
        episodes: orders
            .enumerate()
            .map(|(order, (seed, (hotkey, endpoint)))| EpisodeOrder {
                order: order as u32,
                seed,
                episode_id: format!("{hotkey}-{seed}"),
                hotkey: hotkey.parse().unwrap(),
                endpoint: endpoint.clone(),
                origin: Origin::Stranger,
                keep: robo::cycle::Keep::Nothing,
            })
            .collect(),
    }
}

/// Reports by miner and seed of all that was ordered.
pub(crate) async fn run(server: &Serving, request: &EpisodesRequest) -> BTreeMap<(String, u32), EpisodeReport> {
    let reports = run_what_can_be(server, request).await;
    assert_eq!(reports.len(), request.episodes.len());
    reports
}

/// Reports by miner and seed, once the stream has said that there will be no more.
async fn run_what_can_be(server: &Serving, request: &EpisodesRequest) -> BTreeMap<(String, u32), EpisodeReport> {
    let mut reports = BTreeMap::new();
    let mut messages = std::pin::pin!(client(server).episodes(request).await.unwrap());
    let mut ended = false;
    while let Some(message) = messages.next().await {
        match message.unwrap() {
            ServerMessage::Episode { order, report } => {
                let order = &request.episodes[order as usize];
                assert!(reports.insert((order.hotkey.to_string(), order.seed), report).is_none());
            }
            ServerMessage::Started { .. }
            | ServerMessage::Returned { .. }
            | ServerMessage::Unused { .. }
            | ServerMessage::Miner { .. }
            | ServerMessage::Spent { .. }
            | ServerMessage::Progress { .. } => {}
            ServerMessage::End => ended = true,
        }
    }
    assert!(ended);
    reports
}

#[tokio::test]
async fn skill_shows_in_real_physics() {
    let server = Serving::env_server(&children::package(), &[]);
    let opened = open(&server, vec![metaworld("drawer-close-v3", 150)], 1, 8).await;
    assert_eq!(opened.packages["mujoco"], "3.3.0");
    let [heuristic, noop] = ["heuristic", "noop"].map(|policy| Serving::demo_miner(policy, &[]));
    let miners = [("heuristic", heuristic.url()), ("noop", noop.url())];
    let reports = run(&server, &request("metaworld/drawer-close-v3", &miners, [1, 2, 3])).await;
    for ((hotkey, seed), report) in &reports {
        if hotkey == "heuristic" {
            assert_eq!(report.outcome, Outcome::Success, "seed {seed}");
            assert!(report.steps < 150);
        } else {
            assert_eq!((report.outcome, report.steps), (Outcome::Failure, 150), "seed {seed}");
        }
        let latency = report.latency.unwrap();
        assert!(0.0 < latency.p50_ms && latency.p50_ms <= latency.p95_ms && latency.p95_ms <= latency.max_ms);
        assert_eq!(report.trajectory_hash.as_ref().unwrap().len(), 64);
        assert_eq!(report.detail, None);
    }
    let hashes: std::collections::HashSet<_> = reports.values().map(|report| &report.trajectory_hash).collect();
    assert_eq!(hashes.len(), reports.len(), "different seeds and actions give different trajectories");
}

#[tokio::test]
async fn workers_and_slots_change_no_trajectory() {
    let miner = Serving::demo_miner("random", &[]);
    let request = request("metaworld/push-v3", &[("a", miner.url()), ("b", miner.url())], 0..6);
    let mut results = Vec::new();
    for (workers, slots) in [(1, 1), (2, 3)] {
        let server = Serving::env_server(&children::package(), &[]);
        open(&server, vec![metaworld("push-v3", 60)], workers, slots).await;
        let reports = run(&server, &request).await;
        results.push(
            reports
                .into_iter()
                .map(|(key, report)| {
                    (key, (report.outcome, report.steps, report.total_reward.to_bits(), report.trajectory_hash))
                })
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(results[0], results[1]);
}

#[tokio::test]
async fn broken_miners_are_told_apart_and_disturb_nobody() {
    let server = Serving::env_server(&children::package(), &[]);
    open(&server, vec![metaworld("reach-v3", 30)], 1, 8).await;
    let good = Serving::demo_miner("noop", &[]);
    let nan = Serving::demo_miner("noop", &["--fail", "nan-after:5"]);
    let late = Serving::demo_miner("noop", &["--fail", "timeout"]);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let miners = [
        ("good", good.url()),
        ("nan", nan.url()),
        ("down", format!("http://{closed}")),
        ("nowhere", "not a url".to_owned()),
    ];
    let others = request("metaworld/reach-v3", &miners, [1]);
    // Nobody but the one that never answers is hurried.
    let hurried =
        EpisodesRequest { action_timeout_ms: 1000, ..request("metaworld/reach-v3", &[("late", late.url())], [1]) };
    let (mut reports, slow) = tokio::join!(run(&server, &others), run(&server, &hurried));
    reports.extend(slow);
    let outcome = |hotkey: &str| reports[&(hotkey.to_owned(), 1)].clone();
    assert_eq!(outcome("good").outcome, Outcome::Failure);
    assert_eq!(outcome("good").steps, 30);
    for (hotkey, fault, steps) in [
        ("nan", MinerFault::InvalidAction, 5),
        ("late", MinerFault::ActionTimeout, 0),
        ("down", MinerFault::ConnectionError, 0),
        ("nowhere", MinerFault::EndpointAddressForbidden, 0),
    ] {
        let report = outcome(hotkey);
        assert_eq!((report.outcome, report.steps), (Outcome::MinerFault(fault), steps), "{hotkey}");
        let timed_out = (fault == MinerFault::ActionTimeout).then_some(1000.0);
        assert_eq!(report.latency.is_some(), steps > 0 || timed_out.is_some(), "a time-out is a latency, too");
        assert!(timed_out.is_none() || report.latency.map(|latency| latency.max_ms) == timed_out);
        assert!(report.detail.is_some());
    }
}

#[tokio::test]
async fn a_simulator_that_raises_costs_one_episode() {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &[]);
    open(&server, vec![faulty("raise")], 1, 4).await;
    let miner = Serving::demo_miner("noop", &[]);
    let reports = run(&server, &request("faulty/raise", &[("a", miner.url())], [1, 13, 2])).await;
    for ((_, seed), report) in reports {
        if seed == 13 {
            assert_eq!(report.outcome, Outcome::InfraFault(InfraFault::SimulatorError));
            assert!(report.detail.unwrap().contains("the arm fell off"));
        } else {
            assert_eq!((report.outcome, report.total_reward), (Outcome::Success, 5.0));
        }
    }
}

#[tokio::test]
async fn a_worker_that_dies_is_replaced() {
    worker_fault("crash", InfraFault::ServerLost).await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_and_replaced() {
    worker_fault("hang", InfraFault::SimulatorTimeout).await;
}

/// Long enough for a machine that is busy, when a simulator hangs.
const WORKER_TIMEOUT: [&str; 2] = ["--worker-timeout", "5s"];

/// One slot, so that only the faulty episode is in flight when the worker goes.
async fn worker_fault(how: &str, fault: InfraFault) {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &WORKER_TIMEOUT);
    open(&server, vec![faulty(how)], 1, 1).await;
    let miner = Serving::demo_miner("noop", &[]);
    let environment = format!("faulty/{how}");
    let reports = run(&server, &request(&environment, &[("a", miner.url())], [1, 13, 2, 3])).await;
    for ((_, seed), report) in reports {
        let expected = if seed == 13 { Outcome::InfraFault(fault) } else { Outcome::Success };
        assert_eq!(report.outcome, expected, "seed {seed}: {:?}", report.detail);
    }
}

#[tokio::test]
async fn an_episode_that_kills_its_worker_costs_nobody_else_a_try() {
    killer_among_others("crash", InfraFault::ServerLost).await;
}

#[tokio::test]
async fn an_episode_that_hangs_its_worker_costs_nobody_else_a_try() {
    killer_among_others("hang", InfraFault::SimulatorTimeout).await;
}

/// Everything in flight on the one worker at the same time, and the killer in the middle.
async fn killer_among_others(how: &str, fault: InfraFault) {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &WORKER_TIMEOUT);
    open(&server, vec![faulty(how)], 1, 16).await;
    let miner = Serving::demo_miner("noop", &[]);
    let miners = ["a", "b"].map(|name| (name, miner.url()));
    let mut request = request(&format!("faulty/{how}"), &miners, 0..8);
    request.episodes[7].seed = 13;
    let reports = run(&server, &request).await;
    for ((hotkey, seed), report) in reports {
        let expected = if seed == 13 { Outcome::InfraFault(fault) } else { Outcome::Success };
        assert_eq!(report.outcome, expected, "{hotkey} {seed}: {:?}", report.detail);
    }
}

/// Each of them played alone would take the worker along: after two of them it is plain that it is not the episode.
#[tokio::test]
async fn a_simulator_that_always_dies_is_not_asked_about_every_episode() {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &[]);
    open(&server, vec![faulty("crash")], 1, 16).await;
    let miner = Serving::demo_miner("noop", &[]);
    let miners: Vec<(String, String)> = (0..12).map(|n| (format!("m{n}"), miner.url())).collect();
    let miners: Vec<(&str, String)> = miners.iter().map(|(name, url)| (name.as_str(), url.clone())).collect();
    let reports = run_what_can_be(&server, &request("faulty/crash", &miners, [13])).await;
    assert!(reports.len() > 5, "one death an episode leaves no worker after five: {}", reports.len());
}

#[tokio::test]
async fn workers_that_always_die_end_the_request() {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &[]);
    open(&server, vec![faulty("crash")], 1, 1).await;
    let miner = Serving::demo_miner("noop", &[]);
    let miners: Vec<(String, String)> = (0..8).map(|n| (format!("m{n}"), miner.url())).collect();
    let miners: Vec<(&str, String)> = miners.iter().map(|(name, url)| (name.as_str(), url.clone())).collect();
    let reports = run_what_can_be(&server, &request("faulty/crash", &miners, [13])).await;
    assert_eq!(reports.len(), 5, "who has not run when the last worker is given up has lost nothing");
    for report in reports.values() {
        assert_eq!(report.outcome, Outcome::InfraFault(InfraFault::ServerLost));
    }
    // Whoever asks for its health learns that another server is needed.
    let health = client(&server).health().await;
    assert!(matches!(&health, Err(Error::Refused { status, .. }) if status.as_u16() == 503), "{health:?}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_said_in_the_simulators_words() {
    let server = Serving::env_server(&children::package(), &[]);
    let refusal = |simulation: Simulation| {
        let client = client(&server);
        async move {
            let open = Open { simulations: vec![simulation], workers: 1, slots_per_worker: 1 };
            client.open(&open).await.unwrap_err().to_string()
        }
    };
    let unknown = refusal(metaworld("juggle-v3", 100)).await;
    assert!(unknown.contains("juggle-v3"), "{unknown}");
    let missing = refusal(faulty("raise")).await;
    assert!(missing.contains("faulty"), "{missing}");
    // A failed attempt leaves nothing behind: the next one may differ.
    open(&server, vec![metaworld("reach-v3", 10)], 1, 1).await;
}

#[tokio::test]
async fn a_server_that_nobody_uses_is_opened_anew_and_one_that_plays_is_not() {
    let server = Serving::env_server(&children::package(), &[]);
    let first = open(&server, vec![metaworld("reach-v3", 10)], 1, 1).await;
    assert_eq!((first.version.as_deref(), first.digest), (Some(env!("CARGO_PKG_VERSION")), None));
    open(&server, vec![metaworld("push-v3", 10)], 1, 1).await;
    let gone = client(&server).episodes(&request("metaworld/reach-v3", &[], [])).await.err().unwrap();
    assert!(gone.has_forgotten(), "{gone}");
    let mut miner = Recorder::start().await;
    let miners = [("a", miner.endpoint.clone())];
    let order = EpisodesRequest { action_timeout_ms: 3_600_000, ..request("metaworld/push-v3", &miners, [1]) };
    let playing = client(&server).episodes(&order).await.unwrap();
    miner.until_act().await;
    let other = Open { simulations: vec![metaworld("reach-v3", 10)], workers: 1, slots_per_worker: 1 };
    let busy = client(&server).open(&other).await.unwrap_err();
    assert!(busy.to_string().contains("plays episodes"), "{busy}");
    open(&server, vec![metaworld("push-v3", 10)], 1, 1).await;
    drop(playing);
}

#[tokio::test]
async fn a_python_without_the_package_is_explained() {
    let empty = tempfile::tempdir().unwrap();
    let server = Serving::env_server(empty.path(), &[]);
    let request = Open { simulations: vec![metaworld("reach-v3", 10)], workers: 1, slots_per_worker: 1 };
    let error = client(&server).open(&request).await.unwrap_err().to_string();
    assert!(error.contains("No module named"), "{error}");
}

#[tokio::test]
async fn only_those_who_know_the_token_are_served() {
    let mut server = Serving::env_server(Path::new("/nowhere"), &[]);
    client(&server).health().await.unwrap();
    let stranger = Client::new(server.url(), "a guess").unwrap();
    let Err(Error::Refused { status, text }) = stranger.health().await else { panic!("it was let in") };
    assert_eq!((status.as_u16(), text.as_str()), (401, "the bearer token is missing or wrong"));
    let Err(error) = client(&server).episodes(&request("a/b", &[], [])).await else { panic!("it is not open") };
    assert!(error.to_string().contains("not open"), "{error}");
    let wrong =
        reqwest::Client::new().post(format!("{}/open", server.url())).bearer_auth(TOKEN).body("{}").send().await;
    let wrong = wrong.unwrap();
    assert_eq!(wrong.status().as_u16(), 400);
    let wrong: serde_json::Value = wrong.json().await.unwrap();
    assert!(wrong["error"].as_str().unwrap().contains("simulations"), "{wrong}");
    assert_eq!(server.close(), Some(0));
}

#[tokio::test]
async fn a_server_that_dies_cuts_the_stream_and_takes_its_workers_along() {
    let mut server = Serving::env_server(&children::package(), &[]);
    open(&server, vec![metaworld("reach-v3", 500)], 2, 1).await;
    let workers = children_of(server.id());
    assert_eq!(workers.len(), 2);
    let silent = Serving::demo_miner("noop", &["--fail", "timeout"]);
    let messages = client(&server).episodes(&request("metaworld/reach-v3", &[("a", silent.url())], [1])).await.unwrap();
    let mut messages = std::pin::pin!(messages);
    let mut begun = Vec::new();
    while begun.len() < 2 {
        match messages.next().await.unwrap().unwrap() {
            ServerMessage::Spent { .. } | ServerMessage::Progress { .. } => {}
            message => begun.push(message),
        }
    }
    assert!(matches!(&begun[..], [ServerMessage::Miner { .. }, ServerMessage::Started { order: 0 }]), "{begun:?}");
    server.kill();
    loop {
        match messages.next().await {
            Some(Ok(ServerMessage::Spent { .. } | ServerMessage::Progress { .. })) => {}
            Some(Err(Error::Cut { .. })) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(messages.next().await.is_none());
    // The kernel kills them; it need not have done so by now.
    while workers.iter().any(|worker| is_running(worker)) {
        std::thread::yield_now();
    }
}

/// Process ids of the workers, which the server starts from a thread of its own.
fn children_of(parent: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
    children.flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn is_running(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_slots() {
    let server = Serving::env_server(&children::package(), &[]);
    open(&server, vec![metaworld("reach-v3", 5)], 1, 1).await;
    let mut silent = Recorder::start().await;
    let mut request_of_silent = request("metaworld/reach-v3", &[("a", silent.endpoint.clone())], [1]);
    request_of_silent.action_timeout_ms = 3_600_000;
    let stuck = client(&server).episodes(&request_of_silent).await.unwrap();
    // From its first `/act` on, the episode holds the only slot for an hour.
    silent.until_act().await;
    drop(stuck);
    let good = Serving::demo_miner("noop", &[]);
    let reports = run(&server, &request("metaworld/reach-v3", &[("b", good.url())], [1])).await;
    assert_eq!(reports[&("b".to_owned(), 1)].steps, 5);
}

/// A miner that answers everything but `/act`, and keeps what it was sent before that.
struct Recorder {
    endpoint: String,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, sender.clone()));
            }
        });
        Self { endpoint, requests }
    }

    /// Heads and bodies in order, up to the head of the first `/act`.
    async fn until_act(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|head: &String| !head.starts_with("POST /act")) {
            seen.push(self.requests.recv().await.unwrap());
        }
        seen
    }
}

async fn record(stream: TcpStream, requests: mpsc::UnboundedSender<String>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        let is_act = head.starts_with("POST /act");
        let _ = requests.send(head);
        let _ = requests.send(String::from_utf8(body).unwrap());
        if is_act {
            return std::future::pending().await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    }
}

#[tokio::test]
async fn nothing_a_miner_is_sent_before_it_sees_the_scene_depends_on_the_seed() {
    let server = Serving::env_server(&children::package(), &[]);
    open(&server, vec![metaworld("push-v3", 5)], 1, 1).await;
    let mut seen = Vec::new();
    for seed in [0, u32::MAX] {
        let mut miner = Recorder::start().await;
        let mut request = request("metaworld/push-v3", &[("a", miner.endpoint.clone())], [seed]);
        request.episodes[0].episode_id = "an-opaque-id".to_owned();
        let _running = client(&server).episodes(&request).await.unwrap();
        let port = miner.endpoint.rsplit(':').next().unwrap().to_owned();
        let mut sent = miner.until_act().await;
        // The length of the observation's text is the scene's.
        let act = sent.pop().unwrap();
        sent.extend(act.lines().filter(|line| !line.starts_with("content-length")).map(str::to_owned));
        seen.push(sent.into_iter().map(|text| text.replace(&port, "PORT")).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
    let reset = seen[0].iter().find(|line| line.contains("task_config")).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(reset).unwrap(),
        json!({"task_config": {
            "env_id": "metaworld/push-v3", "env_name": "metaworld", "task_name": "push-v3", "episode_id": "an-opaque-id",
        }})
    );
}

#[tokio::test]
async fn cameras_the_manifest_names_are_seen_by_the_miner() {
    let mut seeing = serde_json::to_value(metaworld("push-v3", 5)).unwrap();
    seeing["observation"]["cameras"] = json!({
        "corner": { "camera": "corner", "width": 84, "height": 60 },
        "gripper": { "camera": "gripperPOV", "width": 32, "height": 32 },
    });
    let seeing = simulation(seeing);
    let server = Serving::env_server(&children::package(), &[]);
    let opened = open(&server, vec![seeing], 1, 1).await;
    assert!(opened.renderer.is_some());
    let mut miner = Recorder::start().await;
    let _running =
        client(&server).episodes(&request("metaworld/push-v3", &[("a", miner.endpoint.clone())], [1])).await.unwrap();
    miner.until_act().await;
    let act: serde_json::Value = serde_json::from_str(&miner.requests.recv().await.unwrap()).unwrap();
    let images: BTreeMap<String, Vec<Vec<[u8; 3]>>> = serde_json::from_value(act["images"].clone()).unwrap();
    let sizes: Vec<_> = images.iter().map(|(name, rows)| (name.as_str(), rows.len(), rows[0].len())).collect();
    assert_eq!(sizes, [("corner", 60, 84), ("gripper", 32, 32)]);
    for rows in images.values() {
        let colours: std::collections::HashSet<_> = rows.iter().flatten().collect();
        assert!(colours.len() > 50, "a scene has many colours");
    }
}
