//! Everybody whom the last discovery saw, with what the vector that counts rests on. Pure functions of what the store knows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::documents::{Evaluated, Score, Unreadable};
use crate::cycle::{CycleId, Miner, Pin};
use crate::stage::documents::{LeftOut, Listed};
use crate::store::{Discovered, PublicationRow};

/// What a discovery says of a miner that takes part.
const OK: &str = "active";

/// What is known of a miner.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) uid: Option<u16>,
    /// `active` where it takes part, else why not; none where no discovery has seen it.
    pub(super) status: Option<String>,
    /// The same in words.
    pub(super) detail: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) first_block: Option<u64>,
    /// How it did in the vector that counts, environment by environment.
    pub(super) scores: Vec<Score>,
}

/// Everybody, and when they were evaluated.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) miners: BTreeMap<String, Known>,
    /// The block of the last discovery, where it read a chain.
    pub(super) pin: Option<Pin>,
    /// The cycle of the last discovery.
    pub(super) discovered_in: Option<CycleId>,
    /// Of the vector that counts: its cycle, its time, its block.
    pub(super) evaluated: Option<(CycleId, DateTime<Utc>, Option<u64>)>,
}

impl Roster {
    /// What follows from a discovery and a vector.
    ///
    /// # Errors
    /// [`Unreadable`] when the vector's scores cannot be read. Outputs that are none of a discovery name nobody.
    pub(super) fn of(discovered: Option<Discovered>, publication: Option<&PublicationRow>) -> Result<Self, Unreadable> {
        let found = discovered.as_ref();
        let mut roster = Self {
            discovered_in: found.map(|found| found.cycle),
            pin: found.and_then(|found| found.pin.clone()),
            ..Self::default()
        };
        for output in discovered.into_iter().flat_map(|found| found.outputs) {
            roster.take(serde_json::from_value(output).unwrap_or_default());
        }
        if let Some(row) = publication {
            roster.evaluated = Some((row.cycle, row.created_at, row.block));
            for score in Evaluated::of(row)?.entries {
                roster.add(score);
            }
        }
        Ok(roster)
    }

    fn take(&mut self, Listed { miners, left_out, .. }: Listed) {
        for LeftOut { uid, hotkey, status, detail } in left_out {
            self.miners.insert(hotkey, Known { uid, status: Some(status), detail, ..Known::default() });
        }
        for Miner { uid, hotkey, endpoint, first_block } in miners {
            let (uid, status, endpoint) = (Some(uid), Some(OK.to_owned()), Some(endpoint));
            self.miners.insert(hotkey.to_string(), Known { uid, status, endpoint, first_block, ..Known::default() });
        }
    }

    /// Who was evaluated and is gone since has no uid any more, unless no discovery is known at all.
    fn add(&mut self, score: Score) {
        let nobody_discovered = self.discovered_in.is_none();
        let known = self.miners.entry(score.hotkey.clone()).or_default();
        if nobody_discovered {
            known.uid = Some(score.uid);
        }
        known.scores.push(score);
    }
}

impl Known {
    /// Whether the last discovery saw it, or would have if there had been one.
    pub(super) fn is_current(&self) -> bool {
        self.status.is_some() || self.uid.is_some()
    }

    /// The word that says how it stands.
    pub(super) fn word(&self) -> &str {
        self.status.as_deref().unwrap_or(if self.is_current() { OK } else { "gone" })
    }

    /// The mean of its success rates; none where it was not evaluated.
    pub(super) fn mean_rate(&self) -> Option<f64> {
        let rates: f64 = self.scores.iter().map(|score| score.success_rate).sum();
        (!self.scores.is_empty()).then(|| rates / self.scores.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cycle::{Publication, PublishGuard};

    const CYCLE: &str = "01900000-0000-7000-8000-000000000001";

    fn published(hotkeys: &[(u16, &str)]) -> PublicationRow {
        let entry = |(uid, hotkey): &(u16, &str), environment: &str, rate: f64| {
            json!({ "uid": uid, "hotkey": hotkey, "environment": environment, "success_rate": rate, "interval": [0.0, 1.0],
                    "mean_return": 1.0, "episodes": 4, "successes": 2, "outcomes": {} })
        };
        let entries: Vec<_> = hotkeys.iter().flat_map(|it| [entry(it, "m/a", 0.25), entry(it, "m/b", 0.75)]).collect();
        PublicationRow {
            cycle: CYCLE.parse().unwrap(),
            sequence: 1,
            publication: Publication {
                scores: json!({ "environments": ["m/a", "m/b"], "entries": entries }).to_string(),
                weights: "{}".into(),
                digest: "d".into(),
                guard: PublishGuard::default(),
            },
            previous_digest: None,
            block: Some(7),
            created_at: DateTime::UNIX_EPOCH,
            as_of: DateTime::UNIX_EPOCH,
            held: None,
            release: None,
        }
    }

    fn discovered() -> Discovered {
        let output = json!({
            "miners": [{ "uid": 1, "hotkey": "ann", "endpoint": "http://8.8.8.8:9", "first_block": 3 }],
            "left_out": [{ "uid": 2, "hotkey": "bob", "status": "malformed", "detail": "no JSON" },
                         { "uid": null, "hotkey": "cid", "status": "unregistered" }],
        });
        Discovered {
            cycle: CYCLE.parse().unwrap(),
            at: None,
            pin: None,
            outputs: vec![output, json!("nothing of the kind")],
        }
    }

    #[test]
    fn everybody_is_listed_with_a_word_and_whoever_was_evaluated_with_a_mean() {
        let roster = Roster::of(Some(discovered()), Some(&published(&[(1, "ann"), (9, "old")]))).unwrap();
        let said: Vec<_> =
            roster.miners.iter().map(|(hotkey, it)| (hotkey.as_str(), it.uid, it.word(), it.mean_rate())).collect();
        assert_eq!(
            said,
            [
                ("ann", Some(1), "active", Some(0.5)),
                ("bob", Some(2), "malformed", None),
                ("cid", None, "unregistered", None),
                ("old", None, "gone", Some(0.5)),
            ]
        );
        assert!(!roster.miners["old"].is_current() && roster.miners["cid"].is_current());
    }

    #[test]
    fn without_a_discovery_whoever_was_evaluated_is_there() {
        let roster = Roster::of(None, Some(&published(&[(1, "ann")]))).unwrap();
        assert_eq!((roster.miners["ann"].word(), roster.miners["ann"].uid), ("active", Some(1)));
        assert!(Roster::of(None, None).unwrap().miners.is_empty());
    }
}
