//! The wall around a container that may reach miners only: rules in its own network namespace.
//!
//! The container has no right to change them. They are put up from outside by a second container, which shares the first
//! one's network, may administer it, and is gone a moment later. A miner known by its address is let through at that
//! address and port alone. The addresses of one known by name may change at any time: for it, its port is open at every
//! public address, and names can be looked up.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr, time::Duration};

use bollard::{
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder},
};
use futures::StreamExt;
use tokio::time::timeout;

use super::made::Made;
use crate::address;
use crate::cycle::InfraFault;
use crate::runtime::{Error, Fault};

/// How long the rules may take to be put up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a container may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Openings {
    /// Miners by address.
    pub(super) addresses: BTreeSet<(IpAddr, u16)>,
    /// Ports of miners by name.
    pub(super) ports: BTreeSet<u16>,
}

impl Openings {
    /// Open the way to an endpoint; one that is no address at all opens nothing, and its miner is told so by whoever calls it.
    pub(super) fn add(&mut self, endpoint: &str) {
        let Ok(url) = reqwest::Url::parse(endpoint) else { return };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return };
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => drop(self.addresses.insert((address, port))),
            Err(_) => drop(self.ports.insert(port)),
        }
    }

    /// The rules that allow this and nothing else, replacing those that stand.
    pub(super) fn rules(&self) -> String {
        let mut accepted = String::new();
        for (address, port) in &self.addresses {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            // Writing to a text cannot fail.
            let _ = writeln!(accepted, "{family} daddr {address} tcp dport {port} accept");
        }
        if !self.ports.is_empty() {
            let ports = self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let _ = writeln!(accepted, "udp dport 53 accept\ntcp dport 53 accept");
            let (v4, v6) = (address::not_public_v4(), address::not_public_v6());
            let _ = writeln!(accepted, "ip daddr != {{ {v4} }} tcp dport {{ {ports} }} accept");
            let _ = writeln!(accepted, "ip6 daddr 2000::/3 ip6 daddr != {{ {v6} }} tcp dport {{ {ports} }} accept");
        }
        format!(
            "table inet robo\ndelete table inet robo\ntable inet robo {{\nchain out {{\n\
             type filter hook output priority 0; policy drop;\n\
             oifname \"lo\" accept\nct state established,related accept\n{accepted}reject\n}}\n}}\n"
        )
    }
}

/// Put the rules up around a running container. `image` has the program `nft`.
pub(super) async fn put_up(made: &Made, image: &str, openings: &Openings) -> Result<(), Error> {
    let name = helper(&made.name);
    let result = timeout(PATIENCE, run(made, (&name, image), openings)).await;
    let remove = RemoveContainerOptionsBuilder::new().force(true).build();
    // One that stays is removed with the container it belongs to.
    let _ = made.engine.client().await?.remove_container(&name, Some(remove)).await;
    result.unwrap_or_else(|_| Err(fault(format!("the rules took longer than {} seconds", PATIENCE.as_secs())).into()))
}

/// The name of the container that puts up the rules of another.
pub(super) fn helper(container: &str) -> String {
    format!("{container}-fence")
}

async fn run(made: &Made, (name, image): (&str, &str), openings: &Openings) -> Result<(), Error> {
    let client = made.engine.client().await?.clone();
    let doing = "putting up the network rules of a container";
    let ours = |error| match error {
        Error::Fault(lost) if lost.reason == InfraFault::ServerLost => Error::from(fault(lost.problem)),
        other => other,
    };
    let refused = |error| ours(made.engine.fault(doing, &error));
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let (creator, body) = (client.clone(), body(&made.name, image, openings));
    made.make(doing, async move { creator.create_container(Some(options), body).await }).await.map_err(ours)?;
    client.start_container(name, None).await.map_err(refused)?;
    match client.wait_container(name, None).next().await {
        Some(Ok(_)) => Ok(()),
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("20").build();
            let said = client.logs(name, Some(options)).filter_map(|line| async { Some(line.ok()?.to_string()) });
            let said = said.collect::<Vec<_>>().await.concat();
            Err(fault(format!("`nft` ended with {code}: {}", said.trim())).into())
        }
        Some(Err(error)) => Err(refused(error)),
        None => Err(fault("`nft` was not waited for".into()).into()),
    }
}

fn body(container: &str, image: &str, openings: &Openings) -> ContainerCreateBody {
    let host = HostConfig {
        // The one right it has is over the network that it shares.
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(vec!["NET_ADMIN".into()]),
        network_mode: Some(format!("container:{container}")),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        readonly_rootfs: Some(true),
        pids_limit: Some(16),
        memory: Some(64 << 20),
        memory_swap: Some(64 << 20),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        user: Some("0:0".into()),
        entrypoint: Some(vec!["nft".into()]),
        cmd: Some(vec![openings.rules()]),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// That a container cannot be kept to its miners.
pub(super) fn fault(problem: String) -> Box<Fault> {
    let problem = format!("a container cannot be kept to its miners: {problem}");
    let remedy = "the image needs the program `nft` (package nftables), which `robo build-eval-env` puts in; a family with \
                  `resources: {network: full}` goes without";
    Box::new(Fault::new(InfraFault::Unhealthy, problem).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openings(endpoints: &[&str]) -> Openings {
        let mut openings = Openings::default();
        endpoints.iter().for_each(|endpoint| openings.add(endpoint));
        openings
    }

    #[test]
    fn nothing_is_open_at_first() {
        let rules = Openings::default().rules();
        assert!(!rules.contains("dport") && rules.contains("policy drop"), "{rules}");
    }

    #[test]
    fn an_address_opens_itself_alone_and_a_name_its_port_at_public_addresses() {
        let by_address = openings(&["http://203.0.113.7:9000/x", "https://[2001:db8::1]"]).rules();
        assert!(by_address.contains("ip daddr 203.0.113.7 tcp dport 9000 accept\n"), "{by_address}");
        assert!(by_address.contains("ip6 daddr 2001:db8::1 tcp dport 443 accept\n"), "{by_address}");
        assert!(!by_address.contains("dport 53"), "{by_address}");
        let by_name = openings(&["https://miner.example", "http://other.example:8080"]).rules();
        assert!(by_name.contains("tcp dport { 443, 8080 } accept"), "{by_name}");
        assert!(by_name.contains("ip daddr != { ") && by_name.contains(", 10.0.0.0/8, "), "{by_name}");
    }

    #[test]
    fn what_is_no_endpoint_opens_nothing() {
        for odd in ["", "nonsense", "file:///etc/passwd", "http://1.2.3.4; accept"] {
            assert_eq!(openings(&[odd]), Openings::default(), "{odd}");
        }
    }
}
