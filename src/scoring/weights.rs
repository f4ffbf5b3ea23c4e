//! Points to weights: softmax, what to do when nobody has a point, and the whole numbers that go on chain.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is paid when every miner has zero points, or the rate 0 everywhere (see [`super::Pareto::weights`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllZero {
    /// Everybody the same.
    #[default]
    Uniform,
    /// This uid alone, whether or not it is one of the miners.
    Burn(u16),
}

/// A normalised vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Share per uid; they add up to 1.
    pub weights: BTreeMap<u16, f64>,
    /// The same in units of 1/65535, rounded down.
    pub weights_u16: WeightsU16,
}

/// Weights as two lists of equal length, by ascending uid; zeros are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightsU16 {
    /// The uids.
    pub uids: Vec<u16>,
    /// `floor(weight / sum of weights * 65535)` of each.
    pub values: Vec<u16>,
}

/// Why there are no weights.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// Softmax divides by it.
    #[error("the temperature must be a finite number above 0, not {temperature}")]
    Temperature {
        /// What was given.
        temperature: f64,
    },
    /// Points are counted, so they are finite and not negative.
    #[error("miner `{uid}` has {points} points, and points are finite and not negative")]
    Points {
        /// Whose.
        uid: u16,
        /// What was given.
        points: f64,
    },
}

/// The softmax of `points` at `temperature`: `exp((p - max) / temperature)`, divided by the sum of all.
///
/// When nobody has a point, `all_zero` decides. Nobody at all is a case of that: [`AllZero::Uniform`] then gives an empty
/// vector, [`AllZero::Burn`] pays its uid.
///
/// # Errors
/// [`WeightsError`] when the temperature or a point is out of range.
pub(super) fn weights(
    points: &BTreeMap<u16, f64>,
    temperature: f64,
    all_zero: AllZero,
) -> Result<Weights, WeightsError> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(WeightsError::Temperature { temperature });
    }
    if let Some((&uid, &points)) = points.iter().find(|(_, p)| !(p.is_finite() && **p >= 0.0)) {
        return Err(WeightsError::Points { uid, points });
    }
    let most = points.values().copied().fold(0.0, f64::max);
    let weights = match all_zero {
        AllZero::Burn(uid) if most == 0.0 => {
            let mut weights: BTreeMap<u16, f64> = points.keys().map(|&uid| (uid, 0.0)).collect();
            weights.insert(uid, 1.0);
            weights
        }
        // Softmax of equal points is uniform, so `AllZero::Uniform` needs no case of its own.
        _ => softmax(points, most, temperature),
    };
    let weights_u16 = quantise(&weights);
    Ok(Weights { weights, weights_u16 })
}

/// Shares in any unit as weights; none if they do not add up to a finite number above 0.
pub fn normalise(shares: &BTreeMap<u16, f64>) -> Option<Weights> {
    let sum: f64 = shares.values().sum();
    let fits = sum.is_finite() && sum > 0.0 && shares.values().all(|share| *share >= 0.0);
    fits.then(|| {
        let weights = shares.iter().map(|(&uid, share)| (uid, share / sum)).collect();
        let weights_u16 = quantise(&weights);
        Weights { weights, weights_u16 }
    })
}

/// `most` is subtracted first: the largest power is then exp(0) and none overflows.
fn softmax(points: &BTreeMap<u16, f64>, most: f64, temperature: f64) -> BTreeMap<u16, f64> {
    let powers: Vec<f64> = points.values().map(|p| libm::exp((p - most) / temperature)).collect();
    let sum: f64 = powers.iter().sum();
    points.keys().copied().zip(powers.iter().map(|power| power / sum)).collect()
}

/// Weights in units of 1/65535 of their sum, rounded down.
pub fn quantise(weights: &BTreeMap<u16, f64>) -> WeightsU16 {
    let sum: f64 = weights.values().sum();
    // A weight is at most the sum, so the product lies in 0..=65535 and the cast only drops the fraction.
    let values = weights.values().map(|weight| (weight / sum * 65_535.0).floor() as u16).collect();
    WeightsU16 { uids: weights.keys().copied().collect(), values }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(points: &[(u16, f64)]) -> BTreeMap<u16, f64> {
        points.iter().copied().collect()
    }

    #[test]
    fn softmax_by_hand() {
        // exp(-3) = 0.0497871; 0.0497871 / 1.0497871 = 0.0474259; times 65535 = 3108.05 and 62426.95.
        let found = weights(&points(&[(10, 3.0), (9, 0.0)]), 1.0, AllZero::Uniform).unwrap();
        assert!((found.weights[&9] - 0.047_425_873_177_566_78).abs() < 1e-15);
        assert!((found.weights[&10] - 0.952_574_126_822_433_2).abs() < 1e-15);
        assert_eq!(found.weights_u16, WeightsU16 { uids: vec![9, 10], values: vec![3108, 62426] });
    }

    #[test]
    fn temperature_flattens() {
        // 3 points at temperature 3 are one e-fold: 1 / (1 + e) = 0.2689414.
        let found = weights(&points(&[(1, 3.0), (2, 0.0)]), 3.0, AllZero::Uniform).unwrap();
        assert!((found.weights[&2] - 0.268_941_421_369_995_1).abs() < 1e-15);
    }

    #[test]
    fn thousands_of_points_do_not_overflow() {
        let found = weights(&points(&[(1, 1024.0), (2, 1e30), (3, 0.0)]), 0.001, AllZero::Uniform).unwrap();
        assert_eq!(found.weights_u16.values, [0, 65535, 0]);
    }

    #[test]
    fn no_points_are_shared_or_burnt() {
        let nobody = points(&[(3, 0.0), (4, 0.0)]);
        let uniform = weights(&nobody, 1.0, AllZero::Uniform).unwrap();
        assert_eq!(uniform.weights, points(&[(3, 0.5), (4, 0.5)]));
        assert_eq!(uniform.weights_u16.values, [32767, 32767]);
        let burnt = weights(&nobody, 1.0, AllZero::Burn(0)).unwrap();
        assert_eq!(burnt.weights_u16, WeightsU16 { uids: vec![0, 3, 4], values: vec![65535, 0, 0] });
        let burnt = weights(&nobody, 1.0, AllZero::Burn(4)).unwrap();
        assert_eq!(burnt.weights, points(&[(3, 0.0), (4, 1.0)]));
    }

    #[test]
    fn one_point_is_enough_not_to_burn() {
        let some = points(&[(3, 0.0), (4, 1.0)]);
        assert_eq!(weights(&some, 1.0, AllZero::Burn(0)), weights(&some, 1.0, AllZero::Uniform));
    }

    #[test]
    fn nobody_at_all() {
        let found = weights(&points(&[]), 1.0, AllZero::Uniform).unwrap();
        assert_eq!(found.weights_u16, WeightsU16 { uids: vec![], values: vec![] });
        assert_eq!(weights(&points(&[]), 1.0, AllZero::Burn(5)).unwrap().weights, points(&[(5, 1.0)]));
    }

    #[test]
    fn temperatures_and_points_that_make_no_sense() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = weights(&points(&[(1, 1.0)]), temperature, AllZero::Uniform).unwrap_err();
            assert!(matches!(error, WeightsError::Temperature { .. }), "{error:?}");
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            let error = weights(&points(&[(1, bad)]), 1.0, AllZero::Uniform).unwrap_err();
            assert!(matches!(error, WeightsError::Points { uid: 1, .. }), "{error:?}");
        }
    }

    #[test]
    fn json_has_uids_as_ascending_text() {
        let found = weights(&points(&[(10, 0.0), (9, 0.0)]), 1.0, AllZero::Uniform).unwrap();
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(text, r#"{"weights":{"9":0.5,"10":0.5},"weights_u16":{"uids":[9,10],"values":[32767,32767]}}"#);
        assert_eq!(serde_json::from_str::<Weights>(&text).unwrap(), found);
        assert_eq!(serde_json::to_string(&AllZero::Burn(7)).unwrap(), r#"{"burn":7}"#);
    }

    proptest! {
        #[test]
        fn they_add_up_and_follow_the_points(
            given in proptest::collection::btree_map(any::<u16>(), 0.0..100.0_f64, 1..40), temperature in 0.1..50.0_f64,
        ) {
            let found = weights(&given, temperature, AllZero::Uniform).unwrap();
            prop_assert!((found.weights.values().sum::<f64>() - 1.0).abs() < 1e-12);
            let total: u32 = found.weights_u16.values.iter().map(|value| u32::from(*value)).sum();
            prop_assert!(total <= 65_535 && total + given.len() as u32 >= 65_535);
            for (a, p) in &given {
                for (b, q) in &given {
                    prop_assert!(p >= q || found.weights[a] <= found.weights[b]);
                }
            }
        }
    }
}
