//! Environment servers in containers, on a real engine: how they are held, how they fail, what is left of them.

pub(crate) mod cycles;
mod foreign;
mod given_up;
mod programs;
mod remote;

use std::{sync::Arc, time::Duration};

use robo::{
    cycle::InfraFault,
    host::ledger::Ledger,
    manifest::{Network, Resources},
    plan,
    runtime::{
        Error, Order, Running, Runtime, Servers,
        docker::{Defaults, Docker, HostSpec, Hosts},
    },
};
use tokio::net::{TcpListener, UnixStream};

use crate::{
    places::{FAMILY, keeps_its_word},
    support::{
        database::{TestDatabase, Version},
        engine::{DIGEST, ENGINE, SOCKET, docker, engine, eval_image, image, try_docker, well},
    },
};

/// A host as an operator writes it.
fn host(text: &str) -> HostSpec {
    text.parse().unwrap()
}

pub(crate) fn runtime(hosts: &[&str]) -> Docker {
    let hosts: Vec<HostSpec> = hosts.iter().map(|text| host(text)).collect();
    let defaults = Defaults { image: "robo-test/nobody-made-this".into(), memory: 64 << 20 };
    Docker::new(Arc::new(Hosts::new(&hosts)), defaults)
}

pub(crate) fn order(image: Option<String>) -> Order {
    let server = plan::Server {
        protocol: "robo/v1".into(),
        workers: None,
        slots_per_worker: 1,
        context: "eval-env".into(),
        requirements: "eval-env/requirements/metaworld.lock".into(),
        build_digest: DIGEST.into(),
        image,
        recycle_after: None,
        resources: Resources { memory: Some(48 << 20), network: Network::None, ..Resources::default() },
    };
    Order { family: "toy".into(), server, root: ".".into(), kinds: 1 }
}

/// The container of a server.
pub(crate) fn name_of(server: &dyn Running) -> String {
    server.address().description.split(' ').nth(1).unwrap().to_owned()
}

pub(crate) async fn refusal(runtime: &impl Runtime, order: &Order) -> Error {
    match runtime.start(order).await {
        Ok(server) => panic!("{} was started", server.address().description),
        Err(error) => error,
    }
}

/// Whether nothing of that name is left on the engine.
fn is_gone(name: &str) -> bool {
    !try_docker(&["container", "inspect", name]).0 && !try_docker(&["network", "inspect", name]).0
}

/// A server of the real image, to be reached by nobody but us.
pub(crate) fn real() -> Order {
    let mut order = order(Some(eval_image().into()));
    let format = "{{index .Config.Labels \"robo.builds\"}}";
    order.server.build_digest = docker(&["inspect", "--format", format, eval_image()]);
    order.server.resources.memory = Some(1 << 30);
    order
}

#[tokio::test]
async fn an_engine_keeps_what_every_place_promises() {
    let _turn = engine();
    let networks = || docker(&["network", "ls", "--quiet", "--filter", "label=robo.resource"]).lines().count();
    let before = networks();
    keeps_its_word(&runtime(&[ENGINE]), &real(), || {
        let filter = format!("label=robo.server={FAMILY}");
        let containers = docker(&["ps", "--all", "--quiet", "--filter", &filter]).lines().count();
        containers + networks().saturating_sub(before)
    })
    .await;
}

#[tokio::test]
async fn a_server_is_held_tight_and_leaves_nothing_behind() {
    let _turn = engine();
    let mut order = order(Some(well()));
    order.server.resources = Resources {
        memory: Some(48 << 20),
        cpus: Some(0.5),
        pids: Some(40),
        network: Network::Full,
        ..Resources::default()
    };
    let mut server = runtime(&[ENGINE]).start(&order).await.unwrap();
    server.check().await.unwrap();
    let name = name_of(&*server);
    let inside = |command: &str| try_docker(&["exec", &name, "sh", "-c", command]);
    assert_eq!(inside("id -u").1.trim(), "10001");
    let status = inside("cat /proc/self/status").1;
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    for command in ["touch /opt/x", "touch /etc/x", "echo '#!/bin/sh' >/tmp/x && chmod +x /tmp/x && /tmp/x"] {
        assert!(!inside(command).0, "{command}");
    }
    assert!(inside("echo x >/tmp/y && cat /tmp/y").0);
    let said = inside("for i in $(seq 60); do sleep 5 & done; wait");
    assert!(said.1.contains("Cannot fork") || said.1.contains("Resource temporarily unavailable"), "{}", said.1);
    let shown = |format: &str| docker(&["inspect", "--format", format, &name]);
    assert_eq!(shown("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "50331648 50331648");
    assert_eq!(shown("{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"), "500000000 40");
    assert_eq!(shown("{{.Mounts}} {{.HostConfig.PortBindings}}"), "[] map[]");
    assert_eq!(shown("{{.HostConfig.NetworkMode}}"), name, "a network of its own");
    server.stop().await;
    assert!(is_gone(&name));
}

#[tokio::test]
async fn a_server_ends_when_we_let_go_of_it_however_that_comes() {
    let _turn = engine();
    let server = runtime(&[ENGINE]).start(&order(Some(well()))).await.unwrap();
    let name = name_of(&*server);
    // What the system does to our connections when we are killed.
    std::mem::forget(server);
    let pid: i32 = docker(&["inspect", "--format", "{{.State.Pid}}", &name]).parse().unwrap();
    assert!(pid > 0);
    let mut other = runtime(&[ENGINE]).start(&order(Some(well()))).await.unwrap();
    let other_name = name_of(&*other);
    docker(&["exec", &other_name, "touch", "/tmp/broken"]);
    let error = other.check().await.unwrap_err();
    assert_eq!(error.reason(), InfraFault::Unhealthy);
    drop(other);
    // The removal runs beside us.
    while !is_gone(&other_name) {
        tokio::task::yield_now().await;
    }
    docker(&["rm", "--force", &name]);
}

#[tokio::test]
async fn failures_to_start_are_told_apart_and_show_the_last_words() {
    let _turn = engine();
    let (patient, hasty) = (runtime(&[ENGINE]), runtime(&[ENGINE]).with_patience(Duration::from_secs(10)));
    let cases = [
        ("ends", "echo no licence was found >&2; exit 7", InfraFault::ServerLost, "no licence was found"),
        ("memory", "exec tail /dev/zero", InfraFault::OutOfMemory, "resources.memory"),
        ("disk", "echo write: No space left on device >&2; exit 1", InfraFault::DiskFull, "make room on the disk"),
        ("silent", "echo I am thinking >&2; cat >/dev/null", InfraFault::StartTimeout, "I am thinking"),
    ];
    for (name, server, reason, words) in cases {
        let order = Order { family: "failing".into(), ..order(Some(image(name, server, "exit 1"))) };
        // One that never comes up is not waited for long; the others may take the time that they need.
        let error = refusal(if reason == InfraFault::StartTimeout { &hasty } else { &patient }, &order).await;
        let text = error.explain();
        assert_eq!(error.reason(), reason, "{name}: {text}");
        assert!(text.contains(words) && text.contains("Container failed to start"), "{name}: {text}");
        assert!(!error.is_permanent(), "{name}: another server may do better");
    }
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", "label=robo.server=failing"]), "", "nothing is left");
}

#[tokio::test]
async fn an_image_that_is_missing_or_made_of_other_sources_is_said_with_the_command_that_makes_it() {
    let _turn = engine();
    let runtime = runtime(&[ENGINE]);
    let missing = refusal(&runtime, &order(None)).await;
    assert_eq!(missing.reason(), InfraFault::ImageMissing);
    let text = missing.explain();
    assert!(text.contains("robo build-eval-env toy --tag robo-test/nobody-made-this"), "{text}");
    let mut other = order(Some(well()));
    other.server.build_digest = "digest-of-an-edit".into();
    let text = refusal(&runtime, &other).await.explain();
    assert!(text.contains("image_missing") && text.contains("as its sources are now"), "{text}");
}

#[tokio::test]
async fn a_wall_that_cannot_be_put_up_is_no_server() {
    let _turn = engine();
    let mut order = order(Some(well()));
    order.server.resources.network = Network::MinersOnly;
    let error = refusal(&runtime(&[ENGINE]), &order).await;
    assert_eq!(error.reason(), InfraFault::Unhealthy);
    assert!(error.explain().contains("needs the program `nft`"), "{}", error.explain());
}

/// An engine behind a network: a port that leads to the socket for as long as this lives.
struct Remote {
    url: String,
    _serving: tokio::task::JoinSet<()>,
}

impl Remote {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            let mut joined = tokio::task::JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                joined.spawn(async move {
                    let mut to = UnixStream::connect(SOCKET).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self { url, _serving: serving }
    }
}

#[tokio::test]
async fn a_host_that_dies_is_left_and_another_takes_its_servers() {
    let _turn = engine();
    let remote = Remote::open().await;
    // The remote one has more room, so it is the first choice.
    let hosts = [&format!("{}=60", remote.url), "unix:///var/run/docker.sock=50"];
    let servers = Servers::new(Arc::new(Pair(runtime(&hosts))), ".".into());
    let server = order(Some(well())).server;
    let lent = servers.get("toy", &server, 1).await.unwrap();
    assert!(lent[0].address().description.contains(&remote.url), "{:?}", lent[0]);
    let name = lent[0].address().description.split(' ').nth(1).unwrap().to_owned();
    drop(remote);
    let error = lent[0].check().await.unwrap_err();
    assert_eq!(error.reason(), InfraFault::HostUnreachable, "{}", error.explain());
    drop(lent);
    let next = servers.get("toy", &server, 1).await.unwrap();
    assert!(next[0].address().description.contains("unix://"), "{:?}", next[0]);
    next[0].check().await.unwrap();
    drop(next);
    servers.stop().await;
    // The host is back: what it still had of ours is removed there.
    let _ = try_docker(&["rm", "--force", &name]);
}

/// One server at a time, whatever room there is.
struct Pair(Docker);

impl Runtime for Pair {
    fn start<'a>(&'a self, order: &'a Order) -> futures::future::BoxFuture<'a, Result<Box<dyn Running>, Error>> {
        self.0.start(order)
    }
}

#[tokio::test]
async fn a_pool_is_as_large_as_the_hosts_have_room_for() {
    let _turn = engine();
    let running = docker(&["ps", "--quiet", "--filter", "label=robo.server"]).lines().count();
    let limited = runtime(&[&format!("unix:///var/run/docker.sock={}", running + 2)]);
    let order = order(Some(well()));
    assert_eq!(limited.room(&order).await, 2);
    assert_eq!(limited.room(&Order { kinds: 2, ..order.clone() }).await, 1, "two families share it");
    let servers = Servers::new(Arc::new(limited.clone()), ".".into());
    let lent = servers.get("toy", &order.server, 1).await.unwrap();
    assert_eq!(lent.len(), 2);
    assert_ne!(lent[0].address().url, lent[1].address().url);
    let full = refusal(&limited, &order).await;
    assert_eq!(full.reason(), InfraFault::NoCapacity);
    assert!(full.explain().contains("--docker-host URL=N"), "{}", full.explain());
    drop(lent);
    servers.stop().await;
    assert_eq!(limited.room(&order).await, 2);
}

#[tokio::test]
async fn what_a_crashed_backend_has_left_is_labelled_and_removed_by_the_next() {
    let _turn = engine();
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await.with_keeper(Arc::new(robo::runtime::docker::Containers));
    let cycle = store.create_cycle(&crate::ledger::new_cycle()).await.unwrap();
    let (lease, ledger) = crate::ledger::take_up(&store, cycle).await;
    let ledger: Arc<dyn Ledger> = Arc::new(ledger);
    let mut order = order(Some(well()));
    order.server.resources.network = Network::Full;
    let server = runtime(&[ENGINE]).with_ledger(Arc::clone(&ledger)).start(&order).await.unwrap();
    let name = name_of(&*server);
    let label =
        |label: &str| docker(&["inspect", "--format", &format!("{{{{index .Config.Labels \"{label}\"}}}}"), &name]);
    assert_eq!((label("robo.cycle"), label("robo.epoch")), (cycle.to_string(), lease.epoch.to_string()));
    assert_eq!(store.reap().await.unwrap().ended, Vec::<String>::new(), "somebody needs it");
    std::mem::forget(server);
    store.revoke_lease(cycle).await.unwrap();
    let reaped = store.reap().await.unwrap();
    assert!(reaped.ended.len() == 1 && reaped.ended[0].contains(&name), "{reaped:?}");
    assert!(is_gone(&name));

    // Who takes the cycle over does the same before anything starts.
    let (_, second) = crate::ledger::take_up(&store, cycle).await;
    let second: Arc<dyn Ledger> = Arc::new(second);
    let server = runtime(&[ENGINE]).with_ledger(second).start(&order).await.unwrap();
    let name = name_of(&*server);
    std::mem::forget(server);
    store.revoke_lease(cycle).await.unwrap();
    let (_, third) = crate::ledger::take_up(&store, cycle).await;
    assert!(is_gone(&name));

    // The image that the cycle began with stays its image, whoever gives the name to another.
    let before = docker(&["image", "inspect", "--format", "{{.Id}}", "robo-test/well"]);
    docker(&["tag", "debian:bookworm-slim", "robo-test/well"]);
    let third: Arc<dyn Ledger> = Arc::new(third);
    let server = runtime(&[ENGINE]).with_ledger(third).start(&order).await;
    docker(&["tag", &before, "robo-test/well"]);
    let server = server.unwrap();
    assert_eq!(docker(&["inspect", "--format", "{{.Image}}", &name_of(&*server)]), before);
    server.stop().await;
}
