//! The one table of blame: what can go wrong between the environment server and a miner, and who answers for it.
//!
//! Native and affinetes miners are judged by the same rows (docs/faults.md prints them). Pure: a row is chosen by whoever saw the
//! condition. A condition that a miner can cause alone is never an infrastructure fault by itself.

use std::io;

use super::InfraFault;

/// Who answers for a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// The miner, beyond doubt.
    Miner,
    /// The miner, unless the canary or other miners show that this machine's network failed at the same time.
    Undecided,
    /// Infrastructure, beyond doubt. The episode is played again.
    Infrastructure(InfraFault),
}

/// What went wrong in a call to a miner, below HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// This machine has no file descriptor left.
    NoDescriptors,
    /// The kernel has no memory or buffers left for sockets.
    NoBuffers,
    /// This machine names no resolver.
    NoResolver,
    /// This machine has no default route, and the miner's address is public.
    NoRoute,
    /// This machine cannot give the connection a local address or port.
    NoLocalAddress,
    /// A local firewall refused the connection.
    LocalFirewall,
    /// The name could not be looked up.
    NameLookup,
    /// No route leads to the address.
    Unreachable,
    /// The connection did not open, or an open one carried nothing, until the deadline.
    Silence,
    /// The miner's machine refused the connection.
    Refused,
    /// The connection closed before the answer was complete.
    Closed,
}

impl Condition {
    /// Every row of the table.
    pub const ALL: [Self; 11] = [
        Self::NoDescriptors,
        Self::NoBuffers,
        Self::NoResolver,
        Self::NoRoute,
        Self::NoLocalAddress,
        Self::LocalFirewall,
        Self::NameLookup,
        Self::Unreachable,
        Self::Silence,
        Self::Refused,
        Self::Closed,
    ];

    /// Who answers for it.
    pub fn party(self) -> Party {
        match self {
            Self::NoDescriptors | Self::NoBuffers => Party::Infrastructure(InfraFault::ResourcesExhausted),
            Self::NoResolver | Self::NoRoute => Party::Infrastructure(InfraFault::Network),
            // A miner chooses its address, and with it what the kernel, a firewall or a name server says of that address.
            Self::NoLocalAddress | Self::LocalFirewall | Self::NameLookup | Self::Unreachable | Self::Silence => {
                Party::Undecided
            }
            Self::Refused | Self::Closed => Party::Miner,
        }
    }

    /// The condition behind an error of the operating system.
    pub fn of(error: &io::Error) -> Self {
        use nix::errno::Errno;
        let Some(code) = error.raw_os_error() else {
            return match error.kind() {
                io::ErrorKind::TimedOut => Self::Silence,
                io::ErrorKind::ConnectionRefused => Self::Refused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                    Self::Unreachable
                }
                _ => Self::Closed,
            };
        };
        match Errno::from_raw(code) {
            Errno::EMFILE | Errno::ENFILE => Self::NoDescriptors,
            Errno::ENOBUFS | Errno::ENOMEM => Self::NoBuffers,
            Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => Self::NoLocalAddress,
            Errno::EPERM | Errno::EACCES => Self::LocalFirewall,
            Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EHOSTUNREACH | Errno::EHOSTDOWN | Errno::ENONET => {
                Self::Unreachable
            }
            Errno::ETIMEDOUT => Self::Silence,
            Errno::ECONNREFUSED => Self::Refused,
            _ => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MinerFault, Outcome};
    use super::*;

    #[test]
    fn the_documents_table_is_this_one() {
        let text = include_str!("../../docs/faults.md");
        let (_, table) = text.split_once("| condition | party | reason | evidence |\n").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        let told: Vec<Vec<&str>> = rows
            .map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1).take(3).collect())
            .collect();
        let rows = Condition::ALL.map(|condition| {
            let (party, outcome) = match condition.party() {
                Party::Miner => ("miner", Outcome::MinerFault(MinerFault::ConnectionError)),
                Party::Undecided => ("undecided", Outcome::MinerFault(MinerFault::ConnectionError)),
                Party::Infrastructure(fault) => ("infrastructure", Outcome::InfraFault(fault)),
            };
            (format!("{condition:?}"), party, outcome.reason().unwrap_or_default())
        });
        let rows: Vec<Vec<&str>> =
            rows.iter().map(|(name, party, reason)| vec![name.as_str(), *party, *reason]).collect();
        assert_eq!(told, rows);
    }

    #[test]
    fn local_exhaustion_is_infrastructure_and_a_refused_connection_is_the_miners() {
        use nix::errno::Errno::*;
        let party = |errno: nix::errno::Errno| Condition::of(&io::Error::from_raw_os_error(errno as i32)).party();
        for errno in [EMFILE, ENFILE, ENOBUFS, ENOMEM] {
            assert_eq!(party(errno), Party::Infrastructure(InfraFault::ResourcesExhausted), "{errno}");
        }
        for errno in [EADDRNOTAVAIL, EPERM, EACCES, ENETUNREACH, ENETDOWN, EHOSTUNREACH, ETIMEDOUT] {
            assert_eq!(party(errno), Party::Undecided, "{errno}");
        }
        for errno in [ECONNREFUSED, ECONNRESET, EPIPE, ECONNABORTED] {
            assert_eq!(party(errno), Party::Miner, "{errno}");
        }
    }
}
