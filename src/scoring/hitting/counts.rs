//! How many subsets there are of each size: a polynomial in x, where the coefficient of x^s counts subsets of s elements.

/// Sizes 0 to 64.
const SIZES: usize = 65;

/// Numbers of subsets by size. A set of 64 has 2^64 subsets, so 128 bits hold every sum and product exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scoring) struct Counts([u128; SIZES]);

impl Counts {
    /// No subset at all.
    pub(in crate::scoring) fn none() -> Self {
        Self([0; SIZES])
    }

    /// All subsets of `elements` elements: (1 + x)^elements.
    pub(super) fn of_free(elements: u32) -> Self {
        let mut counts = Self::none();
        counts.0[0] = 1;
        for _ in 0..elements {
            counts = counts.clone().with_forced(1).plus(&counts);
        }
        counts
    }

    /// The same subsets with `elements` more elements in each: times x^elements.
    pub(super) fn with_forced(mut self, elements: u32) -> Self {
        // The coefficients that come round from the end are zero: no subset has more than 64 elements.
        self.0.rotate_right(elements as usize);
        self
    }

    /// These subsets and those.
    pub(in crate::scoring) fn plus(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
        self
    }

    /// These subsets without those, which are all among them.
    pub(in crate::scoring) fn minus(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine -= theirs;
        }
        self
    }

    /// Every union of one of these and one of those, which have no element in common.
    pub(super) fn times(&self, other: &Self) -> Self {
        let mut product = Self::none();
        for (size, count) in self.by_size().filter(|(_, count)| *count != 0) {
            for (more, ways) in other.by_size().filter(|(_, ways)| *ways != 0) {
                product.0[size + more] += count * ways;
            }
        }
        product
    }

    /// `subsets` more subsets of a size.
    pub(in crate::scoring) fn add(&mut self, size: u32, subsets: u128) {
        self.0[size as usize] += subsets;
    }

    /// Size and number, from size 0 to 64.
    pub(in crate::scoring) fn by_size(&self) -> impl Iterator<Item = (usize, u128)> + '_ {
        self.0.iter().copied().enumerate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(counts: &Counts) -> Vec<u128> {
        counts.by_size().map(|(_, count)| count).collect()
    }

    #[test]
    fn all_subsets_of_four() {
        assert_eq!(numbers(&Counts::of_free(4))[..6], [1, 4, 6, 4, 1, 0]);
    }

    #[test]
    fn products_join_disjoint_sets() {
        assert_eq!(Counts::of_free(3).times(&Counts::of_free(2)), Counts::of_free(5));
        assert_eq!(numbers(&Counts::of_free(2).with_forced(2))[..6], [0, 0, 1, 2, 1, 0]);
    }

    #[test]
    fn sixty_four_elements_fit() {
        let all = Counts::of_free(32).times(&Counts::of_free(32));
        assert_eq!(numbers(&all).iter().sum::<u128>(), 1 << 64);
        assert_eq!(numbers(&all)[64], 1);
    }
}
