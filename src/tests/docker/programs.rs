//! `container/run` with an image: JSON in, JSON out, held as tightly as an environment server.

use std::{collections::BTreeSet, fs, sync::Arc};

use robo::cycle::InfraFault;
use robo::runtime::docker::{Command, Once, OnceError, Said};
use serde_json::json;

use super::runtime;
use crate::{
    examples::Miner,
    support::{
        engine::{ENGINE, docker, engine, eval_image},
        program::{Place, pipeline, repository, turn, workspace},
    },
};

async fn run(command: &[&str], input: &str) -> Result<Said, OnceError> {
    let command = Command {
        image: "debian:bookworm-slim".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![("GREETING".into(), "hello".into())],
        input: input.into(),
        max_bytes: 1000,
    };
    Arc::new(Once::new(runtime(&[ENGINE]))).run(command).await
}

/// The containers of ours that run.
fn running() -> BTreeSet<String> {
    docker(&["ps", "--quiet", "--filter", "label=robo.resource"]).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_program_reads_its_input_and_says_what_it_says() {
    let _turn = engine();
    let said = run(&["sh", "-c", "echo $GREETING; cat; echo beware >&2; exit 3"], "{\"a\": 1}").await.unwrap();
    assert_eq!(String::from_utf8(said.output).unwrap(), "hello\n{\"a\": 1}");
    assert_eq!((said.code, said.last_words.0), (3, vec!["beware".to_owned()]));

    let said = run(&["sh", "-c", "id -u; touch /etc/x || echo no; cat /proc/net/dev | grep -c eth"], "").await.unwrap();
    assert_eq!(String::from_utf8(said.output).unwrap(), "10001\nno\n0\n");

    let error = run(&["sh", "-c", "yes"], "").await.unwrap_err();
    assert!(matches!(error, OnceError::TooMuch(1000)), "{error}");
    let said = run(&["nobody-knows-this"], "").await.unwrap();
    assert!(said.code == 127 && said.last_words.to_string().contains("nobody-knows-this"), "{said:?}");
    match run(&["tail", "/dev/zero"], "").await.unwrap_err() {
        OnceError::Place(error) => assert_eq!(error.reason(), InfraFault::OutOfMemory),
        error => panic!("{error}"),
    }
    // Nobody waits for it any more.
    let before = running();
    let slow = tokio::spawn(async { run(&["sleep", "1000"], "").await });
    while running().is_subset(&before) {
        tokio::task::yield_now().await;
    }
    slow.abort();
    while !running().is_subset(&before) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_example_pays_by_a_program_in_a_container() {
    let (_turn, _engine) = (turn(), engine());
    let (swing_up, still) = (Miner::start("swing-up"), Miner::start("still"));
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(|_| {
        let text = example("pipelines/weights-by-image.yaml").replace("robo-subnet/eval-env:v1", eval_image());
        text.replace("http://127.0.0.1:9001", &swing_up.url).replace("http://127.0.0.1:9002", &still.url)
    });
    let family = example("environments/classic-control.yaml").replace("action_timeout: 100ms", "action_timeout: 20s");
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();
    let place = Place::new();
    // The simulators as processes, the program in a container: each stage has its own place.
    let salt = "5a".repeat(32);
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2", "--salt", &salt]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = place.json(&["weights", "show", "--format", "json"]);
    assert_eq!(shown["weights"], json!({ "1": 1, "2": 0 }));
}
