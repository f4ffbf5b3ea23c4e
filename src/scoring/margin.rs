//! How far apart two success rates must be to count as different: the margins of the two rules.

/// Margin of the rule `epsilon` on one environment: `clip(2 * population std / sqrt(episodes), 0.01, 0.2)` of all miners'
/// rates there; 0.2 when there is at most one episode. Without a miner there is no spread, so the least margin.
pub(super) fn epsilon(rates: impl ExactSizeIterator<Item = f64> + Clone, episodes: u32) -> f64 {
    if episodes <= 1 {
        return 0.2;
    }
    let miners = rates.len().max(1) as f64;
    let mean = rates.clone().sum::<f64>() / miners;
    let variance = rates.map(|rate| (rate - mean) * (rate - mean)).sum::<f64>() / miners;
    (2.0 * variance.sqrt() / f64::from(episodes).sqrt()).clamp(0.01, 0.2)
}

/// What a later miner must exceed under the rule `first_commit`: the rate plus `clip(1.5 * sqrt(p (1 - p) / episodes), 0.02,
/// 0.10)`, at most 1, where `p` is the rate clipped to [0.01, 0.99]. Without an episode the margin is the widest.
pub(super) fn threshold(rate: f64, episodes: u32) -> f64 {
    (rate + gap(rate, episodes)).min(1.0)
}

/// How far the threshold of a rate is above it, before it is cut to 1.
pub(super) fn gap(rate: f64, episodes: u32) -> f64 {
    let p = rate.clamp(0.01, 0.99);
    // Dividing by no episodes gives infinity, which the clip turns into the widest margin.
    (1.5 * (p * (1.0 - p) / f64::from(episodes)).sqrt()).clamp(0.02, 0.10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    fn epsilon_of(rates: &[f64], episodes: u32) -> f64 {
        epsilon(rates.iter().copied(), episodes)
    }

    #[test]
    fn epsilon_is_two_standard_errors() {
        // Mean 0.7, both 0.2 away from it: std 0.2; 2 * 0.2 / 4 = 0.1. A sample std (0.283) would give 0.141.
        assert_near(epsilon_of(&[0.5, 0.9], 16), 0.1);
        // Mean 0.5, squares 0.09 + 0.01 + 0.01 + 0.09 = 0.20, variance 0.05, std 0.223607; 2 * 0.223607 / 10.
        assert_near(epsilon_of(&[0.2, 0.4, 0.6, 0.8], 100), 0.044_721_359_549_995_794);
    }

    #[test]
    fn epsilon_is_clipped() {
        assert_eq!(epsilon_of(&[0.6, 0.6], 16), 0.01);
        // Std 0.5: 2 * 0.5 / 2 = 0.5.
        assert_eq!(epsilon_of(&[0.0, 1.0], 4), 0.2);
    }

    #[test]
    fn epsilon_at_its_edges() {
        for episodes in [0, 1] {
            assert_eq!(epsilon_of(&[0.6, 0.6], episodes), 0.2);
        }
        assert_eq!(epsilon_of(&[0.3], 50), 0.01);
        assert_eq!(epsilon_of(&[], 50), 0.01);
    }

    #[test]
    fn threshold_is_one_and_a_half_standard_errors() {
        // sqrt(0.25 / 100) = 0.05; 1.5 times that is 0.075.
        assert_near(threshold(0.5, 100), 0.575);
        // sqrt(0.16 / 64) = 0.05 as well.
        assert_near(threshold(0.8, 64), 0.875);
    }

    #[test]
    fn threshold_is_clipped() {
        // sqrt(0.25 / 25) = 0.1; 0.15 is cut to 0.10.
        assert_near(threshold(0.5, 25), 0.6);
        // p = 0.01: 1.5 * sqrt(0.0099 / 10000) = 0.0015 is raised to 0.02.
        assert_near(threshold(0.0, 10_000), 0.02);
        // p = 0.01: 1.5 * sqrt(0.0099 / 25) = 0.029850. With p = 0 it would have been 0.02.
        assert_near(threshold(0.0, 25), 0.029_849_623_113_198_6);
    }

    #[test]
    fn threshold_never_exceeds_one() {
        assert_eq!(threshold(1.0, 50), 1.0);
        assert_eq!(threshold(0.95, 4), 1.0);
    }

    #[test]
    fn threshold_without_episodes_is_the_widest() {
        assert_near(threshold(0.5, 0), 0.6);
    }
}
