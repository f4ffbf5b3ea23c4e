//! Servers of others (`protocol: affinetes`): whole cycles on one that simulates for real, and every way in which such a
//! server, or a miner behind it, goes wrong.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use futures::StreamExt;
use robo::{
    cycle::{EpisodeReport, InfraFault, MinerFault, Outcome},
    plan,
    rollout::{
        Driver, Error,
        protocol::{EpisodesRequest, Open, ServerMessage},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    children::{Serving, python},
    envserver::request,
    support::program::{Place, pipeline, repository, turn, workspace},
};

/// The server of `examples/affinetes_server.py`, ended when it is dropped.
pub(crate) struct Foreign {
    child: Child,
    pub(crate) url: String,
}

impl Foreign {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(python())
            .arg(repository().join("examples/affinetes_server.py"))
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An environment as the manifest of the example has it, with changes.
fn environment(env_id: &str, at_a_time: u32, timeout_ms: u64) -> plan::Environment {
    serde_json::from_value(json!({
        "simulation": {
            "environment": "legacy/x", "determinism": "none", "max_steps": 60, "stop_on_success": false,
            "score": { "from": "score", "min": 0.0, "max": 1.0 },
            "affinetes": {
                "env_id": env_id, "use_images": false, "kwargs": { "dataset": "small", "seed": 99 }, "timeout_ms": timeout_ms,
            },
        },
        "server": {
            "protocol": "affinetes", "workers": null, "slots_per_worker": at_a_time, "context": "", "requirements": "",
            "build_digest": "", "image": null,
        },
        "action_timeout_ms": 20_000, "reset_timeout_ms": 5_000,
    }))
    .unwrap()
}

fn driver(environment: &plan::Environment, url: &str) -> Driver {
    crate::install_tls();
    Driver::new(&environment.server, url, "").unwrap()
}

/// What came of an order: how the episode ended, or that it did not.
type Reports = BTreeMap<(String, u32), EpisodeReport>;

/// Reports by miner and seed, and how the stream broke off, if it did.
async fn run(url: &str, environment: &plan::Environment, request: EpisodesRequest) -> (Reports, Option<Error>) {
    let orders = request.episodes.clone();
    let mut messages =
        driver(environment, url).episodes(environment, request, CancellationToken::new().into()).await.unwrap();
    let (mut reports, mut problem, mut ended) = (BTreeMap::new(), None, false);
    while let Some(message) = messages.next().await {
        match message {
            Ok(ServerMessage::Episode { order, report }) => {
                let order = &orders[order as usize];
                assert!(reports.insert((order.hotkey.to_string(), order.seed), report).is_none());
            }
            Ok(ServerMessage::End) => ended = true,
            Ok(_) => {}
            Err(error) => problem = Some(error),
        }
    }
    assert_eq!(ended, problem.is_none());
    (reports, problem)
}

/// A workspace with the example's family and pipeline; miners get 20 s for an action, whatever else the machine does.
pub(crate) fn example(change: impl Fn(String) -> String) -> TempDir {
    let read = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(|_| change(read("pipelines/affinetes.yaml")));
    let family = read("environments/affinetes.yaml")
        .replace("max_steps: 500, action_timeout: 500ms", "max_steps: 150, action_timeout: 20s")
        .replace("timeout: 320s", "timeout: 3600s");
    assert!(family.contains("20s") && family.contains("3600s"));
    fs::write(folder.path().join("environments/affinetes.yaml"), family).unwrap();
    folder
}

#[test]
fn a_cycle_on_a_server_of_others_gives_weights() {
    let _turn = turn();
    let (foreign, place) = (Foreign::start(), Place::new());
    let folder = example(|text| text);
    let server = format!("legacy={}", foreign.url);
    let arguments = ["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2", "--salt", &"5a".repeat(32)];
    let ran = place.run(&[&arguments[..], &["--runtime", "url", "--env-server", &server]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let outcomes = shown["outcomes"].as_array().unwrap();
    assert!(outcomes.iter().all(|count| count["reason"].is_null()), "{outcomes:?}");
    assert!(outcomes.iter().any(|count| count["hotkey"] == "demo-heuristic" && count["outcome"] == "success"));
    assert!(!outcomes.iter().any(|count| count["hotkey"] == "demo-noop" && count["outcome"] == "success"));
    let weights = place.json(&["weights", "show", "--format", "json"])["weights"].clone();
    assert!(weights["1"].as_f64().unwrap() > 0.9, "{weights}");

    let tasks = shown["tasks"].as_array().unwrap();
    let provisioned = tasks.iter().find(|task| task["task"] == "provision[legacy/reach-v3]").unwrap();
    let told = &provisioned["output"]["server"];
    assert_eq!(told["protocol"], "affinetes");
    assert_eq!(told["digest"].as_str().map(str::len), Some(64), "evidence of what the server offers: {told}");

    let listed = place.json(&["episode", "ls", "--outcome", "success", "--format", "json"]);
    let id = listed["episodes"][0]["id"].as_str().unwrap().to_owned();
    let report = place.json(&["episode", "show", &id, "--format", "json"])["report"].clone();
    assert!(report["steps"].as_u64().is_some_and(|steps| (1..150).contains(&steps)), "{report}");
    assert_eq!(
        (&report["score"], &report["trajectory_hash"], &report["latency"]),
        (&json!(1.0), &Value::Null, &Value::Null)
    );
    assert!(report["detail"].as_str().unwrap().contains("by the server's clock"), "{report}");
    let again = place.run(&["episode", "replay", &id]);
    assert!(again.code == 2 && again.stderr.contains("tells no trajectory"), "{}", again.stderr);
}

/// A miner whose answers break the server's own code, not one of its rules.
struct Breaker {
    /// What it answers in place of an action.
    nonsense: &'static str,
    /// Of so many seeds it breaks one.
    every: usize,
    seeds: Vec<Value>,
    breaks: bool,
}

impl Breaker {
    /// Start it, and say where it answers.
    async fn start(nonsense: &'static str, every: usize) -> String {
        let breaker = Arc::new(Mutex::new(Self { nonsense, every, seeds: Vec::new(), breaks: false }));
        let router = Router::new()
            .route("/health", get(async || Json(json!({ "status": "ok" }))))
            .route("/reset", post(Self::reset))
            .route("/act", post(Self::act))
            .with_state(breaker);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    async fn reset(State(breaker): State<Arc<Mutex<Self>>>, Json(body): Json<Value>) -> Json<Value> {
        let mut breaker = breaker.lock().unwrap();
        let seed = &body["task_config"]["seed"];
        let place = breaker.seeds.iter().position(|seen| seen == seed).unwrap_or(breaker.seeds.len());
        if place == breaker.seeds.len() {
            breaker.seeds.push(seed.clone());
        }
        breaker.breaks = place % breaker.every == 0;
        Json(json!({ "status": "ok" }))
    }

    async fn act(State(breaker): State<Arc<Mutex<Self>>>) -> String {
        let breaker = breaker.lock().unwrap();
        let action = if breaker.breaks { breaker.nonsense } else { "[0, 0, 0, 0]" };
        format!(r#"{{"action": {action}}}"#)
    }
}

#[test]
fn a_miner_that_breaks_the_servers_code_pays_for_it_and_nobody_else_does() {
    let _turn = turn();
    let (foreign, place) = (Foreign::start(), Place::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let digits: &'static str = "1".repeat(5000).leak();
    let (null, number) = runtime.block_on(async { (Breaker::start("null", 1).await, Breaker::start(digits, 2).await) });
    let folder = example(|text| {
        let noop = r#"        - { uid: 2, hotkey: demo-noop, endpoint: "demo:noop" }"#;
        let cheats = [(3, "cheat-null", &null), (4, "cheat-number", &number)]
            .map(|(uid, hotkey, url)| format!("\n        - {{ uid: {uid}, hotkey: {hotkey}, endpoint: \"{url}\" }}"));
        let changed = text
            .replace(noop, &format!("{noop}{}", cheats.concat()))
            .replace("[legacy/*]", "[legacy/reach-v3]\nminers: { allow_private_endpoints: true }")
            .replace("    expect: { quorum: 0.9 }\n", "");
        assert!(
            changed.contains("hotkey: cheat-number") && changed.contains("miners: {") && !changed.contains("quorum")
        );
        changed
    });
    let server = format!("legacy={}", foreign.url);
    let arguments = ["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=4", "--salt", &"5a".repeat(32)];
    let ran = place.run(&[&arguments[..], &["--runtime", "url", "--env-server", &server]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    // Every episode of every miner is scored, although all are asked for.
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let count = |hotkey: &str, reason: Value| -> u64 {
        let rows = shown["outcomes"].as_array().unwrap().iter();
        rows.filter(|row| row["hotkey"] == hotkey && row["reason"] == reason)
            .filter_map(|row| row["count"].as_u64())
            .sum()
    };
    for (hotkey, unexplained) in [("demo-heuristic", 0), ("demo-noop", 0), ("cheat-null", 4), ("cheat-number", 2)] {
        let counts = (count(hotkey, json!("unexplained")), count(hotkey, Value::Null));
        assert_eq!(counts, (unexplained, 4 - unexplained), "{hotkey}: {}", shown["outcomes"]);
    }
    let listed = place.json(&["episode", "ls", "--outcome", "miner_fault", "--format", "json"]);
    let id = listed["episodes"][0]["id"].as_str().unwrap().to_owned();
    let report = place.json(&["episode", "show", &id, "--format", "json"])["report"].clone();
    assert_eq!(report["score"], 0.0, "{report}");
    assert!(report["detail"].as_str().unwrap().contains("other miners played this seed"), "{report}");
}

/// A server on which one miner's episodes take two seconds each, and those of the others no time.
async fn held_up() -> String {
    async fn evaluate(Json(call): Json<Value>) -> Json<Value> {
        if call["method"] == "list_environments" {
            return Json(json!({ "status": "success", "result": [] }));
        }
        if call["kwargs"]["model"] == "staller" {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
        let extra = json!({ "seed": call["kwargs"]["seed"], "timesteps": 5, "total_reward": 1.0 });
        Json(json!({ "status": "success", "result": { "score": 1.0, "success": true, "extra": extra } }))
    }
    let router = Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/methods", get(async || Json(usual_methods())))
        .route("/call", post(evaluate));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[test]
fn a_miner_that_keeps_the_server_busy_runs_out_of_budget_and_the_others_are_scored() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let foreign = runtime.block_on(held_up());
    let folder = example(|text| {
        let noop = r#"        - { uid: 2, hotkey: demo-noop, endpoint: "demo:noop" }"#;
        let staller = format!("{noop}\n        - {{ uid: 3, hotkey: staller, endpoint: \"http://8.8.8.8:9\" }}");
        let changed = text
            .replace(noop, &staller)
            .replace("[legacy/*]", "[legacy/reach-v3]\nminers: { allow_private_endpoints: true }")
            .replace("    uses: episodes/run\n", "    uses: episodes/run\n    timeout: 20s\n");
        assert!(changed.contains("hotkey: staller") && changed.contains("timeout: 20s"));
        changed
    });
    let planned = place.json(&["plan", &pipeline(&folder), "--format", "json"]);
    let closing: Vec<&Value> = planned["stages"].as_array().unwrap().iter().map(|it| &it["closing_seconds"]).collect();
    assert!(closing.contains(&&json!(15)), "{closing:?}");
    let server = format!("legacy={foreign}");
    let arguments = ["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=16", "--salt", &"5a".repeat(32)];
    let ran = place.run(&[&arguments[..], &["--runtime", "url", "--env-server", &server]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let rows = shown["outcomes"].as_array().unwrap();
    let count = |hotkey: &str, is_exhausted: bool| -> u64 {
        let of = rows.iter().filter(|row| row["hotkey"] == hotkey);
        of.filter(|row| (row["reason"] == "budget_exhausted") == is_exhausted)
            .filter_map(|row| row["count"].as_u64())
            .sum()
    };
    for hotkey in ["demo-heuristic", "demo-noop"] {
        assert_eq!((count(hotkey, false), count(hotkey, true)), (16, 0), "{rows:?}");
    }
    let (played, exhausted) = (count("staller", false), count("staller", true));
    assert!(played > 0 && exhausted > 0 && played + exhausted == 16, "{rows:?}");
}

#[test]
fn what_such_a_family_cannot_promise_is_shown_before_it_runs() {
    let (folder, place) = (example(|text| text), Place::new());
    let root = folder.path().to_str().unwrap();
    let planned = place.run(&["plan", &pipeline(&folder)]);
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    assert!(planned.stdout.contains("affinetes     legacy: a server of others plays"), "{}", planned.stdout);
    let listed = place.run(&["env", "ls", "legacy", "--root", root]).stdout;
    assert!(listed.contains("none (affinetes: seeds shown, no replay)"), "{listed}");
    let tried = place.run(&["env", "test", "legacy", "--root", root]);
    assert_eq!(tried.code, 0, "{}", tried.stderr);
    assert!(tried.stderr.contains("not tried"), "{}", tried.stderr);
    let by_hand =
        place.run(&["episode", "run", "--env", "legacy/reach-v3", "--seed", "1", "--miner", "x", "--root", root]);
    assert_eq!(by_hand.code, 2);
    assert!(by_hand.stderr.contains("a server of others"), "{}", by_hand.stderr);
    let built = place.run(&["build-eval-env", "legacy", "--root", root]);
    assert!(built.code == 2 && built.stderr.contains("made by others"), "{}", built.stderr);

    let keeping = example(|text| {
        let setting = "episodes: \"${{ inputs.episodes_per_env }}\"";
        text.replace(setting, &format!("{setting}\n      keep_actions: all\n      budget_seconds: 60"))
    });
    let warned = place.run(&["lint", &pipeline(&keeping)]);
    assert_eq!(warned.code, 0, "{}", warned.stderr);
    for words in ["`keep_actions` has no effect in `legacy/", "`budget_seconds` has no effect in `legacy/"] {
        assert!(warned.stderr.contains(words), "{words}: {}", warned.stderr);
    }
}

#[test]
fn without_a_place_for_it_the_cycle_says_what_to_do() {
    let folder = example(|text| text);
    let ran = Place::new().run(&["run-pipeline", &pipeline(&folder)]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    for words in ["does not run as a process", "--env-server legacy=URL", "--runtime docker"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

/// The faults of miners, as a server that calls them by itself words them, end where our own client would put them.
#[tokio::test]
async fn a_broken_miner_is_blamed_through_the_servers_words() {
    let foreign = Foreign::start();
    let mut environment = environment("metaworld/drawer-close-v3", 1, 60_000);
    let failing = |kind: &str| Serving::demo_miner("noop", &["--fail", kind]);
    let miners = [
        ("http-500", MinerFault::HttpError),
        ("malformed", MinerFault::MalformedResponse),
        ("redirect", MinerFault::RedirectNotAllowed),
        ("timeout", MinerFault::ActionTimeout),
        ("down", MinerFault::ConnectionError),
    ]
    .map(|(kind, fault)| (kind, failing(kind), fault));
    let endpoints: Vec<(&str, String)> = miners.iter().map(|(kind, miner, _)| (*kind, miner.url())).collect();
    let endpoints =
        [&endpoints[..], &[("nobody", "http://127.0.0.1:9".to_owned()), ("odd", "gopher://x".to_owned())]].concat();
    // Nobody but the one that never answers is hurried.
    let (late, others): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(|(kind, _)| *kind == "timeout");
    let mut reports = BTreeMap::new();
    for (endpoints, timeout) in [(others, 60_000), (late, 2_000)] {
        environment.action_timeout_ms = timeout;
        let ordered = EpisodesRequest { action_timeout_ms: timeout, ..request("legacy/x", &endpoints, [3]) };
        let (told, problem) = run(&foreign.url, &environment, ordered).await;
        assert!(problem.is_none(), "{problem:?}");
        reports.extend(told);
    }
    let expected = miners.iter().map(|(kind, _, fault)| (*kind, *fault));
    let never = [("nobody", MinerFault::ConnectionError), ("odd", MinerFault::ConnectionError)];
    for (kind, fault) in expected.chain(never) {
        let report = &reports[&(kind.to_owned(), 3)];
        assert_eq!((report.outcome, report.score), (Outcome::MinerFault(fault), Some(0.0)), "{kind}: {report:?}");
    }
    // An action that holds `NaN` breaks the simulator, not the rules that such a server has: nobody can tell whose fault it is.
    let odd = [("nan", failing("nan").url())];
    let (reports, _) = run(&foreign.url, &environment, request("legacy/x", &odd, [3])).await;
    assert!(!matches!(reports[&("nan".to_owned(), 3)].outcome, Outcome::Success), "{reports:?}");
}

/// A server that answers as a test wants, by the seed it is asked for, and keeps what it was asked.
#[derive(Clone, Default)]
struct Scripted {
    methods: Option<Value>,
    environments: Value,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    async fn start(self) -> String {
        let router = Router::new()
            .route("/health", get(async || Json(json!({ "status": "ok" }))))
            .route("/methods", get(async |State(it): State<Self>| Json(it.methods.unwrap_or_else(usual_methods))))
            .route("/call", post(answer))
            .with_state(self);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

fn usual_methods() -> Value {
    json!({ "methods": [
        { "name": "evaluate", "signature": "(self, task_id: int, ...)", "source": "Actor" },
        { "name": "list_environments", "signature": "(self)", "source": "Actor" },
    ] })
}

async fn answer(State(it): State<Scripted>, Json(call): Json<Value>) -> Response<Body> {
    if call["method"] == "list_environments" {
        return Json(json!({ "status": "success", "result": it.environments })).into_response();
    }
    it.asked.lock().unwrap().push(call["kwargs"].clone());
    let kwargs = &call["kwargs"];
    let won =
        |extra: Value| json!({ "status": "success", "result": { "score": 1.0, "success": true, "extra": extra } });
    let raw = |text: &str| Response::new(Body::from(text.to_owned()));
    match kwargs["seed"].as_u64().unwrap() {
        1 => Json(won(json!({ "seed": 1, "timesteps": 9, "total_reward": 2.5 }))).into_response(),
        2 => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "detail": "CUDA is gone\nTraceback" }))).into_response(),
        3 => raw(r#"{"status": "success", "result": {"score": NaN, "success": true}}"#),
        4 => raw(r#"{"status": "success", "result": {"score": 1e999, "success": true}}"#),
        5 => raw("<html>"),
        6 => Json(json!({ "status": "failed", "error": "no licence" })).into_response(),
        7 => Json(won(json!({ "seed": 1 }))).into_response(),
        8 => Json(json!({ "status": "success", "result": null })).into_response(),
        9 => Json(json!({ "status": "success", "result": { "score": 0, "success": false, "error": "Evaluation timeout after 9s" } }))
            .into_response(),
        // Never.
        10 => std::future::pending().await,
        11 => (StatusCode::BAD_GATEWAY, "nobody is there").into_response(),
        12 => Response::new(Body::from_stream(futures::stream::iter([
            Ok("{\"status\""),
            Err(std::io::Error::other("the plug was pulled")),
        ]))),
        13 => raw(&"x".repeat(17 << 20)),
        14 => Json(json!({ "status": "failed", "result": { "error": "Task execution exceeded timeout of 60s" }, "error": null }))
            .into_response(),
        15 => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({ "detail": "Actor.evaluate() got an unexpected keyword argument 'env_id'\nTraceback" })),
        )
            .into_response(),
        seed => panic!("seed {seed}"),
    }
}

#[tokio::test]
async fn what_a_server_answers_wrongly_is_never_scored() {
    let scripted = Scripted::default();
    let url = scripted.clone().start().await;
    let environment = environment("theirs/a", 4, 60_000);
    let miners = [("m", "http://203.0.113.7:9000".to_owned())];
    let (reports, problem) = run(&url, &environment, request("legacy/x", &miners, 1..=9)).await;
    assert!(problem.is_none(), "{problem:?}");
    let of = |seed: u32| &reports[&("m".to_owned(), seed)];
    assert_eq!((of(1).outcome, of(1).steps, of(1).total_reward, of(1).score), (Outcome::Success, 9, 2.5, Some(1.0)));
    let words = [
        (2, "CUDA is gone"),
        (3, "not of the protocol"),
        (4, "not of the protocol"),
        (5, "<html>"),
        (6, "no licence"),
        (7, "seed"),
    ];
    for (seed, words) in words {
        assert_eq!(of(seed).outcome, Outcome::InfraFault(InfraFault::SimulatorError), "{seed}");
        let detail = of(seed).detail.as_deref().unwrap();
        assert!(detail.contains(words) && !detail.contains("Traceback"), "{seed}: {detail}");
    }
    assert_eq!(of(8).outcome, Outcome::InfraFault(InfraFault::SimulatorError));
    assert_eq!(of(9).outcome, Outcome::InfraFault(InfraFault::SimulatorTimeout));
    assert!(reports.values().skip(1).all(|report| report.score.is_none()));
    let (others, _) = run(&url, &environment, request("legacy/x", &miners, [14, 15])).await;
    let of = |seed: u32| &others[&("m".to_owned(), seed)];
    assert_eq!(of(14).outcome, Outcome::InfraFault(InfraFault::SimulatorTimeout));
    assert_eq!(of(14).detail.as_deref(), Some("Task execution exceeded timeout of 60s"));
    assert_eq!(of(15).outcome, Outcome::InfraFault(InfraFault::SimulatorError));
    assert!(of(15).detail.as_deref().unwrap().contains("adapter.affinetes.call.send"), "{:?}", of(15).detail);

    // What it was asked: ours, whatever the manifest adds.
    let asked = scripted.asked.lock().unwrap().iter().find(|kwargs| kwargs["seed"] == 1).cloned().unwrap();
    assert_eq!(
        asked,
        json!({
            "task_id": 1, "seed": 1, "model": "m", "base_url": "http://203.0.113.7:9000", "env_id": "theirs/a",
            "max_timesteps": 60, "action_timeout": 120.0, "use_images": false, "timeout": 60, "dataset": "small",
        })
    );
}

#[tokio::test]
async fn a_server_receives_the_arguments_that_its_manifest_lists() {
    let scripted = Scripted::default();
    let url = scripted.clone().start().await;
    let mut environment = environment("theirs/a", 1, 60_000);
    let simulation = serde_json::to_value(&environment.simulation).unwrap();
    let mut few = simulation.clone();
    few["affinetes"]["send"] = json!(["seed", "base_url", "timeout"]);
    environment.simulation = serde_json::from_value(few.clone()).unwrap();
    assert_eq!(serde_json::to_value(&environment.simulation).unwrap(), few);
    let miners = [("m", "http://203.0.113.7:9000".to_owned())];
    let (reports, problem) = run(&url, &environment, request("legacy/x", &miners, [1])).await;
    assert!(problem.is_none() && reports.values().all(|report| report.outcome == Outcome::Success), "{reports:?}");
    let asked = scripted.asked.lock().unwrap().clone();
    assert_eq!(asked, [json!({ "seed": 1, "base_url": "http://203.0.113.7:9000", "timeout": 60, "dataset": "small" })]);
}

#[tokio::test]
async fn an_image_without_methods_is_told_as_such() {
    let environment = environment("theirs/a", 1, 60_000);
    let open = Open { simulations: vec![environment.simulation.clone()], workers: 0, slots_per_worker: 1 };
    let router = Router::new().route("/health", get(async || "ok")).route("/evaluate", post(async || "{}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let error = driver(&environment, &url).open(&open).await.unwrap_err();
    let told = error.to_string();
    assert!(!error.is_retryable() && told.contains("no `GET /methods`") && told.contains("function-based"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_lost_ends_the_stream_and_is_not_taken_for_a_verdict() {
    let url = Scripted::default().start().await;
    let environment = environment("theirs/a", 1, 60_000);
    let miners = [("m", "http://203.0.113.7:9000".to_owned())];
    for seed in [11, 12, 13] {
        let (reports, problem) = run(&url, &environment, request("legacy/x", &miners, [seed, 1])).await;
        assert!(reports.is_empty() && problem.is_some(), "{seed}: {reports:?}");
        assert!(problem.unwrap().is_retryable(), "{seed}");
    }
    let (reports, problem) = run("http://127.0.0.1:9", &environment, request("legacy/x", &miners, [1])).await;
    assert!(reports.is_empty() && matches!(problem, Some(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_server_that_does_not_fit_is_refused_before_any_miner_is_called() {
    let environment = environment("theirs/a", 1, 60_000);
    let open = Open { simulations: vec![environment.simulation.clone()], workers: 0, slots_per_worker: 1 };
    let opened = async |server: Scripted| {
        let url = server.start().await;
        driver(&environment, &url).open(&open).await
    };
    let well = opened(Scripted { environments: json!(["theirs/a", "theirs/b"]), ..Scripted::default() }).await.unwrap();
    assert_eq!(well.digest.map(|digest| digest.len()), Some(64));
    // One whose list is no list of names has none.
    opened(Scripted { environments: json!({ "a": 1 }), ..Scripted::default() }).await.unwrap();
    let lacks = opened(Scripted { environments: json!(["theirs/b"]), ..Scripted::default() }).await.unwrap_err();
    assert!(
        !lacks.is_retryable() && lacks.to_string().contains("no environment `theirs/a`; it has `theirs/b`"),
        "{lacks}"
    );
    for methods in [json!({ "methods": [{ "name": "reset" }] }), json!([1])] {
        let error = opened(Scripted { methods: Some(methods), ..Scripted::default() }).await.unwrap_err();
        assert!(matches!(error, Error::Unfit(_)), "{error}");
    }
}
