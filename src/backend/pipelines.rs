//! The pipelines of a backend, shared by those who run their schedules, read them again and show them.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use super::Pipeline;
use crate::manifest::Diagnostics;

/// The pipelines that a backend was started with, each as its file was when it could last be used.
#[derive(Debug, Clone, Default)]
pub struct Pipelines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: RwLock<Vec<Kept>>,
    /// How often somebody has asked for them to be read again.
    asked: AtomicU64,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its last good version.
    pub pipeline: Pipeline,
    /// Why its file can no longer be used.
    pub problem: Option<Diagnostics>,
}

impl Pipelines {
    /// These.
    pub fn new(pipelines: Vec<Pipeline>) -> Self {
        let kept = |pipeline| Kept { pipeline, problem: None };
        let kept = RwLock::new(pipelines.into_iter().map(kept).collect());
        Self(Arc::new(Shared { kept, asked: AtomicU64::default() }))
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Vec<Kept> {
        self.0.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Have all of them read again, whether their files have changed or not; whoever runs their schedules does that.
    pub fn read_again(&self) {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was asked for.
    pub(super) fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Show another in this place.
    pub(super) fn show(&self, place: usize, kept: Kept) {
        if let Some(slot) = self.0.kept.write().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            *slot = kept;
        }
    }
}
