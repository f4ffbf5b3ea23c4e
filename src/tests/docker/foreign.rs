//! Images that others have made, on a real engine: started as they are, held like ours, and a whole cycle through them.

use std::fs;

use robo::{
    cycle::InfraFault,
    manifest::{Network, Resources},
    runtime::{Order, Runtime},
};

use super::{name_of, order, refusal, runtime};
use crate::{
    affinetes::example,
    support::{
        engine::{ENGINE, build, docker, engine, eval_image, try_docker},
        program::{Place, pipeline, repository, turn},
    },
};

/// An image that knows nothing of robo: a Python, a simulator, and a server of its own.
fn image() -> String {
    let server = fs::read_to_string(repository().join("examples/affinetes_server.py")).unwrap();
    let dockerfile = format!(
        "FROM {}\nLABEL robo.builds=\nCOPY server.py /app/server.py\nWORKDIR /app\n\
         ENTRYPOINT [\"/opt/robo/python/metaworld/bin/python\"]\nCMD [\"server.py\", \"--host\", \"0.0.0.0\"]\n",
        eval_image()
    );
    build("foreign", &[("Dockerfile", &dockerfile), ("server.py", &server)])
}

fn foreign(image: Option<String>, network: Network) -> Order {
    let mut order = order(image);
    order.server.protocol = "affinetes".into();
    order.server.build_digest = String::new();
    order.server.resources = Resources { memory: Some(1 << 30), network, ..Resources::default() };
    order
}

#[tokio::test]
async fn an_image_of_others_is_started_as_it_is_and_held_like_ours() {
    let _turn = engine();
    let order = foreign(Some(image()), Network::Full);
    let mut server = runtime(&[ENGINE]).start(&order).await.unwrap();
    server.check().await.unwrap();
    let name = name_of(&*server);
    let inside = |command: &str| try_docker(&["exec", &name, "sh", "-c", command]);
    assert_eq!(inside("id -u").1.trim(), "10001");
    assert!(!inside("touch /app/x").0 && inside("touch /tmp/x").0);
    let started = docker(&["inspect", "--format", "{{.Path}} {{.Args}} {{.Config.WorkingDir}}", &name]);
    assert_eq!(started, "/opt/robo/python/metaworld/bin/python [server.py --host 0.0.0.0] /app");
    let methods = reqwest::get(format!("{}/methods", server.address().url)).await.unwrap().text().await.unwrap();
    assert!(methods.contains("evaluate"), "{methods}");
    server.stop().await;
    assert!(super::is_gone(&name));

    // What has no name, is not there, or cannot be walled in is told apart.
    let nameless = refusal(&runtime(&[ENGINE]), &foreign(None, Network::Full)).await;
    assert!(nameless.reason() == InfraFault::ImageMissing && nameless.explain().contains("names no image"));
    let missing = refusal(&runtime(&[ENGINE]), &foreign(Some("robo-test/not-there".into()), Network::Full)).await;
    assert!(missing.explain().contains("docker pull robo-test/not-there"), "{}", missing.explain());
    let unwalled = refusal(&runtime(&[ENGINE]), &foreign(order.server.image.clone(), Network::MinersOnly)).await;
    assert!(unwalled.explain().contains("network: full"), "{}", unwalled.explain());
}

#[test]
fn a_cycle_through_an_image_of_others_gives_weights_though_its_container_is_killed() {
    let (_turn, _engine) = (turn(), engine());
    let image = image();
    let folder = example(|text| text.replace("[legacy/*]", "[legacy/drawer-close-v3]"));
    let manifest = folder.path().join("environments/affinetes.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        text.replace("robo-subnet/legacy-eval-env:v1", &image).replace("memory: 4g, cpus: 2", "memory: 2g"),
    )
    .unwrap();
    let place = Place::new();
    let arguments = ["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=20", "--salt", &"5c".repeat(32)];
    let there = ["--runtime", "docker", "--docker-host", "unix:///var/run/docker.sock=1", "--eval-image", eval_image()];
    let mut running = place.start(&[&arguments[..], &there].concat());
    // Asked for first: once they play there is no time to lose.
    running.until_line(|line| line.contains(" episodes  "));
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json"])["id"].as_str().unwrap().to_owned();
    running.until_line(|line| line.contains(" episodes  ") && !line.contains("  0/"));
    let filter = format!("label=robo.cycle={cycle}");
    let containers = |more: &[&str]| docker(&[&["ps", "--quiet", "--filter", &filter], more].concat());
    docker(&["kill", containers(&[]).lines().next().unwrap()]);
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let weights = place.json(&["weights", "show", "--format", "json"])["weights"].clone();
    assert!(weights["1"].as_f64() > weights["2"].as_f64(), "{weights}");
    assert_eq!(containers(&["--all"]), "");
}
