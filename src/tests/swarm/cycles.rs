//! Whole cycles on a swarm, by the real program and the real image: the same bytes as with processes, also when a node is
//! lost in the middle.

use super::{SECOND_NODE, swarm, swarm_script};
use crate::{
    docker::cycles::{SALT, calm, contained, of_cycle, published},
    support::{
        engine::{SOCKET, docker},
        program::{Place, pipeline, turn},
    },
};

#[test]
fn the_main_job_gives_the_same_bytes_on_a_swarm_though_a_node_is_lost() {
    let _turns = (turn(), swarm());
    let folder = contained();
    let file = pipeline(&folder);
    let arguments = ["run-pipeline", &file, "-i", "episodes_per_env=3", "--salt", SALT];
    let calm = calm(&arguments);
    let each = format!("unix://{SOCKET}=1");
    let on_swarm = ["--runtime", "swarm", "--docker-host", &each];

    let undisturbed = Place::new();
    let ran = undisturbed.run(&[&arguments[..], &on_swarm].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(published(&undisturbed), *calm);

    let place = Place::new();
    let mut running = place.start(&[&arguments[..], &on_swarm].concat());
    running.until_line(|line| line.contains(" episodes  ") && line.contains("steps/s") && !line.contains("- steps/s"));
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json"])["id"].as_str().unwrap().to_owned();
    let services = of_cycle(&cycle, &["service", "ls"]);
    assert_eq!(services.len(), 2, "one on each node: {}", running.said);
    let nodes = docker(&["node", "ps", SECOND_NODE, "--format", "{{.CurrentState}}"]);
    assert!(nodes.contains("Running"), "{nodes}");
    swarm_script("kill");
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("host_unreachable"), "the loss is told: {}", ran.stderr);
    assert_eq!(published(&place), *calm);
    for what in ["service", "network"] {
        assert_eq!(of_cycle(&cycle, &[what, "ls"]), Vec::<String>::new(), "{what}");
    }
    // A node removes the container of a service that is no more in its own time.
    while !of_cycle(&cycle, &["ps", "--all"]).is_empty() {
        std::thread::yield_now();
    }
    swarm_script("up");
}
