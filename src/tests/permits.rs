//! How many episodes a miner is given at a time, and in which order: what it announces holds over all environments and all
//! servers of a cycle.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    http::HeaderMap,
    routing::{get, post},
};
use futures::StreamExt;
use robo::{
    cycle::{EnvironmentId, EpisodeReport, MinerFault, Outcome, Salt},
    rollout::{
        Control,
        protocol::{EpisodesRequest, Grant, ServerMessage},
    },
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use tokio_util::sync::CancellationToken;

use crate::{
    children::{Serving, TOKEN},
    endpoints::miner,
    envserver::{client, faulty, faulty_package, open, request},
    support::program::{Place, pipeline, repository, turn, workspace},
};

/// Steps of every episode of the pendulums: none ends early.
const STEPS: usize = 200;

/// What a miner has seen.
#[derive(Default)]
struct Memory {
    /// The one episode that a policy object with one state would be in.
    current: String,
    /// Calls for another episode than the current one.
    strayed: usize,
    /// Actions asked for, by episode that has not ended.
    open: HashMap<String, usize>,
    /// Most episodes that were open at a time.
    most: usize,
    /// Episodes in the order of their `/reset`, with the environment.
    resets: Vec<(String, String)>,
}

/// A miner with one policy object: `/reset` overwrites the state of the episode before.
async fn policy_object(health: Value) -> (String, Arc<Mutex<Memory>>) {
    let memory = Arc::new(Mutex::new(Memory::default()));
    let (of_reset, of_act) = (memory.clone(), memory.clone());
    let reset = async move |Json(body): Json<Value>| {
        let text = |name: &str| body["task_config"][name].as_str().unwrap_or_default().to_owned();
        let (id, environment) = (text("episode_id"), text("env_id"));
        let mut memory = of_reset.lock().unwrap();
        memory.current.clone_from(&id);
        memory.open.insert(id.clone(), 0);
        memory.most = memory.most.max(memory.open.len());
        memory.resets.push((environment, id));
        Json(json!({}))
    };
    let act = async move |headers: HeaderMap| {
        let id = headers["x-episode-id"].to_str().unwrap().to_owned();
        let mut memory = of_act.lock().unwrap();
        memory.strayed += usize::from(id != memory.current);
        let acts = memory.open.get_mut(&id).expect("its /reset came first");
        *acts += 1;
        if *acts == STEPS {
            memory.open.remove(&id);
        }
        Json(json!({ "action": [0.0] }))
    };
    let router = Router::new()
        .route("/health", get(async move || Json(health)))
        .route("/reset", post(reset))
        .route("/act", post(act));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (endpoint, memory)
}

/// Two families, each on a server of its own, with two environments each.
fn two_families(miners: &[(&str, &str)], per_miner: u32) -> tempfile::TempDir {
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let listed = miners.iter().zip(1..).map(|((hotkey, endpoint), uid)| {
        format!("        - {{ uid: {uid}, hotkey: {hotkey}, endpoint: \"{endpoint}\" }}\n")
    });
    let listed: String = listed.collect();
    let folder = workspace(|_| {
        let text = example("pipelines/pendulum.yaml");
        let kept = text.lines().filter(|line| !line.contains("{ uid:")).map(|line| format!("{line}\n"));
        kept.collect::<String>()
            .replace("      miners:\n", &format!("      miners:\n{listed}"))
            .replace("[classic-control/*]", "[classic-control/*, other-control/*]")
            .replace("    expect: {", &format!("      per_miner: {per_miner}\n    expect: {{"))
    });
    let family = example("environments/classic-control.yaml").replace("action_timeout: 100ms", "action_timeout: 20s");
    let write = |name: &str, text: &str| fs::write(folder.path().join("environments").join(name), text).unwrap();
    write("classic-control.yaml", &family);
    write("other-control.yaml", &family.replace("family: classic-control", "family: other-control"));
    folder
}

#[test]
fn a_miner_with_one_policy_object_plays_one_episode_at_a_time_in_its_secret_order() {
    let _turn = turn();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = |health: Value| runtime.block_on(policy_object(health));
    let (single, of_single) = start(json!({ "status": "ok" }));
    let (broken, of_broken) = start(json!({ "status": "ok", "max_concurrency": "many" }));
    let (several, of_several) = start(json!({ "status": "ok", "max_concurrency": 16 }));
    let miners = [("single", single.as_str()), ("broken", broken.as_str()), ("several", several.as_str())];
    let (folder, place, salt) = (two_families(&miners, 3), Place::new(), "5a".repeat(32));
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=18", "--salt", &salt]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let outcomes = place.json(&["cycle", "show", "--format", "json"])["outcomes"].clone();
    let of_fault: Vec<&Value> = outcomes.as_array().unwrap().iter().filter(|it| !it["reason"].is_null()).collect();
    assert!(of_fault.is_empty(), "{of_fault:?}");

    for memory in [&of_single, &of_broken] {
        let memory = memory.lock().unwrap();
        assert_eq!((memory.strayed, memory.most, memory.open.len()), (0, 1, 0));
        assert_eq!(memory.resets.len(), 4 * 18);
    }
    let memory = of_several.lock().unwrap();
    assert_eq!((memory.most, memory.open.len()), (3, 0), "as many as it says, up to `per_miner`");

    // Seeds come to each miner in the order that the salt gives it.
    let salt: Salt = salt.parse().unwrap();
    let memory = of_single.lock().unwrap();
    let mut met: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    memory.resets.iter().for_each(|(environment, id)| met.entry(environment).or_default().push(id));
    assert_eq!(met.len(), 4);
    for (environment, met) in met {
        let environment: EnvironmentId = environment.parse().unwrap();
        let order = salt.order(&environment, "single", 18);
        let ids: Vec<String> = order.iter().map(|index| salt.episode_id(&environment, *index, "single")).collect();
        assert_eq!(met, ids);
    }
}

/// A server of five-step episodes, and a request that needs permits.
struct Gated {
    _package: tempfile::TempDir,
    server: Serving,
    request: EpisodesRequest,
    grants: UnboundedSender<Grant>,
    control: Option<Control>,
}

impl Gated {
    async fn new(miners: &[(&str, String)], seeds: std::ops::Range<u32>, slots: u32) -> Self {
        let package = faulty_package();
        let server = Serving::env_server(package.path(), &[]);
        open(&server, vec![faulty("never")], 1, slots).await;
        let request = EpisodesRequest {
            permits: true,
            run: uuid::Uuid::new_v4(),
            cold_start_ms: 60_000,
            ..request("faulty/never", miners, seeds)
        };
        let (grants, receiver) = unbounded_channel();
        let control = Some(Control { drain: CancellationToken::new(), grants: receiver });
        Self { _package: package, server, request, grants, control }
    }

    fn grant(&self, hotkey: &str, total: u64, patience_ms: u64) {
        let grant = Grant { hotkey: hotkey.parse().unwrap(), total, patience_ms: Some(patience_ms) };
        self.grants.send(grant).unwrap();
    }

    /// What the server says, until `is_last`.
    async fn hear(&mut self, mut answer: impl FnMut(&Self, &ServerMessage) -> bool) -> Vec<ServerMessage> {
        let control = self.control.take().unwrap();
        let stream = client(&self.server).episodes_with(&self.request, control).await.unwrap();
        let (mut messages, mut heard) = (Box::pin(stream), Vec::new());
        while let Some(message) = messages.next().await {
            let message = message.unwrap();
            let is_last = answer(self, &message);
            heard.push(message);
            if is_last {
                break;
            }
        }
        heard
    }
}

fn good(path: &str) -> Vec<u8> {
    let body = if path == "/act" { r#"{"action": [0, 0, 0, 0]}"# } else { "{}" };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn not_ready() -> Vec<u8> {
    b"HTTP/1.1 503 Cold\r\nContent-Length: 4\r\n\r\ncold".to_vec()
}

#[tokio::test]
async fn an_episode_starts_by_a_permit_and_each_permit_is_good_for_one() {
    let endpoint = miner(|path, _| good(path)).await;
    let mut gated = Gated::new(&[("a", endpoint)], 0..4, 8).await;
    let (mut ticks, mut ended, mut playing) = (0, 0u64, 0);
    let heard = gated
        .hear(|gated, message| {
            match message {
                // It has waited through a second of silence before the first permit.
                ServerMessage::Progress { .. } if ticks < 2 => {
                    ticks += 1;
                    assert_eq!((ended, playing), (0, 0));
                    if ticks == 2 {
                        gated.grant("a", 1, 1000);
                    }
                }
                ServerMessage::Started { .. } => {
                    playing += 1;
                    assert_eq!(playing, 1);
                }
                ServerMessage::Episode { report, .. } => {
                    assert_eq!(report.outcome, Outcome::Success);
                    (ended, playing) = (ended + 1, playing - 1);
                    gated.grant("a", ended + 1, 1000);
                }
                _ => {}
            }
            false
        })
        .await;
    assert_eq!(ended, 4);
    let told = heard.iter().find_map(|message| match message {
        ServerMessage::Miner { max_concurrency, .. } => Some(*max_concurrency),
        _ => None,
    });
    assert_eq!(told, Some(Some(1)), "its /health says nothing of it");
}

#[tokio::test]
async fn permits_that_find_no_place_are_given_back() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let slow = {
        let router = Router::new().route("/reset", post(async || Json(json!({})))).route(
            "/act",
            post(async move || {
                wait.clone().wait_for(|go| *go).await.unwrap();
                Json(json!({ "action": [0, 0, 0, 0] }))
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        endpoint
    };
    // One place, which the first miner takes.
    let mut gated = Gated::new(&[("a", slow.clone()), ("b", slow)], 0..1, 1).await;
    let mut back = None;
    gated
        .hear(|gated, message| {
            match message {
                ServerMessage::Miner { hotkey, .. } if hotkey.as_str() == "a" => gated.grant("a", 1, 1000),
                ServerMessage::Started { .. } if back.is_none() => gated.grant("b", 1, 1000),
                ServerMessage::Unused { miners } => {
                    back = Some(miners.clone());
                    go.send(true).unwrap();
                    // The same again is nothing new.
                    gated.grant("b", 1, 1000);
                    gated.grant("b", 2, 1000);
                }
                _ => {}
            }
            false
        })
        .await;
    assert_eq!(back, Some([("b".parse().unwrap(), 1)].into()));
}

#[tokio::test]
async fn a_miner_without_patience_left_is_not_ready_at_once() {
    let late = miner(|path, count| if path == "/reset" && count <= 2 { not_ready() } else { good(path) }).await;
    let never = miner(|path, _| if path == "/reset" { not_ready() } else { good(path) }).await;
    let mut gated = Gated::new(&[("late", late), ("never", never)], 0..1, 8).await;
    let mut totals: HashMap<String, u64> = HashMap::new();
    let mut lost: HashMap<String, u64> = HashMap::new();
    let mut reports: HashMap<String, EpisodeReport> = HashMap::new();
    gated
        .hear(|gated, message| {
            let hotkey = |order: u32| gated.request.episodes[order as usize].hotkey.to_string();
            let mut grant = |hotkey: String, patience| {
                let total = totals.entry(hotkey.clone()).or_default();
                *total += 1;
                gated.grant(&hotkey, *total, patience);
            };
            match message {
                ServerMessage::Miner { hotkey, .. } => grant(hotkey.to_string(), 60_000),
                ServerMessage::Returned { order, not_ready_ms } => {
                    *lost.entry(hotkey(*order)).or_default() += not_ready_ms;
                    // The other environments of the cycle have used up what one of them has left.
                    grant(hotkey(*order), if hotkey(*order) == "never" { 0 } else { 60_000 });
                }
                ServerMessage::Episode { order, report } => drop(reports.insert(hotkey(*order), report.clone())),
                _ => {}
            }
            false
        })
        .await;
    assert_eq!(reports["late"].outcome, Outcome::Success);
    assert_eq!(reports["never"].outcome, Outcome::MinerFault(MinerFault::NotReady));
    assert_eq!(totals["never"], 2);
    // A rest of 0.1 s after the first time and of 0.2 s after the second.
    assert!(lost["late"] >= 300 && lost["never"] >= 100, "{lost:?}");
}

#[tokio::test]
async fn a_server_of_an_older_version_is_told_to_be_started_again() {
    crate::install_tls();
    let stream = "{\"type\":\"progress\",\"steps\":0}\n";
    let body = move || {
        let endless =
            futures::stream::iter([Ok::<_, std::convert::Infallible>(stream)]).chain(futures::stream::pending());
        axum::body::Body::from_stream(endless)
    };
    let router = Router::new().route("/episodes", post(async move || body()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (grants, receiver) = unbounded_channel();
    grants.send(Grant { hotkey: "a".parse().unwrap(), total: 1, patience_ms: None }).unwrap();
    let control = Control { drain: CancellationToken::new(), grants: receiver };
    let orders = request("faulty/never", &[("a", "http://127.0.0.1:9".into())], 0..1);
    let client = robo::rollout::Client::new(url, TOKEN).unwrap();
    let mut messages = Box::pin(client.episodes_with(&orders, control).await.unwrap());
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(60), messages.next()).await.unwrap() {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("it ended well"),
        }
    };
    assert!(error.to_string().contains("does not know permits"), "{error}");
    assert!(!error.is_retryable());
}
