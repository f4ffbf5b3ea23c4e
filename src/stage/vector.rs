//! The weight vector on its last steps: whoever made it, what is published is complete, normalised and pays only known
//! miners.
//!
//! A stage of an operator's own need not build the document: a list of `{uid, hotkey, weight}` or a mapping from hotkey to
//! weight is enough, in any unit. What `scores/weights` made passes as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::documents::{WeightEntry, WeightsDocument};
use super::outputs::read;
use crate::cycle::Hotkey;
use crate::scoring::{self, Weights};

/// How far the weights of a document may be from adding up to 1.
const ROUNDING: f64 = 1e-9;

/// Weights as they may be given.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    /// The document itself.
    Document(WeightsDocument),
    /// Shares that are still to be normalised.
    Shares(Vec<Share>),
}

/// What one miner gets, in any unit. The miner is known by uid, by hotkey, or by both.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    #[serde(default)]
    uid: Option<u16>,
    /// `Some(None)` is a written `null`: the share is burnt by a uid that is no miner.
    #[serde(default, deserialize_with = "written")]
    hotkey: Option<Option<Hotkey>>,
    weight: f64,
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Hotkey>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Weights in any of their forms, each of them finite and not negative, and not all of them zero.
///
/// # Errors
/// What is wrong with them, with the path.
pub(super) fn parse(value: &Value) -> Result<Given, String> {
    let given = match value {
        Value::Object(fields) if fields.get("entries").is_some_and(Value::is_array) => Given::Document(read(value)?),
        Value::Object(_) => {
            let shares: BTreeMap<Hotkey, f64> = read(value)?;
            let share = |(hotkey, weight)| Share { uid: None, hotkey: Some(Some(hotkey)), weight };
            Given::Shares(shares.into_iter().map(share).collect())
        }
        _ => Given::Shares(read(value)?),
    };
    match &given {
        Given::Document(document) => check_document(document)?,
        Given::Shares(shares) => check_shares(shares)?,
    }
    Ok(given)
}

/// The document that is published, which pays nobody but these miners and uids that nobody has.
///
/// # Errors
/// Who is not known, or is named twice.
pub(super) fn resolve(given: Given, miners: &BTreeMap<u16, Hotkey>) -> Result<WeightsDocument, String> {
    let shares = match given {
        Given::Document(document) => {
            for entry in &document.entries {
                who(Some(entry.uid), Some(entry.hotkey.as_ref()), miners)?;
            }
            return Ok(document);
        }
        Given::Shares(shares) => shares,
    };
    let mut by_uid = BTreeMap::new();
    for share in &shares {
        let uid = who(share.uid, share.hotkey.as_ref().map(Option::as_ref), miners)?;
        if by_uid.insert(uid, share.weight).is_some() {
            return Err(format!("uid {uid} has two weights"));
        }
    }
    let Weights { weights, weights_u16 } =
        scoring::normalise(&by_uid).ok_or("the weights cannot be normalised: they add up to nothing")?;
    let entries = weights
        .iter()
        .zip(&weights_u16.values)
        .map(|((&uid, &weight), &weight_u16)| WeightEntry {
            uid,
            hotkey: miners.get(&uid).cloned(),
            weight,
            weight_u16,
        })
        .collect();
    Ok(WeightsDocument { pin: None, entries, weights, weights_u16 })
}

/// The uid that is meant.
fn who(uid: Option<u16>, hotkey: Option<Option<&Hotkey>>, miners: &BTreeMap<u16, Hotkey>) -> Result<u16, String> {
    match (uid, hotkey) {
        (None, Some(Some(hotkey))) => miners
            .iter()
            .find(|(_, known)| *known == hotkey)
            .map(|(uid, _)| *uid)
            .ok_or_else(|| format!("`{hotkey}` is none of the miners that were scored")),
        (Some(uid), Some(Some(hotkey))) => match miners.get(&uid) {
            Some(known) if known == hotkey => Ok(uid),
            Some(known) => Err(format!("uid {uid} is `{known}`, not `{hotkey}`")),
            None => Err(format!("`{hotkey}` with uid {uid} is none of the miners that were scored")),
        },
        (Some(uid), Some(None)) => match miners.get(&uid) {
            None => Ok(uid),
            Some(known) => Err(format!("uid {uid} cannot burn its share: it is `{known}`")),
        },
        (Some(uid), None) => miners.get(&uid).map(|_| uid).ok_or_else(|| {
            format!("uid {uid} is none of the miners that were scored; to burn its share, say `hotkey: null`")
        }),
        (None, _) => Err("an entry has neither `uid` nor `hotkey`".into()),
    }
}

fn check_shares(shares: &[Share]) -> Result<(), String> {
    for (index, share) in shares.iter().enumerate() {
        let path = match (&share.uid, &share.hotkey) {
            (None, Some(Some(hotkey))) => format!("`{hotkey}`"),
            _ => format!("`[{index}].weight`"),
        };
        if !(share.weight.is_finite() && share.weight >= 0.0) {
            return Err(format!("{path} is {}, and a weight is finite and not negative", share.weight));
        }
        if share.uid.is_none() && !matches!(share.hotkey, Some(Some(_))) {
            return Err(format!("`[{index}]` has neither `uid` nor `hotkey`"));
        }
    }
    // The sum of nothing would be -0.
    match shares.iter().fold(0.0, |sum, share| sum + share.weight) {
        sum if sum > 0.0 && sum.is_finite() => Ok(()),
        sum => Err(format!("the weights add up to {sum}, which cannot be normalised")),
    }
}

fn check_document(document: &WeightsDocument) -> Result<(), String> {
    let uids: BTreeSet<u16> = document.entries.iter().map(|entry| entry.uid).collect();
    let in_order = document.entries.iter().map(|entry| entry.uid).eq(uids);
    if !in_order {
        return Err("`entries` are not sorted by uid, each once".into());
    }
    if let Some(entry) = document.entries.iter().find(|entry| !(0.0..=1.0).contains(&entry.weight)) {
        return Err(format!("the weight of uid {} is {}, and not from 0 to 1", entry.uid, entry.weight));
    }
    let weights: BTreeMap<u16, f64> = document.entries.iter().map(|entry| (entry.uid, entry.weight)).collect();
    let sum: f64 = weights.values().sum();
    if (sum - 1.0).abs() > ROUNDING {
        return Err(format!("the weights of `entries` add up to {sum} and not to 1"));
    }
    if weights != document.weights {
        return Err("`weights` and `entries` differ".into());
    }
    let u16s: Vec<u16> = document.entries.iter().map(|entry| entry.weight_u16).collect();
    if scoring::quantise(&weights) != document.weights_u16 || u16s != document.weights_u16.values {
        return Err("`weights_u16` and `entries` differ".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn miners() -> BTreeMap<u16, Hotkey> {
        [(1, "a"), (2, "b")].into_iter().map(|(uid, hotkey)| (uid, hotkey.parse().unwrap())).collect()
    }

    fn resolved(value: Value) -> Result<WeightsDocument, String> {
        resolve(parse(&value)?, &miners())
    }

    #[test]
    fn every_form_becomes_the_same_document() {
        let document = resolved(json!([{"uid": 2, "weight": 3}, {"hotkey": "a", "weight": 1.0}])).unwrap();
        assert_eq!(document.weights, BTreeMap::from([(1, 0.25), (2, 0.75)]));
        assert_eq!(document.weights_u16.values, [16383, 49151]);
        assert_eq!(document.entries[1].hotkey.as_ref().unwrap().as_str(), "b");
        assert_eq!(resolved(json!({"b": 30, "a": 10})).unwrap(), document);
        assert_eq!(
            resolved(json!([{"uid": 1, "hotkey": "a", "weight": 2}, {"uid": 2, "weight": 6}])).unwrap(),
            document
        );
        assert_eq!(resolved(json!(document)).unwrap(), document);
    }

    #[test]
    fn a_share_can_be_burnt_on_purpose_only() {
        let burnt = resolved(json!([{"uid": 0, "hotkey": null, "weight": 1}, {"uid": 1, "weight": 1}])).unwrap();
        assert_eq!((burnt.entries[0].uid, &burnt.entries[0].hotkey, burnt.entries[0].weight), (0, &None, 0.5));
        assert!(resolved(json!([{"uid": 0, "weight": 1}])).unwrap_err().contains("say `hotkey: null`"));
        assert!(resolved(json!([{"uid": 1, "hotkey": null, "weight": 1}])).unwrap_err().contains("it is `a`"));
    }

    #[test]
    fn nobody_else_is_paid() {
        let error = |value: Value| resolved(value).unwrap_err();
        assert!(error(json!({"c": 1})).contains("`c` is none of the miners"));
        assert!(error(json!([{"uid": 1, "hotkey": "b", "weight": 1}])).contains("uid 1 is `a`, not `b`"));
        assert!(error(json!([{"uid": 7, "hotkey": "b", "weight": 1}])).contains("`b` with uid 7"));
        assert!(error(json!([{"uid": 1, "weight": 1}, {"hotkey": "a", "weight": 1}])).contains("two weights"));
        let mut document = json!(resolved(json!({"a": 1, "b": 1})).unwrap());
        document["entries"][1]["hotkey"] = json!("stranger");
        assert!(error(document).contains("uid 2 is `b`, not `stranger`"));
    }

    #[test]
    fn numbers_that_make_no_vector() {
        let error = |value: Value| parse(&value).unwrap_err();
        assert!(error(json!({"a": -1})).contains("`a` is -1"));
        assert!(error(json!([{"uid": 1, "weight": -1}])).contains("`[0].weight` is -1"));
        assert!(error(json!([{"uid": 1, "weight": "x"}])).contains("`[0].weight`"));
        assert!(error(json!([])).contains("add up to 0"));
        assert!(error(json!({"a": 0, "b": 0.0})).contains("add up to 0"));
        assert!(error(json!({"a": 1e308, "b": 1e308})).contains("add up to inf"));
        assert!(error(json!([{"weight": 1}])).contains("neither"));
        assert!(error(json!(3)).contains("invalid type"));
        let good = json!(resolved(json!({"a": 1, "b": 1})).unwrap());
        let broken = |path: &str, value: Value| {
            let mut document = good.clone();
            *document.pointer_mut(path).unwrap() = value;
            error(document)
        };
        assert!(broken("/entries/0/weight", json!(0.4)).contains("add up to 0.9"));
        assert!(broken("/entries/0/weight", json!(-0.5)).contains("from 0 to 1"));
        assert!(broken("/weights/1", json!(0.4)).contains("`weights` and `entries` differ"));
        assert!(broken("/weights_u16/values/0", json!(1)).contains("`weights_u16`"));
        assert!(broken("/entries/1/uid", json!(1)).contains("sorted by uid"));
    }
}
