//! Everything that the chain would refuse, found before anything is signed. Pure; each refusal is a sentence, and beside it
//! what can be done about it.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::chain::{Amounts, Seat, Subnet, reveal::NoEpochs};

/// Version of the commits that `chain::lock` writes.
const COMMIT_VERSION: u16 = 4;
/// Rao of a whole token.
const RAO: f64 = 1e9;

/// Something that the chain would refuse.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// There is no such subnet.
    UnknownSubnet {
        /// Its number.
        netuid: u16,
    },
    /// The hotkey has no slot.
    NotRegistered {
        /// Its address.
        hotkey: String,
        /// The subnet.
        netuid: u16,
    },
    /// It may not weigh others.
    NoPermit {
        /// Its slot.
        uid: u16,
    },
    /// It has too little stake.
    Stake {
        /// What it has, in rao.
        has: f64,
        /// What it needs.
        needs: u64,
    },
    /// It set weights a moment ago.
    TooSoon {
        /// Blocks to wait.
        blocks: u64,
        /// About as many seconds.
        seconds: u64,
        /// Block of the last weights.
        last: u64,
        /// Blocks between two.
        limit: u64,
    },
    /// The subnet asks for a newer client.
    VersionKey {
        /// What is stated.
        ours: u64,
        /// What is asked for.
        wanted: u64,
    },
    /// There is nothing to set.
    Nothing,
    /// It pays too few.
    TooFew {
        /// How many.
        found: usize,
        /// The least.
        least: usize,
    },
    /// It pays one too much.
    TooMuch {
        /// Whom.
        uid: u16,
        /// Its share of the whole.
        share: f64,
        /// The most.
        limit: f64,
    },
    /// Commits have another form now.
    CommitVersion {
        /// What the runtime takes.
        wanted: u16,
    },
    /// Commits would never be revealed.
    NeverRevealed(NoEpochs),
}

impl Refusal {
    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::UnknownSubnet { .. } => "unknown_subnet",
            Self::NotRegistered { .. } => "not_registered",
            Self::NoPermit { .. } => "no_permit",
            Self::Stake { .. } => "stake",
            Self::TooSoon { .. } => "rate_limit",
            Self::VersionKey { .. } => "version_key",
            Self::Nothing => "nothing",
            Self::TooFew { .. } => "too_few",
            Self::TooMuch { .. } => "too_much",
            Self::CommitVersion { .. } => "commit_version",
            Self::NeverRevealed(_) => "never_revealed",
        }
    }

    /// What can be done about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::UnknownSubnet { .. } => "check --netuid and --network".into(),
            Self::NotRegistered { netuid, .. } => {
                format!("register it (`btcli subnets register --netuid {netuid}`), or name another with --hotkey-name")
            }
            Self::NoPermit { .. } => {
                "the chain gives permits at the end of an epoch to the hotkeys with the most stake: add stake to it and wait for the next epoch".into()
            }
            Self::Stake { .. } => "add stake to the hotkey (`btcli stake add`)".into(),
            Self::TooSoon { blocks, .. } => format!("wait {blocks} blocks; a running validator does so by itself"),
            Self::VersionKey { wanted, .. } => {
                format!("run the version of the validator that the subnet's owner asks for; if this is it, state --version-key {wanted}")
            }
            Self::Nothing => "wait for the backend's next cycle".into(),
            Self::TooFew { .. } => {
                "the backend's pipeline has to pay more miners, or the subnet's owner lowers min_allowed_weights".into()
            }
            Self::TooMuch { .. } => {
                "the backend's pipeline has to spread its weights (a higher temperature), or the subnet's owner raises max_weights_limit".into()
            }
            Self::CommitVersion { .. } => "update robo".into(),
            Self::NeverRevealed(_) => {
                "the subnet's owner sets a tempo, or turns commit-reveal off".into()
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSubnet { netuid } => write!(f, "there is no subnet {netuid} on this chain"),
            Self::NotRegistered { hotkey, netuid } => {
                write!(f, "the hotkey {hotkey} is not registered on subnet {netuid}")
            }
            Self::NoPermit { uid } => write!(f, "the hotkey (uid {uid}) has no validator permit"),
            Self::Stake { has, needs } => {
                let (has, needs) = (has / RAO, *needs as f64 / RAO);
                write!(f, "the hotkey's stake counts as {has:.3}, and weights need {needs:.3}")
            }
            Self::TooSoon { blocks, seconds, last, limit } => write!(
                f,
                "weights were last set in block {last}, and the subnet's rate limit is {limit} blocks: {blocks} more, about {seconds} s"
            ),
            Self::VersionKey { ours, wanted } => {
                write!(f, "the subnet takes weights from version {wanted} on, and this validator states {ours}")
            }
            Self::Nothing => f.write_str("the vector pays nobody"),
            Self::TooFew { found, least } => {
                write!(f, "the vector pays {found}, and the subnet asks for at least {least}")
            }
            Self::TooMuch { uid, share, limit } => {
                let (share, limit) = (100.0 * share, 100.0 * limit);
                write!(f, "the vector pays {share:.2} % to uid {uid}, and the subnet allows at most {limit:.2} %")
            }
            Self::CommitVersion { wanted } => {
                write!(
                    f,
                    "the chain takes commits of version {wanted}, and this program writes version {COMMIT_VERSION}"
                )
            }
            Self::NeverRevealed(cause) => write!(f, "commit-reveal is on for this subnet, and {cause}"),
        }
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("kind", self.word())?;
        map.serialize_entry("text", &self.to_string())?;
        map.serialize_entry("remedy", &self.remedy())?;
        map.end()
    }
}

/// Whether the hotkey has a slot on the subnet at all: nothing else can be told without it.
pub(super) fn seated(subnet: &Subnet, hotkey: &str) -> Vec<Refusal> {
    let netuid = subnet.netuid;
    if !subnet.exists {
        return vec![Refusal::UnknownSubnet { netuid }];
    }
    let missing = subnet.seat.is_none().then(|| Refusal::NotRegistered { hotkey: hotkey.to_owned(), netuid });
    missing.into_iter().collect()
}

/// Everything that the chain would refuse of these weights, set by this hotkey now.
pub(super) fn check(subnet: &Subnet, hotkey: &str, amounts: &Amounts, version_key: u64) -> Vec<Refusal> {
    let Some(seat) = subnet.seat.as_ref().filter(|_| subnet.exists) else { return seated(subnet, hotkey) };
    // One weight, for itself, is always allowed to a slot.
    let is_own = amounts.uids == [seat.uid];
    let mut found = of_seat(subnet, seat, is_own);
    let wanted = subnet.rules.version_key;
    if version_key < wanted {
        found.push(Refusal::VersionKey { ours: version_key, wanted });
    }
    if amounts.uids.is_empty() {
        found.push(Refusal::Nothing);
    } else if !is_own {
        found.extend(of_amounts(subnet, amounts));
    }
    if let Some(reveal) = &subnet.rules.reveal {
        if reveal.version != COMMIT_VERSION {
            found.push(Refusal::CommitVersion { wanted: reveal.version });
        }
        found.extend(reveal.block(subnet.block, subnet.rules.tempo).err().map(Refusal::NeverRevealed));
    }
    found
}

fn of_seat(subnet: &Subnet, seat: &Seat, is_own: bool) -> Vec<Refusal> {
    let rules = &subnet.rules;
    let mut found = Vec::new();
    // The owner of a subnet may always weigh.
    let is_owner = subnet.owner_uid() == Some(seat.uid);
    if !seat.has_permit && !is_owner && !is_own {
        found.push(Refusal::NoPermit { uid: seat.uid });
    }
    if let Some(has) = seat.stake.filter(|has| *has < rules.stake_threshold as f64 && !is_owner) {
        found.push(Refusal::Stake { has, needs: rules.stake_threshold });
    }
    let blocks = wait(subnet, seat);
    if blocks > 0 {
        let seconds = (blocks as f64 * subnet.block_time.as_secs_f64()).ceil() as u64;
        found.push(Refusal::TooSoon { blocks, seconds, last: seat.last_update, limit: rules.rate_limit });
    }
    found
}

/// Blocks until the chain takes weights again.
fn wait(subnet: &Subnet, seat: &Seat) -> u64 {
    // Block 0: never set any.
    if seat.last_update == 0 {
        return 0;
    }
    (seat.last_update + subnet.rules.rate_limit).saturating_sub(subnet.block)
}

fn of_amounts(subnet: &Subnet, amounts: &Amounts) -> Vec<Refusal> {
    let rules = &subnet.rules;
    let mut found = Vec::new();
    let least = usize::from(rules.min_allowed).min(subnet.slots.len());
    if amounts.uids.len() < least {
        found.push(Refusal::TooFew { found: amounts.uids.len(), least });
    }
    let sum: u64 = amounts.values.iter().map(|value| u64::from(*value)).sum();
    let largest = amounts.uids.iter().zip(&amounts.values).max_by_key(|(_, value)| **value);
    if let Some((uid, value)) = largest.filter(|_| rules.max_limit < u16::MAX) {
        let (share, limit) = (f64::from(*value) / sum as f64, f64::from(rules.max_limit) / f64::from(u16::MAX));
        // The chain's own fractions have 32 bits: what is equal to the limit there must not be refused here.
        if share > limit + 1e-9 {
            found.push(Refusal::TooMuch { uid: *uid, share, limit });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chain::reveal::{Epochs, Reveal},
        validator::example,
    };

    fn subnet(change: impl FnOnce(&mut Subnet)) -> Subnet {
        let mut subnet = example::subnet(1000, &[("owner", 0), ("validator", 0), ("ann", 0), ("bob", 0)]);
        change(&mut subnet);
        subnet
    }

    fn amounts() -> Amounts {
        Amounts { uids: vec![0, 2, 3], values: vec![65535, 65535, 32768] }
    }

    fn refusals(change: impl FnOnce(&mut Subnet)) -> Vec<Refusal> {
        check(&subnet(change), "validator", &amounts(), 3)
    }

    fn seat(change: impl FnOnce(&mut Seat)) -> Vec<Refusal> {
        refusals(|subnet| change(subnet.seat.as_mut().unwrap()))
    }

    #[test]
    fn a_vector_that_the_chain_takes_is_not_refused() {
        assert_eq!(refusals(|_| ()), []);
        assert_eq!(seat(|seat| seat.last_update = 900), []);
        assert_eq!(refusals(|subnet| subnet.rules.version_key = 3), []);
        // More than there are slots is never asked for.
        assert_eq!(
            check(
                &subnet(|it| it.rules.min_allowed = 9),
                "validator",
                &Amounts { uids: vec![0, 1, 2, 3], values: vec![1; 4] },
                0
            ),
            []
        );
    }

    #[test]
    fn every_refusal_is_a_sentence_with_its_remedy() {
        let epochs = Epochs::ByNumber { netuid: 7 };
        let found: Vec<Refusal> = [
            refusals(|it| it.exists = false),
            refusals(|it| it.seat = None),
            seat(|it| it.has_permit = false),
            refusals(|it| it.rules.stake_threshold = 1_500_000_000),
            seat(|it| it.last_update = 950),
            refusals(|it| it.rules.version_key = 4),
            check(&subnet(|_| ()), "validator", &Amounts::default(), 0),
            refusals(|it| it.rules.min_allowed = 4),
            refusals(|it| it.rules.max_limit = 13_107),
            refusals(|it| it.rules.reveal = Some(Reveal { version: 5, period: 1, epochs: epochs.clone() })),
            refusals(|it| {
                it.rules.tempo = 0;
                it.rules.reveal = Some(Reveal { version: 4, period: 1, epochs });
            }),
        ]
        .into_iter()
        .flatten()
        .collect();
        let told: Vec<String> = found.iter().map(|it| format!("{}: {it} -> {}", it.word(), it.remedy())).collect();
        insta::assert_snapshot!(told.join("\n"));
        let mut words: Vec<&str> = found.iter().map(Refusal::word).collect();
        words.dedup();
        assert_eq!(words.len(), 11, "each alone: {told:#?}");
    }

    #[test]
    fn the_owner_and_a_weight_for_oneself_need_no_permit() {
        let owner = |it: &mut Subnet| {
            it.owner = Some("validator".into());
            it.rules.stake_threshold = 1;
            it.seat.as_mut().unwrap().has_permit = false;
        };
        assert_eq!(refusals(owner), []);
        let own = Amounts { uids: vec![1], values: vec![65535] };
        let strict = subnet(|it| {
            it.seat.as_mut().unwrap().has_permit = false;
            it.rules.min_allowed = 3;
            it.rules.max_limit = 1;
        });
        assert_eq!(check(&strict, "validator", &own, 0), []);
    }
}
