//! `robo score` through the binary: the examples, standard input, and every way to get the input wrong.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn robo_score(file: &str, input: &str) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_robo"))
        .args(["score", file])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Answer {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn scored(input: &Value) -> Value {
    let answer = robo_score("-", &input.to_string());
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
    serde_json::from_str(&answer.stdout).unwrap()
}

/// What is wrong with an input, without the headline and the hint.
#[track_caller]
fn refused(input: &str) -> String {
    let answer = robo_score("-", input);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{}", answer.stderr);
    let (problems, hint) = answer.stderr.split_once("\n\nhint: ").expect("a hint after an empty line");
    assert!(hint.contains("robo score --help"), "{hint}");
    problems.to_owned()
}

fn small() -> Value {
    json!({"environments": ["a", "b"], "episodes_per_env": 50, "scores": {"7": {"a": 0.5, "b": 0.5}, "8": {"a": 0.9, "b": 0.5}}})
}

fn with(key: &str, value: Value) -> Value {
    let mut input = small();
    input[key] = value;
    input
}

#[test]
fn the_examples() {
    for name in ["epsilon", "first_commit"] {
        let answer = robo_score(&format!("examples/scores/{name}.json"), "");
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
        insta::assert_snapshot!(name, answer.stdout);
    }
}

#[test]
fn a_file_and_standard_input_give_the_same_bytes() {
    let file = "examples/scores/epsilon.json";
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    assert_eq!(robo_score(file, "").stdout, robo_score("-", &text).stdout);
}

#[test]
fn what_is_left_out_has_a_default() {
    let explicit = json!({
        "environments": ["a", "b"], "episodes_per_env": {"b": 50, "a": 50}, "temperature": 1, "rule": "epsilon",
        "subset_weighting": "size", "all_zero": "uniform", "first_blocks": {"8": null},
        "scores": {"8": {"b": 0.5, "a": 0.9}, "7": {"a": 0.5, "b": 0.5}},
    });
    assert_eq!(scored(&explicit), scored(&small()));
}

#[test]
fn every_setting_changes_the_answer() {
    let three = |key: &str, value: Value| {
        let mut input = json!({
            "environments": ["a", "b", "c"], "episodes_per_env": 50, "rule": "epsilon",
            "scores": {"7": {"a": 0.5, "b": 0.5, "c": 0.5}, "8": {"a": 0.9, "b": 0.5, "c": 0.5}},
        });
        input[key] = value;
        scored(&input)["subset_scores"].clone()
    };
    // 8 wins the four subsets with `a`: one of size 1, two of 2, one of 3.
    assert_eq!(three("subset_weighting", json!("size")), json!({"7": 0.0, "8": 8.0}));
    assert_eq!(three("subset_weighting", json!("exponential")), json!({"7": 0.0, "8": 9.0}));
    assert_eq!(three("subset_weighting", json!("equal")), json!({"7": 0.0, "8": 4.0}));
    // By age, 7 also keeps what holds `b` or `c`: 12 - 1.
    assert_eq!(three("rule", json!("first_commit")), json!({"7": 11.0, "8": 1.0}));

    let twins = json!({"7": {"a": 0.5, "b": 0.5}, "8": {"a": 0.5, "b": 0.5}});
    assert_eq!(scored(&with("scores", twins.clone()))["weights"], json!({"7": 0.5, "8": 0.5}));
    let mut burnt = with("scores", twins);
    burnt["all_zero"] = json!({"burn": 0});
    let answer = scored(&burnt);
    assert_eq!(answer["weights"], json!({"0": 1.0, "7": 0.0, "8": 0.0}));
    assert_eq!(answer["weights_u16"], json!({"uids": [0, 7, 8], "values": [65535, 0, 0]}));
    // 8 leads by 3 points: exp(-3 / 3) = 0.3679, a share of 0.2689, times 65535.
    assert_eq!(scored(&with("temperature", json!(3.0)))["weights_u16"]["values"], json!([17625, 47909]));
}

#[test]
fn a_winner_is_told_apart_from_the_frontier() {
    // 8 is better everywhere and came later, by less than its elder's thresholds.
    let mut input = with("first_blocks", json!({"7": 5, "8": 6}));
    input["scores"] = json!({"7": {"a": 0.5, "b": 0.5}, "8": {"a": 0.58, "b": 0.58}});
    input["rule"] = json!("first_commit");
    let answer = scored(&input);
    assert_eq!((&answer["pareto_frontier"], &answer["winner"]), (&json!([8]), &json!(7)));
    input["rule"] = json!("epsilon");
    assert_eq!(scored(&input)["winner"], json!(8));
    // Two miners that share the frontier: nobody wins all.
    let shared = json!({"7": {"a": 0.5, "b": 0.9}, "8": {"a": 0.9, "b": 0.5}});
    assert_eq!(scored(&with("scores", shared))["winner"], Value::Null);
}

#[test]
fn ties_of_first_blocks_follow_the_reference_unless_told_otherwise() {
    // A circle of three: 8 holds its place against 7, 9 is clearly better than 7, and 8 holds its place against 9.
    let mut input = json!({
        "environments": ["a"], "episodes_per_env": 100, "rule": "first_commit", "first_blocks": {"7": 5, "8": 5, "9": 5},
        "scores": {"7": {"a": 0.5}, "8": {"a": 0.55}, "9": {"a": 0.6}},
    });
    assert_eq!(scored(&input)["subset_scores"], json!({"7": 0.0, "8": 1.0, "9": 0.0}));
    input["ties"] = json!("lower_uid");
    assert_eq!(scored(&input)["subset_scores"], json!({"7": 0.0, "8": 0.0, "9": 0.0}));
    input["ties"] = json!("upper_uid");
    assert!(refused(&input.to_string()).contains("ties: the text `upper_uid` is none of `both_earlier`, `lower_uid`"));
}

#[test]
fn a_rate_that_is_missing_is_an_error_unless_it_is_to_be_nothing() {
    let input = with("scores", json!({"7": {"a": 0.5}, "8": {"a": 0.9, "b": 0.5}})).to_string();
    assert!(refused(&input).contains(r#"scores["7"]["b"]: missing"#));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    std::fs::write(&path, input).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_robo")).arg("score").arg(&path).arg("--missing-as-zero").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let zero = with("scores", json!({"7": {"a": 0.5, "b": 0}, "8": {"a": 0.9, "b": 0.5}}));
    assert_eq!(told, scored(&zero));
}

#[test]
fn all_problems_at_once_in_the_order_of_the_text() {
    let input = r#"{
  "environments": ["metaworld/reach-v3", "metaworld/push-v3", "metaworld/reach-v3", ""],
  "episodes_per_env": 2.5,
  "temperature": 0,
  "rule": "espilon",
  "subset_weighting": 1,
  "all_zero": {"burn": 70000},
  "temprature": 1.0,
  "scores": {"7": {"metaworld/reach-v3": NaN}, "007": {}, "8": 0.5},
  "first_blocks": {"9": 1, "8": -1}
}"#;
    insta::assert_snapshot!("all_problems", refused(input));
}

#[test]
fn wrong_rates_are_located() {
    let input = r#"{
  "environments": ["metaworld/reach-v3", "metaworld/push-v3"],
  "episodes_per_env": 50,
  "scores": {
    "7": {"metaworld/reach-v3": 1.2, "metaworld/push-v3": NaN},
    "8": {"metaworld/reach-v3": -Infinity, "metaworld/push-v3": "0.5"},
    "9": {"metaworld/reach-v3": null, "metaworld/pushv3": 0.5},
    "10": {"metaworld/reach-v3": 0.5, "metaworld/reach-v3": 0.6, "metaworld/push-v3": 1e999},
    "70000": {"metaworld/reach-v3": 0.5, "metaworld/push-v3": 0.5},
    "9": {"metaworld/reach-v3": 0.5, "metaworld/push-v3": 0.5}
  }
}"#;
    insta::assert_snapshot!("wrong_rates", refused(input));
}

#[test]
fn one_problem_is_one_line() {
    assert_eq!(refused("[]"), "error: <stdin>:1:1: the document must be an object, found a list");
    assert_eq!(refused("{\n \"a\": }"), "error: <stdin>:2:7: expected a value, found `}`");
    assert_eq!(refused(""), "error: <stdin>:1:1: expected a value, found the end of the document");
    assert_eq!(
        refused(&with("scores", json!({})).to_string()),
        "error: <stdin>:1:58: scores: there is no miner to score"
    );
    assert_eq!(
        refused(&with("environments", json!([])).to_string()),
        "error: <stdin>:1:17: environments: 0 environments; 1 to 64 can be scored together"
    );
    let many: Vec<String> = (0..65).map(|index| format!("e{index}")).collect();
    assert_eq!(
        refused(&with("environments", json!(many)).to_string()),
        "error: <stdin>:1:17: environments: 65 environments; 1 to 64 can be scored together"
    );
}

#[test]
fn a_document_without_anything() {
    insta::assert_snapshot!(refused("{}"), @r"
    error: `<stdin>` has 3 problems
      <stdin>:1:1: environments: missing
      <stdin>:1:1: episodes_per_env: missing
      <stdin>:1:1: scores: missing
    ");
}

#[test]
fn a_file_that_is_not_there_or_not_text() {
    let answer = robo_score("no/such/table.json", "");
    assert_eq!(answer.code, Some(2));
    assert!(answer.stderr.starts_with("error: cannot read `no/such/table.json`\n  caused by: "), "{}", answer.stderr);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    std::fs::write(&path, b"{\n\"a\xff\": 1}").unwrap();
    let answer = robo_score(path.to_str().unwrap(), "");
    assert_eq!(answer.code, Some(2));
    assert!(answer.stderr.contains("table.json:2:3: not UTF-8 text"), "{}", answer.stderr);
}

#[test]
fn the_help_shows_an_input_that_works() {
    let output = Command::new(env!("CARGO_BIN_EXE_robo")).args(["score", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let start = help.find("\n{").expect("an example");
    let end = start + help[start..].find("\n}").expect("its end") + 2;
    assert_eq!(robo_score("-", &help[start..end]).code, Some(0), "{help}");
}
