//! What would be submitted, decided before anything is signed: the vector, everything the chain would refuse of it, and
//! whether it is set openly or committed. Pure: made of a document, a subnet and the time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    document::Document,
    preflight::{self, Refusal},
    trouble::Trouble,
    trust::Demands,
    vector::Vector,
};
use crate::chain::{Subnet, reveal::NoEpochs};

/// What the validator itself adds to a document.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What a document has to be.
    pub demands: Demands,
    /// The slot for shares of nobody, in place of the owner's.
    pub burn_uid: Option<u16>,
    /// The version that is stated to the chain.
    pub version_key: u64,
    /// Whether a vector may burn everything right after one that paid somebody.
    pub burns: Burns,
}

/// What is done with a vector that burns everything right after one that did not: a bad day of the backend looks like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Burns {
    /// It is not set.
    #[default]
    Refused,
    /// It is set like any other.
    Accepted,
}

/// How weights get to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In the open.
    Set,
    /// Encrypted until a round of the beacon.
    Commit {
        /// Version of the commit.
        version: u16,
        /// The round.
        round: u64,
        /// The block in which the chain reveals them.
        block: u64,
    },
}

/// What would be submitted.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The hotkey that signs.
    pub hotkey: String,
    /// The subnet it is made for.
    pub subnet: Subnet,
    /// The vector.
    pub vector: Vector,
    /// What the chain would refuse.
    pub refusals: Vec<Refusal>,
    /// How it is submitted.
    pub way: Way,
    /// Blocks since the document was made.
    pub age: u64,
    /// The version that is stated.
    pub version_key: u64,
    /// How many slots the last vector paid, when this one suddenly burns everything and may not.
    pub sudden_burn: Option<usize>,
}

impl Plan {
    /// Decide what a document comes to.
    ///
    /// # Errors
    /// [`Trouble`], when the document must not be used or cannot be paid.
    pub fn make(
        document: &Document,
        subnet: Subnet,
        hotkey: &str,
        terms: &Terms,
        now: DateTime<Utc>,
    ) -> Result<Self, Trouble> {
        // Without these nothing else can be said.
        let early = preflight::seated(&subnet, hotkey);
        if !early.is_empty() {
            return Err(Trouble::Refused(early));
        }
        let age = terms.demands.age(document, &subnet, now)?;
        let vector = Vector::resolve(document, &subnet, terms.burn_uid)?;
        let refusals = preflight::check(&subnet, hotkey, &vector.amounts, terms.version_key);
        let since_1970 = Duration::from_millis(u64::try_from(now.timestamp_millis()).unwrap_or_default());
        let way = match way(&subnet, since_1970) {
            Ok(way) => way,
            Err(cause) => return Err(Trouble::Refused(vec![Refusal::NeverRevealed(cause)])),
        };
        let sudden_burn = paid_before(&subnet, &vector).filter(|_| terms.burns == Burns::Refused);
        let version_key = terms.version_key;
        Ok(Self { hotkey: hotkey.to_owned(), subnet, vector, refusals, way, age, version_key, sudden_burn })
    }

    /// The same, for programs.
    pub fn to_json(&self, document: &Document) -> Value {
        let Self { subnet, vector, refusals, way, age, .. } = self;
        let slot = |uid: &u16| subnet.slots.get(uid).map(|slot| slot.hotkey.clone());
        let rows = vector.amounts.uids.iter().zip(&vector.amounts.values).map(|(uid, value)| {
            json!({ "uid": uid, "hotkey": slot(uid), "share": vector.shares.get(uid), "weight_u16": value })
        });
        json!({
            "netuid": subnet.netuid, "block": subnet.block, "hash": subnet.hash, "node": subnet.node,
            "hotkey": self.hotkey, "uid": subnet.seat.as_ref().map(|seat| seat.uid),
            "document": {
                "cycle": document.cycle, "block": document.block, "age_blocks": age, "status": document.status.word(),
                "digest": document.digest,
            },
            "call": way.to_json(), "version_key": self.version_key, "weights": rows.collect::<Vec<_>>(),
            "burn_uid": vector.burn_uid, "burnt": vector.burnt, "refusals": refusals,
            "sudden_burn": self.sudden_burn.is_some(),
        })
    }
}

/// How many slots the validator's last weights paid, when this vector burns everything and they did not.
fn paid_before(subnet: &Subnet, vector: &Vector) -> Option<usize> {
    let weights = &subnet.seat.as_ref()?.weights;
    let paid = weights.iter().filter(|(uid, value)| **value > 0 && Some(**uid) != vector.burn_uid).count();
    (vector.burns_everything() && paid > 0).then_some(paid)
}

impl Way {
    /// The name of the call.
    pub fn call(self) -> &'static str {
        match self {
            Self::Set => "set_weights",
            Self::Commit { .. } => "commit_timelocked_mechanism_weights",
        }
    }

    fn to_json(self) -> Value {
        match self {
            Self::Set => json!({ "name": self.call() }),
            Self::Commit { version, round, block } => json!({
                "name": self.call(), "version": version, "reveal_round": round, "reveal_block": block,
            }),
        }
    }
}

fn way(subnet: &Subnet, now: Duration) -> Result<Way, NoEpochs> {
    let Some(reveal) = &subnet.rules.reveal else { return Ok(Way::Set) };
    let tempo = subnet.rules.tempo;
    Ok(Way::Commit {
        version: reveal.version,
        round: reveal.round(subnet.block, tempo, now, subnet.block_time)?,
        block: reveal.block(subnet.block, tempo)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::example;

    fn plan(entries: Value, before: &[(u16, u16)], burns: Burns) -> Plan {
        let mut subnet = example::subnet(1000, &[("owner", 0), ("ann", 0), ("validator", 0)]);
        subnet.seat.as_mut().unwrap().weights = before.iter().copied().collect();
        let document = Document::parse(json!({ "block": 990, "entries": entries }).to_string().as_bytes()).unwrap();
        let demands = Demands { netuid: 7, signers: Vec::new(), max_age: 300 };
        let terms = Terms { demands, burn_uid: None, version_key: 0, burns };
        Plan::make(&document, subnet, "validator", &terms, DateTime::from_timestamp(1_700_000_000, 0).unwrap()).unwrap()
    }

    #[test]
    fn a_vector_that_suddenly_burns_everything_is_refused_until_told_otherwise() {
        let burn = json!([{ "uid": 0, "hotkey": null, "weight": 1.0 }]);
        let gone = json!([{ "uid": 1, "hotkey": "somebody-gone", "weight": 1.0 }]);
        let paid = json!([{ "uid": 1, "hotkey": "ann", "weight": 0.1 }, { "uid": 0, "hotkey": null, "weight": 0.9 }]);
        let sudden = |entries: &Value, before: &[(u16, u16)]| plan(entries.clone(), before, Burns::Refused).sudden_burn;
        assert_eq!((sudden(&burn, &[(0, 9), (1, 9)]), sudden(&gone, &[(1, 9)])), (Some(1), Some(1)));
        assert_eq!(sudden(&burn, &[(0, 9), (1, 0)]), None, "the last one burnt everything, too");
        assert_eq!((sudden(&burn, &[]), sudden(&paid, &[(1, 9)])), (None, None), "the first one, and one that pays");
        assert_eq!(plan(burn, &[(1, 9)], Burns::Accepted).sudden_burn, None);
    }
}
