//! Decides which episode of a request starts next. Pure: no clock, no socket, no task.
//!
//! Fair between miners: whoever has the fewest episodes in flight is next, so that a slow miner fills no more than its
//! share. Among equals, and for each miner, the request's own order decides; the engine lists each miner's episodes in the
//! miner's secret order.
//!
//! An episode that its miner breaks at once still costs the simulator a scene. A miner that has just done so gets one
//! episode at a time, and not before it has rested: else it would have the simulator make scenes and do nothing for others.

use std::collections::{HashMap, VecDeque};

use crate::rollout::permits::Permits;

/// The episodes of a request that have not ended.
#[derive(Debug)]
pub(super) struct Scheduler {
    queues: Vec<Queue>,
    limit: Limit,
}

/// How many episodes of a miner are in flight at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// So many.
    PerMiner(u32),
    /// One for each permit.
    Permits,
}

#[derive(Debug, Default)]
struct Queue {
    /// Positions in the request.
    waiting: VecDeque<usize>,
    in_flight: usize,
    warmth: Warmth,
    /// Episodes in a row that the miner broke.
    faults: u32,
    permits: Permits,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Warmth {
    #[default]
    Cold,
    Warm,
}

/// How an episode left its miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It played to the end.
    Well,
    /// The miner broke it.
    ByFault,
    /// That says nothing about the miner.
    Otherwise,
}

/// An episode to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Number of the miner, in order of first appearance.
    pub(super) miner: usize,
    /// Position in the request.
    pub(super) episode: usize,
}

impl Scheduler {
    /// A scheduler of the episodes whose miners are these, in order. None starts before its miner is [`warm`](Self::warm).
    pub(super) fn new<M: std::hash::Hash + Eq>(miners: impl IntoIterator<Item = M>, limit: Limit) -> Self {
        let mut numbers = HashMap::new();
        let mut queues: Vec<Queue> = Vec::new();
        for (episode, miner) in miners.into_iter().enumerate() {
            let number = *numbers.entry(miner).or_insert(queues.len());
            if number == queues.len() {
                queues.push(Queue::default());
            }
            queues[number].waiting.push_back(episode);
        }
        Self { queues, limit }
    }

    /// The first episode of each miner, by number.
    pub(super) fn first_episodes(&self) -> impl Iterator<Item = usize> {
        self.queues.iter().filter_map(|queue| queue.waiting.front().copied())
    }

    /// This miner's episodes may start from now on.
    pub(super) fn warm(&mut self, miner: usize) {
        self.queues[miner].warmth = Warmth::Warm;
    }

    /// Whether [`start`](Self::start) would name an episode.
    pub(super) fn can_start(&self) -> bool {
        self.candidate().is_some()
    }

    /// The episode that starts now; it counts as in flight until [`ended`](Self::ended).
    pub(super) fn start(&mut self) -> Option<Start> {
        let miner = self.candidate()?;
        let queue = &mut self.queues[miner];
        let episode = queue.waiting.pop_front()?;
        queue.in_flight += 1;
        self.take_permit(miner);
        Some(Start { miner, episode })
    }

    /// The miner may have had so many starts by now.
    pub(super) fn grant(&mut self, miner: usize, total: u64) {
        self.queues[miner].permits.grant(total);
    }

    /// Whether another episode of the miner may be in flight, as far as permits decide.
    pub(super) fn has_permit(&self, miner: usize) -> bool {
        self.limit != Limit::Permits || self.queues[miner].permits.left() > 0
    }

    /// An episode starts that [`start`](Self::start) has named before.
    pub(super) fn take_permit(&mut self, miner: usize) {
        self.queues[miner].permits.take();
    }

    /// Permits that nothing has used since this was last called, by miner: they are given back.
    pub(super) fn give_back(&mut self) -> Vec<(usize, u64)> {
        let idle = self.queues.iter_mut().map(|queue| queue.permits.give_back()).enumerate();
        idle.filter(|(_, count)| *count > 0).collect()
    }

    /// An episode of this miner has ended. After a fault of the miner none starts before it is [`warm`](Self::warm) again.
    pub(super) fn ended(&mut self, miner: usize, how: Ended) {
        let queue = &mut self.queues[miner];
        queue.in_flight -= 1;
        match how {
            Ended::Well => queue.faults = 0,
            Ended::ByFault => (queue.faults, queue.warmth) = (queue.faults + 1, Warmth::Cold),
            Ended::Otherwise => {}
        }
    }

    /// It was not ready: one episode at a time, once it is [`warm`](Self::warm), until it plays one to the end.
    pub(super) fn doubt(&mut self, miner: usize) {
        let queue = &mut self.queues[miner];
        (queue.faults, queue.warmth) = (queue.faults + 1, Warmth::Cold);
    }

    /// Episodes in a row that this miner broke.
    pub(super) fn faults(&self, miner: usize) -> u32 {
        self.queues[miner].faults
    }

    /// An episode has not ended and is to be started again, before all others of its miner.
    pub(super) fn put_back(&mut self, start: Start) {
        self.ended(start.miner, Ended::Otherwise);
        self.queues[start.miner].waiting.push_front(start.episode);
    }

    /// Whether nothing waits and nothing is in flight.
    pub(super) fn is_done(&self) -> bool {
        self.queues.iter().all(|queue| queue.waiting.is_empty() && queue.in_flight == 0)
    }

    /// Give up what has not started.
    pub(super) fn give_up(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.waiting.clear());
    }

    fn candidate(&self) -> Option<usize> {
        let ready = self.queues.iter().enumerate().filter_map(|(miner, queue)| {
            let first = *queue.waiting.front()?;
            let most = match self.limit {
                _ if queue.faults > 0 => 1,
                Limit::PerMiner(most) => most.max(1) as usize,
                Limit::Permits => usize::MAX,
            };
            let free = queue.warmth == Warmth::Warm && queue.in_flight < most && self.has_permit(miner);
            free.then_some((queue.in_flight, first, miner))
        });
        ready.min().map(|(_, _, miner)| miner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all_warm(miners: &str, per_miner: u32) -> Scheduler {
        let mut scheduler = Scheduler::new(miners.chars(), Limit::PerMiner(per_miner));
        (0..scheduler.queues.len()).for_each(|miner| scheduler.warm(miner));
        scheduler
    }

    fn drain(scheduler: &mut Scheduler) -> Vec<usize> {
        std::iter::from_fn(|| scheduler.start()).map(|start| start.episode).collect()
    }

    #[test]
    fn miners_take_turns_in_the_order_of_the_request() {
        assert_eq!(drain(&mut all_warm("aaabbbccc", 2)), [0, 3, 6, 1, 4, 7]);
        assert_eq!(drain(&mut all_warm("abcabcabc", 9)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_slow_miner_keeps_to_its_share() {
        let mut scheduler = all_warm("aaaaaabbbbbb", 2);
        assert_eq!(drain(&mut scheduler), [0, 6, 1, 7]);
        // Only `b` ends its episodes: it alone gets the free places.
        for next in [8, 9, 10, 11] {
            scheduler.ended(1, Ended::Well);
            assert_eq!(drain(&mut scheduler), [next]);
        }
        scheduler.ended(1, Ended::Well);
        assert_eq!(drain(&mut scheduler), [0; 0]);
    }

    #[test]
    fn what_is_put_back_starts_again_before_the_others() {
        let mut scheduler = all_warm("aab", 1);
        assert_eq!(drain(&mut scheduler), [0, 2]);
        scheduler.put_back(Start { miner: 0, episode: 0 });
        assert_eq!(drain(&mut scheduler), [0]);
        scheduler.ended(0, Ended::Well);
        scheduler.ended(1, Ended::Well);
        assert_eq!(drain(&mut scheduler), [1]);
    }

    #[test]
    fn a_cold_miner_holds_nobody_up() {
        let mut scheduler = Scheduler::new("ab".chars(), Limit::PerMiner(1));
        assert!(!scheduler.can_start());
        scheduler.warm(1);
        assert_eq!(drain(&mut scheduler), [1]);
        scheduler.ended(1, Ended::Well);
        assert!(!scheduler.is_done());
        scheduler.warm(0);
        assert_eq!(drain(&mut scheduler), [0]);
        scheduler.ended(0, Ended::Well);
        assert!(scheduler.is_done());
    }

    #[test]
    fn a_miner_that_breaks_episodes_gets_one_at_a_time_until_it_plays_one() {
        let mut scheduler = all_warm("aaaaaabb", 2);
        assert_eq!(drain(&mut scheduler), [0, 6, 1, 7]);
        scheduler.ended(0, Ended::ByFault);
        scheduler.ended(0, Ended::ByFault);
        assert_eq!(drain(&mut scheduler), [0; 0], "it rests");
        assert_eq!((scheduler.faults(0), scheduler.faults(1)), (2, 0));
        scheduler.warm(0);
        assert_eq!(drain(&mut scheduler), [2]);
        scheduler.ended(0, Ended::Otherwise);
        assert_eq!(drain(&mut scheduler), [3], "what is our fault changes nothing");
        scheduler.ended(0, Ended::Well);
        assert_eq!(drain(&mut scheduler), [4, 5]);
    }

    #[test]
    fn a_miner_that_was_not_ready_gets_one_at_a_time_until_it_plays_one() {
        let mut scheduler = Scheduler::new("aaa".chars(), Limit::PerMiner(2));
        scheduler.doubt(0);
        assert_eq!(drain(&mut scheduler), [0; 0]);
        scheduler.warm(0);
        assert_eq!(drain(&mut scheduler), [0]);
        // It says that it is not ready for it: the same episode again, later.
        scheduler.put_back(Start { miner: 0, episode: 0 });
        scheduler.doubt(0);
        assert_eq!(drain(&mut scheduler), [0; 0]);
        scheduler.warm(0);
        assert_eq!(drain(&mut scheduler), [0]);
        scheduler.ended(0, Ended::Well);
        assert_eq!(drain(&mut scheduler), [1, 2]);
    }

    #[test]
    fn with_permits_each_start_takes_one() {
        let mut scheduler = Scheduler::new("aab".chars(), Limit::Permits);
        (0..2).for_each(|miner| scheduler.warm(miner));
        assert_eq!(drain(&mut scheduler), [0; 0]);
        scheduler.grant(0, 1);
        scheduler.grant(1, 3);
        assert_eq!(drain(&mut scheduler), [0, 2]);
        scheduler.ended(0, Ended::Well);
        assert_eq!(drain(&mut scheduler), [0; 0], "a permit is good for one start");
        scheduler.grant(0, 2);
        assert_eq!(drain(&mut scheduler), [1]);
        assert_eq!(scheduler.give_back(), [], "two permits have come since the last call");
        assert_eq!(scheduler.give_back(), [(1, 2)]);
        assert_eq!(scheduler.give_back(), []);
    }

    #[test]
    fn a_permit_starts_nothing_of_a_miner_that_rests() {
        let mut scheduler = Scheduler::new("aaa".chars(), Limit::Permits);
        scheduler.warm(0);
        scheduler.grant(0, 3);
        assert_eq!(scheduler.start().map(|start| start.episode), Some(0));
        scheduler.ended(0, Ended::ByFault);
        assert!(!scheduler.can_start());
        scheduler.warm(0);
        assert_eq!(drain(&mut scheduler), [1]);
    }

    proptest! {
        #[test]
        fn each_episode_starts_once_and_limits_hold(
            miners in proptest::collection::vec(0u8..5, 0..40),
            per_miner in 1u32..4,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut scheduler = Scheduler::new(&miners, Limit::PerMiner(per_miner));
            (0..scheduler.queues.len()).for_each(|miner| scheduler.warm(miner));
            let mut running: Vec<Start> = Vec::new();
            let mut started = Vec::new();
            for pick in picks {
                if let Some(start) = scheduler.start() {
                    prop_assert!(running.iter().filter(|other| other.miner == start.miner).count() < per_miner as usize);
                    running.push(start);
                    started.push(start.episode);
                } else if !running.is_empty() {
                    scheduler.ended(running.swap_remove(pick.index(running.len())).miner, Ended::Well);
                }
            }
            prop_assert!(scheduler.is_done() || !running.is_empty());
            started.sort_unstable();
            prop_assert_eq!(started, (0..miners.len()).collect::<Vec<_>>());
        }
    }
}
