//! Whether the weights that validators are given are as they should be, in one word and a reason. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::documents::{Unreadable, weight_entries};
use crate::store::{PublicationRow, Standing};

/// Seconds from one block of the chain to the next.
pub(super) const BLOCK_SECONDS: i64 = 12;

/// For how many blocks a vector counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity(pub u32);

impl Default for Validity {
    /// Two tempos of 360 blocks.
    fn default() -> Self {
        Self(720)
    }
}

impl Validity {
    fn time(self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.0) * BLOCK_SECONDS)
    }

    /// The last block in which a vector of `block` counts.
    pub fn until(self, block: u64) -> u64 {
        block + u64::from(self.0)
    }
}

/// Whether the database answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// It does.
    Answers,
    /// It does not: what is shown is what it said last.
    Away,
}

/// How the weights that validators are given stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// As they should be.
    Fresh,
    /// Perhaps no longer what they would be, and why.
    Stale(String),
    /// Those of an earlier cycle, and why the newer ones are held back.
    Held(String),
    /// Nobody is paid, and why.
    Burn(String),
}

impl Status {
    /// The word clients read.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale(_) => "stale",
            Self::Held(_) => "held",
            Self::Burn(_) => "burn",
        }
    }

    /// Why they are not fresh.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Fresh => None,
            Self::Stale(reason) | Self::Held(reason) | Self::Burn(reason) => Some(reason),
        }
    }

    /// How the vector that counts stands at `now`. What keeps a validator from using it comes first. Its age counts from its
    /// block on, as its last valid block does, however long its cycle took.
    ///
    /// # Errors
    /// [`Unreadable`] when the vector cannot be read.
    pub fn of(
        (latest, held): (&PublicationRow, Option<&PublicationRow>),
        now: DateTime<Utc>,
        (validity, database): (Validity, Database),
    ) -> Result<Self, Unreadable> {
        let why_held = |row: &PublicationRow| {
            let reason = row.held.clone().unwrap_or_default();
            format!("the vector of cycle {} is held back: {reason}", row.cycle)
        };
        if database == Database::Away {
            return Ok(Self::Stale("the database does not answer; this is what it said last".into()));
        }
        if now - latest.as_of > validity.time() {
            let mut reason = format!("it is older than {} blocks", validity.0);
            if let Some(held) = held {
                reason = format!("{reason}, and {}", why_held(held));
            }
            return Ok(Self::Stale(reason));
        }
        if let Some(held) = held {
            return Ok(Self::Held(why_held(held)));
        }
        let paid = weight_entries(latest)?.into_iter().filter(|entry| entry.weight > 0.0);
        Ok(match paid.filter(|entry| entry.hotkey.is_some()).count() {
            0 => Self::Burn("no miner has earned anything in this cycle".into()),
            _ => Self::Fresh,
        })
    }
}

/// The same of what the store knows, where there is a vector.
///
/// # Errors
/// [`Unreadable`].
pub fn of(standing: &Standing, now: DateTime<Utc>, validity: Validity) -> Result<Option<Status>, Unreadable> {
    let Some(latest) = &standing.latest else { return Ok(None) };
    Status::of((latest, standing.held.as_ref()), now, (validity, Database::Answers)).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cycle::{Publication, PublishGuard};

    const WELL: (Validity, Database) = (Validity(10), Database::Answers);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn row(hotkey: Option<&str>, held: Option<&str>) -> PublicationRow {
        let weights = json!({ "entries": [
            {"uid": 1, "hotkey": hotkey, "weight": 1.0, "weight_u16": 65535},
            {"uid": 2, "hotkey": "idle", "weight": 0.0, "weight_u16": 0},
        ] });
        PublicationRow {
            cycle: "01900000-0000-7000-8000-000000000001".parse().unwrap(),
            sequence: 1,
            publication: Publication {
                scores: "{}".into(),
                weights: weights.to_string(),
                digest: "d".into(),
                guard: PublishGuard::default(),
            },
            previous_digest: None,
            block: Some(77),
            created_at: at(60),
            as_of: at(0),
            held: held.map(str::to_owned),
            release: None,
        }
    }

    #[test]
    fn a_word_for_every_state() {
        let (paid, burnt, held) = (row(Some("ann"), None), row(None, None), row(Some("bob"), Some("too few episodes")));
        let of = |latest, held, seconds, with| Status::of((latest, held), at(seconds), with).unwrap();
        assert_eq!(of(&paid, None, 120, WELL), Status::Fresh);
        assert_eq!(of(&burnt, None, 0, WELL).word(), "burn");
        assert_eq!(of(&paid, None, 121, WELL), Status::Stale("it is older than 10 blocks".into()));
        let held_back = of(&paid, Some(&held), 0, WELL);
        assert_eq!(held_back.word(), "held");
        assert!(held_back.reason().unwrap().ends_with("is held back: too few episodes"), "{held_back:?}");
        let old = of(&paid, Some(&held), 121, WELL);
        assert!(old.word() == "stale" && old.reason().unwrap().contains("too few episodes"), "{old:?}");
        assert_eq!(of(&paid, Some(&held), 0, (Validity(10), Database::Away)).word(), "stale");
    }

    #[test]
    fn a_vector_counts_for_so_many_blocks() {
        assert_eq!(Validity::default().until(100), 820);
    }
}
