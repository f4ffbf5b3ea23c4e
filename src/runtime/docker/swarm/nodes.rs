//! The nodes of a swarm: which can have a server, which is asked first, which is left alone for a while.
//!
//! As with hosts, room is counted from the services there are, whoever has made them. Who chooses a node holds the choice
//! until his service is there to be counted.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bollard::{
    models::{Node as Found, NodeSpecAvailabilityEnum, NodeState},
    query_parameters::ListServicesOptionsBuilder,
};
use tokio::{sync::MutexGuard, time::Instant};

use crate::cycle::InfraFault;
use crate::manifest::Resources;
use crate::runtime::docker::{
    engine::Engine,
    hosts::{DRAIN, fitting},
    spec,
};
use crate::runtime::{Error, Fault};

/// The label of a service that says which node it is for.
pub(super) const NODE: &str = "robo.node";

/// The label of a node by which its operator says how many servers it takes.
const SERVERS: &str = "robo.servers";

/// What is remembered of nodes, for all cycles of a process.
#[derive(Debug, Default)]
pub(in crate::runtime::docker) struct Nodes {
    /// Held while a node is chosen and its service is made.
    choosing: tokio::sync::Mutex<()>,
    drained_until: Mutex<HashMap<String, Instant>>,
}

/// A node that can have servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: String,
    /// Its machine's name.
    pub(super) name: String,
    /// How many more servers fit.
    room: usize,
    /// Whether an operator has said how many it takes, which then holds; its size is only a guess.
    is_limited: bool,
}

/// A node that was chosen; for as long as this lives nobody else chooses.
pub(super) struct Seat<'a> {
    pub(super) node: Node,
    _alone: MutexGuard<'a, ()>,
}

impl Nodes {
    /// The node to be asked next, of those that were not asked already; none when all were.
    pub(super) async fn choose(
        &self,
        engine: &Engine,
        capacity: Option<usize>,
        (resources, asked): (&Resources, &[String]),
    ) -> Result<Option<Seat<'_>>, Error> {
        let alone = self.choosing.lock().await;
        let mut nodes = ready(engine, capacity, resources).await?;
        nodes.retain(|node| !asked.contains(&node.id));
        // A node that has failed comes last, and is asked only when no other could do it.
        nodes.sort_by_key(|node| (self.is_drained(&node.id), std::cmp::Reverse(node.room)));
        let is_any = !nodes.is_empty();
        match nodes.into_iter().find(|node| node.room > 0 || !node.is_limited) {
            Some(node) => Ok(Some(Seat { node, _alone: alone })),
            None if is_any && asked.is_empty() => Err(full(engine).into()),
            None => Ok(None),
        }
    }

    /// How many more servers fit on all of them.
    pub(super) async fn room(
        &self,
        engine: &Engine,
        capacity: Option<usize>,
        resources: &Resources,
    ) -> Result<usize, Error> {
        Ok(ready(engine, capacity, resources).await?.iter().map(|node| node.room).sum())
    }

    /// Note that a server could not be had on a node.
    pub(super) fn failed(&self, node: &str, error: &Error) {
        if error.reason() != InfraFault::NoCapacity {
            let mut drained = self.drained_until.lock().unwrap_or_else(PoisonError::into_inner);
            drained.insert(node.to_owned(), Instant::now() + DRAIN);
        }
    }

    fn is_drained(&self, node: &str) -> bool {
        let drained = self.drained_until.lock().unwrap_or_else(PoisonError::into_inner);
        drained.get(node).is_some_and(|until| Instant::now() < *until)
    }
}

fn full(engine: &Engine) -> Box<Fault> {
    let problem = format!("no node of the swarm of {} has room for one more environment server", engine.url());
    let remedy = format!(
        "wait until others have ended, raise the nodes' capacity (--docker-host URL=N, or `docker node update --label-add \
         {SERVERS}=N NODE`), or add a node"
    );
    Box::new(Fault::new(InfraFault::NoCapacity, problem).remedy(remedy))
}

/// The nodes that can have servers now, with the room that they have.
async fn ready(engine: &Engine, capacity: Option<usize>, resources: &Resources) -> Result<Vec<Node>, Error> {
    let client = engine.client().await?;
    let asking = |error| engine.fault("asking for the nodes of its swarm", &error);
    let found = client.list_nodes(None).await.map_err(asking)?;
    let filters = HashMap::from([("label", vec![spec::SERVER])]);
    let options = ListServicesOptionsBuilder::new().filters(&filters).build();
    let mut taken: HashMap<String, usize> = HashMap::new();
    for service in client.list_services(Some(options)).await.map_err(asking)? {
        let labels = service.spec.and_then(|spec| spec.labels).unwrap_or_default();
        *taken.entry(labels.get(NODE).cloned().unwrap_or_default()).or_default() += 1;
    }
    let nodes = found.into_iter().filter_map(|found| node(found, capacity, resources));
    Ok(nodes.map(|node| Node { room: node.room.saturating_sub(*taken.get(&node.id).unwrap_or(&0)), ..node }).collect())
}

/// A node as if nothing ran there; nothing when it cannot have servers.
fn node(found: Found, capacity: Option<usize>, resources: &Resources) -> Option<Node> {
    let (spec, description) = (found.spec.unwrap_or_default(), found.description.unwrap_or_default());
    let is_ready = found.status.and_then(|status| status.state) == Some(NodeState::READY);
    if !is_ready || spec.availability != Some(NodeSpecAvailabilityEnum::ACTIVE) {
        return None;
    }
    let labelled = spec.labels.and_then(|labels| labels.get(SERVERS)?.parse().ok());
    let limit = labelled.or(capacity);
    let size = description.resources.unwrap_or_default();
    // Billionths of a core, all of them whole.
    let machine = (size.nano_cpus.unwrap_or(0) / 1_000_000_000, size.memory_bytes.unwrap_or(0));
    let room = limit.unwrap_or_else(|| fitting(machine, resources));
    (room > 0).then(|| Node {
        id: found.id.unwrap_or_default(),
        name: description.hostname.unwrap_or_default(),
        room,
        is_limited: limit.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::{NodeDescription, NodeSpec, NodeStatus, ResourceObject};

    use super::*;

    fn found(state: NodeState, availability: NodeSpecAvailabilityEnum, label: Option<&str>) -> Found {
        let labels = label.map(|number| HashMap::from([(SERVERS.to_owned(), number.to_owned())]));
        let size = ResourceObject {
            nano_cpus: Some(8_000_000_000),
            memory_bytes: Some(64 << 30),
            ..ResourceObject::default()
        };
        Found {
            id: Some("n1".into()),
            spec: Some(NodeSpec { availability: Some(availability), labels, ..NodeSpec::default() }),
            description: Some(NodeDescription {
                hostname: Some("one".into()),
                resources: Some(size),
                ..NodeDescription::default()
            }),
            status: Some(NodeStatus { state: Some(state), ..NodeStatus::default() }),
            ..Found::default()
        }
    }

    fn room(found: Found, capacity: Option<usize>) -> Option<(usize, bool)> {
        let resources = Resources { cpus: Some(2.0), ..Resources::default() };
        node(found, capacity, &resources).map(|node| (node.room, node.is_limited))
    }

    #[test]
    fn room_is_what_the_label_says_then_the_operator_then_the_size() {
        use NodeSpecAvailabilityEnum::ACTIVE;
        let of = |label, capacity| room(found(NodeState::READY, ACTIVE, label), capacity);
        assert_eq!(of(Some("3"), Some(5)), Some((3, true)));
        assert_eq!(of(None, Some(5)), Some((5, true)));
        assert_eq!(of(None, None), Some((4, false)));
        assert_eq!(of(Some("0"), None), None, "a node that is to have none");
        assert_eq!(of(Some("many"), None), Some((4, false)), "what is no number says nothing");
    }

    #[test]
    fn a_node_that_is_gone_or_drained_has_no_servers() {
        use NodeSpecAvailabilityEnum::{ACTIVE, DRAIN, PAUSE};
        for (state, availability) in [
            (NodeState::DOWN, ACTIVE),
            (NodeState::UNKNOWN, ACTIVE),
            (NodeState::DISCONNECTED, ACTIVE),
            (NodeState::READY, DRAIN),
            (NodeState::READY, PAUSE),
        ] {
            assert_eq!(room(found(state, availability, Some("4")), None), None, "{state} {availability}");
        }
    }
}
