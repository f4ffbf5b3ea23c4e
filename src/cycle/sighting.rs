//! How a miner was found before its episodes: there or not, where, and as whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EnvironmentId, Hotkey};

/// How a miner was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerStatus {
    /// It answers.
    Active,
    /// Something takes connections there, and was not ready in the time that the pipeline grants it.
    Cold,
    /// Nothing took a connection there in that time.
    Unreachable,
    /// Its endpoint may not be called.
    Refused,
}

impl MinerStatus {
    /// The word stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Cold => "cold",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }

    /// The status that a word names, if it names one.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Cold, Self::Unreachable, Self::Refused].into_iter().find(|status| status.word() == word)
    }
}

/// What was seen of a miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// How it was found.
    pub status: MinerStatus,
    /// Why it is not active, for the miner to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The address that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// SHA-256 of the certificate it showed, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What it says its model is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Seen {
    /// Nothing but a status.
    pub fn new(status: MinerStatus) -> Self {
        Self { status, detail: None, address: None, certificate: None, model: None }
    }
}

/// What was seen of a miner before and during its episodes in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The environment.
    pub environment: EnvironmentId,
    /// The miner.
    pub hotkey: Hotkey,
    /// What was seen.
    pub seen: Seen,
}

/// A miner that did not stay what it was within a cycle. No fault: shown, so that a person can ask why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `address_changed`, `certificate_changed` or `model_changed`.
    pub flag: &'static str,
    /// What was seen, in the order it was seen.
    pub seen: Vec<String>,
}

/// What changed of each miner in the course of a cycle, given everything that was seen of it, oldest first.
pub fn changes(sightings: &[Sighting]) -> BTreeMap<Hotkey, Vec<Change>> {
    type Field = fn(&Seen) -> Option<&String>;
    let fields: [(&'static str, Field); 3] = [
        ("address_changed", |seen| seen.address.as_ref()),
        ("certificate_changed", |seen| seen.certificate.as_ref()),
        ("model_changed", |seen| seen.model.as_ref()),
    ];
    let mut changes: BTreeMap<Hotkey, Vec<Change>> = BTreeMap::new();
    for (flag, field) in fields {
        let mut values: BTreeMap<&Hotkey, Vec<&String>> = BTreeMap::new();
        for Sighting { hotkey, seen, .. } in sightings {
            if let Some(value) = field(seen) {
                let known = values.entry(hotkey).or_default();
                if !known.contains(&value) {
                    known.push(value);
                }
            }
        }
        for (hotkey, seen) in values.into_iter().filter(|(_, seen)| seen.len() > 1) {
            let seen = seen.into_iter().cloned().collect();
            changes.entry(hotkey.clone()).or_default().push(Change { flag, seen });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(hotkey: &str, address: &str, model: Option<&str>) -> Sighting {
        let seen = Seen {
            address: Some(address.to_owned()),
            model: model.map(str::to_owned),
            ..Seen::new(MinerStatus::Active)
        };
        Sighting { environment: "a/b".parse().unwrap(), hotkey: hotkey.parse().unwrap(), seen }
    }

    #[test]
    fn only_what_changed_is_told() {
        let sightings = [
            sighting("moved", "8.8.8.8", Some("x")),
            sighting("stayed", "1.1.1.1", None),
            sighting("moved", "8.8.4.4", None),
            sighting("stayed", "1.1.1.1", Some("y")),
            sighting("moved", "8.8.8.8", Some("x")),
        ];
        let found = changes(&sightings);
        assert_eq!(found.len(), 1);
        let moved = Change { flag: "address_changed", seen: vec!["8.8.8.8".into(), "8.8.4.4".into()] };
        assert_eq!(found[&"moved".parse().unwrap()], [moved]);
    }

    #[test]
    fn words_round_trip() {
        for word in ["active", "cold", "unreachable", "refused"] {
            assert_eq!(MinerStatus::from_word(word).unwrap().word(), word);
        }
        assert_eq!(MinerStatus::from_word("warm"), None);
    }
}
