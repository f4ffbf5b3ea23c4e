//! What `examples/` promises: a family that is only copied, played by miners that are not robo's, in any pipeline.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::program::{Place, pipeline, repository, turn, workspace};

/// A miner of `examples/miner.py`, ended when it is dropped.
pub(crate) struct Miner {
    child: Child,
    pub(crate) url: String,
}

impl Miner {
    pub(crate) fn start(policy: &str) -> Self {
        let python = std::env::var("ROBO_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
        let mut child = Command::new(python)
            .arg(repository().join("examples/miner.py"))
            .args(["--policy", policy, "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_copied_family_is_evaluated_with_miners_in_plain_python() {
    let _turn = turn();
    let (swing_up, still) = (Miner::start("swing-up"), Miner::start("still"));
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(|_| {
        let text = example("pipelines/pendulum.yaml");
        text.replace("http://127.0.0.1:9001", &swing_up.url).replace("http://127.0.0.1:9002", &still.url)
    });
    let family = example("environments/classic-control.yaml").replace("action_timeout: 100ms", "action_timeout: 20s");
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();

    let place = Place::new();
    let salt = "5a".repeat(32);
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=3", "--salt", &salt]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let outcomes = shown["outcomes"].as_array().unwrap();
    assert!(outcomes.iter().all(|count| count["reason"].is_null()), "{outcomes:?}");
    assert!(outcomes.iter().any(|count| count["hotkey"] == "swing-up" && count["outcome"] == "success"));
    assert!(!outcomes.iter().any(|count| count["hotkey"] == "still" && count["outcome"] == "success"));

    // The rule in the shadow has its own vector, and the published one is not it.
    let output = |task: &str| {
        let tasks = shown["tasks"].as_array().unwrap();
        tasks.iter().find(|one| one["task"] == task).unwrap()["output"].clone()
    };
    let weights = place.json(&["weights", "show", "--format", "json"])["weights"].clone();
    assert_eq!(output("weights")["weights"]["weights"], weights);
    assert_ne!(output("shadow_weights")["weights"]["weights"], weights);
}

/// Run an example where it stands, and how each of its tasks ended.
fn endings(place: &Place, name: &str, inputs: &[&str]) -> (i32, Vec<(String, String)>) {
    let file = format!("examples/pipelines/{name}.yaml");
    let ran = place.run(&[&["run-pipeline", file.as_str()], inputs].concat());
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tasks = shown["tasks"].as_array().unwrap().iter();
    (ran.code, tasks.map(|task| (text(&task["task"]), text(&task["status"]))).collect())
}

fn all(endings: &[(&str, &str)]) -> Vec<(String, String)> {
    endings.iter().map(|(task, status)| ((*task).to_owned(), (*status).to_owned())).collect()
}

#[test]
fn the_examples_without_a_simulator_do_what_they_say() {
    let _turn = turn();
    let place = Place::new();
    let lookups = ["lookup[eu,1]", "lookup[eu,2]", "lookup[us,1]", "lookup[ap,9]", "found"];
    assert_eq!(endings(&place, "limits", &[]), (0, all(&lookups.map(|task| (task, "succeeded")))));
    let each = ["discover", "each[first]", "each[second]", "all"];
    assert_eq!(endings(&place, "later", &[]), (0, all(&each.map(|task| (task, "succeeded")))));

    let (well, badly) = ("succeeded", "failed");
    let calm = [("discover", well), ("choose", well), ("stop_servers", "skipped"), ("teardown", well)];
    assert_eq!(endings(&place, "on_failure", &[]), (0, all(&calm)));
    let failed = [("discover", well), ("choose", badly), ("stop_servers", well), ("teardown", well)];
    assert_eq!(endings(&place, "on_failure", &["-i", "miners=0"]), (1, all(&failed)));
}

#[test]
fn a_demo_policy_is_known_by_name_before_anything_starts() {
    use clap::ValueEnum;
    let played: Vec<String> = robo::miner::demo::Policy::value_variants()
        .iter()
        .map(|policy| policy.to_possible_value().unwrap().get_name().to_owned())
        .collect();
    assert_eq!(played, robo::plan::DEMO_POLICIES);

    let folder = workspace(|text| text.replace("demo:heuristic", "demo:heuristc"));
    let ran = Place::new().run(&["lint", &pipeline(&folder)]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("did you mean `demo:heuristic`?"), "{}", ran.stderr);
}

#[test]
fn demo_policies_are_warned_of_where_they_cannot_play() {
    let folder = workspace(|text| {
        text.replace("  - metaworld/drawer-open-v3", "  - metaworld/drawer-open-v3\n  - classic-control/*")
    });
    let family = repository().join("examples/environments/classic-control.yaml");
    fs::copy(family, folder.path().join("environments/classic-control.yaml")).unwrap();
    let ran = Place::new().run(&["lint", &pipeline(&folder)]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("answers with 4 numbers, `classic-control/pendulum` takes 1"), "{}", ran.stderr);
}
