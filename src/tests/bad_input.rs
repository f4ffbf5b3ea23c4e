//! What goes wrong at an operator's desk: each ends in one clear error that says what to do, without a panic.

use std::net::TcpListener;

use tempfile::TempDir;

use crate::{
    children::Serving,
    support::{
        ports,
        program::{Place, Ran, pipeline, turn, workspace},
    },
};

/// A workspace with a changed quickstart.
fn changed(change: impl Fn(&str) -> String) -> TempDir {
    workspace(|text| {
        let changed = change(text);
        assert_ne!(changed, text, "the change does not fit the quickstart any more");
        changed
    })
}

fn run(workspace: &TempDir, place: &Place) -> Ran {
    place.run(&["run-pipeline", &pipeline(workspace), "-i", "episodes_per_env=1"])
}

fn is_clear(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is missing in: {}", ran.stderr);
    }
    for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!ran.stderr.contains(noise), "{}", ran.stderr);
    }
}

#[test]
fn an_unknown_environment() {
    let folder = changed(|text| text.replace("metaworld/drawer-open-v3", "metaworld/drawer-opne-v3"));
    is_clear(
        &run(&folder, &Place::new()),
        2,
        &["drawer-opne-v3", "did you mean", "metaworld/drawer-open-v3", "pipeline.yaml:"],
    );
}

#[test]
fn an_unknown_input() {
    let place = Place::new();
    let ran = place.run(&["run-pipeline", "pipelines/quickstart.yaml", "-i", "episode_per_env=1"]);
    is_clear(&ran, 2, &["episode_per_env", "episodes_per_env"]);
    let ran = place.run(&["run-pipeline", "pipelines/quickstart.yaml", "-i", "episodes_per_env=many"]);
    is_clear(&ran, 2, &["episodes_per_env", "integer"]);
}

#[test]
fn an_empty_list_of_miners() {
    let folder = changed(|text| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("- { uid:")).collect();
        kept.join("\n").replace("miners:\n", "miners: []\n")
    });
    is_clear(&run(&folder, &Place::new()), 2, &["No miners found"]);
}

#[test]
fn a_miner_that_is_down_loses_its_own_episodes_only() {
    let _turn = turn();
    let port = ports::free();
    // Another one answers well until it is asked what to do.
    let broken = Serving::demo_miner("reacher", &["--fail", "http-500"]);
    let folder = changed(|text| {
        let text = text.replace("demo:random", &format!("http://127.0.0.1:{port}"));
        let text = text.replace("demo:reacher", &broken.url());
        let others = ["button-press", "door-open", "reach"].map(|task| format!("  - metaworld/{task}-v3\n"));
        let text = others.iter().fold(text, |text, other| text.replace(other, ""));
        format!("{text}\nminers: {{ allow_private_endpoints: true, cold_start: {{ budget: 10s }} }}\n")
    });
    let place = Place::new();
    let ran = run(&folder, &place);
    is_clear(&ran, 0, &[]);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let outcomes = shown["outcomes"].as_array().unwrap();
    let down: Vec<_> = outcomes.iter().filter(|count| count["hotkey"] == "demo-random").collect();
    assert!(!down.is_empty() && down.iter().all(|count| count["reason"] == "connection_error"), "{down:?}");
    assert!(outcomes.iter().all(|count| count["outcome"] != "infra_fault"), "{outcomes:?}");
    assert!(outcomes.iter().any(|count| count["outcome"] == "success"), "{outcomes:?}");
    let explained = place.json(&["cycle", "explain", "@latest", "episodes", "--format", "json"]);
    let miner = |hotkey: &str| {
        let miners = explained["miners"].as_array().unwrap();
        miners.iter().find(|miner| miner["hotkey"] == hotkey).unwrap().clone()
    };
    assert_eq!(miner("demo-random")["status"], "unreachable");
    assert_eq!(
        (miner("demo-heuristic")["status"].as_str(), miner("demo-heuristic")["faults"].as_array().map(Vec::len)),
        (Some("active"), Some(0))
    );
    let reacher = miner("demo-reacher");
    assert_eq!((&reacher["status"], &reacher["faults"][0]["reason"]), (&"active".into(), &"http_error".into()));
    assert!(reacher["faults"][0]["detail"].as_str().unwrap().contains("status 500"), "{reacher}");
}

#[test]
fn an_unknown_demo_policy() {
    let _turn = turn();
    let folder = changed(|text| text.replace("demo:random", "demo:randm"));
    let ran = run(&folder, &Place::new());
    assert_ne!(ran.code, 0);
    is_clear(&ran, ran.code, &["randm", "random"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_to() {
    let mut command = Place::new().robo(&["run-pipeline", "pipelines/quickstart.yaml"]);
    let ran = Ran::from(command.env("ROBO_DATA_DIR", "/proc/robo").output().unwrap());
    is_clear(&ran, 1, &["/proc/robo", "--data-dir"]);
}

#[test]
fn a_database_that_is_not_there() {
    let place = Place::new();
    let mut command = place.robo(&["cycle", "ls"]);
    let ran =
        Ran::from(command.env("ROBO_BACKEND_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/x").output().unwrap());
    is_clear(&ran, 5, &["Database connection failed", "hint:"]);
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
}

#[test]
fn ports_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let place = Place::new();
    for verb in [
        &["demo-miner", "--policy", "noop"][..],
        &["backend", "--role", "api", "--log-format", "text", "--host", "127.0.0.1"],
    ] {
        let arguments = [verb, &["--port", &port]].concat();
        is_clear(&place.run(&arguments), 1, &[&port, "in use", "hint:"]);
    }
}

#[test]
fn cycles_that_are_not_there() {
    let place = Place::new();
    is_clear(&place.run(&["cycle", "resume", "@latest"]), 1, &["no cycle", "hint:"]);
    is_clear(&place.run(&["cycle", "show", "0123"]), 2, &["0123"]);
    is_clear(&place.run(&["weights", "show"]), 1, &["weights", "hint:"]);
}
