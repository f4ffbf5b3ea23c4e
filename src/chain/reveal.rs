//! When weights that were committed encrypted are revealed: in which block, and therefore in which round of the public
//! randomness beacon (drand's quicknet) they have to become readable. Pure arithmetic over what the chain says of a subnet's
//! epochs.

use std::time::Duration;

use serde::Serialize;

/// When round 1 of the beacon was, in seconds since 1970, and the seconds between rounds.
const FIRST_ROUND: f64 = 1_692_803_367.0;
const ROUND_SECONDS: f64 = 3.0;
/// Blocks after which the chain knows a round of the beacon for certain.
const ROUND_IS_KNOWN: u64 = 3;
/// More blocks than this since its last epoch, and a subnet runs one whatever its tempo says.
const LONGEST_TEMPO: u64 = 50_400;

/// How a subnet commits and reveals weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reveal {
    /// Version of the format that the runtime takes.
    pub version: u16,
    /// Epochs from a commit to its reveal.
    pub period: u64,
    /// When epochs are.
    pub epochs: Epochs,
}

/// When the epochs of a subnet are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Epochs {
    /// Counted from the last one: newer runtimes.
    FromTheLast {
        /// Block of the last epoch.
        last: u64,
        /// Block of one that was asked for, 0 for none.
        pending: u64,
        /// Blocks since the last one, by the chain's own count.
        since: u64,
    },
    /// By the block's number: older runtimes.
    ByNumber {
        /// Epochs of subnets are a block apart from each other.
        netuid: u16,
    },
}

/// A subnet whose epochs never come reveals nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its tempo is 0, so it has no epochs and reveals no weights")]
pub struct NoEpochs;

impl Reveal {
    /// The block in which the chain reveals what is committed in the block after `head`.
    ///
    /// # Errors
    /// [`NoEpochs`].
    pub fn block(&self, head: u64, tempo: u16) -> Result<u64, NoEpochs> {
        if tempo == 0 {
            return Err(NoEpochs);
        }
        let commit = head + 1;
        Ok(match self.epochs {
            Epochs::FromTheLast { last, pending, since } => {
                let tempo = u64::from(tempo);
                let is_overdue = since > LONGEST_TEMPO;
                let asked_for = if pending > 0 { pending } else { u64::MAX };
                let regular = if is_overdue { commit } else { last.saturating_add(tempo) };
                let first = regular.min(asked_for).max(commit);
                // A commit in the very block of an epoch belongs to the epoch that begins there.
                let epochs = if first == commit { self.period } else { self.period.saturating_sub(1) };
                if self.period == 0 { commit } else { first.saturating_add(epochs.saturating_mul(tempo)) }
            }
            Epochs::ByNumber { netuid } => {
                let (length, shift) = (u64::from(tempo) + 1, u64::from(netuid) + 1);
                let epoch = (commit + shift) / length;
                epoch.saturating_add(self.period).saturating_mul(length).saturating_sub(shift)
            }
        })
    }

    /// The round of the beacon to encrypt to: the first that the chain certainly knows when it reveals.
    ///
    /// # Errors
    /// [`NoEpochs`].
    pub fn round(&self, head: u64, tempo: u16, now: Duration, block_time: Duration) -> Result<u64, NoEpochs> {
        let blocks = (self.block(head, tempo)? + ROUND_IS_KNOWN).saturating_sub(head);
        let moment = now.as_secs_f64() + blocks as f64 * block_time.as_secs_f64();
        // Rounds begin with 1; a moment before the first is a clock that is wrong.
        Ok(((moment - FIRST_ROUND) / ROUND_SECONDS).floor().max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reveal(last: u64, pending: u64, period: u64) -> Reveal {
        Reveal { version: 4, period, epochs: Epochs::FromTheLast { last, pending, since: 0 } }
    }

    #[test]
    fn the_block_of_the_reference() {
        assert_eq!(reveal(10, 0, 1).block(10, 0), Err(NoEpochs));
        assert_eq!(reveal(10, 0, 1).block(10, 50), Ok(60));
        assert_eq!(reveal(80, 95, 1).block(91, 20), Ok(95));
        // The block after the head has an epoch: the commit counts to the next one.
        assert_eq!(reveal(10, 0, 1).block(59, 50), Ok(110));
        assert_eq!(reveal(10, 0, 3).block(20, 50), Ok(160));
    }

    #[test]
    fn older_runtimes_go_by_the_number_of_the_block() {
        let older = Reveal { version: 4, period: 1, epochs: Epochs::ByNumber { netuid: 7 } };
        // Epochs are where (block + 8) can be divided by 361.
        let block = older.block(1_000, 360).unwrap();
        assert_eq!(((block + 8) % 361, block > 1_000, block <= 1_000 + 361), (0, true, true), "{block}");
    }

    #[test]
    fn the_round_is_the_one_at_that_time() {
        let now = Duration::from_secs(1_692_803_367 + 3_000);
        // 50 blocks to the reveal and 3 more, of 12 s.
        assert_eq!(reveal(10, 0, 1).round(10, 50, now, Duration::from_secs(12)), Ok(1_000 + 53 * 4));
        assert_eq!(reveal(10, 0, 1).round(10, 50, Duration::ZERO, Duration::from_millis(250)), Ok(1));
    }

    /// What a chain does, one block after the other.
    fn played(last: u64, pending: u64, tempo: u64, head: u64, period: u64) -> u64 {
        let (mut last, mut pending, mut epoch) = (last, pending, 0);
        let mut wanted = None;
        for block in head + 1.. {
            let runs = (pending > 0 && block >= pending) || block.saturating_sub(last) >= tempo;
            let seen = epoch + u64::from(runs);
            if *wanted.get_or_insert(seen + period) == seen {
                return block;
            }
            if runs {
                (last, pending, epoch) = (block, 0, epoch + 1);
            }
        }
        unreachable!("epochs go on")
    }

    proptest! {
        #[test]
        fn it_is_the_block_that_a_chain_comes_to(
            last in 0..500u64, after in 0..200u64, pending in 0..900u64, tempo in 1..100u16, period in 0..5u64
        ) {
            let head = last + after;
            let found = reveal(last, pending, period).block(head, tempo).unwrap();
            prop_assert_eq!(found, played(last, pending, u64::from(tempo), head, period));
        }
    }
}
