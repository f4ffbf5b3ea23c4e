//! The canonical dialect: MetaWorld as `environments/metaworld-canonical.yaml` shows it, played by miners that speak nothing
//! else.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use robo::{
    cycle::{MinerFault, Outcome},
    manifest::simulation::Simulation,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    children::{self, Serving},
    envserver::{metaworld, open, request, run},
    support::program::Place,
};

/// The environment as the shipped manifest has it, with fewer steps.
fn canonical(task: &str, max_steps: u32) -> Simulation {
    let listed = Place::new().json(&["env", "ls", "metaworld-canonical", "--format", "json"]);
    let name = format!("metaworld-canonical/{task}");
    let one = listed["environments"].as_array().unwrap().iter().find(|one| one["environment"] == name.as_str());
    let mut simulation = one.unwrap()["simulation"].clone();
    simulation["max_steps"] = max_steps.into();
    serde_json::from_value(simulation).unwrap()
}

/// A miner that keeps what it was shown and answers what a test wants.
#[derive(Clone)]
struct Told {
    action: Value,
    shown: Arc<Mutex<Vec<Value>>>,
}

impl Told {
    async fn start(action: Value) -> (String, Arc<Mutex<Vec<Value>>>) {
        let told = Self { action, shown: Arc::default() };
        let shown = told.shown.clone();
        let router = Router::new()
            .route("/health", get(async || Json(json!({ "status": "healthy", "model_loaded": true }))))
            .route("/reset", post(async || Json(json!({ "status": "ok", "episode_id": "x" }))))
            .route(
                "/act",
                post(async |State(it): State<Self>, Json(body): Json<Value>| {
                    it.shown.lock().unwrap().push(body);
                    Json(json!({ "action": it.action }))
                }),
            )
            .with_state(told);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, shown)
    }
}

#[tokio::test]
async fn both_dialects_play_the_same_episode() {
    let server = Serving::env_server(&children::package(), &[]);
    let task = "drawer-close-v3";
    open(&server, vec![metaworld(task, 150), canonical(task, 150)], 1, 8).await;
    let native = Serving::demo_miner("heuristic", &["--dialect", "native"]);
    let named = Serving::demo_miner("heuristic", &["--dialect", "canonical"]);
    let both = Serving::demo_miner("heuristic", &[]);
    let miners = |own: &Serving| [("own", own.url()), ("both", both.url())];
    let plain = run(&server, &request("metaworld/drawer-close-v3", &miners(&native), [1, 2])).await;
    let channels = run(&server, &request("metaworld-canonical/drawer-close-v3", &miners(&named), [1, 2])).await;
    for (key, report) in &channels {
        assert_eq!(report.outcome, Outcome::Success, "{key:?}: {report:?}");
        assert_eq!(report.trajectory_hash, plain[key].trajectory_hash, "{key:?}");
    }
    // A miner of the other dialect refuses what it is shown.
    let refused = run(&server, &request("metaworld-canonical/drawer-close-v3", &[("own", native.url())], [1])).await;
    assert!(refused.values().all(|report| report.outcome == Outcome::MinerFault(MinerFault::HttpError)), "{refused:?}");
}

#[tokio::test]
async fn a_miner_is_shown_every_channel_and_camera_of_the_manifest() {
    let server = Serving::env_server(&children::package(), &[]);
    open(&server, vec![canonical("reach-v3", 3)], 1, 1).await;
    // A twist with numbers that have no effect, as the reference's template answers, and no gripper at all.
    let twist = json!({ "continuous": { "ee_twist": [0.2, -0.1, 5.0, 0.3, 0.3, 0.3] }, "discrete": {}, "extra": {} });
    let (url, shown) = Told::start(twist).await;
    let reports = run(&server, &request("metaworld-canonical/reach-v3", &[("m", url)], [4])).await;
    assert!(reports.values().all(|report| report.outcome == Outcome::Failure), "{reports:?}");
    let shown = shown.lock().unwrap().clone();
    assert_eq!(shown.len(), 3);
    for body in &shown {
        let keys: Vec<&String> = body["obs"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["rgb", "depth", "proprio", "cam_intrinsics", "cam_extrinsics", "extra"]);
        let proprio = body["obs"]["proprio"].as_object().unwrap();
        let sizes: Vec<(&str, usize)> =
            proprio.iter().map(|(name, numbers)| (name.as_str(), numbers.as_array().unwrap().len())).collect();
        assert_eq!(sizes, [("ee_pos", 3), ("ee_quat", 4), ("ee_vel_ang", 3), ("ee_vel_lin", 3), ("gripper", 1)]);
        let closed = proprio["gripper"][0].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&closed), "{closed}");
        let rgb = body["obs"]["rgb"].as_object().unwrap();
        assert_eq!(rgb.keys().collect::<Vec<_>>(), ["corner", "corner2", "gripper"]);
        for image in rgb.values() {
            assert_eq!((&image["shape"], &image["dtype"]), (&json!([84, 84, 3]), &json!("uint8")));
            assert_eq!(image["data"].as_str().unwrap().len(), 84 * 84 * 3 / 3 * 4);
        }
    }
    assert_ne!(shown[0]["obs"]["rgb"]["corner"], shown[0]["obs"]["rgb"]["corner2"]);
}

#[tokio::test]
async fn a_canonical_action_that_is_none_is_the_miners_fault() {
    let server = Serving::env_server(&children::package(), &[]);
    let mut simulation = serde_json::to_value(canonical("reach-v3", 5)).unwrap();
    simulation["observation"]["cameras"] = json!({});
    open(&server, vec![serde_json::from_value(simulation).unwrap()], 1, 4).await;
    let mut miners = Vec::new();
    for (name, action) in [
        ("list", json!([0, 0, 0, 0])),
        ("short", json!({ "continuous": { "ee_twist": [0, 0, 0] } })),
        ("other", json!({ "continuous": { "joint_pos": [0] } })),
    ] {
        miners.push((name, Told::start(action).await.0));
    }
    let failing: Vec<Serving> =
        ["nan", "wrong-size"].iter().map(|kind| Serving::demo_miner("noop", &["--fail", kind])).collect();
    miners.extend(["nan", "size"].into_iter().zip(failing.iter().map(Serving::url)));
    // Values outside are clipped, as the manifest says.
    let far = Serving::demo_miner("noop", &["--fail", "out-of-range"]);
    miners.push(("far", far.url()));
    let reports = run(&server, &request("metaworld-canonical/reach-v3", &miners, [1])).await;
    for ((name, _), report) in &reports {
        let expected = match name.as_str() {
            "far" => Outcome::Failure,
            _ => Outcome::MinerFault(MinerFault::InvalidAction),
        };
        assert_eq!(report.outcome, expected, "{name}: {:?}", report.detail);
    }
}
