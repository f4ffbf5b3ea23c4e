//! Ends containers and services that stand in the ledger, whoever has started them and whatever has become of him.

use std::time::Duration;

use bollard::{Docker, query_parameters::RemoveContainerOptionsBuilder};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    engine::{Engine, is_not_found},
    fence, spec, swarm,
};
use crate::host::ledger::{Fate, Keeper, Resource};

/// What a row of the ledger stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A container with its network.
    Container,
    /// A service of a swarm with its network, and the container by which it is reached.
    Service,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Container, Self::Service];

    /// As the ledger calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Service => "service",
        }
    }

    fn of(resource: &Resource) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == resource.kind)
    }

    /// The containers that belong to it.
    fn containers(self, name: &str) -> Vec<String> {
        match self {
            Self::Container => vec![fence::helper(name), name.to_owned()],
            Self::Service => vec![swarm::gate(name)],
        }
    }
}

/// How a container or service is found again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    /// Address of its engine.
    engine: String,
    /// Its name, which is its network's, too.
    name: String,
}

/// Pauses between tries to remove a network that something is just being taken off: nobody tells when. Ten seconds in all.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 100;

/// Who ends containers and services.
#[derive(Debug, Clone, Copy, Default)]
pub struct Containers;

/// The row of a container or service that is about to be made.
pub(super) fn resource(engine: &Engine, id: Uuid, (kind, what): (Kind, String)) -> Resource {
    let identity = Identity { engine: engine.url().to_owned(), name: spec::name(id) };
    Resource {
        id,
        kind: kind.name().into(),
        name: what,
        host: engine.place(),
        identity: serde_json::to_value(identity).unwrap_or(Value::Null),
    }
}

/// Remove a container or service and what belongs to it.
pub(super) async fn remove(engine: &Engine, kind: Kind, name: &str) -> Fate {
    let Ok(client) = engine.client().await else { return Fate::Unknown };
    let mut fate = Fate::Gone;
    if kind == Kind::Service {
        fate = worse(fate, judge(client.delete_service(name).await));
    }
    for container in kind.containers(name) {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        fate = worse(fate, judge(client.remove_container(&container, Some(options)).await));
    }
    worse(fate, remove_network(client, kind, name).await)
}

async fn remove_network(client: &Docker, kind: Kind, name: &str) -> Fate {
    let mut fate = judge(client.remove_network(name).await);
    if kind == Kind::Service {
        // A swarm takes its tasks off a network, and the network off its nodes, in its own time.
        for _ in 0..LOOKS {
            if fate == Fate::Gone {
                break;
            }
            tokio::time::sleep(LOOK).await;
            fate = judge(client.remove_network(name).await);
        }
    }
    fate
}

async fn is_gone(engine: &Engine, kind: Kind, name: &str) -> bool {
    let Ok(client) = engine.client().await else { return false };
    if kind == Kind::Service && !client.inspect_service(name, None).await.is_err_and(|it| is_not_found(&it)) {
        return false;
    }
    for container in kind.containers(name) {
        if !client.inspect_container(&container, None).await.is_err_and(|it| is_not_found(&it)) {
            return false;
        }
    }
    client.inspect_network(name, None).await.is_err_and(|it| is_not_found(&it))
}

fn judge(removed: Result<(), bollard::errors::Error>) -> Fate {
    match removed {
        Ok(()) => Fate::Killed,
        Err(error) if is_not_found(&error) => Fate::Gone,
        // Being removed by somebody else at this moment.
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => Fate::Survives,
        Err(error) => {
            tracing::debug!("what is left of a container could not be removed: {error}");
            Fate::Unknown
        }
    }
}

fn worse(one: Fate, other: Fate) -> Fate {
    let rank = |fate| match fate {
        Fate::Gone => 0,
        Fate::Killed => 1,
        Fate::Survives => 2,
        Fate::Unknown => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// What a row says, where it is one of ours.
fn found(resource: &Resource) -> Option<(Kind, Identity)> {
    Some((Kind::of(resource)?, serde_json::from_value(resource.identity.clone()).ok()?))
}

impl Keeper for Containers {
    fn keeps(&self, kind: &str) -> bool {
        Kind::ALL.iter().any(|known| known.name() == kind)
    }

    fn end<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Fate> {
        Box::pin(async {
            match found(resource) {
                Some((kind, identity)) => remove(&Engine::new(&identity.engine), kind, &identity.name).await,
                None => Fate::Unknown,
            }
        })
    }

    fn is_gone<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, bool> {
        Box::pin(async {
            match found(resource) {
                Some((kind, identity)) => is_gone(&Engine::new(&identity.engine), kind, &identity.name).await,
                None => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_said_of_what_is_on_an_engine_that_is_silent() {
        for kind in Kind::ALL {
            let what = (kind, "a server".to_owned());
            let resource = resource(&Engine::new("unix:///nowhere.sock"), Uuid::new_v4(), what);
            assert!(Containers.keeps(&resource.kind));
            assert_eq!(Containers.end(&resource).await, Fate::Unknown);
            assert!(!Containers.is_gone(&resource).await);
        }
        assert!(!Containers.keeps("process"));
    }

    #[test]
    fn rows_of_a_socket_belong_to_this_machine_and_others_to_their_address() {
        let host = |url: &str| resource(&Engine::new(url), Uuid::new_v4(), (Kind::Container, String::new())).host;
        assert!(!host("unix:///x.sock").contains("://"), "{}", host("unix:///x.sock"));
        assert_eq!(host("tcp://a:1"), "tcp://a:1");
    }
}
