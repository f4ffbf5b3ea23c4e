//! What every range of addresses is for. The first row that holds an address decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Of the public Internet.
    Public,
    /// Of this machine or a network around it, and in these words. Fine for local work.
    Local(&'static str),
    /// No miner's, wherever it runs, and in these words.
    Never(&'static str),
}

use Place::{Local, Never, Public};

const METADATA: Place = Never("where cloud machines keep their metadata");
const PRIVATE: Place = Local("private");
const DOCUMENTATION: Place = Never("for documentation only");
const NAT64: Place = Never("an IPv4 address written as NAT64");

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u32, place: Place) -> (Ipv4Addr, u32, Place) {
    (Ipv4Addr::new(a, b, c, d), bits, place)
}

const fn v6(head: [u16; 4], tail: u16, bits: u32, place: Place) -> (Ipv6Addr, u32, Place) {
    (Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, tail), bits, place)
}

/// IPv4; what no row holds is public.
const V4: [(Ipv4Addr, u32, Place); 19] = [
    v4(100, 100, 100, 200, 32, METADATA),
    v4(168, 63, 129, 16, 32, METADATA),
    v4(0, 0, 0, 0, 8, Never("of no machine")),
    v4(10, 0, 0, 0, 8, PRIVATE),
    v4(100, 64, 0, 0, 10, Local("shared behind a provider's NAT")),
    v4(127, 0, 0, 0, 8, Local("loopback")),
    v4(169, 254, 0, 0, 16, Never("link-local, as the metadata of cloud machines is")),
    v4(172, 16, 0, 0, 12, PRIVATE),
    v4(192, 0, 0, 0, 24, Never("reserved for protocols")),
    v4(192, 0, 2, 0, 24, DOCUMENTATION),
    v4(192, 88, 99, 0, 24, Never("a 6to4 relay")),
    v4(192, 168, 0, 0, 16, PRIVATE),
    v4(198, 18, 0, 0, 15, Never("for benchmarks of networks only")),
    v4(198, 51, 100, 0, 24, DOCUMENTATION),
    v4(203, 0, 113, 0, 24, DOCUMENTATION),
    v4(224, 0, 0, 0, 4, Never("multicast")),
    v4(255, 255, 255, 255, 32, Never("broadcast")),
    v4(240, 0, 0, 0, 4, Never("reserved")),
    v4(0, 0, 0, 0, 0, Public),
];

/// IPv6; public is only what has been given out, and not what stands for an IPv4 address.
const V6: [(Ipv6Addr, u32, Place); 16] = [
    v6([0, 0, 0, 0], 1, 128, Local("loopback")),
    v6([0xfd00, 0x0ec2, 0, 0], 0x254, 128, METADATA),
    v6([0xfc00, 0, 0, 0], 0, 7, PRIVATE),
    v6([0xfe80, 0, 0, 0], 0, 10, Never("link-local")),
    v6([0xff00, 0, 0, 0], 0, 8, Never("multicast")),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Never("an IPv4 address written as IPv6")),
    v6([0, 0, 0, 0], 0, 96, Never("an IPv4 address written as IPv6")),
    v6([0x64, 0xff9b, 0, 0], 0, 96, NAT64),
    v6([0x64, 0xff9b, 1, 0], 0, 48, NAT64),
    v6([0x2001, 0x0db8, 0, 0], 0, 32, DOCUMENTATION),
    v6([0x2001, 0, 0, 0], 0, 32, Never("an IPv4 address written as Teredo")),
    v6([0x2001, 0, 0, 0], 0, 23, Never("reserved for protocols")),
    v6([0x2002, 0, 0, 0], 0, 16, Never("an IPv4 address written as 6to4")),
    v6([0x3fff, 0, 0, 0], 0, 20, DOCUMENTATION),
    v6([0x2000, 0, 0, 0], 0, 3, Public),
    v6([0, 0, 0, 0], 0, 0, Never("not of the public Internet")),
];

/// What an address is.
pub fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(_) => first(&V4, address),
        IpAddr::V6(_) => first(&V6, address),
    }
}

fn first<A: Copy + Into<IpAddr>>(table: &[(A, u32, Place)], address: IpAddr) -> Place {
    let row = table.iter().find(|(base, bits, _)| covers((*base).into(), *bits, address));
    // The last row of each table holds everything.
    row.map_or(Never("of no kind that is known"), |(_, _, place)| *place)
}

/// The IPv4 ranges that are not public, as firewalls write them.
pub fn not_public_v4() -> String {
    ranges(&V4)
}

/// The ranges below `2000::/3` that are not public, as firewalls write them.
pub fn not_public_v6() -> String {
    let inside: Vec<_> = V6.into_iter().filter(|(base, ..)| base.segments()[0] & 0xe000 == 0x2000).collect();
    ranges(&inside)
}

/// Without ranges that lie within others: firewalls refuse lists that overlap.
fn ranges<A: Copy + std::fmt::Display + Into<IpAddr>>(table: &[(A, u32, Place)]) -> String {
    let closed: Vec<_> = table.iter().filter(|(_, _, place)| *place != Public).collect();
    let within = |address: A, bits: u32| {
        closed.iter().any(|(base, other, _)| *other < bits && covers((*base).into(), *other, address.into()))
    };
    let outer = closed.iter().filter(|(base, bits, _)| !within(*base, *bits));
    outer.map(|(base, bits, _)| format!("{base}/{bits}")).collect::<Vec<_>>().join(", ")
}

fn covers(base: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            (u32::from(address) ^ u32::from(base)).checked_shr(32 - bits).unwrap_or_default() == 0
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            (u128::from(address) ^ u128::from(base)).checked_shr(128 - bits).unwrap_or_default() == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Place {
        place(text.parse().unwrap())
    }

    #[test]
    fn the_ends_of_every_range_and_their_neighbours() {
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "168.63.129.17",
            "2000::",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::",
            "2606:4700::1111",
            "3ffe::",
            "3fff:1000::",
        ] {
            assert_eq!(of(public), Public, "{public}");
        }
        for local in [
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.0",
            "127.0.0.1",
            "127.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "::1",
            "fc00::",
            "fd12:3456::1",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(matches!(of(local), Local(_)), "{local}");
        }
        for never in [
            "0.0.0.0",
            "0.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::2",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "4000::",
            "5f00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ffff::",
        ] {
            assert!(matches!(of(never), Never(_)), "{never}: {:?}", of(never));
        }
    }

    #[test]
    fn firewalls_get_the_same_ranges_without_overlaps() {
        let list = not_public_v4();
        for range in ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "203.0.113.0/24", "240.0.0.0/4"] {
            assert!(list.split(", ").any(|one| one == range), "{list}");
        }
        assert!(!list.contains("100.100.100.200") && !list.contains("255.255.255.255"), "{list}");
        assert_eq!(not_public_v6(), "2001:db8::/32, 2001::/23, 2002::/16, 3fff::/20");
    }

    proptest! {
        #[test]
        fn an_address_in_disguise_is_never_public(bits in any::<u32>()) {
            let [a, b, c, d] = bits.to_be_bytes();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for disguised in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            ] {
                prop_assert_ne!(place(disguised.into()), Public);
            }
        }

        #[test]
        fn what_is_public_is_global_by_the_standard_library_too(bits in any::<u32>()) {
            let address = Ipv4Addr::from(bits);
            let is_special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_broadcast() || address.is_multicast() || address.is_unspecified()
                || address.is_documentation();
            prop_assert!(!is_special || place(address.into()) != Public);
        }
    }
}
