//! Whether repeated episodes end differently from the others: the test of Mantel and Haenszel (1959).
//!
//! An episode is run again after a fault of ours, never after a fault of the miner. If faults of ours met good and bad
//! episodes alike, those that ran twice succeed as often as those that ran once. For people; no weight depends on it.

use serde::Serialize;

/// The scored episodes of one miner in one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stratum {
    /// Episodes that took more than one try.
    pub retried: u64,
    /// Successes among them.
    pub retried_successes: u64,
    /// Episodes of one try.
    pub once: u64,
    /// Successes among them.
    pub once_successes: u64,
}

/// How repeated episodes compare with the others of the same miner in the same environment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bias {
    /// Episodes that took more than one try and have others to be compared with.
    pub retried: u64,
    /// Successes among them.
    pub observed: u64,
    /// Successes that they would have had if repeating changed nothing.
    pub expected: f64,
    /// Standard deviations between the two, half a success granted (Yates). Beyond 1.96 chance alone is unlikely.
    pub z: f64,
}

impl Bias {
    /// Whether chance alone would rarely (1 in 20) make the difference.
    pub fn is_suspicious(&self) -> bool {
        self.z.abs() > 1.96
    }
}

/// Compare within each stratum and sum up; none when nothing can be compared: no repeated episode, or strata in which
/// all succeed or all fail.
pub fn bias(strata: impl IntoIterator<Item = Stratum>) -> Option<Bias> {
    let (mut retried, mut observed, mut expected, mut variance) = (0, 0, 0.0, 0.0);
    for stratum in strata {
        let (a, b) = (stratum.retried as f64, stratum.once as f64);
        if stratum.retried == 0 || stratum.once == 0 {
            continue;
        }
        let all = a + b;
        let successes = (stratum.retried_successes + stratum.once_successes) as f64;
        retried += stratum.retried;
        observed += stratum.retried_successes;
        expected += a * successes / all;
        variance += a * b * successes * (all - successes) / (all * all * (all - 1.0));
    }
    if variance <= 0.0 {
        return None;
    }
    let difference = observed as f64 - expected;
    let z = difference.signum() * (difference.abs() - 0.5).max(0.0) / variance.sqrt();
    Some(Bias { retried, observed, expected, z })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stratum(retried: (u64, u64), once: (u64, u64)) -> Stratum {
        Stratum { retried_successes: retried.0, retried: retried.1, once_successes: once.0, once: once.1 }
    }

    /// A fourfold table whose statistic is worked out by hand: E = 20 x 25 / 50, V = 20 x 30 x 25 x 25 / (2500 x 49).
    #[test]
    fn one_stratum_by_hand() {
        let found = bias([stratum((4, 20), (21, 30))]).unwrap();
        let variance: f64 = 20.0 * 30.0 * 25.0 * 25.0 / (2500.0 * 49.0);
        assert_eq!((found.retried, found.observed, found.expected), (20, 4, 10.0));
        assert!((found.z + 5.5 / variance.sqrt()).abs() < 1e-12);
        assert!(found.is_suspicious());
    }

    /// Simpson's paradox: pooled, repeated episodes look far worse, but only because the hard environment had the faults.
    #[test]
    fn strata_are_not_pooled() {
        let found = bias([stratum((2, 20), (2, 20)), stratum((2, 2), (195, 200))]).unwrap();
        assert!(!found.is_suspicious(), "{found:?}");
    }

    #[test]
    fn nothing_to_compare() {
        for strata in
            [vec![], vec![stratum((0, 0), (3, 5))], vec![stratum((3, 5), (0, 0))], vec![stratum((5, 5), (9, 9))]]
        {
            assert_eq!(bias(strata), None);
        }
    }

    proptest! {
        #[test]
        fn equal_shares_are_never_suspicious(groups in prop::collection::vec((1u64..20, 1u64..20, 1u64..5), 1..20)) {
            let strata = groups.iter().map(|(successes, failures, times)| {
                let all = successes + failures;
                stratum((*successes, all), (successes * times, all * times))
            });
            let found = bias(strata).unwrap();
            prop_assert!(found.z.abs() < 1e-9);
        }

        #[test]
        fn swapping_success_and_failure_swaps_the_sign(
            groups in prop::collection::vec((0u64..9, 0u64..9, 0u64..9, 0u64..9), 1..10)
        ) {
            let one = groups.iter().map(|(a, b, c, d)| stratum((*a, a + b), (*c, c + d)));
            let other = groups.iter().map(|(a, b, c, d)| stratum((*b, a + b), (*d, c + d)));
            match (bias(one), bias(other)) {
                (Some(one), Some(other)) => prop_assert!((one.z + other.z).abs() < 1e-9),
                (one, other) => prop_assert_eq!(one.is_none(), other.is_none()),
            }
        }
    }
}
