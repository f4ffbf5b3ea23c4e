//! The main job end to end: real simulation, real database, real processes, and every way to interrupt them.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::program::{Place, Ran};

const QUICKSTART: &str = "pipelines/quickstart.yaml";
const SALT: &str = "5a17000000000000000000000000000000000000000000000000000000000001";

/// What must not depend on anything but definition, salt and outcomes.
fn published(place: &Place) -> (String, String) {
    let latest = place.json(&["weights", "show", "@latest", "--format", "json"]);
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json"]);
    (latest["weights_document"].to_string(), cycle["scores_document"].to_string())
}

fn nothing_runs(place: &Place) {
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

fn run(place: &Place, episodes: &str) -> Ran {
    place.run(&["run-pipeline", QUICKSTART, "-i", &format!("episodes_per_env={episodes}"), "--salt", SALT])
}

#[test]
fn the_main_job_from_nothing_to_weights() {
    let place = Place::new();
    let ran = run(&place, "2");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for text in ["demo-heuristic", "Pareto frontier", "Weights", "robo weights show", "metaworld/drawer-open-v3"] {
        assert!(ran.stdout.contains(text), "{text} is missing:\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("steps/s") && ran.stderr.contains("episodes"), "{}", ran.stderr);
    nothing_runs(&place);

    let weights = place.json(&["weights", "show", "--format", "json"]);
    let total: f64 = weights["weights"].as_object().unwrap().values().map(|w| w.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-9, "{weights}");
    let best = weights["weights"]
        .as_object()
        .unwrap()
        .iter()
        .max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()));
    assert_eq!(best.unwrap().0, "1", "the heuristic policy is the most skilled: {weights}");

    let status = place.json(&["db", "status", "--format", "json"]);
    assert_eq!(status["total_cycles"], 1, "{status}");
    assert!(place.run(&["cycle", "ls"]).stdout.contains("completed"));
}

#[test]
fn killed_at_any_point_it_resumes_to_the_same_bytes() {
    let calm = Place::new();
    let ran = run(&calm, "3");
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let place = Place::new();
    let mut running = place.start(&["run-pipeline", QUICKSTART, "-i", "episodes_per_env=3", "--salt", SALT]);
    running.until("provision[");
    running.kill_everything();
    // Each time later: before the first episode, with the first of them, well inside, and near the end.
    let mut finished = episodes(&place);
    for scored in [1, 8, 20] {
        let mut running = place.start(&["cycle", "resume", "@latest"]);
        running.until_line(|line| {
            line.split_once('/').is_some() && line.contains(" episodes  ") && scored_in(line) >= scored / 3
        });
        running.kill_everything();
        let now = episodes(&place);
        for (key, first) in &finished {
            assert_eq!(now.get(key), Some(first), "a finished episode ran again");
        }
        finished = now;
    }
    let resumed = place.run(&["cycle", "resume", "@latest"]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    let last = episodes(&place);
    assert!(finished.iter().all(|(key, first)| last.get(key) == Some(first)), "a finished episode ran again");
    assert_eq!(published(&place), published(&calm));
    nothing_runs(&place);
}

#[test]
fn ctrl_c_stops_cleanly_and_says_how_to_go_on() {
    let place = Place::new();
    let mut running = place.start(&["run-pipeline", QUICKSTART, "-i", "episodes_per_env=3", "--salt", SALT]);
    running.until(" episodes  ");
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("robo cycle resume"), "{}", ran.stderr);
    nothing_runs(&place);
    assert_eq!(place.run(&["cycle", "cancel", "@latest"]).code, 0);
    let shown = place.json(&["cycle", "show", "@latest", "--format", "json"]);
    assert_eq!(shown["status"], "cancelled", "{shown}");
}

/// Episodes scored so far by what must never change once it is there.
fn episodes(place: &Place) -> std::collections::BTreeMap<String, Value> {
    let shown = place.json(&["cycle", "show", "@latest", "--format", "json", "--episodes"]);
    let episodes = shown["episodes"].as_array().unwrap().iter();
    episodes.map(|e| (format!("{} {} {}", e["environment"], e["seed_index"], e["hotkey"]), e.clone())).collect()
}

/// The number of scored episodes a progress line names.
fn scored_in(line: &str) -> usize {
    let before = line.split(" episodes  ").next().unwrap_or_default();
    let counts = before.split_whitespace().last().unwrap_or_default();
    counts.split('/').next().and_then(|scored| scored.parse().ok()).unwrap_or(0)
}
