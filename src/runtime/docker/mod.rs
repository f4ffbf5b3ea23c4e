//! Environment servers in containers, on one Docker engine, on several, or on the nodes of a swarm (`swarm`). The only user
//! of `bollard`.
//!
//! A server gets a container and a network of its own. The container may nearly nothing (`spec`), reaches the miners it was
//! told of and nothing else (`fence`), and publishes no port: we speak to it through the engine (`tunnel`). It ends when
//! we let go of its standard input, so also when we die; what is left of it stands in the ledger and is removed by whoever
//! looks there next (`keeper`). Which engine a server goes to is decided in `hosts`.

mod build;
mod engine;
mod fence;
mod foreign;
mod hosts;
mod image;
mod keeper;
mod made;
mod once;
mod relay;
mod server;
mod spec;
mod swarm;
mod tunnel;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

pub use build::{Build, BuildError, Built, Part, build};
pub use hosts::{HostSpec, Hosts};
pub use keeper::Containers;
pub use once::{Command, Once, OnceError, Said};
pub use swarm::{Heard, OUT_OF_MEMORY, Overlay, Swarm, Told};

use super::{Error, Order, Running, Runtime, process::START};
use crate::host::ledger::{Ledger, NoLedger};

/// What families get that name nothing themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Image of families that name none.
    pub image: String,
    /// Bytes of memory of families that name none.
    pub memory: u64,
}

/// What a server is started with.
#[derive(Debug, Clone, Copy)]
struct Means<'a> {
    ledger: &'a Arc<dyn Ledger>,
    patience: Duration,
    /// The image whose `nft` walls in containers of images that have none.
    wall: &'a str,
}

/// The runtime of containers.
#[derive(Debug, Clone)]
pub struct Docker {
    hosts: Arc<Hosts>,
    defaults: Defaults,
    ledger: Arc<dyn Ledger>,
    patience: Duration,
}

impl Docker {
    /// Containers on these hosts. Nobody is asked anything before the first server is wanted.
    pub fn new(hosts: Arc<Hosts>, defaults: Defaults) -> Self {
        Self { hosts, defaults, ledger: Arc::new(NoLedger), patience: START }
    }

    /// The same, with every container written into `ledger`.
    #[must_use]
    pub fn with_ledger(self, ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, ..self }
    }

    /// The same, with another time for a server to answer after its start.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The order with the operator's defaults filled in.
    fn complete(&self, order: &Order) -> Order {
        let mut order = order.clone();
        // Ours is not what an image of others holds.
        if !order.server.is_foreign() {
            order.server.image.get_or_insert_with(|| self.defaults.image.clone());
        }
        order.server.resources.memory.get_or_insert(self.defaults.memory);
        order
    }

    /// Start a server on the first host that can have it, the least busy one first.
    async fn start_somewhere(&self, order: Order) -> Result<Box<dyn Running>, Error> {
        let (mut problem, mut asked) = (None, Vec::new());
        let means = Means { ledger: &self.ledger, patience: self.patience, wall: &self.defaults.image };
        while let Some(choice) = self.hosts.choose(&order.server.resources, &asked).await {
            let host = choice.0;
            asked.push(host.engine().url());
            // One start at a time on a host: its room is counted from what runs there.
            let _turn = host.turn().await;
            let started = match host.admit(&order.server.resources).await {
                Ok(()) => server::start(host.engine(), &order, &means).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(server) => return Ok(Box::new(server)),
                Err(error) => {
                    if matches!(error, Error::Fault(_)) {
                        host.failed(&error);
                    }
                    tracing::warn!(family = order.family, "no environment server on {}: {error}", host.engine().url());
                    // What the first host says is told; it is the one that seemed best.
                    problem.get_or_insert(error);
                }
            }
        }
        Err(match problem.unwrap_or_else(|| hosts::none().into()) {
            Error::Fault(mut fault) => {
                fault.problem = format!("Container failed to start: {}", fault.problem);
                fault.into()
            }
            other => other,
        })
    }
}

impl Runtime for Docker {
    fn start<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Box<dyn Running>, Error>> {
        Box::pin(self.start_somewhere(self.complete(order)))
    }

    fn room<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, usize> {
        Box::pin(async { self.hosts.room(&self.complete(order).server.resources).await.div_ceil(order.kinds) })
    }
}
