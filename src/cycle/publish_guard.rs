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

/// The L1 distance of two vectors: 0 when they pay the same, 2 when nobody is paid by both.
pub fn distance(one: &Shares, other: &Shares) -> f64 {
    let of = |shares: &Shares, who| shares.get(who).copied().unwrap_or_default();
    let either: std::collections::BTreeSet<&Option<String>> = one.keys().chain(other.keys()).collect();
    either.into_iter().map(|who| (of(one, who) - of(other, who)).abs()).sum()
}

impl PublishGuard {
    /// Whether each limit is one that can be kept and broken.
    ///
    /// # Errors
    /// What is wrong with the first that is not.
    pub fn check(&self) -> Result<(), String> {
        let limits =
            [("coverage", self.coverage, 1.0), ("infra_faults", self.infra_faults, 1.0), ("jump", self.jump, 2.0)];
        for (name, limit, most) in limits {
            if let Some(limit) = limit.filter(|limit| !(0.0..=most).contains(limit)) {
                return Err(format!("`{name}` is {limit}, and must be between 0 and {most}"));
            }
        }
        Ok(())
    }

    /// Why a vector is held, if it is. `jump` is its distance from the last one given out, where there is one.
    pub fn objection(&self, course: Course, jump: Option<f64>) -> Option<String> {
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
        (!reasons.is_empty()).then(|| reasons.join("; "))
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

    const GUARD: PublishGuard = PublishGuard { coverage: Some(0.9), infra_faults: Some(0.25), jump: Some(0.5) };

    fn course(planned: u64, scored: u64, lost: u64) -> Course {
        Course { planned, scored, lost }
    }

    #[test]
    fn each_limit_holds_and_says_why() {
        assert_eq!(GUARD.objection(course(10, 9, 3), Some(0.5)), None, "limits are within");
        let because = |course, jump| GUARD.objection(course, jump).unwrap();
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
    fn what_is_not_limited_or_not_known_holds_nothing() {
        assert_eq!(PublishGuard::default().objection(course(10, 0, 50), Some(2.0)), None);
        assert_eq!(GUARD.objection(Course::default(), None), None, "no episodes, and the first vector");
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
