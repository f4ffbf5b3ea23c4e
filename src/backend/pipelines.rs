//! The pipelines of a backend, shared by those who run their schedules, read them again and show them.

use std::sync::{Arc, PoisonError, RwLock};

use super::Pipeline;
use crate::manifest::Diagnostics;

/// The pipelines that a backend was started with, each as its file was when it could last be used.
#[derive(Debug, Clone, Default)]
pub struct Pipelines(Arc<RwLock<Vec<Kept>>>);

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
        Self(Arc::new(RwLock::new(pipelines.into_iter().map(kept).collect())))
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Vec<Kept> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Show another in this place.
    pub(super) fn show(&self, place: usize, kept: Kept) {
        if let Some(slot) = self.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            *slot = kept;
        }
    }
}
