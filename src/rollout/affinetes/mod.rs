//! Episodes on a server that others have made for affinetes: one call of `evaluate` is one episode (docs/protocols.md).
//!
//! Talks HTTP to such a server and gives its answers the form in which our own servers report, so that nobody else has to
//! know. The server calls the miners by itself; what it says of them is believed only as far as `blame` knows its words.

mod blame;
mod call;
mod queue;
mod verdict;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use serde::Deserialize;
use serde_json::{Value, json};

use self::{
    call::{Call, Http},
    queue::Queue,
};
use super::{
    Control, Error,
    network::Network,
    protocol::{EpisodesRequest, Opened, ServerMessage},
};
use crate::{evidence, manifest::simulation::Simulation, plan};

/// How long a server may take to say what it offers. The first call makes it load its simulators.
const OPENING: Duration = Duration::from_secs(300);

/// Names of environments that are told when ours is not among them.
const NAMED: usize = 12;

/// A client of one such server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    /// What is known of this machine's network. It outlives a request: a canary counts only once it has worked.
    network: Arc<Network>,
}

impl Client {
    /// A client of the server at `http(s)://host:port[/prefix]`; an empty token is not sent. The process's TLS provider must
    /// be installed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base_url: &str, token: &str) -> Result<Self, Error> {
        Ok(Self { http: Http::new(base_url, token)?, network: Network::new() })
    }

    /// Ask whether it plays these environments. Nothing is changed by it.
    ///
    /// # Errors
    /// [`Error::Unfit`] when it does not, or does not speak the protocol.
    pub async fn open(&self, simulations: &[Simulation]) -> Result<Opened, Error> {
        #[derive(Deserialize)]
        struct Methods {
            methods: Vec<Method>,
        }
        #[derive(Deserialize)]
        struct Method {
            name: String,
        }
        let answer = self.http.get("methods").await?;
        let methods: Methods = serde_json::from_value(answer.clone())
            .map_err(|error| Error::Unfit(format!("its answer to `GET /methods` is not of the protocol: {error}")))?;
        let offers = |name: &str| methods.methods.iter().any(|method| method.name == name);
        if !offers("evaluate") {
            return Err(Error::Unfit("it has no method `evaluate`".to_owned()));
        }
        if offers("list_environments") {
            self.knows(simulations).await?;
        }
        Ok(Opened {
            python: "unknown".to_owned(),
            packages: std::collections::BTreeMap::new(),
            renderer: None,
            version: None,
            digest: Some(evidence::digest(&answer)),
        })
    }

    /// Refuse environments that the server does not list. What it says in another form than names is no list.
    async fn knows(&self, simulations: &[Simulation]) -> Result<(), Error> {
        let body = json!({ "method": "list_environments", "args": [], "kwargs": {} });
        let Ok(listed) = self.http.result(&body, OPENING).await else { return Ok(()) };
        let Ok(Value::Array(listed)) = listed else { return Ok(()) };
        let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
        let asked = simulations.iter().filter_map(Simulation::affinetes).map(|call| call.env_id.as_str());
        let unknown = asked.into_iter().find(|env_id| !listed.is_empty() && !listed.contains(env_id));
        match unknown {
            None => Ok(()),
            Some(env_id) => {
                let some: Vec<String> = listed.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
                let more = if listed.len() > NAMED { ", ..." } else { "" };
                Err(Error::Unfit(format!("it has no environment `{env_id}`; it has {}{more}", some.join(", "))))
            }
        }
    }

    /// Play episodes, as many at a time as the manifest allows. The stream is like that of our own servers; dropping it closes
    /// the connections, but the server plays on what it has begun.
    pub fn episodes(
        &self,
        environment: &plan::Environment,
        request: EpisodesRequest,
        control: Control,
    ) -> BoxStream<'static, Result<ServerMessage, Error>> {
        let simulation = environment.simulation.clone();
        let Some(calls) = Call::new(self.http.clone(), simulation, request.action_timeout_ms) else {
            let error = Error::Unfit("the environment is simulated by workers of ours".to_owned());
            return futures::stream::iter([Err(error)]).boxed();
        };
        let at_a_time = environment.server.slots_per_worker.max(1) as usize;
        Queue::new(calls, request, at_a_time, control, self.network.clone()).messages().boxed()
    }
}
