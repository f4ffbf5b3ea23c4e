//! How sure a success rate is: the score interval of Wilson (1927). For people; no weight depends on it.

use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the standard normal distribution: two sides, 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Where the true success rate lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end, at least 0.
    pub low: f64,
    /// Upper end, at most 1.
    pub high: f64,
}

/// The 95 % Wilson interval of `successes` in `episodes`; without an episode nothing is known and it is [0, 1].
///
/// More successes than episodes count as all of them.
pub fn wilson(successes: u32, episodes: u32) -> Interval {
    wilson_of_mean(f64::from(successes.min(episodes)) / f64::from(episodes), episodes)
}

/// The same for the mean of as many values between 0 and 1. No such values vary more than zeros and ones of that mean, so
/// the interval is at least as wide as it has to be.
pub fn wilson_of_mean(mean: f64, values: u32) -> Interval {
    if values == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = f64::from(values);
    let p = mean.clamp(0.0, 1.0);
    let shrink = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // At the two extremes the interval ends at 0 and 1 exactly; rounding would leave it a hair off.
    let low = if p <= 0.0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if p >= 1.0 { 1.0 } else { (centre + half).min(1.0) };
    Interval { low, high }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-7, "{found} is not {expected}");
    }

    #[test]
    fn half_of_four() {
        // z^2 = 3.841459, shrink = 1.960365, centre = (0.5 + 0.480182) / 1.960365 = 0.5;
        // half = 1.959964 / 1.960365 * sqrt(0.0625 + 0.060023) = 0.999796 * 0.350032 = 0.349961.
        let interval = wilson(2, 4);
        assert_near(interval.low, 0.150_039);
        assert_near(interval.high, 0.849_961);
    }

    #[test]
    fn none_and_all_of_ten() {
        // The end that is not 0 or 1 is z^2 / (n + z^2) = 3.841459 / 13.841459 = 0.277533 away from it.
        let none = wilson(0, 10);
        assert_eq!(none.low, 0.0);
        assert_near(none.high, 0.277_533);
        let all = wilson(10, 10);
        assert_near(all.low, 0.722_467);
        assert_eq!(all.high, 1.0);
    }

    #[test]
    fn no_episode_says_nothing() {
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
        assert_eq!(wilson(9, 0), Interval { low: 0.0, high: 1.0 });
    }

    proptest! {
        #[test]
        fn it_holds_the_rate_and_mirrors(n in 1_u32..100_000, share in 0.0..=1.0_f64) {
            let successes = (share * f64::from(n)) as u32;
            let interval = wilson(successes, n);
            let rate = f64::from(successes) / f64::from(n);
            prop_assert!(0.0 <= interval.low && interval.low <= rate && rate <= interval.high && interval.high <= 1.0);
            let mirror = wilson(n - successes, n);
            prop_assert!((interval.low - (1.0 - mirror.high)).abs() < 1e-12);
        }
    }
}
