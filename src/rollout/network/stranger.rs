//! Who a miner is when strangers are counted: a hotkey, and the network that its address belongs to.

use std::net::IpAddr;

use crate::address::{Place, place};
use crate::cycle::Hotkey;

/// A miner as evidence counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub hotkey: Hotkey,
    pub at: Neighbourhood,
    /// Whether its endpoint has a name.
    pub is_named: bool,
}

/// Where a miner is: those of one neighbourhood may be one person's, and count as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbourhood {
    /// A public network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    Public(Vec<u8>),
    /// A machine of a private network, whose operator knows every machine.
    Private(IpAddr),
    /// This machine itself, which no network leads to.
    Here,
    /// The domain of a name that has led nowhere yet: its last two labels.
    Domain(String),
}

impl Who {
    /// The miner behind a host, whose address is known or not.
    pub fn new(hotkey: &Hotkey, host: &str, address: Option<IpAddr>) -> Self {
        let is_named = host.parse::<IpAddr>().is_err();
        let at = address.map_or_else(|| Neighbourhood::of_name(host), Neighbourhood::of);
        Self { hotkey: hotkey.clone(), at, is_named }
    }

    /// Whether it may be another person than `other`.
    pub fn is_other_than(&self, other: &Self) -> bool {
        self.hotkey != other.hotkey && self.at != other.at
    }

    /// Whether its answers show that the network works which leads to `other`. Those of a machine next door do so for others
    /// next door only.
    pub fn can_clear(&self, other: &Self) -> bool {
        self.is_other_than(other) && (!self.at.is_local() || other.at.is_local() && self.at != Neighbourhood::Here)
    }
}

impl Neighbourhood {
    fn of(address: IpAddr) -> Self {
        match (address, place(address)) {
            (_, Place::Local(_)) if address.is_loopback() => Self::Here,
            (_, Place::Local(_)) => Self::Private(address),
            (IpAddr::V4(address), _) => Self::Public(address.octets()[..3].to_vec()),
            (IpAddr::V6(address), _) => Self::Public(address.octets()[..6].to_vec()),
        }
    }

    fn of_name(name: &str) -> Self {
        let labels: Vec<&str> = name.rsplit('.').take(2).collect();
        Self::Domain(labels.into_iter().rev().collect::<Vec<_>>().join("."))
    }

    /// Whether a network of our own leads there.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Private(_) | Self::Here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_behind_many_hotkeys_is_one_stranger() {
        let who = |hotkey: &str, host: &str| Who::new(&hotkey.parse().unwrap(), host, host.parse().ok());
        let ann = who("ann", "8.8.8.8");
        assert!(!ann.is_other_than(&who("ann", "1.1.1.1")) && !ann.is_other_than(&who("bob", "8.8.8.9")));
        assert!(ann.is_other_than(&who("bob", "8.8.9.8")));
        assert!(!who("a", "a.example.org").is_other_than(&who("b", "b.example.org")));
        assert!(who("a", "10.0.0.1").is_other_than(&who("b", "10.0.0.2")));
        assert_eq!(who("a", "127.0.0.1").at, Neighbourhood::Here);
        let [next, near, here] = [who("n", "10.0.0.1"), who("m", "10.0.0.2"), who("h", "127.0.0.1")];
        assert!(!next.can_clear(&ann) && next.can_clear(&near) && ann.can_clear(&next));
        assert!(!here.can_clear(&ann) && !here.can_clear(&near), "no network leads there");
        assert!(!who("a", "2606:4700::1").is_other_than(&who("b", "2606:4700:0:1::1")));
    }
}
