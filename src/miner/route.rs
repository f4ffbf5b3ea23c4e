//! The way to one miner for one request's episodes: its endpoint, what that may be, and the addresses that were found to be
//! fine. A connection is opened to these addresses and to no others.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::address::{Refusal, Rules};
use crate::cycle::MinerFault;

use super::{Endpoint, Fault};

/// Most that is told of what a miner was seen as: one that changes with every connection says no more by it.
const MOST_PEERS: usize = 8;

/// Who answered a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where.
    pub address: SocketAddr,
    /// SHA-256 of its certificate in hex, where TLS is spoken.
    pub certificate: Option<String>,
}

/// A miner's endpoint on its way to be called.
#[derive(Debug)]
pub struct Route {
    pub(super) endpoint: Endpoint,
    pub(super) rules: Rules,
    pin: Mutex<Pin>,
}

#[derive(Debug, Default)]
struct Pin {
    /// Checked, and not looked up again while one of them takes connections.
    addresses: Option<Arc<[SocketAddr]>>,
    /// Who has answered so far, each once.
    peers: Vec<Peer>,
    /// How many of them were told.
    told: usize,
}

impl Route {
    /// The way to an endpoint, if its text may be called.
    ///
    /// # Errors
    /// `endpoint_address_forbidden`. No packet has left, and no name server was asked.
    pub fn new(endpoint: &str, rules: Rules) -> Result<Self, Fault> {
        let endpoint = rules.check(endpoint).and_then(|url| Endpoint::of(&url)).map_err(forbidden)?;
        Ok(Self { endpoint, rules, pin: Mutex::default() })
    }

    /// The endpoint it leads to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Who has answered and was not told of before.
    pub fn news(&self) -> Option<Peer> {
        let mut pin = self.lock();
        let news = pin.peers.get(pin.told).cloned();
        pin.told = pin.peers.len();
        // Of several at once the last one is where it is now.
        news.and_then(|_| pin.peers.last().cloned())
    }

    /// Where it leads, as far as that is known: the address that is written, that was looked up, or that answered last.
    pub fn address(&self) -> Option<IpAddr> {
        let found = || {
            let pin = self.lock();
            let pinned = pin.addresses.as_ref().and_then(|addresses| addresses.first().copied());
            pinned.or_else(|| pin.peers.last().map(|peer| peer.address))
        };
        self.written().or_else(found).map(|address| address.ip())
    }

    /// The host as it is written.
    pub fn host(&self) -> &str {
        &self.endpoint.origin.host
    }

    /// The addresses that were checked.
    pub(super) fn pinned(&self) -> Option<Arc<[SocketAddr]>> {
        self.lock().addresses.clone()
    }

    /// Keep what a name server answered, if all of it may be called.
    pub(super) fn pin(&self, answers: Vec<SocketAddr>) -> Result<Arc<[SocketAddr]>, Refusal> {
        self.rules.check_answers(answers.iter().map(SocketAddr::ip))?;
        let addresses: Arc<[SocketAddr]> = answers.into();
        self.lock().addresses = Some(addresses.clone());
        Ok(addresses)
    }

    /// None of the addresses takes a connection: the next one looks the name up again, and checks it again.
    pub(super) fn unpin(&self) {
        self.lock().addresses = None;
    }

    /// Whether a connection that is open already leads where new ones would.
    pub(super) fn leads_to(&self, address: SocketAddr) -> bool {
        self.lock().addresses.as_ref().is_some_and(|pinned| pinned.contains(&address))
    }

    /// The address that is written in the endpoint, if it is one.
    pub(super) fn written(&self) -> Option<SocketAddr> {
        let origin = &self.endpoint.origin;
        Some(SocketAddr::new(origin.host.parse::<IpAddr>().ok()?, origin.port))
    }

    pub(super) fn note(&self, peer: &Peer) {
        let mut pin = self.lock();
        if pin.peers.len() < MOST_PEERS && !pin.peers.contains(peer) {
            pin.peers.push(peer.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pin> {
        // Nothing between lock and unlock can panic half-way.
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refused endpoint as its miner reads it.
pub(super) fn forbidden(refusal: Refusal) -> Fault {
    Fault::new(MinerFault::EndpointAddressForbidden, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_told_once() {
        let route = Route::new("http://miner.example", Rules::default()).unwrap();
        let peer = |last: u8| Peer { address: SocketAddr::from(([8, 8, 8, last], 80)), certificate: None };
        assert_eq!(route.news(), None);
        route.note(&peer(1));
        route.note(&peer(1));
        assert_eq!((route.news(), route.news()), (Some(peer(1)), None));
        (2..100).for_each(|last| route.note(&peer(last)));
        assert_eq!((route.news(), route.news()), (Some(peer(8)), None), "and no more than eight");
    }
}
