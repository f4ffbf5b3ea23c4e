//! Families by manifest alone: every environment that is shipped runs, what breaks its word is caught, and an episode is
//! judged by an expression and a score as its manifest says.

use std::fs;

use serde_json::Value;

use crate::examples::Miner;
use crate::support::program::{Place, pipeline, repository, turn, workspace};

/// The interpreter of the tests, which has every simulator.
fn python() -> String {
    std::env::var("ROBO_TEST_PYTHON").expect("ROBO_TEST_PYTHON names an interpreter with the simulators")
}

fn names(report: &Value) -> Vec<&str> {
    report["environments"].as_array().unwrap().iter().map(|one| one["environment"].as_str().unwrap()).collect()
}

#[test]
fn the_families_of_the_issue_are_listed() {
    let listed = Place::new().json(&["env", "ls", "--format", "json"]);
    let names = names(&listed);
    let count = |family: &str| names.iter().filter(|name| name.split('/').next() == Some(family)).count();
    let families = ["metaworld", "metaworld-all", "gymnasium", "gymnasium-robotics", "dm_control"];
    assert_eq!(families.map(count), [8, 50, 6, 4, 8]);
    assert!(names.contains(&"dm_control/humanoid-walk") && names.contains(&"gymnasium/halfcheetah-v5"));
    let made: Vec<&str> = listed["environments"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["environment"] == "dm_control/hopper-hop")
        .map(|one| one["simulation"]["gymnasium"]["make"].as_str().unwrap())
        .collect();
    assert_eq!(made, ["dm_control/hopper-hop-v0"]);
    // Each lock can be installed as pip is asked to: every package has its hashes.
    for one in listed["environments"].as_array().unwrap() {
        let lock = fs::read_to_string(repository().join(one["requirements"].as_str().unwrap())).unwrap();
        let packages = lock.lines().filter(|line| line.contains("==") && !line.starts_with(['#', ' ']));
        assert!(packages.clone().count() > 5 && packages.clone().all(|line| line.ends_with('\\')), "{one}");
    }
}

#[test]
fn every_shipped_environment_runs_and_keeps_its_word() {
    let place = Place::new();
    let (python, mut tried) = (python(), 0);
    let test = |arguments: &[&str]| {
        let report = place
            .json(&[&["env", "test", "--python", &python, "--format", "json", "--steps", "12"], arguments].concat());
        assert_eq!(report["well"], true, "{report:#}");
        assert!(report["environments"].as_array().unwrap().iter().all(|one| one["steps_per_second"].is_number()));
        report["environments"].as_array().unwrap().len()
    };
    tried += test(&["gymnasium", "gymnasium-robotics", "dm_control"]);
    tried += test(&["metaworld-all", "--skip-determinism"]);
    // Determinism of the eight of `metaworld` is what the tests of eval-env are about; one of each kind has to do here.
    tried += test(&["metaworld/push-v3", "metaworld-all/plate-slide-back-v3"]);
    tried += test(&["metaworld-vision/reach-v3", "metaworld-canonical/reach-v3"]);
    assert_eq!(tried, 18 + 50 + 2 + 2);
}

#[test]
fn an_environment_that_breaks_its_word_is_caught() {
    let folder = workspace(str::to_owned);
    let manifest = "version: 1
family: broken
build: { context: ../eval-env, requirements: requirements/gymnasium.lock }
adapter:
  gymnasium: { make: robo-tests/Broken-v0, imports: [tests.fakes], kwargs: { fault: \"${{ task.name }}\" } }
  observation: { state: [{}], size: 2 }
  action: { size: 1, low: -1, high: 1 }
  success: { rule: survive, when: last }
episode: { max_steps: 20 }
tasks:
  chance: {}
  space: {}
  sound: {}
  wide: { kwargs: { fault: sound }, action: { size: 2 } }
";
    fs::write(folder.path().join("environments/broken.yaml"), manifest).unwrap();
    let root = folder.path().to_str().unwrap();
    let place = Place::new();
    let arguments = ["env", "test", "broken", "--root", root, "--steps", "5", "--python", &python()];
    let ran = place.run(&arguments);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    for said in [
        "broken/chance: determinism: the same seed and actions give another observation at step 1",
        "broken/space: spaces: an observation has 2 numbers, but the simulator declares 3",
        "broken/wide: spaces: `broken/wide.action`.size is 2, but the simulator takes 1 numbers",
    ] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("broken/sound: "), "{}", ran.stdout);
    let unknown = place.run(&["env", "test", "brokn", "--root", root]);
    assert_eq!((unknown.code, unknown.stderr.contains("no environment is called `brokn`")), (2, true));
}

/// The pendulum, judged by what its summary says, with a score beside it.
fn judged_pendulum(text: &str) -> String {
    text.replace("action_timeout: 100ms", "action_timeout: 20s").replace(
        "  success: { rule: { return_at_least: -300 }, when: last }",
        "  success: { rule: { expression: return > -400 and not terminated and steps == max_steps }, when: last }
  score: { from: return, min: -1600, max: 0 }",
    )
}

#[test]
fn an_expression_judges_and_a_score_gives_partial_credit() {
    let _turn = turn();
    let (swing_up, still) = (Miner::start("swing-up"), Miner::start("still"));
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(|_| {
        let text = example("pipelines/pendulum.yaml");
        let text = text.replace("http://127.0.0.1:9001", &swing_up.url).replace("http://127.0.0.1:9002", &still.url);
        text.replacen("uses: scores/aggregate }", "uses: scores/aggregate, with: { measure: score } }", 1)
    });
    let family = judged_pendulum(&example("environments/classic-control.yaml"));
    assert!(family.contains("expression") && family.contains("score:"));
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();

    let place = Place::new();
    let salt = "5a".repeat(32);
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2", "--salt", &salt]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let shown = place.json(&["cycle", "show", "--episodes", "--format", "json"]);
    let episodes = shown["episodes"].as_array().unwrap();
    for episode in episodes {
        let report = &episode["report"];
        let (total, score) = (report["return"].as_f64().unwrap(), report["score"].as_f64().unwrap());
        assert_eq!(score, ((total + 1600.0) / 1600.0).clamp(0.0, 1.0), "{episode}");
        assert_eq!(report["outcome"]["outcome"] == "success", total > -400.0, "{episode}");
    }
    assert!(episodes.iter().any(|one| one["report"]["outcome"]["outcome"] == "success"));
    assert!(episodes.iter().any(|one| one["report"]["outcome"]["outcome"] == "failure"));

    // The rate is the mean score, and both are kept side by side.
    for entry in shown["scores_document"]["entries"].as_array().unwrap() {
        assert_eq!(entry["success_rate"], entry["mean_score"], "{entry}");
        assert!(entry["success_rate"].as_f64().unwrap() > 0.0, "{entry}");
    }
    let table = place.run(&["cycle", "show", "--episodes"]).stdout;
    assert!(table.contains(" score "), "{table}");
}
