//! The direct count for few masks on any number of environments: inclusion and exclusion.
//!
//! Subsets that meet every mask = sum over all choices C of masks of (-1)^|C| times the subsets that avoid the union of C.

use super::Counts;

/// Masks that are still counted this way: 2^14 choices.
pub(super) const MOST_MASKS: usize = 14;

/// How many subsets of `part` of each size meet every mask of `family`.
pub(super) fn count(part: u64, family: &[u64]) -> Counts {
    let mut by_union = [0_i32; 65];
    choose(family, 0, 1, &mut by_union);
    let environments = part.count_ones();
    // Row n of Pascal's triangle, grown by one environment a round: the choices that leave n environments use it.
    let mut row = [0_i128; 65];
    row[0] = 1;
    let mut sums = [0_i128; 65];
    for left in 0..=environments {
        let choices = i128::from(by_union[(environments - left) as usize]);
        for (sum, ways) in sums.iter_mut().zip(&row) {
            *sum += choices * ways;
        }
        for size in (1..row.len()).rev() {
            row[size] += row[size - 1];
        }
    }
    let mut counts = Counts::none();
    for (size, sum) in (0..).zip(sums) {
        // Partial sums may be negative, the whole is a count.
        counts.add(size, sum.unsigned_abs());
    }
    counts
}

/// Every choice of masks: its sign, filed under the number of environments its union covers.
fn choose(family: &[u64], union: u64, sign: i32, by_union: &mut [i32; 65]) {
    match family.split_first() {
        None => by_union[union.count_ones() as usize] += sign,
        Some((mask, rest)) => {
            choose(rest, union, sign, by_union);
            choose(rest, union | mask, -sign, by_union);
        }
    }
}
