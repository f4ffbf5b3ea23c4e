//! What bounds a cycle beside its own stages: places in pools that cycles share, and how long to wait for one.
//!
//! Pure. The journal counts who is in a pool, over all cycles; this only remembers what it said last, so as not to ask in vain.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::cycle::{PoolClaim, TaskKey};

/// How long to leave a full pool alone, unless one of our own attempts in it ends before.
pub(super) const POOL_RETRY: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Pool {
    limit: u32,
    /// Places that our own attempts hold.
    ours: usize,
    /// When to ask again after the journal has said that it is full.
    try_at: Option<Duration>,
}

/// The pools of a definition.
#[derive(Debug)]
pub(super) struct Pools(BTreeMap<String, Pool>);

impl Pools {
    pub(super) fn new(limits: &BTreeMap<String, u32>) -> Self {
        // A pool without a place would hold its tasks for ever.
        let pool =
            |(name, limit): (&String, &u32)| (name.clone(), Pool { limit: (*limit).max(1), ours: 0, try_at: None });
        Self(limits.iter().map(pool).collect())
    }

    /// Whether it is worth asking the journal for a place. A stage without a pool needs none.
    pub(super) fn may_enter(&self, name: Option<&str>) -> bool {
        self.get(name).is_none_or(|pool| pool.ours < pool.limit as usize && pool.try_at.is_none())
    }

    /// One of ours takes a place, if the journal agrees.
    pub(super) fn enter(&mut self, name: Option<&str>) -> Option<PoolClaim> {
        let name = name?;
        let pool = self.0.get_mut(name)?;
        pool.ours += 1;
        Some(PoolClaim { name: name.to_owned(), limit: pool.limit })
    }

    /// One of ours has ended.
    pub(super) fn leave(&mut self, name: Option<&str>) {
        if let Some(pool) = name.and_then(|name| self.0.get_mut(name)) {
            pool.ours = pool.ours.saturating_sub(1);
            pool.try_at = None;
        }
    }

    /// The journal has no place for one of ours.
    pub(super) fn refused(&mut self, name: Option<&str>, now: Duration) {
        if let Some(pool) = name.and_then(|name| self.0.get_mut(name)) {
            pool.ours = pool.ours.saturating_sub(1);
            pool.try_at = Some(now + POOL_RETRY);
        }
    }

    /// Pools that were full a while ago are worth another try.
    pub(super) fn wake(&mut self, now: Duration) {
        for pool in self.0.values_mut() {
            pool.try_at = pool.try_at.filter(|at| *at > now);
        }
    }

    /// When the first of these pools is worth another try.
    pub(super) fn next_try<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<Duration> {
        names.filter_map(|name| self.0.get(name)?.try_at).min()
    }

    fn get(&self, name: Option<&str>) -> Option<&Pool> {
        self.0.get(name?)
    }
}

/// A number in [0, 1) that differs from task to task and attempt to attempt, and is the same whenever it is asked for.
pub(super) fn jitter(task: &TaskKey, attempt: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (task, attempt).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}
