//! Comparisons of success rates at a margin, decided exactly.
//!
//! A success rate is a fraction of whole numbers, and a margin is the square root of one. The doubles of both are rounded, so
//! a difference that equals the margin on paper could come out on either side of it. Here doubles decide only what is clearly
//! apart. Fractions decide the rest, and the margin is compared by its square.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use num_bigint::BigUint;

use super::margin;

/// Differences that are further than this from the margin are decided by doubles. With up to 65,536 miners the doubles of a
/// margin and a difference are wrong by less than 1e-8.
const CLEARLY: f64 = 1e-6;

/// Where a rate stands among the rates of its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of smaller rates, equal ones counted once.
    rank: u32,
    /// Smallest rank that is better by more than the margin of the rule `epsilon`.
    clearly_better: u32,
    /// Smallest rank that is above the threshold of the rule `first_commit`.
    above_threshold: u32,
}

impl Place {
    /// Whether this rate is better than the other by more than the environment's epsilon.
    pub(super) fn is_clearly_better_than(self, other: Self) -> bool {
        self.rank >= other.clearly_better
    }

    /// Whether this rate is above the threshold of the other.
    pub(super) fn is_above_threshold_of(self, other: Self) -> bool {
        self.rank >= other.above_threshold
    }
}

/// The places of an environment's rates, in their order. Rates are from 0 to 1.
pub(super) fn places(rates: &[f64], episodes: u32) -> Vec<Place> {
    // Rates whose doubles differ are different fractions in the same order.
    let mut distinct = rates.to_vec();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    let epsilon = margin::epsilon(rates.iter().copied(), episodes);
    let square = OnceCell::new();
    let rank_after = |rate: f64, margin: f64, square: &dyn Fn() -> Ratio| {
        let is_within = |other: &f64| !exceeds((*other, rate), margin, square);
        distinct.partition_point(is_within) as u32
    };
    let by_rank: Vec<(u32, u32)> = distinct
        .iter()
        .map(|&rate| {
            let clearly = rank_after(rate, epsilon, &|| square.get_or_init(|| epsilon_square(rates, episodes)).clone());
            let above = rank_after(rate, margin::gap(rate, episodes), &|| gap_square(rate, episodes));
            (clearly, above)
        })
        .collect();
    let place = |rate: &f64| {
        let rank = distinct.partition_point(|other| other < rate);
        let (clearly_better, above_threshold) = by_rank[rank];
        Place { rank: rank as u32, clearly_better, above_threshold }
    };
    rates.iter().map(place).collect()
}

/// Whether a rate is more than the margin above another; `square` is that of the margin.
fn exceeds((rate, other): (f64, f64), margin: f64, square: &dyn Fn() -> Ratio) -> bool {
    let difference = rate - other;
    if (difference - margin).abs() > CLEARLY {
        return difference > margin;
    }
    let (rate, other) = (Ratio::of_rate(rate), Ratio::of_rate(other));
    let (mine, theirs) = (&rate.above * &other.below, &other.above * &rate.below);
    if mine <= theirs {
        return false;
    }
    let (difference, whole) = (mine - theirs, rate.below * other.below);
    let margin = square();
    &difference * &difference * margin.below > margin.above * &whole * &whole
}

/// The square of the margin of the rule `epsilon`: 4 times the variance of the rates by the episodes, from 1/100 squared to
/// 1/5 squared.
fn epsilon_square(rates: &[f64], episodes: u32) -> Ratio {
    if episodes <= 1 {
        return Ratio::new(1, 25);
    }
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for rate in rates {
        *times.entry(rate.to_bits()).or_default() += 1;
    }
    // The sum of the rates is `sum / whole`, that of their squares `squares / whole^2`.
    let (mut sum, mut squares, mut whole) = (BigUint::ZERO, BigUint::ZERO, BigUint::from(1_u32));
    for (bits, times) in times {
        let Ratio { above, below } = Ratio::of_rate(f64::from_bits(bits));
        squares = squares * &below * &below + &above * &above * &whole * &whole * times;
        sum = sum * &below + above * &whole * times;
        whole *= below;
    }
    let miners = BigUint::from(rates.len());
    let spread = &miners * squares - &sum * &sum;
    let square = Ratio { above: spread * 4_u32, below: &miners * &miners * &whole * &whole * episodes };
    square.clamp(Ratio::new(1, 10_000), Ratio::new(1, 25))
}

/// The square of the margin above a rate that its threshold has: 9/4 times p (1 - p) by the episodes with p from 1/100 to
/// 99/100, from 1/50 squared to 1/10 squared.
fn gap_square(rate: f64, episodes: u32) -> Ratio {
    if episodes == 0 {
        return Ratio::new(1, 100);
    }
    let Ratio { above, below } = Ratio::of_rate(rate).clamp(Ratio::new(1, 100), Ratio::new(99, 100));
    let rest = &below - &above;
    let square = Ratio { above: above * rest * 9_u32, below: &below * &below * 4_u32 * episodes };
    square.clamp(Ratio::new(1, 2500), Ratio::new(1, 100))
}

/// A fraction of whole numbers.
#[derive(Debug, Clone)]
struct Ratio {
    above: BigUint,
    below: BigUint,
}

impl Ratio {
    fn new(above: u32, below: u32) -> Self {
        Self { above: above.into(), below: below.into() }
    }

    fn is_less_than(&self, other: &Self) -> bool {
        &self.above * &other.below < &other.above * &self.below
    }

    fn clamp(self, least: Self, most: Self) -> Self {
        if self.is_less_than(&least) {
            least
        } else if most.is_less_than(&self) {
            most
        } else {
            self
        }
    }

    /// The fraction that a rate is: of all that round to its double, the one with the smallest denominator. A share of up to
    /// 2^26 episodes is found again, since no other fraction with such a denominator rounds to the same double; `0.6` is 3/5.
    ///
    /// A rate below 2^-32 is no share of any number of episodes and counts as its double.
    fn of_rate(rate: f64) -> Self {
        if rate == 0.0 {
            return Self::new(0, 1);
        }
        // `mantissa * 2^-shift`, with 53 bits of mantissa where the double is not a subnormal one.
        let exponent = (rate.to_bits() >> 52) as u32;
        let fraction = rate.to_bits() & ((1 << 52) - 1);
        let (mantissa, shift) = match exponent {
            0 => (fraction, 1074),
            _ => (fraction | 1 << 52, 1075 - exponent),
        };
        if rate < 2_f64.powi(-32) {
            return Self { above: mantissa.into(), below: BigUint::from(1_u32) << shift };
        }
        // All that is less than half a step away rounds to the double; below a power of two steps are half as wide. At most
        // 55 bits over at most 2^87.
        let below = 1_u128 << (shift + 2);
        let middle = u128::from(mantissa) << 2;
        let low = middle - if fraction == 0 { 1 } else { 2 };
        let (above, below) = simplest((low, below), (middle + 2, below));
        Self { above: above.into(), below: below.into() }
    }
}

/// The fraction with the smallest denominator between two positive ones, of which the first is less.
fn simplest((low, low_below): (u128, u128), (high, high_below): (u128, u128)) -> (u128, u128) {
    let whole = low / low_below;
    let rest = low % low_below;
    if rest == 0 {
        return (whole, 1);
    }
    if (whole + 1) * high_below <= high {
        return (whole + 1, 1);
    }
    // Both lie between the same two whole numbers: the same question about what is left of them, turned upside down.
    let (above, below) = simplest((high_below, high - whole * high_below), (low_below, rest));
    (whole * above + below, above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ratio(rate: f64) -> (u64, u64) {
        let Ratio { above, below } = Ratio::of_rate(rate);
        (above.try_into().unwrap(), below.try_into().unwrap())
    }

    #[test]
    fn a_rate_is_the_fraction_that_it_was() {
        for (rate, fraction) in [
            (0.0, (0, 1)),
            (1.0, (1, 1)),
            (0.5, (1, 2)),
            (0.6, (3, 5)),
            (0.9, (9, 10)),
            (1.0 / 3.0, (1, 3)),
            (49.0 / 50.0, (49, 50)),
            (0.123_457, (123_457, 1_000_000)),
        ] {
            assert_eq!(ratio(rate), fraction, "{rate}");
        }
        for tiny in [f64::MIN_POSITIVE, f64::from_bits(1), 1e-300, 2_f64.powi(-33)] {
            let Ratio { above, below } = Ratio::of_rate(tiny);
            assert!(above > BigUint::ZERO && below > above << 32_u32, "{tiny}");
        }
    }

    #[test]
    fn differences_that_equal_a_margin_are_not_more_than_it() {
        // Doubles: 0.7 + 0.2 is less than 0.9, and 0.7 + 0.1 is less than 0.8.
        let [low, high] = places(&[0.7, 0.9], 1)[..] else { unreachable!() };
        assert!(0.9 > 0.7 + 0.2 && !high.is_clearly_better_than(low));
        let [low, high] = places(&[0.7, 0.8], 10)[..] else { unreachable!() };
        assert!(0.8 > 0.7 + 0.1 && !high.is_above_threshold_of(low));
        let [low, high] = places(&[0.0, 1.0], 10)[..] else { unreachable!() };
        assert!(high.is_clearly_better_than(low) && high.is_above_threshold_of(low));
        assert!(!low.is_clearly_better_than(high) && !low.is_clearly_better_than(low));
    }

    #[test]
    fn an_epsilon_that_is_a_root_is_compared_by_its_square() {
        // 2 of 8 and 6 of 8, once each: std 1/4, so 2 * (1/4) / sqrt(4) is 1/4 with 4 episodes, cut to 1/5; with 16 it is 1/8.
        let square = epsilon_square(&[0.25, 0.75], 16);
        assert!(!square.is_less_than(&Ratio::new(1, 64)) && !Ratio::new(1, 64).is_less_than(&square));
        assert!(!epsilon_square(&[0.25, 0.75], 4).is_less_than(&Ratio::new(1, 25)));
        let square = gap_square(0.5, 100);
        assert!(!square.is_less_than(&Ratio::new(9, 1600)) && !Ratio::new(9, 1600).is_less_than(&square));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn every_share_of_episodes_is_found_again(episodes in 1_u64..=1 << 26, share in 0.0..=1.0_f64) {
            let successes = ((share * episodes as f64) as u64).min(episodes);
            let (above, below) = ratio(successes as f64 / episodes as f64);
            prop_assert_eq!(u128::from(above) * u128::from(episodes), u128::from(below) * u128::from(successes));
        }

        #[test]
        fn a_fraction_rounds_to_the_rate_it_was_made_of(rate in 0.000_000_001..=1.0_f64) {
            let (above, below) = ratio(rate);
            prop_assert!(below < 1 << 53);
            prop_assert_eq!((above as f64 / below as f64).to_bits(), rate.to_bits());
        }
    }
}
