//! Where the environment servers of this process run, as its operator has chosen. One for all cycles, which share its hosts
//! and the servers that run already.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use crate::config::{self, Place, RuntimeKind};
use crate::host::{Progress, ledger::Ledger};
use crate::rollout::NotACanary;
use crate::runtime::{
    Error, Named, Process, Runtime, ServerSpec, Url,
    docker::{Defaults, Docker, HostSpec, Hosts, Once, Overlay, Swarm},
};
use crate::stage::{Outages, Permits, ServerStalls, Subnet};

/// How often Docker engines are asked whether they are there.
const ROUND: Duration = Duration::from_secs(15);

/// What cycles are run with on this machine.
#[derive(Debug, Clone)]
pub struct Machine {
    data_dir: PathBuf,
    kind: RuntimeKind,
    hosts: Arc<Hosts>,
    servers: Arc<Named>,
    defaults: Defaults,
    overlay: Overlay,
    subnet: Arc<Subnet>,
    stalls: Arc<ServerStalls>,
    permits: Permits,
    outages: Arc<Outages>,
}

/// What an operator has described wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misdescribed {
    /// The address of a Docker host.
    #[error("no Docker host: {0}")]
    Host(String),
    /// A server that runs already.
    #[error("no environment server: {0}")]
    Server(String),
    /// The address of a canary.
    #[error("no canary: {0}")]
    Canary(NotACanary),
}

impl Misdescribed {
    /// How it is written.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Host(_) => "write --docker-host (or ROBO_BACKEND_DOCKER_HOSTS, with commas) as `ssh://robo@gpu-1=4`",
            Self::Canary(_) => "write --canary (or ROBO_BACKEND_CANARY, with commas) as `1.1.1.1:443`",
            Self::Server(_) => {
                "write --env-server (or ROBO_BACKEND_ENV_SERVERS, with commas) as `metaworld=https://gpu-1:8700`"
            }
        }
    }
}

impl Machine {
    /// The machine as an operator has described it. Nothing is started or asked yet.
    ///
    /// # Errors
    /// What is wrong with the address of a host or a server.
    pub fn new(data_dir: PathBuf, place: &Place) -> Result<Self, Misdescribed> {
        let hosts: Vec<HostSpec> = place
            .engines
            .hosts()
            .iter()
            .map(|host| host.parse())
            .collect::<Result<_, String>>()
            .map_err(Misdescribed::Host)?;
        let servers = servers(place)?;
        if place.runtime == RuntimeKind::Url && servers.is_empty() {
            return Err(Misdescribed::Server("`--runtime url` needs at least one server that runs".to_owned()));
        }
        let defaults = Defaults { image: place.image().to_owned(), memory: place.memory() };
        let overlay = if place.swarm_encrypt { Overlay::Encrypted } else { Overlay::Plain };
        let (hosts, servers) = (Arc::new(Hosts::new(&hosts)), Arc::new(servers));
        let outages = Arc::new(outages(&place.outage)?);
        Ok(Self {
            data_dir,
            kind: place.runtime,
            hosts,
            servers,
            defaults,
            overlay,
            subnet: Arc::default(),
            outages,
            stalls: Arc::default(),
            permits: Permits::default(),
        })
    }

    /// How long the environment servers of this process were stalled.
    pub fn stalls(&self) -> Arc<ServerStalls> {
        self.stalls.clone()
    }

    /// The same, with the chain as it is read here.
    #[must_use]
    pub fn with_subnet(self, subnet: Subnet) -> Self {
        Self { subnet: Arc::new(subnet), ..self }
    }

    /// How the chain is read here.
    pub(super) fn subnet(&self) -> Arc<Subnet> {
        Arc::clone(&self.subnet)
    }

    /// How many episodes of a miner may be played at a time, by all cycles of this process.
    pub(super) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// How an outage of its network is told and waited for.
    pub(super) fn outages(&self) -> Arc<Outages> {
        Arc::clone(&self.outages)
    }

    /// Where a cycle's environment servers run.
    ///
    /// # Errors
    /// [`Error::Executable`].
    pub(super) fn runtime(&self, progress: Progress, ledger: Arc<dyn Ledger>) -> Result<Arc<dyn Runtime>, Error> {
        let started: Option<Arc<dyn Runtime>> = match self.kind {
            RuntimeKind::Process => {
                Some(Arc::new(Process::with_defaults(self.data_dir.clone(), progress)?.with_ledger(ledger)))
            }
            RuntimeKind::Docker => Some(Arc::new(self.docker(ledger))),
            RuntimeKind::Swarm => Some(Arc::new(Swarm::new(self.docker(ledger), self.overlay))),
            RuntimeKind::Url => None,
        };
        Ok(match started {
            Some(started) if self.servers.is_empty() => started,
            started => Arc::new(Url::new(Arc::clone(&self.servers), started)),
        })
    }

    /// Where a cycle's own programs run that come as images, whatever environment servers run as.
    pub(super) fn programs(&self, ledger: Arc<dyn Ledger>) -> Once {
        Once::new(self.docker(ledger))
    }

    /// Tell again and again, for ever, which Docker engines answer; nothing where none is needed.
    pub async fn watch_engines(&self, tell: impl Fn(&str, bool)) {
        if !matches!(self.kind, RuntimeKind::Docker | RuntimeKind::Swarm) {
            return;
        }
        let mut clock = tokio::time::interval(ROUND);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            for (host, answers) in self.hosts.answer().await {
                tell(&host, answers);
            }
        }
    }

    /// Its Docker hosts.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    fn docker(&self, ledger: Arc<dyn Ledger>) -> Docker {
        Docker::new(Arc::clone(&self.hosts), self.defaults.clone()).with_ledger(ledger)
    }
}

fn outages(outage: &config::Outage) -> Result<Outages, Misdescribed> {
    let canary = outage.canary.iter().map(|canary| canary.parse()).collect::<Result<_, _>>();
    Ok(Outages { canary: canary.map_err(Misdescribed::Canary)?, patience: outage.network_patience })
}

/// The servers that run already, with their tokens.
fn servers(place: &Place) -> Result<Named, Misdescribed> {
    let servers: Vec<ServerSpec> = place
        .env_servers
        .iter()
        .map(|server| server.parse())
        .collect::<Result<_, String>>()
        .map_err(Misdescribed::Server)?;
    let mut tokens = HashMap::new();
    for family in servers.iter().map(|server| &server.family) {
        let name = ServerSpec::secret(family);
        let unreadable = |error| Misdescribed::Server(format!("the secret `{name}` cannot be read: {error}"));
        if let Some(token) = config::secret(&name).map_err(unreadable)? {
            tokens.insert(family.clone(), token);
        }
    }
    Ok(Named::new(servers, tokens))
}
