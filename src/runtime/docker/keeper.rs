//! Ends containers that stand in the ledger, whoever has started them and whatever has become of him.

use bollard::{Docker, query_parameters::RemoveContainerOptionsBuilder};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    engine::{Engine, is_not_found},
    fence, spec,
};
use crate::host::ledger::{Fate, Keeper, Resource};

/// The kind of a resource that is a container with its network.
pub(super) const CONTAINER: &str = "container";

/// How a container is found again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    /// Address of its engine.
    engine: String,
    /// Its name, which is its network's, too.
    name: String,
}

/// Who ends containers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Containers;

/// The row of a container that is about to be made.
pub(super) fn resource(engine: &Engine, id: Uuid, what: String) -> Resource {
    let identity = Identity { engine: engine.url().to_owned(), name: spec::name(id) };
    Resource {
        id,
        kind: CONTAINER.into(),
        name: what,
        host: engine.place(),
        identity: serde_json::to_value(identity).unwrap_or(Value::Null),
    }
}

/// Remove a container and what belongs to it.
pub(super) async fn remove(engine: &Engine, name: &str) -> Fate {
    let Ok(client) = engine.client().await else { return Fate::Unknown };
    let mut fate = Fate::Gone;
    for container in [fence::helper(name), name.to_owned()] {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        fate = worse(fate, judge(client.remove_container(&container, Some(options)).await));
    }
    worse(fate, judge(client.remove_network(name).await))
}

async fn is_gone(engine: &Engine, name: &str) -> bool {
    let Ok(client) = engine.client().await else { return false };
    has_no_container(client, name).await && client.inspect_network(name, None).await.is_err_and(|it| is_not_found(&it))
}

async fn has_no_container(client: &Docker, name: &str) -> bool {
    client.inspect_container(name, None).await.is_err_and(|error| is_not_found(&error))
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

impl Keeper for Containers {
    fn keeps(&self, kind: &str) -> bool {
        kind == CONTAINER
    }

    fn end<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Fate> {
        Box::pin(async {
            match serde_json::from_value::<Identity>(resource.identity.clone()) {
                Ok(identity) => remove(&Engine::new(&identity.engine), &identity.name).await,
                Err(_) => Fate::Unknown,
            }
        })
    }

    fn is_gone<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, bool> {
        Box::pin(async {
            match serde_json::from_value::<Identity>(resource.identity.clone()) {
                Ok(identity) => is_gone(&Engine::new(&identity.engine), &identity.name).await,
                Err(_) => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_said_of_a_container_whose_engine_is_silent() {
        let resource = resource(&Engine::new("unix:///nowhere.sock"), Uuid::new_v4(), "a server".into());
        assert!(Containers.keeps(&resource.kind));
        assert_eq!(Containers.end(&resource).await, Fate::Unknown);
        assert!(!Containers.is_gone(&resource).await);
    }

    #[test]
    fn rows_of_a_socket_belong_to_this_machine_and_others_to_their_address() {
        let here = resource(&Engine::new("unix:///x.sock"), Uuid::new_v4(), String::new()).host;
        assert!(!here.contains("://"), "{here}");
        assert_eq!(resource(&Engine::new("tcp://a:1"), Uuid::new_v4(), String::new()).host, "tcp://a:1");
    }
}
