//! The main job end to end: real simulation, real database, real processes, and every way to interrupt them.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::program::{Place, Ran, pipeline, turn, workspace};

const SALT: &str = "5a17000000000000000000000000000000000000000000000000000000000001";

fn arguments(file: &str) -> [&str; 6] {
    ["run-pipeline", file, "-i", "episodes_per_env=3", "--salt", SALT]
}

/// The two published documents, which depend on nothing but definition, salt and outcomes.
fn published(place: &Place) -> (String, String) {
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json"]);
    assert!(cycle["weights_document"].is_object(), "{cycle}");
    (cycle["weights_document"].to_string(), cycle["scores_document"].to_string())
}

fn nothing_runs(place: &Place) {
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

fn is_done(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn the_main_job_from_nothing_to_weights() {
    let _turn = turn();
    let place = Place::new();
    let ran = place.run(&["run-pipeline", "pipelines/quickstart.yaml", "-i", "episodes_per_env=2"]);
    is_done(&ran);
    for text in ["demo-heuristic", "Pareto frontier", "Weights", "robo weights show", "metaworld/drawer-open-v3"] {
        assert!(ran.stdout.contains(text), "{text} is missing:\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("steps/s") && ran.stderr.contains("8/8 episodes"), "{}", ran.stderr);
    nothing_runs(&place);

    let weights = place.json(&["weights", "show", "--format", "json"]);
    let total: f64 = weights["weights"].as_object().unwrap().values().map(|w| w.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-9, "{weights}");
    let status = place.json(&["db", "status", "--format", "json"]);
    assert_eq!(status["total_cycles"], 1, "{status}");
    assert!(place.run(&["cycle", "ls"]).stdout.contains("completed"));
}

#[test]
fn killed_again_and_again_it_resumes_to_the_same_bytes() {
    let _turn = turn();
    let (workspace, calm) = (workspace(str::to_owned), Place::new());
    let file = pipeline(&workspace);
    is_done(&calm.run(&arguments(&file)));
    let (weights, _) = published(&calm);
    let weights: Value = serde_json::from_str(&weights).unwrap();
    let best = weights["entries"].as_array().unwrap().iter().max_by_key(|entry| entry["weight_u16"].as_u64());
    assert_eq!(best.unwrap()["hotkey"], "demo-heuristic", "the most skilled policy gets the most: {weights}");

    let place = Place::new();
    let mut running = place.start(&arguments(&file));
    running.until("provision[");
    running.kill_everything();
    let mut finished = BTreeMap::new();
    // With the first episode, in the middle, and near the end.
    for scored in [1, 12, 24] {
        let mut running = place.start(&["cycle", "resume", "@latest"]);
        let mut latest = BTreeMap::new();
        running.until_line(|line| {
            latest.extend(progress(line));
            latest.values().sum::<usize>() >= scored
        });
        running.kill_everything();
        finished = still_finished(&finished, &place);
        assert!(finished.len() >= scored, "what was shown as finished was not written down");
    }
    is_done(&place.run(&["cycle", "resume", "@latest"]));
    still_finished(&finished, &place);
    assert_eq!(published(&place), published(&calm));
    nothing_runs(&place);
}

#[test]
fn ctrl_c_stops_cleanly_and_says_how_to_go_on() {
    let _turn = turn();
    let (workspace, place) = (workspace(str::to_owned), Place::new());
    let mut running = place.start(&arguments(&pipeline(&workspace)));
    running.until(" episodes  ");
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("robo cycle resume"), "{}", ran.stderr);
    nothing_runs(&place);
    assert_eq!(place.json(&["cycle", "show", "--format", "json"])["status"], "interrupted");
    is_done(&place.run(&["cycle", "cancel", "@latest"]));
    assert_eq!(place.json(&["cycle", "show", "--format", "json"])["status"], "cancelled");
    assert_eq!(place.run(&["cycle", "resume"]).code, 1, "what was cancelled stays cancelled");
}

/// Every scored episode, after making sure that those scored earlier are as they were.
fn still_finished(earlier: &BTreeMap<String, Value>, place: &Place) -> BTreeMap<String, Value> {
    let shown = place.json(&["cycle", "show", "@latest", "--format", "json", "--episodes"]);
    let episodes = shown["episodes"].as_array().unwrap().iter();
    let now: BTreeMap<String, Value> = episodes
        .map(|episode| {
            let key = format!("{} {} {}", episode["environment"], episode["seed_index"], episode["hotkey"]);
            (key, episode.clone())
        })
        .collect();
    for (key, episode) in earlier {
        // Wall time and latency are in there: a second run could not give the same.
        assert_eq!(now.get(key), Some(episode), "a finished episode ran again");
    }
    now
}

/// `metaworld/push-v3  5/12 episodes  ...`: the environment and how many of its episodes are scored.
fn progress(line: &str) -> Option<(String, usize)> {
    let (environment, rest) = line.split_once("  ")?;
    let (counts, _) = rest.split_once(" episodes  ")?;
    Some((environment.to_owned(), counts.split_once('/')?.0.parse().ok()?))
}
