//! The nodes of a swarm: how many servers they take, and what becomes of one that is lost and comes back.

use std::sync::Arc;

use robo::{
    cycle::InfraFault,
    runtime::{Runtime, Servers},
};

use super::{SECOND, SECOND_NODE, Without, networks, on_second, running_on_second, swarm, swarm_of, swarm_script};
use crate::{
    docker::{real, refusal},
    support::engine::{SOCKET, docker, try_docker},
};

/// The manager, with room for so many servers on each node.
fn each_node(servers: usize) -> String {
    format!("unix://{SOCKET}={servers}")
}

#[tokio::test]
async fn servers_are_spread_over_the_nodes_and_one_that_is_lost_is_left_until_it_is_back() {
    let _turn = swarm();
    let runtime = swarm_of(&[&each_node(1)]);
    let (order, server) = (real(), real().server);
    assert_eq!(runtime.room(&order).await, 2);
    let servers = Servers::new(Arc::new(runtime.clone()), ".".into());
    let lent = servers.get("toy", &server, 1).await.unwrap();
    assert_eq!(lent.len(), 2);
    let lost: Vec<_> = lent.iter().filter(|it| it.address().description.contains(SECOND_NODE)).collect();
    assert_eq!(lost.len(), 1, "one on each: {lent:?}");
    let full = refusal(&runtime, &order).await;
    assert_eq!(full.reason(), InfraFault::NoCapacity, "{}", full.explain());
    assert!(full.explain().contains("robo.servers"), "{}", full.explain());

    swarm_script("kill");
    let error = lost[0].check().await.unwrap_err();
    assert_eq!(error.reason(), InfraFault::HostUnreachable, "{}", error.explain());
    assert!(error.explain().contains(SECOND_NODE), "{}", error.explain());
    drop(lent);
    let left = servers.get("toy", &server, 1).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(!left[0].address().description.contains(SECOND_NODE), "{left:?}");
    left[0].check().await.unwrap();
    drop(left);

    swarm_script("up");
    let again = servers.get("toy", &server, 1).await.unwrap();
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again.iter().any(|it| it.address().description.contains(SECOND_NODE)), "{again:?}");
    drop(again);
    servers.stop().await;
    // What the node still had from before ends there as well, in the swarm's own time. Its agent has been seen to keep the record
    // of a container that ended while the node was lost.
    while !running_on_second().is_empty() {
        tokio::task::yield_now().await;
    }
    for ended in on_second() {
        docker(&["--host", SECOND, "rm", "--force", &ended]);
    }
    assert_eq!(networks(), 0);
}

#[tokio::test]
async fn an_engine_that_manages_no_swarm_is_told_how_to() {
    let _turn = swarm();
    for (host, problem) in [(SECOND, "does not manage it"), ("unix:///nowhere.sock", "does not answer")] {
        let error = refusal(&swarm_of(&[host]), &real()).await;
        assert_eq!(error.reason(), InfraFault::HostUnreachable);
        assert!(error.explain().contains(problem), "{}", error.explain());
    }
    let error = refusal(&swarm_of(&[SECOND]), &real()).await;
    assert!(error.explain().contains("docker swarm init"), "{}", error.explain());
    // The first that manages one speaks for it, whatever else is named.
    let server = swarm_of(&["unix:///nowhere.sock", SECOND, &each_node(1)]).start(&real()).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_node_without_the_image_is_named_and_left_and_another_has_the_server() {
    let _turn = swarm();
    let mut order = super::failing("elsewhere", "echo unreachable >&2");
    order.server.resources.memory = Some(1 << 30);
    let elsewhere = Without::manager();
    let error = refusal(&swarm_of(&[&each_node(2)]), &order).await;
    assert_eq!(error.reason(), InfraFault::ImageMissing, "{}", error.explain());
    let text = error.explain();
    assert!(text.contains(SECOND_NODE) && text.contains("docker load"), "{text}");
    drop(elsewhere);
    // Least busy first, so the second node is asked first here; it has no such image.
    let mut order = real();
    let tag = order.server.image.clone().unwrap();
    let (digest, base) = ("robo.builds", tag.as_str());
    let label = docker(&["inspect", "--format", &format!("{{{{index .Config.Labels \"{digest}\"}}}}"), base]);
    order.server.build_digest = label;
    docker(&["node", "update", "--label-add", "robo.servers=9", SECOND_NODE]);
    order.server.image = Some("robo-test/swarm-only-here".into());
    let only_here = docker(&["create", base]);
    docker(&["commit", &only_here, "robo-test/swarm-only-here"]);
    docker(&["rm", &only_here]);
    let started = swarm_of(&[&each_node(2)]).start(&order).await;
    docker(&["node", "update", "--label-rm", "robo.servers", SECOND_NODE]);
    let server = started.unwrap();
    assert!(!server.address().description.contains(SECOND_NODE), "{}", server.address().description);
    server.stop().await;
    let _ = try_docker(&["rmi", "robo-test/swarm-only-here"]);
}
