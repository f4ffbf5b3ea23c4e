//! Permits to start episodes: a miner plays no more of them at a time than it says it can, whatever asks it to.
//!
//! One [`Permits`] holds over all tasks of a cycle, all environment servers and all cycles of a process. A miner has one
//! permit until its `/health` announces more (`max_concurrency`), and a cycle uses at most `per_miner` of them.

mod patience;
mod table;

#[cfg(test)]
mod model;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::{
    patience::Patience,
    table::{Granted, RunId, Table},
};
use crate::cycle::{CycleId, Hotkey};
use crate::rollout::protocol::Grant;

/// The permits of all miners. Shared by all cycles of a process.
#[derive(Debug, Clone, Default)]
pub struct Permits {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    table: Table,
    runs: HashMap<RunId, Run>,
    last: RunId,
    patience: HashMap<CycleId, HashMap<Hotkey, Patience>>,
    since: Instant,
}

#[derive(Debug)]
struct Run {
    cycle: CycleId,
    /// How long a miner may say "not ready" to `/reset` in a cycle.
    allowed: Duration,
    grants: UnboundedSender<Grant>,
}

/// What a run asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The cycle that it is of.
    pub cycle: CycleId,
    /// Most permits of a miner that the cycle uses at a time.
    pub per_miner: u32,
    /// How long a miner may say "not ready" to `/reset` in the cycle.
    pub patience: Duration,
    /// How many episodes of each miner.
    pub episodes: HashMap<Hotkey, u32>,
}

/// A run that takes part. Dropped, it gives everything back.
#[derive(Debug)]
pub struct Member {
    permits: Permits,
    run: RunId,
}

impl Default for Shared {
    fn default() -> Self {
        Self { table: Table::default(), runs: HashMap::new(), last: 0, patience: HashMap::new(), since: Instant::now() }
    }
}

impl Permits {
    /// Have a run take part. It hears of its permits through the receiver.
    pub fn enter(&self, asked: Asked) -> (Member, UnboundedReceiver<Grant>) {
        let (grants, receiver) = unbounded_channel();
        let mut shared = self.lock();
        shared.last += 1;
        let run = shared.last;
        shared.runs.insert(run, Run { cycle: asked.cycle, allowed: asked.patience, grants });
        shared.table.enter(run, (asked.cycle, asked.per_miner), asked.episodes);
        (Member { permits: self.clone(), run }, receiver)
    }

    /// A cycle has ended, and what its miners have used of their patience does not matter any more.
    pub fn forget(&self, cycle: CycleId) {
        self.lock().patience.remove(&cycle);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing between lock and unlock can panic half-way.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Shared) -> Vec<Granted>) {
        let mut shared = self.lock();
        let granted = change(&mut shared);
        for Granted { run, hotkey, total } in granted {
            let Some(Run { cycle, allowed, grants }) = shared.runs.get(&run) else { continue };
            let patience = shared.patience.get(cycle).and_then(|miners| miners.get(&hotkey));
            let left = patience.map_or(*allowed, |patience| patience.left(*allowed));
            let patience_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            // A run that hears nothing any more is about to leave.
            let _ = grants.send(Grant { hotkey, total, patience_ms: Some(patience_ms) });
        }
    }
}

impl Shared {
    fn lose(&mut self, run: RunId, hotkey: &Hotkey, lost: Duration) {
        let now = self.since.elapsed();
        if let Some(Run { cycle, .. }) = self.runs.get(&run)
            && !lost.is_zero()
        {
            self.patience.entry(*cycle).or_default().entry(hotkey.clone()).or_default().lose(now, lost);
        }
    }
}

impl Member {
    /// Episodes of this miner could start, and it can play so many at a time, if that is known.
    pub fn open(&self, hotkey: &Hotkey, capacity: Option<u32>) {
        self.permits.change(|shared| shared.table.open(self.run, hotkey, capacity));
    }

    /// An episode of this miner has started.
    pub fn started(&self, hotkey: &Hotkey) {
        self.permits.change(|shared| shared.table.started(self.run, hotkey));
    }

    /// One that had started has ended.
    pub fn ended(&self, hotkey: &Hotkey) {
        self.permits.change(|shared| shared.table.ended(self.run, hotkey));
    }

    /// One that had started waits again, because the miner was not ready for so long, or for no reason of its own.
    pub fn returned(&self, hotkey: &Hotkey, not_ready: Duration) {
        self.permits.change(|shared| {
            shared.lose(self.run, hotkey, not_ready);
            shared.table.returned(self.run, hotkey)
        });
    }

    /// One will not start any more.
    pub fn skipped(&self, hotkey: &Hotkey) {
        self.permits.change(|shared| shared.table.skipped(self.run, hotkey));
    }

    /// So many permits could not be used.
    pub fn unused(&self, hotkey: &Hotkey, count: u32) {
        self.permits.change(|shared| shared.table.unused(self.run, hotkey, count));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.permits.change(|shared| {
            shared.runs.remove(&self.run);
            shared.table.leave(self.run)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hotkey() -> Hotkey {
        "a".parse().unwrap()
    }

    fn asked(cycle: CycleId, episodes: u32) -> Asked {
        Asked { cycle, per_miner: 16, patience: Duration::from_secs(60), episodes: [(hotkey(), episodes)].into() }
    }

    #[test]
    fn a_run_that_goes_hands_its_permit_to_one_that_waits() {
        let (permits, cycle) = (Permits::default(), CycleId::generate());
        let (first, mut to_first) = permits.enter(asked(cycle, 3));
        let (second, mut to_second) = permits.enter(asked(CycleId::generate(), 3));
        first.open(&hotkey(), None);
        second.open(&hotkey(), Some(1));
        assert_eq!(to_first.try_recv().unwrap().total, 1);
        assert!(to_second.try_recv().is_err());
        first.started(&hotkey());
        assert!(to_second.try_recv().is_err());
        drop(first);
        assert_eq!(to_second.try_recv().unwrap().total, 1);
        drop(second);
        assert!(permits.lock().runs.is_empty());
    }

    #[test]
    fn time_lost_in_one_run_is_missing_in_all_runs_of_the_cycle_and_in_no_other() {
        let (permits, cycle) = (Permits::default(), CycleId::generate());
        let (first, mut to_first) = permits.enter(asked(cycle, 1));
        first.open(&hotkey(), None);
        assert_eq!(to_first.try_recv().unwrap().patience_ms, Some(60_000));
        first.started(&hotkey());
        first.returned(&hotkey(), Duration::from_secs(59));
        assert_eq!(to_first.try_recv().unwrap().patience_ms, Some(1000));
        drop(first);
        let left = |cycle| {
            let (run, mut grants) = permits.enter(asked(cycle, 1));
            run.open(&hotkey(), None);
            grants.try_recv().unwrap().patience_ms
        };
        assert_eq!((left(cycle), left(CycleId::generate())), (Some(1000), Some(60_000)));
        permits.forget(cycle);
        assert_eq!(left(cycle), Some(60_000));
    }
}
