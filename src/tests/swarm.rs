//! Environment servers as services of a real swarm of two nodes: how they are held, how they fail, what is left of them.

mod cycles;
mod hold;
mod nodes;

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use robo::{
    cycle::InfraFault,
    host::ledger::Ledger,
    manifest::{Network, Resources},
    runtime::{
        Order, Running, Runtime,
        docker::{Overlay, Swarm},
    },
};
use tokio::net::TcpListener;

use crate::{
    docker::{name_of, order, real, refusal, runtime},
    places::{FAMILY, keeps_its_word},
    support::{
        database::{TestDatabase, Version},
        engine::{ENGINE, Turn, docker, engine, eval_image, try_docker},
    },
};

/// The engine of the second node; the first is the manager.
const SECOND: &str = "unix:///run/robo-docker-engine/second.sock";

/// What `scripts/docker-engine` calls the second node.
const SECOND_NODE: &str = "robo-second";

/// What `scripts/docker-engine swarm COMMAND` does.
fn swarm_script(command: &str) {
    let script = crate::support::program::repository().join("scripts/docker-engine");
    // Whatever it starts outlives this test, and must not hold its output open.
    let status = std::process::Command::new(script).args(["swarm", command]).status().unwrap();
    assert!(status.success(), "scripts/docker-engine swarm {command}");
}

/// The swarm, to be used by one test at a time, with the image of MetaWorld on both nodes.
fn swarm() -> Turn {
    let turn = engine();
    let (is_there, state) = try_docker(&["node", "inspect", "--format", "{{.Status.State}}", SECOND_NODE]);
    assert!(is_there, "no swarm of two nodes is there: `scripts/docker-engine swarm up` makes one");
    if state.trim() != "ready" {
        // A test before has lost it.
        swarm_script("up");
    }
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", eval_image()]);
    if !try_docker(&["--host", SECOND, "image", "inspect", &id]).0 {
        let copy = format!("docker save {} | docker --host {SECOND} load", eval_image());
        assert!(std::process::Command::new("sh").args(["-c", &copy]).status().unwrap().success());
    }
    turn
}

/// Keeps servers off a node for as long as it lives.
struct Without(String);

impl Without {
    fn node(name: &str) -> Self {
        docker(&["node", "update", "--label-add", "robo.servers=0", name]);
        Self(name.to_owned())
    }

    fn manager() -> Self {
        Self::node(&docker(&["info", "--format", "{{.Swarm.NodeID}}"]))
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        docker(&["node", "update", "--label-rm", "robo.servers", &self.0]);
    }
}

fn swarm_of(hosts: &[&str]) -> Swarm {
    Swarm::new(runtime(hosts), Overlay::Plain)
}

/// An image whose `robo env-server` runs `server` in a shell, and which is the real one otherwise.
fn failing(name: &str, server: &str) -> Order {
    let tag = format!("robo-test/swarm-{name}");
    let script = format!("#!/bin/sh\ncase $1 in env-server) {server} ;; esac\nexec /opt/robo/bin/real \"$@\"\n");
    let real_one = "RUN mv /opt/robo/bin/robo /opt/robo/bin/real\nCOPY robo /opt/robo/bin/robo\n";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Dockerfile"), format!("FROM {}\n{real_one}", eval_image())).unwrap();
    fs::write(folder.path().join("robo"), script).unwrap();
    fs::set_permissions(folder.path().join("robo"), fs::Permissions::from_mode(0o755)).unwrap();
    docker(&["build", "--quiet", "--tag", &tag, folder.path().to_str().unwrap()]);
    let mut order = real();
    order.server.image = Some(tag);
    order.server.resources.memory = Some(48 << 20);
    order
}

/// Whether the manager has nothing of that name any more.
fn is_gone(name: &str) -> bool {
    let gate = format!("{name}-gate");
    !try_docker(&["service", "inspect", name]).0
        && !try_docker(&["container", "inspect", &gate]).0
        && !try_docker(&["network", "inspect", name]).0
}

/// How many networks of ours the swarm has.
fn networks() -> usize {
    let filters = ["--filter", "label=robo.resource", "--filter", "driver=overlay"];
    docker(&[&["network", "ls", "--quiet"][..], &filters].concat()).lines().count()
}

/// The containers that the second node has of ours, running or not.
fn on_second() -> Vec<String> {
    listed_on_second(&["--all"])
}

/// The containers of ours that run on the second node.
fn running_on_second() -> Vec<String> {
    listed_on_second(&[])
}

fn listed_on_second(which: &[&str]) -> Vec<String> {
    let listed = docker(&[&["--host", SECOND, "ps", "--quiet", "--filter", "label=robo.resource"][..], which].concat());
    listed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_swarm_keeps_what_every_place_promises() {
    let _turn = swarm();
    keeps_its_word(&swarm_of(&[ENGINE]), &real(), || {
        let services = docker(&["service", "ls", "--quiet", "--filter", &format!("label=robo.server={FAMILY}")]);
        services.lines().count() + networks()
    })
    .await;
}

#[tokio::test]
async fn a_service_is_held_tight_publishes_nothing_and_leaves_nothing_behind() {
    let _turn = swarm();
    let _elsewhere = Without::manager();
    let mut order = real();
    order.server.resources = Resources {
        memory: Some(512 << 20),
        cpus: Some(0.5),
        pids: Some(64),
        network: Network::MinersOnly,
        ..Resources::default()
    };
    let mut server = swarm_of(&[ENGINE]).start(&order).await.unwrap();
    server.check().await.unwrap();
    let name = name_of(&*server);
    let container = on_second().remove(0);
    let there = |arguments: &[&str]| try_docker(&[&["--host", SECOND], arguments].concat());
    let shown = |format: &str| there(&["inspect", "--format", format, &container]).1.trim().to_owned();
    assert_eq!(
        shown("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"),
        "536870912 500000000 64"
    );
    assert_eq!(shown("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}"), "true [ALL]");
    assert_eq!(shown("{{.HostConfig.PortBindings}} {{.NetworkSettings.Ports}}"), "map[] map[]");
    let inside = |command: &str| there(&["exec", &container, "sh", "-c", command]);
    // The server itself, and not what holds it.
    let status = inside("cat /proc/$(pgrep -u 10001 -o)/status || cat /proc/[0-9]*/status").1;
    let server_status = status.split("Name:").find(|text| text.contains("Uid:\t10001\t10001\t10001\t10001"));
    let server_status = server_status.unwrap_or_else(|| panic!("nobody is 10001: {status}"));
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(server_status.contains(line), "{line}\n{server_status}");
    }
    for command in ["touch /opt/x", "touch /etc/x", "echo '#!/bin/sh' >/tmp/x && chmod +x /tmp/x && /tmp/x"] {
        assert!(!inside(command).0, "{command}");
    }
    server.stop().await;
    assert!(is_gone(&name));
}

#[tokio::test]
async fn a_server_on_another_node_reaches_the_miners_it_was_told_of_and_nobody_else() {
    let _turn = swarm();
    let _elsewhere = Without::manager();
    let mut order = real();
    order.server.resources.network = Network::MinersOnly;
    let mut server = swarm_of(&[ENGINE]).start(&order).await.unwrap();
    let container = on_second().remove(0);
    let miner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", miner.local_addr().unwrap());
    let there = server.reach(std::slice::from_ref(&endpoint)).await.unwrap().remove(0);
    let (host, port) = there.strip_prefix("http://").unwrap().split_once(':').unwrap();
    // Another program of this machine, on the very address where the miner is reached.
    let stranger = TcpListener::bind((host, 0)).await.unwrap();
    let stranger = stranger.local_addr().unwrap().port().to_string();
    let (host, port) = (host.to_owned(), port.to_owned());
    let said = tokio::task::spawn_blocking(move || {
        [(host.as_str(), port.as_str()), (&host, &stranger), ("8.8.8.8", "53"), ("1.1.1.1", "443")].map(
            |(host, port)| {
                let script = format!("import socket; socket.create_connection(('{host}', {port}), 5)");
                try_docker(&["--host", SECOND, "exec", "--user", "10001", &container, "python3", "-c", &script])
            },
        )
    });
    let said = said.await.unwrap();
    assert_eq!(said.each_ref().map(|(reached, _)| *reached), [true, false, false, false], "{said:?}");
    assert!(said[1..].iter().all(|(_, said)| said.contains("ConnectionRefused")), "it is told at once: {said:?}");
    server.stop().await;
}

#[tokio::test]
async fn failures_to_start_are_told_apart_and_show_the_last_words() {
    let _turn = swarm();
    let _elsewhere = Without::node(SECOND_NODE);
    let patient = Swarm::new(runtime(&[ENGINE]), Overlay::Encrypted);
    let hasty = Swarm::new(runtime(&[ENGINE]).with_patience(Duration::from_secs(20)), Overlay::Encrypted);
    let cases = [
        ("ends", "echo no licence was found >&2; exit 7", InfraFault::ServerLost, "no licence was found"),
        ("memory", "exec tail /dev/zero", InfraFault::OutOfMemory, "resources.memory"),
        ("disk", "echo write: No space left on device >&2; exit 1", InfraFault::DiskFull, "make room on the disk"),
        ("old", "echo \"error: unrecognized subcommand\" >&2; exit 2", InfraFault::ImageMissing, "robo build-eval-env"),
        ("silent", "echo I am thinking >&2; cat >/dev/null; exit 1", InfraFault::StartTimeout, "I am thinking"),
    ];
    for (name, server, reason, words) in cases {
        let order = Order { family: "failing".into(), ..failing(name, server) };
        // One that never comes up is not waited for long; the others may take the time that they need.
        let error = refusal(if reason == InfraFault::StartTimeout { &hasty } else { &patient }, &order).await;
        let text = error.explain();
        assert_eq!(error.reason(), reason, "{name}: {text}");
        assert!(text.contains(words) && text.contains("Container failed to start"), "{name}: {text}");
        assert!(!error.is_permanent(), "{name}: another node may do better");
    }
    // One that comes up, and gets ill.
    let mut ill =
        patient.start(&failing("ill", "cd /tmp; touch health; exec python3 -m http.server 8700")).await.unwrap();
    ill.check().await.unwrap();
    let task = docker(&["ps", "--quiet", "--filter", &format!("name={}\\.1", name_of(&*ill))]);
    docker(&["exec", &task, "rm", "/tmp/health"]);
    // Nothing of this passes between nodes: kernels that cannot encrypt do as well here.
    let options = docker(&["network", "inspect", "--format", "{{.Options}}", &name_of(&*ill)]);
    assert!(options.contains("encrypted"), "{options}");
    assert_eq!(ill.check().await.unwrap_err().reason(), InfraFault::Unhealthy);
    ill.stop().await;
    let services = docker(&["service", "ls", "--quiet", "--filter", "label=robo.server"]);
    assert_eq!(services, "", "nothing is left");
    let missing = refusal(&patient, &order(None)).await;
    assert_eq!(missing.reason(), InfraFault::ImageMissing);
    let text = missing.explain();
    assert!(text.contains("robo build-eval-env toy --tag robo-test/nobody-made-this"), "{text}");
}

#[tokio::test]
async fn what_a_crashed_backend_has_left_is_labelled_and_removed_by_the_next() {
    let _turn = swarm();
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await.with_keeper(Arc::new(robo::runtime::docker::Containers));
    let cycle = store.create_cycle(&crate::ledger::new_cycle()).await.unwrap();
    let (lease, ledger) = crate::ledger::take_up(&store, cycle).await;
    let ledger: Arc<dyn Ledger> = Arc::new(ledger);
    let start = async |ledger| {
        let runtime = Swarm::new(runtime(&[ENGINE]).with_ledger(ledger), Overlay::Plain);
        let server: Box<dyn Running> = runtime.start(&real()).await.unwrap();
        server
    };
    let server = start(Arc::clone(&ledger)).await;
    let name = name_of(&*server);
    let label = |label: &str| {
        docker(&["service", "inspect", "--format", &format!("{{{{index .Spec.Labels \"{label}\"}}}}"), &name])
    };
    assert_eq!((label("robo.cycle"), label("robo.epoch")), (cycle.to_string(), lease.epoch.to_string()));
    assert_eq!(store.reap().await.unwrap().ended, Vec::<String>::new(), "somebody needs it");
    std::mem::forget(server);
    store.revoke_lease(cycle).await.unwrap();
    let reaped = store.reap().await.unwrap();
    assert!(reaped.ended.len() == 1 && reaped.ended[0].contains(&name), "{reaped:?}");
    assert!(is_gone(&name));

    // Who takes the cycle over does the same before anything starts.
    let (_, second) = crate::ledger::take_up(&store, cycle).await;
    let server = start(Arc::new(second)).await;
    let name = name_of(&*server);
    std::mem::forget(server);
    store.revoke_lease(cycle).await.unwrap();
    let _third = crate::ledger::take_up(&store, cycle).await;
    assert!(is_gone(&name));
}
