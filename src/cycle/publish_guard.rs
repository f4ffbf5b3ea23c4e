//! When a vector is not given to validators although its cycle has completed: too little was measured, too much of it was
//! lost by us, or it is too far from the last one. Pure; what is compared is read in the transaction that publishes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits within which a vector is given to validators at once. One outside of them is held until a person releases it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishGuard {
    /// Least share of the planned episodes that must have a scored outcome, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// Largest share of all attempts at episodes that may have been lost to our own faults, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_faults: Option<f64>,
    /// Largest L1 distance from the last vector that was given out, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<f64>,
    /// Largest share of miners without a single answered call, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<f64>,
    /// Least share of miners that must have answered for a vector that burns everything, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<f64>,
}

/// How many of a cycle's miners were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turnout {
    /// Miners with planned episodes.
    pub miners: u64,
    /// Those that answered at least one call.
    pub answered: u64,
}

/// What a guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts {
    /// How the episodes went.
    pub course: Course,
    /// How many miners were there.
    pub turnout: Turnout,
    /// The vector's distance from the last one given out, where there is one.
    pub jump: Option<f64>,
    /// Share of the vector that nobody is paid.
    pub burnt: f64,
}

/// How a cycle's episodes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Course {
    /// Episodes that were planned.
    pub planned: u64,
    /// Those with a scored outcome.
    pub scored: u64,
    /// Attempts that our own faults cost.
    pub lost: u64,
}

/// A vector by whom it pays: hotkeys, and `None` for what is burnt. Slots change hands, hotkeys do not.
pub type Shares = BTreeMap<Option<String>, f64>;

/// The shares of a published weights document.
///
/// # Errors
/// What serde says when it is no such document.
pub fn shares(weights: &str) -> Result<Shares, serde_json::Error> {
    #[derive(Deserialize)]
    struct Document {
        entries: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        hotkey: Option<String>,
        weight: f64,
    }
    let document: Document = serde_json::from_str(weights)?;
    let mut shares = Shares::new();
    for entry in document.entries {
        *shares.entry(entry.hotkey).or_default() += entry.weight;
    }
    Ok(shares)
}

/// The share of a vector that nobody is paid.
pub fn burnt(shares: &Shares) -> f64 {
    let sum: f64 = shares.values().sum();
    let burnt = shares.get(&None).copied().unwrap_or_default();
    if sum > 0.0 { burnt / sum } else { 0.0 }
}

/// The L1 distance of two vectors: 0 when they pay the same, 2 when nobody is paid by both.
pub fn distance(one: &Shares, other: &Shares) -> f64 {
    let of = |shares: &Shares, who| shares.get(who).copied().unwrap_or_default();
    let either: std::collections::BTreeSet<&Option<String>> = one.keys().chain(other.keys()).collect();
    either.into_iter().map(|who| (of(one, who) - of(other, who)).abs()).sum()
}

impl PublishGuard {
    /// What holds where strangers play, for what a pipeline leaves out: a cycle that could not reach half of its miners shows
    /// our network rather than theirs.
    pub const AMONG_STRANGERS: Self =
        Self { coverage: None, infra_faults: None, jump: None, unreachable: Some(0.5), answered: Some(0.5) };

    /// Whether each limit is one that can be kept and broken.
    ///
    /// # Errors
    /// What is wrong with the first that is not.
    pub fn check(&self) -> Result<(), String> {
        let limits = [
            ("coverage", self.coverage, 1.0),
            ("infra_faults", self.infra_faults, 1.0),
            ("jump", self.jump, 2.0),
            ("unreachable", self.unreachable, 1.0),
            ("answered", self.answered, 1.0),
        ];
        for (name, limit, most) in limits {
            if let Some(limit) = limit.filter(|limit| !(0.0..=most).contains(limit)) {
                return Err(format!("`{name}` is {limit}, and must be between 0 and {most}"));
            }
        }
        Ok(())
    }

    /// Why a vector is held, if it is.
    pub fn objection(&self, facts: &Facts) -> Option<String> {
        let Facts { course, turnout, jump, burnt } = *facts;
        let mut reasons = Vec::new();
        let coverage = share(course.scored, course.planned);
        if let (Some(least), Some(coverage)) = (self.coverage, coverage)
            && coverage < least
        {
            let Course { planned, scored, .. } = course;
            reasons.push(format!("only {scored} of {planned} episodes are scored ({coverage:.3}, at least {least})"));
        }
        let faults = share(course.lost, course.lost + course.scored);
        if let (Some(most), Some(faults)) = (self.infra_faults, faults)
            && faults > most
        {
            let (lost, all) = (course.lost, course.lost + course.scored);
            reasons.push(format!("{lost} of {all} attempts were lost to faults of ours ({faults:.3}, at most {most})"));
        }
        if let (Some(most), Some(jump)) = (self.jump, jump)
            && jump > most
        {
            reasons.push(format!("it is {jump:.3} away from the last vector (L1 distance, at most {most})"));
        }
        reasons.extend(self.absences(turnout, burnt));
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// Less of a vector than this is paid to nobody in particular.
const NOTHING: f64 = 1e-9;

impl PublishGuard {
    /// Why a vector is held because miners were not there.
    fn absences(&self, turnout: Turnout, burnt: f64) -> Option<String> {
        let Turnout { miners, answered } = turnout;
        let absent = miners.saturating_sub(answered);
        let unreachable = share(absent, miners)?;
        if let Some(most) = self.unreachable.filter(|most| unreachable > *most) {
            return Some(format!(
                "{absent} of {miners} miners answered no call at all ({unreachable:.3}, at most {most}): our network may have failed"
            ));
        }
        let present = share(answered, miners)?;
        let least = self.answered.filter(|least| burnt >= 1.0 - NOTHING && present < *least)?;
        Some(format!(
            "it burns everything, and only {answered} of {miners} miners answered a call ({present:.3}, at least {least})"
        ))
    }
}

/// None of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GUARD: PublishGuard = PublishGuard {
        coverage: Some(0.9),
        infra_faults: Some(0.25),
        jump: Some(0.5),
        unreachable: Some(0.4),
        answered: Some(0.8),
    };

    fn course(planned: u64, scored: u64, lost: u64) -> Course {
        Course { planned, scored, lost }
    }

    fn facts(course: Course, jump: Option<f64>) -> Facts {
        Facts { course, jump, ..Facts::default() }
    }

    #[test]
    fn each_limit_holds_and_says_why() {
        assert_eq!(GUARD.objection(&facts(course(10, 9, 3), Some(0.5))), None, "limits are within");
        let because = |course, jump| GUARD.objection(&facts(course, jump)).unwrap();
        assert_eq!(because(course(10, 8, 0), None), "only 8 of 10 episodes are scored (0.800, at least 0.9)");
        assert_eq!(
            because(course(10, 10, 4), None),
            "4 of 14 attempts were lost to faults of ours (0.286, at most 0.25)"
        );
        assert_eq!(
            because(course(0, 0, 0), Some(0.51)),
            "it is 0.510 away from the last vector (L1 distance, at most 0.5)"
        );
        assert_eq!(because(course(10, 1, 9), Some(2.0)).matches("; ").count(), 2);
    }

    #[test]
    fn a_cycle_that_reached_too_few_miners_is_held() {
        let held = |answered, burnt| {
            let turnout = Turnout { miners: 10, answered };
            GUARD.objection(&Facts { course: course(10, 10, 0), turnout, jump: None, burnt })
        };
        assert_eq!(held(6, 0.0), None, "limits are within");
        assert_eq!(
            held(5, 0.0).unwrap(),
            "5 of 10 miners answered no call at all (0.500, at most 0.4): our network may have failed"
        );
        assert_eq!(
            held(7, 1.0).unwrap(),
            "it burns everything, and only 7 of 10 miners answered a call (0.700, at least 0.8)"
        );
        assert_eq!((held(7, 0.9), held(8, 1.0)), (None, None), "some of it is paid, or enough have answered");
    }

    #[test]
    fn what_is_not_limited_or_not_known_holds_nothing() {
        let turnout = Turnout { miners: 10, answered: 0 };
        let worst = Facts { turnout, burnt: 1.0, ..facts(course(10, 0, 50), Some(2.0)) };
        assert_eq!(PublishGuard::default().objection(&worst), None);
        assert_eq!(GUARD.objection(&Facts::default()), None, "no episodes, and the first vector");
        let old: PublishGuard = serde_json::from_str(r#"{"coverage": 0.9}"#).unwrap();
        assert_eq!(old, PublishGuard { coverage: Some(0.9), ..PublishGuard::default() }, "as older versions wrote it");
    }

    #[test]
    fn a_burn_is_a_share_of_nobody() {
        let of = |pairs: &[(Option<&str>, f64)]| {
            burnt(&pairs.iter().map(|(who, weight)| (who.map(str::to_owned), *weight)).collect())
        };
        assert_eq!((of(&[(None, 2.0)]), of(&[(None, 1.0), (Some("ann"), 1.0)]), of(&[])), (1.0, 0.5, 0.0));
        assert_eq!(of(&[(None, 2.0), (Some("ann"), 0.0)]), 1.0);
    }

    #[test]
    fn limits_are_shares_and_distances() {
        assert_eq!(GUARD.check(), Ok(()));
        for (guard, problem) in [
            (PublishGuard { coverage: Some(1.01), ..GUARD }, "`coverage` is 1.01, and must be between 0 and 1"),
            (PublishGuard { infra_faults: Some(-0.1), ..GUARD }, "`infra_faults` is -0.1, and must be between 0 and 1"),
            (PublishGuard { jump: Some(f64::NAN), ..GUARD }, "`jump` is NaN, and must be between 0 and 2"),
        ] {
            assert_eq!(guard.check().unwrap_err(), problem);
        }
    }

    #[test]
    fn shares_follow_hotkeys_and_not_slots() {
        let of = |uid: u16, who: &str| format!(r#"{{"entries": [{{"uid": {uid}, "hotkey": {who}, "weight": 1.0}}]}}"#);
        let shares_of = |uid, who| shares(&of(uid, who)).unwrap();
        assert_eq!(distance(&shares_of(1, "\"ann\""), &shares_of(2, "\"ann\"")), 0.0);
        assert_eq!(distance(&shares_of(1, "\"ann\""), &shares_of(1, "\"bob\"")), 2.0);
        assert_eq!(distance(&shares_of(1, "\"ann\""), &shares_of(1, "null")), 2.0);
        assert!(shares("{}").is_err());
    }

    fn vector() -> impl Strategy<Value = Shares> {
        prop::collection::btree_map(prop::option::of("[a-c]"), 0.0_f64..1.0, 0..4)
    }

    proptest! {
        #[test]
        fn a_distance_is_one(a in vector(), b in vector(), c in vector()) {
            prop_assert_eq!(distance(&a, &a), 0.0);
            prop_assert!((distance(&a, &b) - distance(&b, &a)).abs() < 1e-12);
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c) + 1e-12);
        }
    }
}
