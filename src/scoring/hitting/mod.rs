//! Counting the subsets of a set of environments that meet every one of many masks, by size, without listing them.
//!
//! These are the hitting sets of a family of masks. Few environments go straight to a bit table over all subsets ([`dense`]).
//! For more, [`Effort::count`] simplifies the family, multiplies independent parts, and branches on one environment until a
//! part is small enough for the bit table, or has few enough masks for inclusion and exclusion ([`signed`]).
//! Counting hitting sets is #P-hard, so some families take exponential work; `docs/scoring.md` bounds and measures it.

mod counts;
mod dense;
mod signed;

pub(super) use counts::Counts;
pub(super) use dense::{MOST_KEPT, Subsets};

/// Times that one table may branch. One miner on 32 environments branches less than 2^16 times (each time leaves one
/// environment fewer, and the bit table takes over at 16), so 256 of them always stay below.
const MOST_BRANCHES: u32 = 1 << 24;

/// The subset game would take too long to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many ways to win: counting the subset game exactly would take more than {MOST_BRANCHES} steps")]
pub struct TooHard;

/// The work that one table may still cost. It counts steps, not time, so every machine gives the same answer.
pub(super) struct Effort {
    branches_left: u32,
}

impl Effort {
    pub(super) fn new() -> Self {
        Self { branches_left: MOST_BRANCHES }
    }

    /// Use up so many steps.
    ///
    /// # Errors
    /// [`TooHard`] when there are not so many left.
    pub(in crate::scoring) fn spend(&mut self, steps: u32) -> Result<(), TooHard> {
        self.branches_left = self.branches_left.checked_sub(steps).ok_or(TooHard)?;
        Ok(())
    }

    /// How many subsets of `universe` of each size meet every mask of `family`. Masks lie within `universe`.
    ///
    /// # Errors
    /// [`TooHard`] when the effort is used up.
    pub(super) fn count(&mut self, universe: u64, family: Vec<u64>) -> Result<Counts, TooHard> {
        if family.contains(&0) {
            return Ok(Counts::none());
        }
        if universe.count_ones() <= dense::MOST_ENVIRONMENTS {
            return Ok(dense::count(universe, &family));
        }
        let mut family = minimal(family);
        // A mask with one environment forces it into the subset. Minimal masks that differ never share it.
        let forced = family.iter().filter(|mask| mask.is_power_of_two()).fold(0, |forced, mask| forced | mask);
        family.retain(|mask| !mask.is_power_of_two());
        let constrained = family.iter().fold(0, |all, mask| all | mask);
        let free = universe & !forced & !constrained;
        let mut counts = Counts::of_free(free.count_ones()).with_forced(forced.count_ones());
        while let Some((part, masks)) = take_part(&mut family) {
            counts = counts.times(&self.count_part(part, masks)?);
        }
        Ok(counts)
    }

    /// The same for a minimal family of masks of two and more that covers `part` and does not fall apart.
    fn count_part(&mut self, part: u64, family: Vec<u64>) -> Result<Counts, TooHard> {
        if part.count_ones() <= dense::MOST_ENVIRONMENTS {
            return Ok(dense::count(part, &family));
        }
        if family.len() <= signed::MOST_MASKS {
            return Ok(signed::count(part, &family));
        }
        self.spend(1)?;
        let branch = most_frequent(&family);
        let rest = part & !branch;
        let without = family.iter().map(|mask| mask & !branch).collect();
        let with = family.into_iter().filter(|mask| mask & branch == 0).collect();
        Ok(self.count(rest, with)?.with_forced(1).plus(&self.count(rest, without)?))
    }
}

/// The masks that hold no other mask: whoever meets these meets all.
fn minimal(mut family: Vec<u64>) -> Vec<u64> {
    family.sort_unstable_by_key(|mask| (mask.count_ones(), *mask));
    family.dedup();
    let mut kept: Vec<u64> = Vec::with_capacity(family.len());
    for mask in family {
        if kept.iter().all(|small| small & mask != *small) {
            kept.push(mask);
        }
    }
    kept
}

/// Take the last mask and all that hang together with it out of a family; the environments they cover come first.
fn take_part(family: &mut Vec<u64>) -> Option<(u64, Vec<u64>)> {
    let mut covered = *family.last()?;
    loop {
        let grown = family.iter().filter(|mask| *mask & covered != 0).fold(covered, |all, mask| all | mask);
        if grown == covered {
            break;
        }
        covered = grown;
    }
    Some((covered, family.extract_if(.., |mask| *mask & covered != 0).collect()))
}

/// The environment that most masks hold, as a mask; the lowest of several.
fn most_frequent(family: &[u64]) -> u64 {
    let mut frequency = [0_u32; 64];
    for &mask in family {
        for environment in environments(mask) {
            frequency[environment as usize] += 1;
        }
    }
    let most = frequency.iter().max().copied().unwrap_or(0);
    1 << frequency.iter().position(|count| *count == most).unwrap_or(0)
}

/// The positions of the bits of a mask, ascending.
fn environments(mut mask: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lowest = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(lowest)
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn listed(universe: u64, family: &[u64]) -> Counts {
        let mut counts = Counts::none();
        // All subsets of a mask, from the largest down.
        let mut subset = universe;
        loop {
            if family.iter().all(|mask| mask & subset != 0) {
                counts.add(subset.count_ones(), 1);
            }
            if subset == 0 {
                return counts;
            }
            subset = (subset - 1) & universe;
        }
    }

    fn counted(universe: u64, family: &[u64]) -> Counts {
        Effort::new().count(universe, family.to_vec()).unwrap()
    }

    #[test]
    fn small_families_by_hand() {
        // {0,1} and {1,2} within {0,1,2,3}: sizes 1: {1}; 2: 01, 02, 12, 13; 3: all four of 012, 013, 023, 123; 4: one.
        assert_eq!(
            counted(0b1111, &[0b0011, 0b0110]).by_size().collect::<Vec<_>>()[..5],
            [(0, 0), (1, 1), (2, 4), (3, 4), (4, 1)]
        );
    }

    #[test]
    fn a_mask_that_cannot_be_met() {
        assert_eq!(counted(0b11, &[0b01, 0]), Counts::none());
    }

    #[test]
    fn thirty_two_pairs_on_sixty_four_environments() {
        // Each pair can be met in three ways: one of size 2, two of size 1. So 3^32 in all, and 2^32 of size 32.
        let pairs: Vec<u64> = (0..32).map(|pair| 0b11 << (2 * pair)).collect();
        let found = counted(u64::MAX, &pairs);
        assert_eq!(found.by_size().map(|(_, subsets)| subsets).sum::<u128>(), 3_u128.pow(32));
        assert_eq!(found.by_size().nth(32), Some((32, 1 << 32)));
    }

    #[test]
    fn everything_on_sixty_four_environments() {
        let found = counted(u64::MAX, &[u64::MAX]);
        assert_eq!(found.by_size().map(|(_, subsets)| subsets).sum::<u128>(), u128::from(u64::MAX));
    }

    #[test]
    fn effort_runs_out_instead_of_time() {
        // Every pair of 20 environments, which branches more than three times before the bit table takes over.
        let pairs: Vec<u64> = (0..20).flat_map(|a| (0..a).map(move |b| 1 << a | 1 << b)).collect();
        assert_eq!(Effort { branches_left: 3 }.count((1 << 20) - 1, pairs.clone()).unwrap_err(), TooHard);
        assert_eq!(counted((1 << 20) - 1, &pairs), listed((1 << 20) - 1, &pairs));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn equal_to_listing_few_environments(universe in 0_u64..1 << 10, family in vec(any::<u64>(), 0..12)) {
            let family: Vec<u64> = family.iter().map(|mask| mask & universe).collect();
            prop_assert_eq!(counted(universe, &family), listed(universe, &family));
        }
    }

    /// Masks of a few environments each, out of 19: enough to branch, to fall apart and to use both direct counts.
    fn sparse_family() -> impl Strategy<Value = Vec<u64>> {
        let mask = vec(0_u32..19, 1..5).prop_map(|bits| bits.iter().fold(0, |mask, bit| mask | 1_u64 << bit));
        vec(mask, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equal_to_listing_many_environments(family in sparse_family(), shift in 0_u32..45) {
            let universe = ((1 << 19) - 1) << shift;
            let family: Vec<u64> = family.iter().map(|mask| mask << shift).collect();
            prop_assert_eq!(counted(universe, &family), listed(universe, &family));
        }
    }
}
