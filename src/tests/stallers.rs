//! A miner that holds every answer back for as long as it may: it runs out of its wall budget, and nobody else notices.

use std::{fs, time::Duration};

use axum::{
    Json, Router,
    http::header::CONNECTION,
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::program::{Place, pipeline, repository, turn, workspace};

/// A miner that lets `/act` wait for `pause`, and closes the connection after every answer if it pauses at all.
async fn miner(pause: Duration) -> String {
    let act = async move || {
        tokio::time::sleep(pause).await;
        let closes = if pause.is_zero() { "keep-alive" } else { "close" };
        ([(CONNECTION, closes)], Json(json!({ "action": [0.0] }))).into_response()
    };
    let router = Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/reset", post(async || Json(json!({}))))
        .route("/act", post(act));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    endpoint
}

#[test]
fn a_staller_is_out_of_budget_and_the_others_are_scored() {
    let _turn = turn();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let honest = runtime.block_on(miner(Duration::ZERO));
    let staller = runtime.block_on(miner(Duration::from_secs(3)));
    let folder = workspace(|_| {
        let text = fs::read_to_string(repository().join("examples/pipelines/pendulum.yaml")).unwrap();
        text.replace("http://127.0.0.1:9001", &honest)
            .replace("http://127.0.0.1:9002", &staller)
            .replace("hotkey: swing-up", "hotkey: honest")
            .replace("hotkey: still", "hotkey: staller")
            .replace("    expect: {", "      budget_seconds: 5\n    expect: {")
    });
    let family = fs::read_to_string(repository().join("examples/environments/classic-control.yaml")).unwrap();
    // Nobody is late: what a staller takes is time that it is granted.
    let family = family.replace("action_timeout: 100ms", "action_timeout: 20s");
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();
    let place = Place::new();
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=3"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json", "--episodes"]);
    let reasons = |hotkey: &str| -> Vec<Value> {
        let rows = cycle["episodes"].as_array().unwrap().iter().filter(|row| row["hotkey"] == hotkey);
        rows.map(|row| row["report"]["outcome"]["reason"].clone()).collect()
    };
    assert_eq!(reasons("staller"), vec![json!("budget_exhausted"); 6], "{cycle}");
    assert_eq!(reasons("honest"), vec![Value::Null; 6], "the other miner plays to the end: {cycle}");
}
