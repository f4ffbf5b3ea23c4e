//! Who wins a subset of environments that several miners of one age win: the first of them.

use super::TooHard;
use super::hitting::{Counts, Effort, MOST_KEPT, Subsets};

/// What a look at the subsets that two miners share costs, in steps of [`Effort`]: about 4000 of them are affordable, each with
/// a count of its own.
const LOOK: u32 = 1 << 12;

/// The subsets on which a miner dominates everybody else: those within `allowed` that meet every mask. There is one at least.
#[derive(Debug, Clone)]
pub(super) struct Wins {
    allowed: u64,
    masks: Vec<u64>,
}

impl Wins {
    /// None when no subset is left.
    pub(super) fn new(allowed: u64, mut masks: Vec<u64>) -> Option<Self> {
        for mask in &mut masks {
            *mask &= allowed;
        }
        masks.sort_unstable();
        masks.dedup();
        // Without an empty mask, all that is allowed meets every mask.
        (!masks.contains(&0)).then_some(Self { allowed, masks })
    }

    fn count(&self, effort: &mut Effort) -> Result<Counts, TooHard> {
        effort.count(self.allowed, self.masks.clone())
    }

    /// The subsets that both win.
    fn and(&self, other: &Self) -> Option<Self> {
        Self::new(self.allowed & other.allowed, [&self.masks[..], &other.masks].concat())
    }
}

/// How many subsets of each size each of several miners wins, where a subset goes to the first miner of those that win it.
///
/// # Errors
/// [`TooHard`].
pub(super) fn first_of(everywhere: u64, all: &[Wins], effort: &mut Effort) -> Result<Vec<Counts>, TooHard> {
    match all {
        [alone] => Ok(vec![alone.count(effort)?]),
        _ if everywhere.count_ones() <= MOST_KEPT => Ok(one_by_one(everywhere, all)),
        _ => by_inclusion(all, effort),
    }
}

fn one_by_one(everywhere: u64, all: &[Wins]) -> Vec<Counts> {
    let mut taken = Subsets::none(everywhere);
    all.iter().map(|wins| taken.take(wins.allowed, &wins.masks)).collect()
}

fn by_inclusion(all: &[Wins], effort: &mut Effort) -> Result<Vec<Counts>, TooHard> {
    let mut firsts = Vec::with_capacity(all.len());
    for (place, wins) in all.iter().enumerate() {
        let own = wins.count(effort)?;
        let taken = shared(wins, &own, &all[..place], effort)?;
        firsts.push(own.minus(&taken));
    }
    Ok(firsts)
}

/// How many of the subsets that `wins` holds are also among those of the others, by inclusion and exclusion.
fn shared(wins: &Wins, own: &Counts, others: &[Wins], effort: &mut Effort) -> Result<Counts, TooHard> {
    let mut overlaps = Vec::with_capacity(others.len());
    for other in others {
        effort.spend(LOOK)?;
        let Some(both) = wins.and(other) else { continue };
        let count = both.count(effort)?;
        // Copies win the same subsets: what one of them covers needs no look at the others.
        if count == *own {
            return Ok(count);
        }
        overlaps.push((both, count));
    }
    let mut total = Counts::none();
    for (place, (both, count)) in overlaps.iter().enumerate() {
        // What an earlier overlap has counted is not counted again.
        let before: Vec<Wins> = overlaps[..place].iter().map(|(other, _)| other.clone()).collect();
        let again = shared(both, count, &before, effort)?;
        total = total.plus(&count.clone().minus(&again));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn some_wins(environments: u32) -> impl Strategy<Value = Vec<Wins>> {
        let everywhere = (1_u64 << environments) - 1;
        let mask = move || (any::<u64>(), any::<u64>()).prop_map(move |(one, other)| (one | other) & everywhere);
        let wins = (mask(), vec(mask(), 0..4)).prop_filter_map("some subset is won", |(allowed, mut masks)| {
            masks.push(allowed);
            Wins::new(allowed, masks)
        });
        vec(wins, 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn both_ways_of_counting_give_a_subset_to_the_first(all in some_wins(9)) {
            let everywhere = (1 << 9) - 1;
            let kept = one_by_one(everywhere, &all);
            prop_assert_eq!(&by_inclusion(&all, &mut Effort::new()).unwrap(), &kept);
            let holds = |wins: &Wins, subset: u64| {
                subset & !wins.allowed == 0 && wins.masks.iter().all(|mask| mask & subset != 0)
            };
            let mut listed = vec![Counts::none(); all.len()];
            for subset in 0..=everywhere {
                if let Some(first) = all.iter().position(|wins| holds(wins, subset)) {
                    listed[first].add(subset.count_ones(), 1);
                }
            }
            prop_assert_eq!(kept, listed);
        }
    }

    #[test]
    fn copies_cost_little_on_many_environments() {
        let everywhere = (1_u64 << 50) - 1;
        let copy = Wins::new(everywhere, vec![everywhere, 0b11]).unwrap();
        let firsts = first_of(everywhere, &vec![copy.clone(); 200], &mut Effort::new()).unwrap();
        assert_eq!(firsts[0], copy.count(&mut Effort::new()).unwrap());
        assert!(firsts[1..].iter().all(|counts| *counts == Counts::none()));
    }

    #[test]
    fn miners_that_share_in_too_many_ways_are_too_hard() {
        let everywhere = (1_u64 << 50) - 1;
        let all: Vec<Wins> = (0..40).map(|own| Wins::new(everywhere, vec![everywhere, 0b11 << own]).unwrap()).collect();
        assert_eq!(first_of(everywhere, &all, &mut Effort::new()), Err(TooHard));
    }
}
