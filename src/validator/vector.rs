//! From a document to what goes on chain: who has which slot *now*, and to whom the shares of the others go. Pure.
//!
//! Nobody is paid who is not named. A hotkey is paid in the slot it had when the vector was made, or not at all; a slot that is
//! named without a hotkey is paid only if nobody has come to it since. Every other share goes to the burn slot: that of the
//! subnet's owner, whose emission the chain burns, or one that the validator names. Where there is none, nothing is paid: to
//! leave such a share out would hand it to everybody else.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::{Document, Payee, Share};
use crate::chain::{Amounts, Subnet};

/// A vector as the chain takes it, and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vector {
    /// Shares of the whole by slot; they sum to 1.
    pub shares: BTreeMap<u16, f64>,
    /// The same as the chain takes it.
    #[serde(skip)]
    pub amounts: Amounts,
    /// Shares that nobody is paid.
    pub burnt: Vec<Burnt>,
    /// The slot that they go to.
    pub burn_uid: Option<u16>,
}

/// A share that goes to the burn slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Burnt {
    /// Whose it was, in the document's words.
    pub payee: String,
    /// How much of the whole.
    pub share: f64,
    /// Why.
    pub why: Why,
}

/// Why a share is burnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Why {
    /// The document says so.
    OnPurpose,
    /// The hotkey is not registered any more.
    Gone,
    /// The hotkey has another slot now.
    Moved {
        /// Its slot when the vector was made.
        from: u16,
        /// Its slot now.
        to: u16,
    },
    /// Nobody has this slot.
    Empty,
    /// Somebody has come to this slot since.
    Taken {
        /// Block of the registration, where the chain says it.
        at: Option<u64>,
    },
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OnPurpose => f.write_str("burnt by the document itself"),
            Self::Gone => f.write_str("not registered any more"),
            Self::Moved { from, to } => write!(f, "had uid {from} and now has uid {to}"),
            Self::Empty => f.write_str("nobody has this uid"),
            Self::Taken { at: Some(at) } => {
                write!(f, "the uid was given away in block {at}, after the vector was made")
            }
            Self::Taken { at: None } => f.write_str("the chain does not say since when the uid is its holder's"),
        }
    }
}

/// Why nothing can be paid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unpayable {
    /// There is something to burn, and no slot for it.
    #[error(
        "{percent:.2} % of the weight is nobody's ({payee}: {why}), and the hotkey of the owner of subnet {netuid} is not registered to burn it: name a slot with --burn-uid; to leave the share out would pay it to the others"
    )]
    NoBurnSlot {
        /// How much.
        percent: f64,
        /// Whose the first such share was.
        payee: String,
        /// Why that one is burnt.
        why: Why,
        /// The subnet.
        netuid: u16,
    },
    /// The slot that was named is nobody's.
    #[error("nobody has uid {uid} on subnet {netuid}, which --burn-uid names: name a slot that is taken")]
    BurnSlotEmpty {
        /// The slot.
        uid: u16,
        /// The subnet.
        netuid: u16,
    },
    /// Slots without hotkeys, and no block to know their holders by.
    #[error(
        "the document names uids only and no block, so nobody can tell whether they still belong to the same miners: ask the backend's operator for `block_number` or for `entries` with hotkeys"
    )]
    NoBlock,
}

impl Vector {
    /// What a document pays on a subnet as it is now.
    ///
    /// # Errors
    /// [`Unpayable`].
    pub fn resolve(document: &Document, subnet: &Subnet, burn_uid: Option<u16>) -> Result<Self, Unpayable> {
        let netuid = subnet.netuid;
        if let Some(uid) = burn_uid.filter(|uid| !subnet.slots.contains_key(uid)) {
            return Err(Unpayable::BurnSlotEmpty { uid, netuid });
        }
        let burn_uid = burn_uid.or_else(|| subnet.owner_uid());
        let sum: f64 = document.shares.iter().map(|share| share.weight).sum();
        let (mut weights, mut burnt) = (BTreeMap::<u16, f64>::new(), Vec::new());
        for Share { payee, weight } in document.shares.iter().filter(|share| share.weight > 0.0) {
            let uid = match slot_of(payee, document, subnet)? {
                Ok(uid) => uid,
                Err(why) => {
                    let (payee, share) = (name(payee), weight / sum);
                    let Some(burn_uid) = burn_uid else {
                        return Err(Unpayable::NoBurnSlot { percent: 100.0 * share, payee, why, netuid });
                    };
                    burnt.push(Burnt { payee, share, why });
                    burn_uid
                }
            };
            *weights.entry(uid).or_default() += weight;
        }
        let amounts = Amounts::of(&weights);
        let shares = weights.into_iter().map(|(uid, weight)| (uid, weight / sum)).collect();
        Ok(Self { shares, amounts, burnt, burn_uid })
    }

    /// Whether nobody is paid at all.
    pub fn burns_everything(&self) -> bool {
        self.burnt_share() > 1.0 - 1e-9
    }

    /// How much of the whole is burnt.
    pub fn burnt_share(&self) -> f64 {
        self.burnt.iter().fold(0.0, |sum, burnt| sum + burnt.share)
    }
}

/// The slot of a payee now, or why it has none.
fn slot_of(payee: &Payee, document: &Document, subnet: &Subnet) -> Result<Result<u16, Why>, Unpayable> {
    Ok(match payee {
        Payee::Burn => Err(Why::OnPurpose),
        Payee::Hotkey { hotkey, uid } => match (subnet.uid_of(hotkey), uid) {
            (None, _) => Err(Why::Gone),
            (Some(to), Some(from)) if to != *from => Err(Why::Moved { from: *from, to }),
            (Some(now), _) => Ok(now),
        },
        Payee::Uid(uid) => {
            let made_at = document.block.ok_or(Unpayable::NoBlock)?;
            match subnet.slots.get(uid) {
                None => Err(Why::Empty),
                Some(slot) if slot.registered_at.is_some_and(|at| at <= made_at) => Ok(*uid),
                Some(slot) => Err(Why::Taken { at: slot.registered_at }),
            }
        }
    })
}

fn name(payee: &Payee) -> String {
    match payee {
        Payee::Hotkey { hotkey, .. } => hotkey.clone(),
        Payee::Uid(uid) => format!("uid {uid}"),
        Payee::Burn => "nobody".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::validator::example;

    /// Uid 0 is the owner, 1 to 3 are miners, registered at block 100 but for the last.
    fn subnet() -> Subnet {
        example::subnet(1000, &[("owner", 100), ("ann", 100), ("bob", 100), ("new", 700)])
    }

    fn document(body: Value) -> Document {
        Document::parse(body.to_string().as_bytes()).unwrap()
    }

    fn entries(entries: &[(Option<u16>, Option<&str>, f64)]) -> Document {
        let entry = |(uid, hotkey, weight): &(Option<u16>, Option<&str>, f64)| json!({"uid": uid, "hotkey": hotkey, "weight": weight});
        document(json!({"block": 500, "entries": entries.iter().map(entry).collect::<Vec<_>>()}))
    }

    fn resolved(document: &Document) -> Vector {
        Vector::resolve(document, &subnet(), None).unwrap()
    }

    #[test]
    fn hotkeys_are_paid_in_their_own_slot_or_burnt() {
        let vector = resolved(&entries(&[
            (Some(1), Some("ann"), 4.0),
            (Some(5), Some("bob"), 2.0),
            (Some(3), Some("old"), 1.0),
            (None, Some("new"), 1.0),
        ]));
        assert_eq!(vector.shares, BTreeMap::from([(0, 0.375), (1, 0.5), (3, 0.125)]));
        let why: Vec<(&str, Why)> = vector.burnt.iter().map(|burnt| (burnt.payee.as_str(), burnt.why)).collect();
        assert_eq!(why, [("bob", Why::Moved { from: 5, to: 2 }), ("old", Why::Gone)]);
        assert_eq!((vector.amounts.uids, vector.amounts.values), (vec![0, 1, 3], vec![49151, 65535, 16384]));
    }

    #[test]
    fn slots_without_hotkeys_are_paid_only_to_who_had_them() {
        let vector = resolved(&document(json!({"block_number": 500, "weights": {"1": 0.5, "3": 0.3, "9": 0.2}})));
        assert_eq!(vector.shares, BTreeMap::from([(0, 0.5), (1, 0.5)]));
        assert_eq!(vector.burnt[0].why, Why::Taken { at: Some(700) });
        assert_eq!(vector.burnt[1].why, Why::Empty);
        let later = resolved(&document(json!({"block_number": 700, "weights": {"3": 1}})));
        assert_eq!((later.shares, later.burnt), (BTreeMap::from([(3, 1.0)]), vec![]));
        let undated = document(json!({"weights": {"1": 1}}));
        assert_eq!(Vector::resolve(&undated, &subnet(), None), Err(Unpayable::NoBlock));
    }

    #[test]
    fn a_share_without_a_hotkey_is_burnt_whoever_has_that_slot_now() {
        let vector = resolved(&entries(&[(Some(3), None, 1.0), (Some(1), Some("ann"), 1.0)]));
        assert_eq!(vector.shares, BTreeMap::from([(0, 0.5), (1, 0.5)]));
        assert_eq!(vector.burnt_share(), 0.5);
    }

    #[test]
    fn without_a_slot_to_burn_in_nothing_is_paid() {
        let mut subnet = subnet();
        subnet.owner = None;
        let gone = entries(&[(Some(1), Some("ann"), 3.0), (Some(4), Some("gone"), 1.0)]);
        let refused = Vector::resolve(&gone, &subnet, None).unwrap_err().to_string();
        assert!(refused.contains("25.00 %") && refused.contains("--burn-uid"), "{refused}");
        let named = Vector::resolve(&gone, &subnet, Some(2)).unwrap();
        assert_eq!(named.shares, BTreeMap::from([(1, 0.75), (2, 0.25)]));
        let empty = Vector::resolve(&gone, &subnet, Some(99));
        assert_eq!(empty, Err(Unpayable::BurnSlotEmpty { uid: 99, netuid: 7 }));
        // Nothing to burn: no slot is needed.
        assert!(Vector::resolve(&entries(&[(Some(1), Some("ann"), 1.0)]), &subnet, None).is_ok());
    }

    /// What each miner is paid, and who has come to the slots in which block.
    type World = (Vec<(u16, f64)>, Vec<(u16, u64)>);

    /// Miners `m1` to `m19` of a document at block 500, and where each is now.
    fn anybody() -> impl Strategy<Value = World> {
        let weights =
            prop::collection::btree_map(1..20u16, 0.0..1.0f64, 1..15).prop_map(|map| map.into_iter().collect());
        let now = prop::collection::vec((1..20u16, 0..1000u64), 0..25);
        (weights, now).prop_filter("somebody is paid", |(weights, _): &World| weights.iter().any(|it| it.1 > 0.0))
    }

    proptest! {
        #[test]
        fn nobody_else_is_ever_paid((weights, now) in anybody(), uids_only: bool) {
            // Slot 0 is the owner's; slot `at + 1` has the hotkey that was drawn, if it is free.
            let mut slots = vec![("owner".to_owned(), 0)];
            for (miner, at) in &now {
                let name = format!("m{miner}");
                let is_new = slots.iter().all(|(other, _)| *other != name);
                slots.push(if is_new { (name, *at) } else { (format!("stranger{}", slots.len()), *at) });
            }
            let named: Vec<(&str, u64)> = slots.iter().map(|(name, at)| (name.as_str(), *at)).collect();
            let subnet = example::subnet(1000, &named);
            let document = if uids_only {
                let map: BTreeMap<String, f64> = weights.iter().map(|(uid, weight)| (uid.to_string(), *weight)).collect();
                document(json!({"block_number": 500, "weights": map}))
            } else {
                let names: Vec<String> = weights.iter().map(|(uid, _)| format!("m{uid}")).collect();
                let rows = weights.iter().zip(&names).map(|((uid, weight), name)| (Some(*uid), Some(name.as_str()), *weight));
                entries(&rows.collect::<Vec<_>>())
            };
            let vector = Vector::resolve(&document, &subnet, None).unwrap();
            let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
            prop_assert!((vector.shares.values().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(vector.amounts.uids.is_sorted() && vector.amounts.uids.len() == vector.amounts.values.len());
            for (uid, share) in vector.shares.iter().filter(|(uid, _)| **uid != 0) {
                let own = weights.iter().find(|(named, _)| named == uid).map(|(_, weight)| weight / sum);
                prop_assert!(own.is_some_and(|own| (own - share).abs() < 1e-12), "uid {} is paid {}", uid, share);
                let slot = &subnet.slots[uid];
                if uids_only {
                    prop_assert!(slot.registered_at.unwrap() <= 500);
                } else {
                    prop_assert_eq!(&slot.hotkey, &format!("m{uid}"));
                }
            }
            let owner = vector.shares.get(&0).copied().unwrap_or_default();
            prop_assert!((owner - vector.burnt_share()).abs() < 1e-9);
        }
    }
}
