//! What every verb owes to whoever reads its output: a terminal, a file, a pipe that closes early.

use std::{fs, io::Read, process::Stdio};

use crate::support::program::{Place, Ran, repository, workspace};

#[test]
fn logs_in_a_file_have_no_colours() {
    let place = Place::new();
    let mut command = place.robo(&["db", "init"]);
    let ran = Ran::from(command.env("RUST_LOG", "debug").output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("DEBUG"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stdout.contains('\u{1b}'), "{}", ran.stderr);
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let place = Place::new();
    let mut command = place.robo(&["db", "status", "--format", "json"]);
    for variable in ["ROBO_BACKEND_DATABASE_URL", "ROBO_BACKEND_LOG_LEVEL", "PG_BIN"] {
        command.env(variable, "");
    }
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("embedded server"), "{}", ran.stdout);
}

/// The variables of the operator's guide that set inputs, under whichever verb.
#[test]
fn inputs_take_what_their_variables_say_unless_somebody_says_otherwise() {
    let place = Place::new();
    let inputs = |variables: &[(&str, &str)], more: &[&str]| {
        let arguments = [&["plan", "pipelines/generalization.yaml", "--format", "json"][..], more].concat();
        let ran = Ran::from(place.robo(&arguments).envs(variables.iter().copied()).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        (plan["inputs"]["episodes_per_env"].as_u64().unwrap(), plan["inputs"]["temperature"].as_f64().unwrap())
    };
    let own = inputs(&[], &[]);
    let guide = [("ROBO_BACKEND_EPISODES_PER_ENV", "7"), ("ROBO_BACKEND_PARETO_TEMPERATURE", "2.5")];
    assert!(own != (7, 2.5) && inputs(&guide, &[]) == (7, 2.5));
    let both = [&guide[..], &[("ROBO_INPUT_EPISODES_PER_ENV", "8"), ("ROBO_INPUT_TEMPERATURE", "3.5")]].concat();
    assert_eq!(inputs(&both, &[]), (8, 3.5));
    assert_eq!(inputs(&both, &["-i", "episodes_per_env=9"]), (9, 3.5));
    assert_eq!(inputs(&[("ROBO_BACKEND_EPISODES_PER_ENV", ""), ("ROBO_BACKEND_PARETO_TEMPERATURE", " ")], &[]), own);
}

#[test]
fn the_database_is_named_before_or_after_the_verb() {
    let place = Place::new();
    let directory = place.data.path().to_str().unwrap();
    for arguments in [["cycle", "--data-dir", directory, "ls"], ["cycle", "ls", "--data-dir", directory]] {
        let ran = Ran::from(place.robo(&arguments).env_remove("ROBO_DATA_DIR").output().unwrap());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
    }
    assert!(place.data.path().join("postgres").is_dir());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut command = Place::new().robo(&["schema", "pipeline"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn lint_takes_a_directory_that_holds_both_kinds() {
    let folder = workspace(str::to_owned);
    let pipelines = folder.path().join("pipelines");
    fs::create_dir(&pipelines).unwrap();
    fs::write(pipelines.join("wrong.yaml"), "version: 1\nname: wrong\nstages: {}\n").unwrap();
    let mut command = Place::new().robo(&["lint", folder.path().to_str().unwrap()]);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("wrong.yaml:3:"), "{}", ran.stderr);
    let sound = repository();
    assert_eq!(Place::new().run(&["lint", sound.to_str().unwrap()]).code, 0);
}

#[test]
fn every_verb_explains_itself() {
    let verbs = [
        "run-pipeline",
        "schedule",
        "lint",
        "schema",
        "plan",
        "graph",
        "cycle",
        "weights",
        "miners",
        "chain",
        "commitment",
        "validate",
        "crypto",
        "score",
        "db",
        "backend",
        "env-server",
        "demo-miner",
        "completions",
    ];
    for verb in verbs {
        let ran = Ran::from(Place::new().robo(&[verb, "--help"]).stdin(Stdio::null()).output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{verb}");
        let teaches = ran.stdout.contains("Example") || ran.stdout.contains("  robo ");
        // Started by robo itself; and a cycle's verbs have a page each.
        assert!(teaches || ["env-server", "cycle"].contains(&verb), "{verb}:\n{}", ran.stdout);
    }
}
