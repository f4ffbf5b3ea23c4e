//! A vector of weights as the chain takes it: sixteen bits each, the largest one full.

use std::collections::BTreeMap;

/// Uids and their weights, in the order of uids, as `set_weights` takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Slots on the subnet.
    pub uids: Vec<u16>,
    /// Weights, at least 1 each.
    pub values: Vec<u16>,
}

impl Amounts {
    /// Each weight as `round(weight / largest * 65535)`; what comes to nothing is left out. Weights that are not positive and
    /// finite are nothing.
    pub fn of(weights: &BTreeMap<u16, f64>) -> Self {
        let positive = || weights.iter().filter(|(_, weight)| weight.is_finite() && **weight > 0.0);
        let largest = positive().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let mut amounts = Self::default();
        for (uid, weight) in positive() {
            // At most 65535, since none is above the largest.
            let value = (weight / largest * f64::from(u16::MAX)).round() as u16;
            if value > 0 {
                amounts.uids.push(*uid);
                amounts.values.push(value);
            }
        }
        amounts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amounts(weights: &[(u16, f64)]) -> (Vec<u16>, Vec<u16>) {
        let Amounts { uids, values } = Amounts::of(&weights.iter().copied().collect());
        (uids, values)
    }

    #[test]
    fn the_largest_is_full_and_dust_is_dropped() {
        assert_eq!(amounts(&[(1, 0.7), (2, 0.2), (5, 0.1)]), (vec![1, 2, 5], vec![65535, 18724, 9362]));
        assert_eq!(amounts(&[(0, 1e-9), (1, 1.0)]), (vec![1], vec![65535]));
        assert_eq!(amounts(&[(3, 0.0), (4, -0.0)]), (vec![], vec![]));
        assert_eq!(amounts(&[(3, f64::NAN), (4, f64::INFINITY), (5, 1e-300)]), (vec![5], vec![65535]));
    }

    proptest! {
        #[test]
        fn order_and_proportion_are_kept(weights in prop::collection::btree_map(any::<u16>(), 0.0..1.0f64, 1..50)) {
            let amounts = Amounts::of(&weights);
            prop_assert!(amounts.uids.is_sorted());
            prop_assert!(amounts.values.iter().all(|value| *value > 0));
            let largest = weights.values().copied().fold(0.0, f64::max);
            for (uid, value) in amounts.uids.iter().zip(&amounts.values) {
                let exact = weights[uid] / largest * 65535.0;
                prop_assert!((f64::from(*value) - exact).abs() <= 0.5 + 1e-9);
            }
        }
    }
}
