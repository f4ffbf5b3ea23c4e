//! Images on their way to miners: each gets the form that its `/health` accepts, and all of them the same pixels.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use robo::{
    cycle::{EpisodeReport, Keep},
    manifest::simulation::Simulation,
    rollout::{
        Client,
        protocol::{EpisodeOrder, EpisodesRequest, Open, Origin, ServerMessage},
    },
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::children::{self, Serving, TOKEN};

/// A miner that stands still and remembers what it was shown.
async fn miner(health: Value) -> (String, Arc<Mutex<Vec<Value>>>) {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let shown = seen.clone();
    let router = Router::new()
        .route("/health", get(move || async move { Json(health) }))
        .route("/reset", post(|| async { Json(json!({})) }))
        .route(
            "/act",
            post(move |Json(body): Json<Value>| async move {
                shown.lock().unwrap().push(body["images"].clone());
                Json(json!({ "action": [0.0, 0.0, 0.0, 0.0] }))
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router.layer(axum::extract::DefaultBodyLimit::disable())).await });
    (url, seen)
}

fn vision() -> Simulation {
    serde_json::from_value(json!({
        "environment": "metaworld/reach-v3",
        "gymnasium": { "make": "Meta-World/MT1", "kwargs": { "env_name": "reach-v3" }, "hook": "metaworld" },
        "observation": {
            "state": [{ "slice": [0, 4] }],
            "cameras": { "corner": { "camera": "corner", "width": 24, "height": 16 } },
            "encodings": ["png", "base64", "list"],
        },
        "action": { "size": 4, "low": -1.0, "high": 1.0 },
        "success": { "rule": { "info": "success" } },
        "determinism": "bitwise",
        "max_steps": 2,
        "stop_on_success": false,
    }))
    .unwrap()
}

#[tokio::test]
async fn a_miner_gets_images_as_its_health_accepts_them() {
    crate::install_tls();
    let mut miners = Vec::new();
    for health in [
        json!({ "status": "ok" }),
        json!({ "accepts": ["base64", "webp"] }),
        json!({ "accepts": ["list", "base64", "png"] }),
    ] {
        miners.push(miner(health).await);
    }
    let server = Serving::env_server(&children::package(), &[]);
    let client = Client::new(server.url(), TOKEN).unwrap();
    let opened = client.open(&Open { simulations: vec![vision()], workers: 1, slots_per_worker: 3 }).await.unwrap();
    assert!(matches!(opened.renderer.as_deref(), Some("egl" | "osmesa")), "{:?}", opened.renderer);
    let orders = miners.iter().enumerate().map(|(order, (url, _))| EpisodeOrder {
        order: order as u32,
        seed: 7,
        episode_id: format!("e{order}"),
        hotkey: format!("m{order}").parse().unwrap(),
        endpoint: url.clone(),
        origin: Origin::Ourselves,
        keep: Keep::All,
    });
    let request = EpisodesRequest {
        run: uuid::Uuid::nil(),
        environment: "metaworld/reach-v3".parse().unwrap(),
        action_timeout_ms: 20_000,
        reset_timeout_ms: 20_000,
        per_miner: 1,
        permits: false,
        budget_ms: None,
        spent_ms: std::collections::BTreeMap::default(),
        cold_start_ms: 10_000,
        rules: robo::address::Rules::default(),
        canary: Vec::new(),
        episodes: orders.collect(),
    };
    let mut reports: Vec<EpisodeReport> = Vec::new();
    let mut messages = std::pin::pin!(client.episodes(&request).await.unwrap());
    while let Some(message) = messages.next().await {
        if let ServerMessage::Episode { report, .. } = message.unwrap() {
            reports.push(report);
        }
    }
    assert_eq!(reports.len(), 3);
    for report in &reports {
        assert_eq!((report.steps, &report.trajectory_hash), (2, &reports[0].trajectory_hash));
        let actions = report.actions.as_ref().unwrap().unpack(4).unwrap();
        assert_eq!(actions, [[0.0; 4]; 2].map(Vec::from));
    }

    let shown = |miner: usize| -> Vec<Value> { miners[miner].1.lock().unwrap().clone() };
    let (lists, raw, png) = (shown(0), shown(1), shown(2));
    assert_eq!((lists.len(), raw.len(), png.len()), (2, 2, 2));
    for step in 0..2 {
        let rows: Vec<Vec<[u8; 3]>> = serde_json::from_value(lists[step]["corner"].clone()).unwrap();
        assert_eq!((rows.len(), rows[0].len()), (16, 24));
        let pixels = rows.concat().concat();
        let bytes = |image: &Value, encoding: &str| {
            let image = &image["corner"];
            assert_eq!(
                (&image["encoding"], &image["width"], &image["height"]),
                (&json!(encoding), &json!(24), &json!(16))
            );
            STANDARD.decode(image["data"].as_str().unwrap()).unwrap()
        };
        assert_eq!(bytes(&raw[step], "base64"), pixels);
        let file = bytes(&png[step], "png");
        let picture = robo::miner::Image { width: 24, rgb: pixels };
        assert_eq!(file, picture.png());
    }
}
