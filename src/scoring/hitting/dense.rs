//! The direct count for few environments and any number of masks: one bit per subset, 64 subsets a machine word.
//!
//! Subset number s has bit s of the table; the low 6 environments are the position within a word, the others the word's
//! index. A subset misses a mask when it lies within the mask's complement, so the complements are marked and the marks
//! spread down to every subset of a marked one, an environment at a time.

use super::{Counts, environments};

/// Environments that are still counted this way: a table of 2^16 bits, 8 KiB.
pub(super) const MOST_ENVIRONMENTS: u32 = 16;

/// Environments of tables that are kept subset by subset, which takes 2 MiB at most.
pub(in crate::scoring) const MOST_KEPT: u32 = 24;

/// Environments that live within a word.
const IN_WORD: u32 = 6;

/// For each of them, the positions of the subsets that lack it.
const LACKS: [u64; IN_WORD as usize] = [
    0x5555_5555_5555_5555,
    0x3333_3333_3333_3333,
    0x0F0F_0F0F_0F0F_0F0F,
    0x00FF_00FF_00FF_00FF,
    0x0000_FFFF_0000_FFFF,
    0x0000_0000_FFFF_FFFF,
];

/// The lowest bit of every byte.
const LOWEST: u64 = 0x0101_0101_0101_0101;

/// How many subsets of `part` of each size meet every mask of `family`, whose masks lie within it. It has at most
/// [`MOST_ENVIRONMENTS`].
pub(super) fn count(part: u64, family: &[u64]) -> Counts {
    let width = part.count_ones();
    let mut table = [0_u64; 1 << (MOST_ENVIRONMENTS - IN_WORD)];
    let words = &mut table[..1 << width.saturating_sub(IN_WORD)];
    miss(words, part, family);
    tally(words, real(width))
}

/// Mark the subsets of `part` that miss a mask.
fn miss(words: &mut [u64], part: u64, family: &[u64]) {
    for &mask in family {
        let subset = gather(part & !mask, part);
        words[subset >> IN_WORD] |= 1 << (subset & 63);
    }
    spread_down(words, part.count_ones());
}

/// The positions of a word that are subsets: with fewer than 6 environments only the first ones of the one word.
fn real(width: u32) -> u64 {
    if width < IN_WORD { (1 << (1 << width)) - 1 } else { u64::MAX }
}

/// Subsets of all environments of a table of at most [`MOST_KEPT`], one by one.
#[derive(Debug)]
pub(in crate::scoring) struct Subsets {
    everywhere: u64,
    words: Vec<u64>,
}

impl Subsets {
    /// No subset.
    pub(in crate::scoring) fn none(everywhere: u64) -> Self {
        Self { everywhere, words: vec![0; 1 << everywhere.count_ones().saturating_sub(IN_WORD)] }
    }

    /// Add the subsets that lie within `allowed` and meet every mask of `family`, and count those that were not here before.
    pub(in crate::scoring) fn take(&mut self, allowed: u64, family: &[u64]) -> Counts {
        let width = self.everywhere.count_ones();
        let mut missed = vec![0; self.words.len()];
        miss(&mut missed, self.everywhere, family);
        for environment in environments(self.everywhere & !allowed) {
            // Environments of a table are the lowest bits, so each is its own position.
            for (index, word) in missed.iter_mut().enumerate() {
                match LACKS.get(environment as usize) {
                    Some(lacks) => *word |= !lacks,
                    None if index >> (environment - IN_WORD) & 1 == 1 => *word = u64::MAX,
                    None => {}
                }
            }
        }
        for (missed, here) in missed.iter_mut().zip(&mut self.words) {
            let others = *here;
            *here |= !*missed;
            *missed |= others;
        }
        tally(&missed, real(width))
    }
}

/// The bits of `mask` at the positions of `part`, moved together.
fn gather(mask: u64, part: u64) -> usize {
    environments(part).enumerate().fold(0, |all, (to, from)| all | ((mask >> from & 1) as usize) << to)
}

/// Mark every subset of a marked subset.
fn spread_down(words: &mut [u64], width: u32) {
    for word in words.iter_mut() {
        for (environment, lacks) in LACKS.iter().enumerate() {
            *word |= *word >> (1 << environment) & lacks;
        }
    }
    for environment in IN_WORD..width {
        let stride = 1 << (environment - IN_WORD);
        for block in words.chunks_exact_mut(2 * stride) {
            let (without, with) = block.split_at_mut(stride);
            for (without, with) in without.iter_mut().zip(with) {
                *without |= *with;
            }
        }
    }
}

/// Count what is not marked, by size.
///
/// A subset's size is made of three parts: bits set in its word's index, in its byte's index within the word, in its
/// position within the byte. Words are added up byte by byte, all words of one size at once; 64 words add at most 3 each
/// to a byte, so none overflows.
fn tally(words: &[u64], real: u64) -> Counts {
    let mut counts = [0_u32; MOST_KEPT as usize + 1];
    for (index, chunk) in words.chunks(64).enumerate() {
        let mut sums = [[0_u64; 4]; 7];
        for (within, word) in (0_u32..).zip(chunk) {
            let met = !word & real;
            let sums = &mut sums[within.count_ones() as usize];
            let at = |position: u32| met >> position & LOWEST;
            sums[0] += at(0);
            sums[1] += at(1) + at(2) + at(4);
            sums[2] += at(3) + at(5) + at(6);
            sums[3] += at(7);
        }
        for (word_size, sums) in sums.iter().enumerate() {
            for (position_size, bytes) in sums.iter().enumerate() {
                for (byte, subsets) in (0_u32..).zip(bytes.to_le_bytes()) {
                    let outside = (index.count_ones() + byte.count_ones()) as usize;
                    // Sizes that no subset of a small table has are only ever counted zero times.
                    if subsets != 0 {
                        counts[outside + word_size + position_size] += u32::from(subsets);
                    }
                }
            }
        }
    }
    let mut by_size = Counts::none();
    for (size, subsets) in (0..).zip(counts) {
        by_size.add(size, u128::from(subsets));
    }
    by_size
}
