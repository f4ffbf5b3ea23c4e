//! The engines an operator has named: how much each takes, which is asked first, which is left alone for a while.
//!
//! Room is counted from what runs on an engine, whoever has started it: there is no counter that could go wrong.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::future::join_all;
use tokio::{sync::MutexGuard, time::Instant};

use super::{engine::Engine, spec, swarm::Nodes};
use crate::cycle::InfraFault;
use crate::manifest::Resources;
use crate::runtime::{Error, Fault};

/// How long a host that has failed is left alone where another can be had.
pub(super) const DRAIN: Duration = Duration::from_secs(60);

/// Most servers on one host that nobody has given a capacity.
const MOST: usize = 64;

/// A host as an operator writes it: `URL` or `URL=CAPACITY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Address of its engine.
    pub url: String,
    /// Environment servers at a time; none lets its cores and memory decide.
    pub capacity: Option<usize>,
}

impl FromStr for HostSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (url, capacity) = match text.rsplit_once('=') {
            Some((url, number)) => {
                let number = number.parse().ok().filter(|number| (1..=1024).contains(number));
                (url, Some(number.ok_or_else(|| format!("`{text}`: the capacity is a number from 1 to 1024"))?))
            }
            None => (text, None),
        };
        let schemes = ["unix", "tcp", "http", "https", "ssh"];
        match url.split_once("://") {
            Some((scheme, rest)) if schemes.contains(&scheme) && !rest.is_empty() => {
                Ok(Self { url: url.into(), capacity })
            }
            _ => Err(format!("`{url}` is not unix://PATH, tcp://HOST:PORT, https://HOST:PORT or ssh://USER@HOST")),
        }
    }
}

impl fmt::Display for HostSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// All hosts of an operator. Shared by the cycles of a process.
#[derive(Debug)]
pub struct Hosts {
    hosts: Vec<Host>,
    /// Held while one is chosen.
    choosing: tokio::sync::Mutex<()>,
    /// The nodes of the swarm, where the hosts are managers of one.
    nodes: Nodes,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Host {
    engine: Engine,
    capacity: Option<usize>,
    drained_until: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
    /// Servers that are being started here. Only for the choice between hosts: what may run is counted on the engine.
    starting: AtomicI64,
}

/// A host that was chosen for a server; for as long as this lives, others choose with that in mind.
pub(super) struct Choice<'a>(pub(super) &'a Host);

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        self.0.starting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hosts {
    /// These hosts.
    pub fn new(specs: &[HostSpec]) -> Self {
        let host = |spec: &HostSpec| Host {
            engine: Engine::new(&spec.url),
            capacity: spec.capacity,
            drained_until: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            starting: AtomicI64::new(0),
        };
        Self {
            hosts: specs.iter().map(host).collect(),
            choosing: tokio::sync::Mutex::default(),
            nodes: Nodes::default(),
        }
    }

    /// Whether each of them answers, by its address without the name of a user.
    pub async fn answer(&self) -> Vec<(String, bool)> {
        let ask = |host: &Host| {
            let engine = host.engine.clone();
            async move { (engine.label(), engine.answers().await) }
        };
        join_all(self.hosts.iter().map(ask)).await
    }

    /// Those of them that answer and do not have an image.
    pub async fn without(&self, image: &str) -> Vec<String> {
        let ask = |host: &Host| {
            let engine = host.engine.clone();
            async move { matches!(super::image::inspect(&engine, image).await, Ok(None)).then(|| engine.label()) }
        };
        join_all(self.hosts.iter().map(ask)).await.into_iter().flatten().collect()
    }

    /// The engine that images are built on and programs are run on: the first.
    pub(super) fn first(&self) -> Result<&Engine, Error> {
        self.hosts.first().map(Host::engine).ok_or_else(|| none().into())
    }

    /// The engines beside the first.
    pub(super) fn others(&self) -> impl Iterator<Item = &Engine> {
        self.hosts.iter().skip(1).map(Host::engine)
    }

    /// All engines, with the capacity that was given for each.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Engine, Option<usize>)> {
        self.hosts.iter().map(|host| (&host.engine, host.capacity))
    }

    /// What is remembered of the nodes behind them.
    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The host to be asked next, of those that were not asked already.
    pub(super) async fn choose(&self, resources: &Resources, asked: &[&str]) -> Option<Choice<'_>> {
        let _alone = self.choosing.lock().await;
        let hosts = self.by_room(resources).await;
        let host = hosts.into_iter().find(|host| !asked.contains(&host.engine.url()))?;
        host.starting.fetch_add(1, Ordering::Relaxed);
        Some(Choice(host))
    }

    /// The hosts in the order in which they are to be asked.
    async fn by_room(&self, resources: &Resources) -> Vec<&Host> {
        let rooms = join_all(self.hosts.iter().map(|host| host.room(resources))).await;
        let mut hosts: Vec<_> = self.hosts.iter().zip(rooms).collect();
        // A host that has failed comes last, and is asked only when no other could do it.
        hosts.sort_by_key(|(host, room)| {
            let room = room.as_ref().map_or(0, |room| i64::try_from(*room).unwrap_or(i64::MAX));
            (host.is_drained(), std::cmp::Reverse(room - host.starting.load(Ordering::Relaxed)))
        });
        hosts.into_iter().map(|(host, _)| host).collect()
    }

    /// How many more servers fit on all of them.
    pub(super) async fn room(&self, resources: &Resources) -> usize {
        let rooms = join_all(self.hosts.iter().map(|host| host.room(resources))).await;
        rooms.into_iter().map(|room| room.unwrap_or(0)).sum()
    }
}

impl Host {
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Wait until nobody else starts a server here.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Whether one more server may be started. What an operator has said holds; the size of a machine is only a guess, by
    /// which a second family or cycle is not turned away.
    pub(super) async fn admit(&self, resources: &Resources) -> Result<(), Error> {
        if self.capacity.is_none() || self.room(resources).await? > 0 {
            return Ok(());
        }
        let problem = format!("{} has no room for one more environment server", self.engine.url());
        let remedy = "wait until others have ended, raise its capacity (--docker-host URL=N), or name another host";
        Err(Box::new(Fault::new(InfraFault::NoCapacity, problem).remedy(remedy)).into())
    }

    /// Note that a server could not be had here.
    pub(super) fn failed(&self, error: &Error) {
        // A host that is only full is as good as before as soon as something ends there.
        if error.reason() != InfraFault::NoCapacity {
            *self.drained_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + DRAIN);
        }
    }

    fn is_drained(&self) -> bool {
        self.drained_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    /// How many more servers fit.
    async fn room(&self, resources: &Resources) -> Result<usize, Error> {
        let client = self.engine.client().await?;
        let capacity = match self.capacity {
            Some(capacity) => capacity,
            None => {
                let info = client.info().await.map_err(|error| self.engine.fault("asking for its size", &error))?;
                fitting((info.ncpu.unwrap_or(1), info.mem_total.unwrap_or(0)), resources)
            }
        };
        let filters = HashMap::from([("label", vec![spec::SERVER])]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let running = client
            .list_containers(Some(options))
            .await
            .map_err(|error| self.engine.fault("counting its containers", &error))?;
        Ok(capacity.saturating_sub(running.len()))
    }
}

/// How many servers of this size a machine of so many cores and bytes has room for: at least one, since limits are only
/// most, and a small machine shall be able to try.
pub(super) fn fitting((cores, memory): (i64, i64), resources: &Resources) -> usize {
    let by_cores = resources.cpus.map(|cpus| cores as f64 / cpus);
    let by_memory = resources.memory.filter(|_| memory > 0).map(|bytes| memory as f64 / bytes as f64);
    // One server uses every core when its manifest does not say otherwise.
    let most = by_cores.unwrap_or(1.0).min(by_memory.unwrap_or(MOST as f64));
    (most as usize).clamp(1, MOST)
}

/// No host was named at all.
pub(super) fn none() -> Box<Fault> {
    Box::new(Fault::new(InfraFault::HostUnreachable, "no Docker host is named").remedy("name one with --docker-host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_with_or_without_a_capacity() {
        let host = |text: &str| text.parse::<HostSpec>().map(|spec| (spec.url, spec.capacity));
        assert_eq!(host("unix:///run/docker.sock"), Ok(("unix:///run/docker.sock".into(), None)));
        assert_eq!(host("ssh://robo@gpu-1=3"), Ok(("ssh://robo@gpu-1".into(), Some(3))));
        assert_eq!(host("tcp://10.0.0.7:2376=12"), Ok(("tcp://10.0.0.7:2376".into(), Some(12))));
        for bad in ["", "gpu-1", "ftp://x", "tcp://", "tcp://x=0", "tcp://x=many"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn size_follows_the_scarcer_of_cores_and_memory() {
        let resources = |cpus, memory| Resources { cpus, memory, ..Resources::default() };
        let machine = (16, 64 << 30);
        assert_eq!(fitting(machine, &resources(Some(2.0), Some(8 << 30))), 8);
        assert_eq!(fitting(machine, &resources(Some(4.0), Some(8 << 30))), 4);
        assert_eq!(fitting(machine, &resources(Some(0.5), Some(32 << 30))), 2);
        assert_eq!(fitting(machine, &resources(None, Some(8 << 30))), 1);
        assert_eq!(fitting((1, 1 << 30), &resources(Some(2.0), Some(8 << 30))), 1);
    }

    #[tokio::test]
    async fn a_host_that_has_failed_is_asked_last() {
        let specs = ["unix:///a.sock", "unix:///b.sock"].map(|url| url.parse().unwrap());
        let hosts = Hosts::new(&specs);
        let order = async || {
            let hosts = hosts.by_room(&Resources::default()).await;
            hosts.iter().map(|host| host.engine.url().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(order().await, ["unix:///a.sock", "unix:///b.sock"]);
        hosts.hosts[0].failed(&Box::new(Fault::new(InfraFault::DiskFull, "full")).into());
        assert_eq!(order().await, ["unix:///b.sock", "unix:///a.sock"]);
        hosts.hosts[1].failed(&Box::new(Fault::new(InfraFault::NoCapacity, "full")).into());
        assert_eq!(order().await, ["unix:///b.sock", "unix:///a.sock"]);
    }

    #[tokio::test]
    async fn servers_that_start_together_are_spread_over_the_hosts() {
        let specs = ["unix:///a.sock", "unix:///b.sock"].map(|url| url.parse().unwrap());
        let hosts = Hosts::new(&specs);
        let resources = Resources::default();
        let one = hosts.choose(&resources, &[]).await.unwrap();
        let other = hosts.choose(&resources, &[]).await.unwrap();
        assert_eq!((one.0.engine.url(), other.0.engine.url()), ("unix:///a.sock", "unix:///b.sock"));
        drop(one);
        assert_eq!(hosts.choose(&resources, &[]).await.unwrap().0.engine.url(), "unix:///a.sock");
        let asked = ["unix:///a.sock", "unix:///b.sock"];
        assert_eq!(hosts.choose(&resources, &asked[..1]).await.unwrap().0.engine.url(), "unix:///b.sock");
        assert!(hosts.choose(&resources, &asked).await.is_none());
    }
}
