//! The weights document of a backend, read: `GET /v1/weights/latest` of this program, and what the subnet's reference backend
//! answers there. Pure; it is understood here and neither believed (`trust.rs`) nor paid (`vector.rs`).
//!
//! Where the document has `entries` with hotkeys, they are what counts and uids are a hint. The reference's document has uids
//! only, in `weights` or at least in `weights_u16`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{cycle::plain_text, evidence};

/// More entries than any subnet has slots are no vector.
const MOST: usize = 65_536;
/// Fields that a digest cannot be of, or may not be, the surest first: itself and its signatures; what is told of a document
/// whenever it is asked for; what is written down beside it when it is published.
const AROUND: [&[&str]; 3] = [
    &["digest", "signature", "signatures"],
    &["status", "reason", "held_since", "metadata"],
    &["block", "block_number", "created_at", "cycle_id", "previous_digest", "sequence", "timestamp"],
];
/// The fields that make a vector, with the block it is as of where one is named; a digest is of these at least.
const CORE: [&str; 4] = ["entries", "pin", "weights", "weights_u16"];

/// What a backend says of its vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is the vector of the last cycle.
    Fresh,
    /// The backend cannot tell whether there is a newer one.
    Stale,
    /// A newer one was held back by the backend's guard; this is the last good one.
    Held,
    /// Nobody has earned anything: all of it is burnt.
    Burn,
    /// A word that this version does not know.
    Other(String),
}

/// Who is to be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payee {
    /// A hotkey, with the slot that it had.
    Hotkey {
        /// Its address.
        hotkey: String,
        /// Its slot when the vector was made.
        uid: Option<u16>,
    },
    /// Whoever had this slot when the vector was made.
    Uid(u16),
    /// Nobody.
    Burn,
}

/// What somebody is to be paid, in any unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Who.
    pub payee: Payee,
    /// How much: finite, and not negative.
    pub weight: f64,
}

/// A signature of the digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Signature {
    /// Who has signed (SS58).
    #[serde(default)]
    pub hotkey: Option<String>,
    /// 64 bytes as hexadecimal digits (sr25519), over the digest's 64 digits as text.
    pub signature: String,
}

/// A weights document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The cycle that made it.
    pub cycle: Option<String>,
    /// The subnet it is for.
    pub netuid: Option<u16>,
    /// Hash of block 0 of the chain it is for.
    pub genesis: Option<String>,
    /// The block that its cycle was pinned to.
    pub block: Option<u64>,
    /// When it was published.
    pub published_at: Option<DateTime<Utc>>,
    /// The last block at which it may be used.
    pub valid_until: Option<u64>,
    /// Its place among the documents of this backend.
    pub sequence: Option<u64>,
    /// What the backend says of it.
    pub status: Status,
    /// Why it has that status.
    pub reason: Option<String>,
    /// Who is to be paid what.
    pub shares: Vec<Share>,
    /// The digest that it names.
    pub digest: Option<String>,
    /// Digests that its content has: of all of it, and of less and less, down to the vector alone.
    pub digests: Vec<String>,
    /// Who has signed it.
    pub signatures: Vec<Signature>,
}

/// Why it is no weights document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what the backend answers is no weights document: {0}")]
pub struct Malformed(pub String);

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    cycle_id: Value,
    pin: Option<Pin>,
    netuid: Option<u16>,
    genesis: Option<String>,
    block: Option<u64>,
    block_number: Option<u64>,
    #[serde(default)]
    timestamp: Value,
    #[serde(default)]
    created_at: Value,
    valid_until_block: Option<u64>,
    sequence: Option<u64>,
    status: Option<String>,
    reason: Option<String>,
    entries: Option<Vec<Entry>>,
    weights: Option<BTreeMap<String, f64>>,
    weights_u16: Option<Sixteen>,
    digest: Option<String>,
    signature: Option<Signature>,
    #[serde(default)]
    signatures: Vec<Signature>,
}

/// The block of the chain that the vector is as of.
#[derive(Deserialize)]
struct Pin {
    genesis: String,
    netuid: u16,
    block: u64,
}

#[derive(Deserialize)]
struct Entry {
    uid: Option<u16>,
    hotkey: Option<String>,
    weight: f64,
}

#[derive(Deserialize)]
struct Sixteen {
    uids: Vec<u16>,
    values: Vec<u16>,
}

impl Document {
    /// Read a body.
    ///
    /// # Errors
    /// [`Malformed`], with the place.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let malformed = |text: String| Malformed(plain_text(&text));
        let value: Value = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        if !value.is_object() {
            return Err(malformed("it is no JSON object".into()));
        }
        let digests = digests(&value);
        let wire: Wire = serde_path_to_error::deserialize(value)
            .map_err(|error| malformed(format!("`{}`: {}", error.path(), error.inner())))?;
        let shares = wire.shares().map_err(malformed)?;
        check(&shares).map_err(malformed)?;
        let pin = wire.pin;
        Ok(Self {
            cycle: word(&wire.cycle_id),
            // What the digest covers goes first.
            netuid: pin.as_ref().map(|pin| pin.netuid).or(wire.netuid),
            block: pin.as_ref().map(|pin| pin.block).or(wire.block).or(wire.block_number),
            genesis: pin.map(|pin| pin.genesis).or(wire.genesis),
            published_at: moment(&wire.created_at).or_else(|| moment(&wire.timestamp)),
            valid_until: wire.valid_until_block,
            sequence: wire.sequence,
            status: wire.status.as_deref().map_or(Status::Fresh, Status::read),
            reason: wire.reason.as_deref().map(plain_text),
            shares,
            digest: wire.digest.map(|digest| digest.trim_start_matches("sha256:").to_ascii_lowercase()),
            digests,
            signatures: wire.signature.into_iter().chain(wire.signatures).collect(),
        })
    }
}

impl Wire {
    fn shares(&self) -> Result<Vec<Share>, String> {
        if let Some(entries) = &self.entries {
            return entries.iter().enumerate().map(|(at, entry)| entry.share(at)).collect();
        }
        if let Some(weights) = &self.weights {
            let share = |(uid, weight): (&String, &f64)| match uid.parse() {
                Ok(uid) => Ok(Share { payee: Payee::Uid(uid), weight: *weight }),
                Err(_) => Err(format!("`weights`: `{uid}` is no uid")),
            };
            return weights.iter().map(share).collect();
        }
        let Some(Sixteen { uids, values }) = &self.weights_u16 else {
            return Err("it has neither `entries` nor `weights` nor `weights_u16`".into());
        };
        if uids.len() != values.len() {
            return Err(format!("`weights_u16` has {} uids and {} values", uids.len(), values.len()));
        }
        let share = |(uid, value): (&u16, &u16)| Share { payee: Payee::Uid(*uid), weight: f64::from(*value) };
        Ok(uids.iter().zip(values).map(share).collect())
    }
}

impl Entry {
    fn share(&self, at: usize) -> Result<Share, String> {
        let payee = match (&self.hotkey, self.uid) {
            (Some(hotkey), _) if hotkey.is_empty() => return Err(format!("`entries[{at}].hotkey` is empty")),
            (Some(hotkey), uid) => Payee::Hotkey { hotkey: plain_text(hotkey), uid },
            // A slot without a hotkey was nobody's: its share is burnt on purpose.
            (None, _) => Payee::Burn,
        };
        Ok(Share { payee, weight: self.weight })
    }
}

impl Status {
    fn read(word: &str) -> Self {
        match word {
            "fresh" => Self::Fresh,
            "stale" => Self::Stale,
            "held" => Self::Held,
            "burn" => Self::Burn,
            other => Self::Other(plain_text(other)),
        }
    }

    /// The word for it.
    pub fn word(&self) -> &str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Held => "held",
            Self::Burn => "burn",
            Self::Other(word) => word,
        }
    }
}

/// Weights that can be paid: finite, not negative, not all zero, each payee once.
fn check(shares: &[Share]) -> Result<(), String> {
    if shares.len() > MOST {
        return Err(format!("it pays {} at once", shares.len()));
    }
    let mut seen = BTreeSet::new();
    for Share { payee, weight } in shares {
        let who = match payee {
            Payee::Hotkey { hotkey, .. } => format!("`{hotkey}`"),
            Payee::Uid(uid) => format!("uid {uid}"),
            Payee::Burn => "a share without a hotkey".into(),
        };
        if !weight.is_finite() || *weight < 0.0 {
            return Err(format!("the weight of {who} is {weight}, and not finite and at least 0"));
        }
        if *payee != Payee::Burn && !seen.insert(who.clone()) {
            return Err(format!("{who} is paid twice"));
        }
    }
    let sum = shares.iter().fold(0.0, |sum, share| sum + share.weight);
    if sum > 0.0 && sum.is_finite() { Ok(()) } else { Err(format!("its weights add up to {sum}")) }
}

/// Which fields a backend's digest is of is the backend's choice; each of these is a digest of what it pays.
fn digests(value: &Value) -> Vec<String> {
    let of = |is_part: &dyn Fn(&str) -> bool| {
        let fields = value.as_object().into_iter().flatten().filter(|(name, _)| is_part(name));
        evidence::digest(&fields.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    let mut digests: Vec<String> =
        (1..=AROUND.len()).map(|most| of(&|name| !AROUND[..most].concat().contains(&name))).collect();
    digests.push(of(&|name| CORE.contains(&name)));
    digests
}

/// A name that may have been written as a number.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(plain_text(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A moment: RFC 3339, the same without a zone (UTC), or seconds since 1970.
fn moment(value: &Value) -> Option<DateTime<Utc>> {
    if let Some(seconds) = value.as_f64() {
        return DateTime::from_timestamp_millis((seconds * 1000.0) as i64);
    }
    let text = value.as_str()?;
    let with_zone = DateTime::parse_from_rfc3339(text).map(|moment| moment.to_utc());
    with_zone.ok().or_else(|| Some(text.parse::<chrono::NaiveDateTime>().ok()?.and_utc()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(value: &Value) -> Result<Document, String> {
        Document::parse(value.to_string().as_bytes()).map_err(|Malformed(reason)| reason)
    }

    #[test]
    fn hotkeys_come_before_uids() {
        let document = parsed(&json!({
            "cycle_id": "c1", "block": 77, "netuid": 7, "valid_until_block": 900, "status": "held", "reason": "coverage",
            "entries": [
                {"uid": 1, "hotkey": "ann", "weight": 0.75, "weight_u16": 49151},
                {"hotkey": "bob", "weight": 0.25}, {"uid": 0, "hotkey": null, "weight": 0.0},
            ],
            "weights": {"1": 0.1, "2": 0.9},
        }))
        .unwrap();
        let payees: Vec<&Payee> = document.shares.iter().map(|share| &share.payee).collect();
        assert_eq!(payees[0], &Payee::Hotkey { hotkey: "ann".into(), uid: Some(1) });
        assert_eq!(payees[1], &Payee::Hotkey { hotkey: "bob".into(), uid: None });
        assert_eq!((payees[2], document.status.word()), (&Payee::Burn, "held"));
        assert_eq!((document.netuid, document.block, document.valid_until), (Some(7), Some(77), Some(900)));
    }

    #[test]
    fn the_references_document_is_read() {
        let reference = json!({
            "cycle_id": 12, "block_number": 4_000_000, "timestamp": "2026-01-05T10:00:00.123456",
            "weights": {"3": 0.6, "10": 0.4}, "weights_u16": {"uids": [3, 10], "values": [39320, 26214]},
            "metadata": {"n_miners_evaluated": 2, "n_environments": 3, "evaluation_duration_seconds": 60.5},
        });
        let document = parsed(&reference).unwrap();
        assert_eq!((document.cycle.as_deref(), document.block), (Some("12"), Some(4_000_000)));
        assert_eq!(document.published_at.unwrap().timestamp(), 1_767_607_200);
        let mut uids: Vec<(Payee, f64)> = document.shares.into_iter().map(|it| (it.payee, it.weight)).collect();
        uids.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert_eq!(uids, [(Payee::Uid(10), 0.4), (Payee::Uid(3), 0.6)]);
        let sixteen = parsed(&json!({"weights_u16": {"uids": [3, 10], "values": [2, 1]}})).unwrap();
        assert_eq!(sixteen.shares[0], Share { payee: Payee::Uid(3), weight: 2.0 });
    }

    #[test]
    fn what_is_no_document_is_refused_with_the_place() {
        let refused = |value: Value| parsed(&value).unwrap_err();
        assert!(refused(json!([1])).contains("no JSON object"));
        assert!(refused(json!({})).contains("neither `entries`"));
        assert!(refused(json!({"detail": "not found"})).contains("neither `entries`"));
        assert!(refused(json!({"weights": {"x": 1}})).contains("`x` is no uid"));
        assert!(refused(json!({"weights": {"1": -1}})).contains("uid 1 is -1"));
        assert!(refused(json!({"weights": {"1": 0.0}})).contains("add up to 0"));
        assert!(
            refused(json!({"entries": [{"uid": 1, "hotkey": "a", "weight": "1"}]})).contains("`entries[0].weight`")
        );
        let twice = json!({"entries": [{"hotkey": "a", "weight": 1}, {"uid": 2, "hotkey": "a", "weight": 1}]});
        assert!(refused(twice).contains("`a` is paid twice"));
        assert!(refused(json!({"weights_u16": {"uids": [1], "values": []}})).contains("1 uids and 0 values"));
        assert!(Document::parse(b"<html>").is_err());
    }

    #[test]
    fn the_block_of_a_vector_is_part_of_what_its_digest_covers() {
        let vector = json!({
            "entries": [{"uid": 1, "hotkey": "a", "weight": 1.0}],
            "pin": {"genesis": "0x01", "netuid": 7, "block": 90, "hash": "0x02"},
        });
        let mut served = vector.clone();
        (served["block"], served["netuid"], served["status"]) = (json!(91), json!(8), json!("fresh"));
        (served["valid_until_block"], served["digest"]) = (json!(99), json!(evidence::digest(&vector)));
        let document = parsed(&served).unwrap();
        assert!(document.digests.contains(&document.digest.clone().unwrap()));
        assert_eq!((document.netuid, document.block, document.genesis.as_deref()), (Some(7), Some(90), Some("0x01")));
        served["pin"]["block"] = json!(95);
        let changed = parsed(&served).unwrap();
        assert!(!changed.digests.contains(&changed.digest.clone().unwrap()));
    }

    #[test]
    fn a_digest_is_of_the_vector_and_of_as_much_more_as_the_backend_says() {
        let vector = json!({"entries": [{"uid": 1, "hotkey": "a", "weight": 1.0}]});
        let mut wider = vector.clone();
        wider["netuid"] = json!(7);
        let mut widest = wider.clone();
        widest["block"] = json!(5);
        let mut served = widest.clone();
        (served["status"], served["signatures"]) = (json!("stale"), json!([]));
        for published in [&vector, &wider, &widest, &served] {
            let digest = evidence::digest(published);
            let mut served = served.clone();
            served["digest"] = json!(format!("sha256:{digest}"));
            let is_known = parsed(&served).unwrap().digests.contains(&digest);
            // Signatures are of the digest, so it cannot be of them.
            assert_eq!(is_known, published.get("signatures").is_none(), "{published}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), text in r#"[\[\]{}",:a-z0-9.]{0,200}"#) {
            let _ = Document::parse(&bytes);
            let _ = Document::parse(text.as_bytes());
        }
    }
}
