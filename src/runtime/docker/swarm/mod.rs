//! Environment servers as services of a Docker Swarm: many machines behind one engine, a manager of theirs.
//!
//! A server is a service of one task, pinned to the node that we choose (`nodes`), held as tightly as services can be
//! (`service`). It publishes no port: it stands in an overlay network of its own, and beside it, on the manager that we
//! speak to, a small container that its engine lets us in by (`hold`). The server lives for as long as we hold it through
//! that container. What became of it is asked of the manager (`task`), which knows also when a whole node is gone.

mod hold;
mod nodes;
mod server;
mod service;
mod task;

use std::net::IpAddr;

use futures::future::BoxFuture;

pub use hold::{Heard, OUT_OF_MEMORY, Told};
pub(super) use nodes::Nodes;

use super::{Docker, engine::Engine, hosts};
use crate::cycle::InfraFault;
use crate::runtime::{Error, Fault, Order, Running, Runtime};

/// The name of the container by which a service's server is reached.
pub(super) fn gate(service: &str) -> String {
    format!("{service}-gate")
}

/// The networks that servers stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlay {
    /// What passes between nodes can be read by who sees it.
    #[default]
    Plain,
    /// It cannot, where the nodes' kernels and firewalls have what it takes.
    Encrypted,
}

/// The runtime of services.
#[derive(Debug, Clone)]
pub struct Swarm {
    docker: Docker,
    overlay: Overlay,
}

/// The engine that speaks for the swarm.
struct Manager<'a> {
    engine: &'a Engine,
    /// Servers that a node takes of which nobody has said it.
    capacity: Option<usize>,
    /// Where other nodes reach its machine.
    address: IpAddr,
}

impl Swarm {
    /// Services on the swarm that the hosts of `docker` are managers of; its defaults, ledger and patience are used.
    pub fn new(docker: Docker, overlay: Overlay) -> Self {
        Self { docker, overlay }
    }

    /// The first host that answers and may speak for a swarm.
    async fn manager(&self) -> Result<Manager<'_>, Error> {
        let mut problem = None;
        for (engine, capacity) in self.docker.hosts.all() {
            match speaks_for_a_swarm(engine).await {
                Ok(address) => return Ok(Manager { engine, capacity, address }),
                Err(error) => problem.get_or_insert(error),
            };
        }
        Err(problem.unwrap_or_else(|| hosts::none().into()))
    }

    /// Start a server on the first node that can have it, the least busy one first.
    async fn start_somewhere(&self, order: Order) -> Result<Box<dyn Running>, Error> {
        if order.server.is_foreign() {
            // It ends by itself for nobody, and a service that nobody holds would stay.
            let why = "its image was made by others and does not run as a service".to_owned();
            return Err(Error::Nowhere { family: order.family, why });
        }
        let manager = self.manager().await?;
        let nodes = self.docker.hosts.nodes();
        let (mut problem, mut asked) = (None, Vec::new());
        loop {
            let (engine, resources) = (manager.engine, &order.server.resources);
            let seat = match nodes.choose(engine, manager.capacity, (resources, &asked)).await {
                Ok(Some(seat)) => seat,
                Ok(None) => break,
                Err(error) => {
                    problem.get_or_insert(error);
                    break;
                }
            };
            let node = seat.node.clone();
            asked.push(node.id.clone());
            let place = server::Place { engine, address: manager.address, overlay: self.overlay, seat };
            match server::start(place, &order, &self.docker.ledger, self.docker.patience).await {
                Ok(server) => return Ok(Box::new(server)),
                Err(error) => {
                    if matches!(error, Error::Fault(_)) {
                        nodes.failed(&node.id, &error);
                    }
                    tracing::warn!(family = order.family, "no environment server on node {}: {error}", node.name);
                    // What the first node says is told; it is the one that seemed best.
                    problem.get_or_insert(error);
                }
            }
        }
        Err(match problem.unwrap_or_else(|| none(manager.engine).into()) {
            Error::Fault(mut fault) => {
                fault.problem = format!("Container failed to start: {}", fault.problem);
                fault.into()
            }
            other => other,
        })
    }

    async fn room_for(&self, order: Order) -> usize {
        let Ok(manager) = self.manager().await else { return 0 };
        let resources = &order.server.resources;
        let room = self.docker.hosts.nodes().room(manager.engine, manager.capacity, resources).await;
        room.unwrap_or(0).div_ceil(order.kinds)
    }
}

/// Where other nodes reach the machine of this engine, when it is a manager of a swarm.
async fn speaks_for_a_swarm(engine: &Engine) -> Result<IpAddr, Error> {
    let info = engine.client().await?.info().await.map_err(|error| engine.fault("asking for its swarm", &error))?;
    let swarm = info.swarm.unwrap_or_default();
    let address = swarm.node_addr.and_then(|address| address.parse().ok());
    if let Some(address) = address.filter(|_| swarm.control_available == Some(true)) {
        return Ok(address);
    }
    let problem = match swarm.node_id.filter(|id| !id.is_empty()) {
        Some(_) => format!("the engine at {} is in a swarm and does not manage it", engine.url()),
        None => format!("the engine at {} is in no swarm", engine.url()),
    };
    let fault = Fault::new(InfraFault::HostUnreachable, problem).remedy(
        "make a swarm with `docker swarm init`, and let other machines join it with what `docker swarm join-token worker` \
         prints; --docker-host has to name a manager of it",
    );
    Err(Box::new(fault).into())
}

/// No node is there to be asked.
fn none(engine: &Engine) -> Box<Fault> {
    let problem = format!("the swarm of {} has no node that is ready and takes environment servers", engine.url());
    let remedy = "see `docker node ls`: a node has to be ready and active, and its label `robo.servers` not 0";
    Box::new(Fault::new(InfraFault::HostUnreachable, problem).remedy(remedy))
}

impl Runtime for Swarm {
    fn start<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Box<dyn Running>, Error>> {
        Box::pin(self.start_somewhere(self.docker.complete(order)))
    }

    fn room<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, usize> {
        Box::pin(self.room_for(self.docker.complete(order)))
    }
}
