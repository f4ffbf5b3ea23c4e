//! What is to begin no more: what has begun ends and is reported, or is played again when the grace is over; what has not is as
//! it was.

use std::sync::Arc;

use axum::{Json, Router, routing::post};
use futures::StreamExt;
use nix::sys::signal::Signal;
use robo::rollout::protocol::{EpisodesRequest, Open, ServerMessage};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    children::{self, Serving},
    envserver::{client, metaworld, request},
    support::program::{Place, Running, pipeline, turn, workspace},
};

/// A miner that answers one `/act` for each permit, and counts what it is asked.
async fn patient_miner(permits: Arc<Semaphore>, asked: Arc<Semaphore>) -> String {
    let act = move || {
        let (permits, asked) = (Arc::clone(&permits), Arc::clone(&asked));
        async move {
            asked.add_permits(1);
            permits.acquire().await.unwrap().forget();
            Json(json!({ "action": [0, 0, 0, 0] }))
        }
    };
    let router = Router::new().route("/reset", post(async || Json(json!({})))).route("/act", post(act));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    endpoint
}

#[tokio::test]
async fn what_has_begun_ends_and_nothing_begins_once_a_request_is_drained() {
    let server = Serving::env_server(&children::package(), &[]);
    let client = client(&server);
    let open = Open { simulations: vec![metaworld("push-v3", 1)], workers: 1, slots_per_worker: 2 };
    client.open(&open).await.unwrap();
    let permits = Arc::new(Semaphore::new(0));
    let miner = patient_miner(Arc::clone(&permits), Arc::new(Semaphore::new(0))).await;
    let orders = EpisodesRequest {
        run: uuid::Uuid::new_v4(),
        per_miner: 2,
        action_timeout_ms: 600_000,
        ..request("metaworld/push-v3", &[("a", miner)], 0..50)
    };
    let drain = CancellationToken::new();
    let mut messages = std::pin::pin!(client.episodes_until(&orders, drain.clone()).await.unwrap());
    let mut begun = Vec::new();
    while begun.len() < 2 {
        if let ServerMessage::Started { order } = messages.next().await.unwrap().unwrap() {
            begun.push(order);
        }
    }
    drain.cancel();
    // The next message is asked for after the server was told; only then do the two go on.
    messages.next().await.unwrap().unwrap();
    permits.add_permits(50);
    let (mut ended, mut is_over) = (Vec::new(), false);
    while let Some(message) = messages.next().await {
        match message.unwrap() {
            ServerMessage::Started { order } => panic!("{order} began"),
            ServerMessage::Episode { order, report } => {
                assert!(report.outcome.is_scored(), "{report:?}");
                ended.push(order);
            }
            ServerMessage::End => is_over = true,
            _ => {}
        }
    }
    ended.sort_unstable();
    begun.sort_unstable();
    assert_eq!((ended, is_over), (begun, true));

    // The server is as good as before, for whoever asks next.
    let next = EpisodesRequest { run: uuid::Uuid::new_v4(), episodes: orders.episodes[..3].to_vec(), ..orders };
    let messages = client.episodes(&next).await.unwrap();
    let ended = messages.filter(|it| std::future::ready(matches!(it, Ok(ServerMessage::Episode { .. })))).count().await;
    assert_eq!(ended, 3);
}

#[test]
fn a_backend_whose_grace_is_over_leaves_what_still_plays_to_the_next() {
    let _turn = turn();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (permits, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let miner = runtime.block_on(patient_miner(Arc::clone(&permits), Arc::clone(&asked)));
    // One miner on one task.
    let folder = workspace(|text| {
        let text = text.replace("demo:heuristic", &miner);
        let is_kept =
            |line: &&str| !line.contains("demo:") && (!line.contains("- metaworld/") || line.contains("reach"));
        let kept: Vec<&str> = text.lines().filter(is_kept).collect();
        format!("{}\nminers: {{ allow_private_endpoints: true }}\n", kept.join("\n"))
    });
    let (file, place) = (pipeline(&folder), Place::new());
    let answers = ["--host", "127.0.0.1", "--port", "0", "--network", "ws://127.0.0.1:9"];
    let mut backend: Running =
        place.start(&[&["backend", "--pipeline", &file, "--grace", "1s"], &answers[..]].concat());
    backend.until("listening on");
    let trigger = ["schedule", "trigger", "quickstart", "--pipeline", &file, "-i", "episodes_per_env=1"];
    let triggered = place.robo(&trigger).env("ROBO_BACKEND_ACTION_TIMEOUT_MS", "600000").output().unwrap();
    assert!(triggered.status.success(), "{}", String::from_utf8_lossy(&triggered.stderr));
    runtime.block_on(asked.acquire()).unwrap().forget();
    backend.signal(Signal::SIGTERM);
    let ran = backend.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("episodes were still playing after 1 s: they are played again"), "{}", ran.stderr);

    let cycle = || place.json(&["cycle", "show", "@latest", "--format", "json"]);
    assert_eq!(cycle()["status"], "interrupted");
    permits.add_permits(100_000);
    let ran = place.run(&["cycle", "resume", "@latest"]);
    assert_eq!((ran.code, cycle()["status"].as_str()), (0, Some("completed")), "{}", ran.stderr);
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}
