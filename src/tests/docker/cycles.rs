//! Whole cycles on containers, by the real program and the real image: the same bytes as with processes, also when servers
//! and robo itself are killed in the middle.

use std::{fs, sync::OnceLock};

use robo::manifest::{Network, Resources};
use robo::runtime::Runtime;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{name_of, order, runtime};
use crate::support::{
    engine::{ENGINE, docker, engine, eval_image, try_docker},
    program::{Place, pipeline, turn, workspace},
};

pub(crate) const SALT: &str = "d0c0000000000000000000000000000000000000000000000000000000000001";

/// What the main job publishes when its servers are processes and nothing goes wrong.
pub(crate) fn calm(arguments: &[&str]) -> &'static (Value, Value) {
    static CALM: OnceLock<(Value, Value)> = OnceLock::new();
    CALM.get_or_init(|| {
        let place = Place::new();
        let ran = place.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        published(&place)
    })
}

/// A workspace whose family runs in the image of the tests.
pub(crate) fn contained() -> TempDir {
    let folder = workspace(str::to_owned);
    let manifest = folder.path().join("environments/metaworld.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    let changed = text.replace("image: robo-subnet/eval-env:v1", &format!("image: {}", eval_image()));
    assert_ne!(changed, text);
    // Two servers shall fit on the smallest machine that tests run on.
    fs::write(manifest, changed.replace("memory: 8g, cpus: 2", "memory: 3g")).unwrap();
    folder
}

pub(crate) fn published(place: &Place) -> (Value, Value) {
    let mut cycle = place.json(&["cycle", "show", "@latest", "--format", "json"]);
    assert!(cycle["scores_document"].is_object(), "{cycle}");
    (cycle["scores_document"].take(), cycle["weights_document"].take())
}

pub(crate) fn of_cycle(cycle: &str, what: &[&str]) -> Vec<String> {
    let filter = format!("label=robo.cycle={cycle}");
    let arguments: Vec<&str> = what.iter().copied().chain(["--quiet", "--filter", &filter]).collect();
    docker(&arguments).lines().map(str::to_owned).collect()
}

#[test]
fn the_main_job_gives_the_same_bytes_in_containers_though_servers_and_robo_are_killed() {
    let (_turn, _engine) = (turn(), engine());
    let folder = contained();
    let file = pipeline(&folder);
    let arguments = ["run-pipeline", &file, "-i", "episodes_per_env=3", "--salt", SALT];
    let containers = Place::new();
    let calm = calm(&arguments);

    let two = "unix:///var/run/docker.sock=2";
    let in_containers = ["--runtime", "docker", "--docker-host", two];
    let mut running = containers.start(&[&arguments[..], &in_containers].concat());
    running.until_line(|line| line.contains(" episodes  ") && !line.contains("  0/"));
    running.kill_everything();
    let cycle = containers.json(&["cycle", "show", "@latest", "--format", "json"])["id"].as_str().unwrap().to_owned();
    let servers = of_cycle(&cycle, &["ps", "--all"]);
    assert_eq!(servers.len(), 2, "a pool of two");
    for server in &servers {
        // They notice by themselves that nobody holds them any more.
        docker(&["wait", server]);
    }

    let mut running = containers.start(&[&["cycle", "resume", "@latest"], &in_containers[..]].concat());
    running.until_line(|line| line.contains(" episodes  ") && line.contains("steps/s") && !line.contains("- steps/s"));
    let fresh = of_cycle(&cycle, &["ps"]);
    assert!(!fresh.is_empty() && fresh.iter().all(|server| !servers.contains(server)), "{fresh:?} {servers:?}");
    docker(&["kill", &fresh[0]]);
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(published(&containers), *calm);
    assert_eq!(of_cycle(&cycle, &["ps", "--all"]), Vec::<String>::new());
    assert_eq!(of_cycle(&cycle, &["network", "ls"]), Vec::<String>::new());
}

#[test]
fn a_cycle_without_its_image_says_how_to_build_it() {
    let (_turn, _engine) = (turn(), engine());
    let folder = workspace(|text| text.replace("defaults:\n", "defaults:\n  retry: { max_attempts: 1 }\n"));
    let place = Place::new();
    let manifest = folder.path().join("environments/metaworld.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("image: robo-subnet/eval-env:v1\n", "")).unwrap();
    let mut robo = place.robo(&["run-pipeline", &pipeline(&folder), "--docker-host", ENGINE]);
    robo.env("ROBO_BACKEND_RUNTIME", "docker").env("ROBO_BACKEND_EVAL_IMAGE", "robo-test/nobody-made-this");
    let output = robo.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["infra_fault(image_missing)", "robo build-eval-env metaworld --tag robo-test/nobody-made-this"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_server_reaches_the_miners_it_was_told_of_and_nobody_else() {
    let _turn = engine();
    let mut order = order(Some(eval_image().into()));
    order.server.resources = Resources { memory: Some(1 << 30), network: Network::MinersOnly, ..Resources::default() };
    order.server.build_digest =
        docker(&["inspect", "--format", "{{index .Config.Labels \"robo.builds\"}}", eval_image()]);
    let mut server = runtime(&[ENGINE]).start(&order).await.unwrap();
    let name = name_of(&*server);
    let miner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", miner.local_addr().unwrap());
    let there = server.reach(std::slice::from_ref(&endpoint)).await.unwrap().remove(0);
    assert_ne!(there, endpoint);
    let address = there.strip_prefix("http://").unwrap().to_owned();
    let (host, port) = address.split_once(':').unwrap();
    // Another program of this machine, on the very address where the miner is reached.
    let stranger = TcpListener::bind((host, 0)).await.unwrap();
    let stranger_port = stranger.local_addr().unwrap().port().to_string();
    let calls = move |host: &str, port: &str| {
        let script = format!("import socket; socket.create_connection(('{host}', {port}), 5)");
        try_docker(&["exec", &name, "python3", "-c", &script])
    };
    let (host, port) = (host.to_owned(), port.to_owned());
    let said = tokio::task::spawn_blocking(move || {
        [(host.as_str(), port.as_str()), (&host, &stranger_port), ("8.8.8.8", "53"), ("1.1.1.1", "443")]
            .map(|(host, port)| calls(host, port))
    });
    let said = said.await.unwrap();
    assert_eq!(said.each_ref().map(|(reached, _)| *reached), [true, false, false, false], "{said:?}");
    assert!(said[1..].iter().all(|(_, said)| said.contains("ConnectionRefused")), "it is told at once: {said:?}");
    server.stop().await;
}
