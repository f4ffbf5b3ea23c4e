//! Where a request comes from: the address of the connection, or what a trusted proxy says it was.
//!
//! Every proxy appends the address that it saw. From the right, that is: ours, then those of proxies we trust, and then the
//! first that is not a proxy of ours. Whatever stands left of it was sent by the client, who may have made it up.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::config::ForwardedHeader;

/// Whose word counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    pub(super) trusted: Vec<IpNet>,
    pub(super) header: ForwardedHeader,
}

impl Proxies {
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The client of a request that came from `peer`.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        for said in self.said(headers).iter().rev() {
            // What is no address is nobody's word: the proxy itself answers for what follows.
            let Some(address) = said else { break };
            client = *address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// The addresses that were written down on the way, the last one last.
    fn said(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let name = match self.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let values = headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or("?").split(','));
        values
            .map(|entry| match self.header {
                ForwardedHeader::XForwardedFor => address(entry),
                ForwardedHeader::Forwarded => entry.split(';').find_map(for_of).and_then(address),
            })
            .collect()
    }
}

/// The value of `for=` in a pair of RFC 7239.
fn for_of(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=')?;
    name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
}

/// An address as proxies write it: alone, in brackets, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // A port only follows an IPv4 address without brackets.
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// As whom a client is counted: who has one address of a /64 has them all.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], header }
    }

    fn client(peer: &str, header: ForwardedHeader, values: &[&str]) -> String {
        let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let headers: HeaderMap = values.iter().map(|value| (name.parse().unwrap(), value.parse().unwrap())).collect();
        proxies(header).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_about_the_last_address_it_did_not_trust() {
        let x = |peer, values: &[&str]| client(peer, ForwardedHeader::XForwardedFor, values);
        assert_eq!(x("1.2.3.4", &["9.9.9.9"]), "1.2.3.4", "a stranger's word");
        assert_eq!(x("10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(x("::ffff:10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(x("10.0.0.1", &["6.6.6.6, 9.9.9.9"]), "9.9.9.9", "what the client sent before");
        assert_eq!(x("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.2"]), "9.9.9.9", "a chain of proxies, in two headers");
        assert_eq!(x("10.0.0.1", &["6.6.6.6, nonsense"]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &["6.6.6.6, \u{e9}"]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "from within");
        assert_eq!(x("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(x("fd00::1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(x("10.0.0.1", &["9.9.9.9:1234"]), "9.9.9.9");
    }

    #[test]
    fn the_standard_header_is_read_when_it_is_the_one_that_is_set() {
        let forwarded = |values: &[&str]| client("10.0.0.1", ForwardedHeader::Forwarded, values);
        assert_eq!(forwarded(&["for=6.6.6.6, For=\"[2001:db8::1]:80\";proto=https"]), "2001:db8::1");
        assert_eq!(forwarded(&["for=9.9.9.9;by=10.0.0.1", "for=10.0.0.2"]), "9.9.9.9");
        assert_eq!(forwarded(&["for=6.6.6.6, for=_hidden"]), "10.0.0.1");
        assert_eq!(forwarded(&["proto=https"]), "10.0.0.1");
    }

    #[test]
    fn a_house_of_ipv6_is_one_client() {
        let of = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:1.2.3.4"), "1.2.3.4");
    }
}
