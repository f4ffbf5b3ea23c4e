//! The way from a container to miners that listen on the loopback address of this machine, as demonstration miners do.
//!
//! For each such miner a port on the container's network is joined with the miner's. That network ends on this machine when
//! the engine runs here; where it does not, such a miner cannot be reached, which is said at once.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use reqwest::Url;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::cycle::InfraFault;
use crate::runtime::{Error, Fault};

/// The ports of one container's network. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Relays {
    /// Our own address on the network.
    gateway: IpAddr,
    /// The port that stands for a miner, by the miner's host and port.
    ports: HashMap<(String, u16), SocketAddr>,
    listening: JoinSet<()>,
}

impl Relays {
    /// No ports yet, on the network whose gateway this machine is.
    pub(super) fn new(gateway: IpAddr) -> Self {
        Self { gateway, ports: HashMap::new(), listening: JoinSet::new() }
    }

    /// The endpoint as the container is to write it.
    pub(super) async fn translate(&mut self, endpoint: &str) -> Result<String, Error> {
        let Some((mut url, host, port)) = loopback(endpoint) else { return Ok(endpoint.to_owned()) };
        let here = match self.ports.get(&(host.clone(), port)) {
            Some(here) => *here,
            None => {
                let here = self.open(&host, port).await.map_err(|error| self.elsewhere(endpoint, &error))?;
                self.ports.insert((host, port), here);
                here
            }
        };
        // Both parts are an address's own; no URL refuses them.
        let _ = url.set_ip_host(here.ip());
        let _ = url.set_port(Some(here.port()));
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    async fn open(&mut self, host: &str, port: u16) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((self.gateway, 0)).await?;
        let here = listener.local_addr()?;
        let miner = (host.trim_matches(['[', ']']).to_owned(), port);
        self.listening.spawn(async move {
            let mut joined = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                joined.spawn(join(from, miner.clone()));
                // Those that have ended need not be remembered.
                while joined.try_join_next().is_some() {}
            }
        });
        Ok(here)
    }

    fn elsewhere(&self, endpoint: &str, error: &std::io::Error) -> Error {
        let problem = format!(
            "the miner at {endpoint} listens on the loopback address of this machine, which the container's network \
             ({}) does not lead to: {error}",
            self.gateway
        );
        let remedy = "use an engine on this machine, or give the miner an address that the engine's machine can reach";
        Box::new(Fault::new(InfraFault::HostUnreachable, problem).remedy(remedy)).into()
    }
}

/// The URL, host and port of an endpoint on a loopback address.
fn loopback(endpoint: &str) -> Option<(Url, String, u16)> {
    let url = Url::parse(endpoint).ok()?;
    let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = address.map_or(host == "localhost", |address| address.is_loopback());
    is_loopback.then_some((url, host, port))
}

async fn join(mut from: TcpStream, miner: (String, u16)) {
    let Ok(mut to) = TcpStream::connect(miner).await else { return };
    // Only a matter of speed.
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    // Whichever end breaks, the other hears of it.
    let _ = copy_bidirectional(&mut from, &mut to).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_loopback_miner_gets_one_port_and_others_stay_as_they_are() {
        let miner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/prefix", miner.local_addr().unwrap());
        let mut relays = Relays::new(Ipv4Addr::LOCALHOST.into());
        assert_eq!(relays.translate("https://miner.example/x").await.unwrap(), "https://miner.example/x");
        let there = relays.translate(&endpoint).await.unwrap();
        assert_ne!(there, endpoint);
        assert!(there.ends_with("/prefix"), "{there}");
        assert_eq!(relays.translate(&endpoint).await.unwrap(), there);
        let address = Url::parse(&there).unwrap().socket_addrs(|| None).unwrap()[0];
        let (mut caller, (mut called, _)) = (TcpStream::connect(address).await.unwrap(), miner.accept().await.unwrap());
        caller.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        called.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn a_network_that_does_not_end_here_is_said() {
        // An address of the documentation, which no machine has.
        let mut relays = Relays::new("192.0.2.1".parse().unwrap());
        let error = relays.translate("http://localhost:9000").await.unwrap_err();
        assert_eq!(error.reason(), InfraFault::HostUnreachable);
        assert!(error.explain().contains("http://localhost:9000"), "{}", error.explain());
    }
}
