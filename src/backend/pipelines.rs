//! The pipelines of a backend, shared by those who run their schedules, read them again and show them.
//!
//! Reading happens here alone: when a file has changed, when somebody asks for it, and before a cycle starts.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::Pipeline;
use crate::manifest::Diagnostics;

/// How often files are looked at where no schedule runs.
const ROUND: Duration = Duration::from_secs(1);

/// The pipelines that a backend was started with, each as its file was when it could last be used.
#[derive(Debug, Clone, Default)]
pub struct Pipelines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    places: Vec<Place>,
    /// How often somebody has asked for all of them to be read again.
    asked: AtomicU64,
}

/// Where one of them is kept.
#[derive(Debug)]
struct Place {
    kept: RwLock<Kept>,
    /// How often that was asked for when this one was last read for it.
    heard: AtomicU64,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its last good version.
    pub pipeline: Arc<Pipeline>,
    /// Why its file can no longer be used.
    pub problem: Option<Diagnostics>,
}

impl Pipelines {
    /// These.
    pub fn new(pipelines: Vec<Pipeline>) -> Self {
        let kept = |pipeline| Kept { pipeline: Arc::new(pipeline), problem: None };
        let place = |pipeline| Place { kept: RwLock::new(kept(pipeline)), heard: AtomicU64::default() };
        let places = pipelines.into_iter().map(place).collect();
        Self(Arc::new(Shared { places, asked: AtomicU64::default() }))
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Vec<Kept> {
        self.0.places.iter().map(Place::kept).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.places.is_empty()
    }

    /// Have all of them read again, whether their files have changed or not, by whoever looks next.
    pub fn read_again(&self) {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Look at the files every second, for ever. For a backend that runs no schedules: one that does looks anyway.
    pub async fn keep_current(&self) {
        let mut clock = interval(ROUND);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            for place in 0..self.0.places.len() {
                self.refresh(place).await;
            }
        }
    }

    /// One of them, read again if its files have changed or somebody has asked for it.
    pub(super) async fn refresh(&self, place: usize) -> Arc<Pipeline> {
        let asked = self.0.asked.load(Ordering::Relaxed);
        let is_asked = self.0.places[place].heard.swap(asked, Ordering::Relaxed) != asked;
        let before = self.0.places[place].kept();
        // The mistake may be in a file that no good version has had, so one that is broken is tried at every look.
        if !is_asked && before.problem.is_none() && !has_changed(&before.pipeline).await {
            return before.pipeline;
        }
        let Kept { pipeline, problem } = self.reread(place).await;
        let hash = pipeline.compiled().definition.hash();
        let is_another = before.problem.is_some() || hash != before.pipeline.compiled().definition.hash();
        if problem.is_none() && (is_asked || is_another) {
            let file = pipeline.file().display();
            info!("{file} was read again: the next cycle of `{}` has the definition {hash}", pipeline.name());
        }
        pipeline
    }

    /// One of them, read now with all that it refers to. A mistake in it is told, and leaves it as it was.
    pub(super) async fn reread(&self, place: usize) -> Kept {
        let place = &self.0.places[place];
        let before = place.kept();
        let mut pipeline = Pipeline::clone(&before.pipeline);
        let problem = pipeline.reread().await.err();
        let is_known =
            |problems: &Diagnostics| before.problem.as_ref().is_some_and(|it| it.to_string() == problems.to_string());
        if let Some(problems) = problem.as_ref().filter(|problems| !is_known(problems)) {
            let file = pipeline.file().display();
            error!("{file} can no longer be used; cycles start from its last good version:\n{problems}");
        }
        let kept = Kept { pipeline: Arc::new(pipeline), problem };
        *place.kept.write().unwrap_or_else(PoisonError::into_inner) = kept.clone();
        kept
    }
}

/// Whether its files are others than those it was read from. Files may be on a disk that does not answer.
async fn has_changed(pipeline: &Arc<Pipeline>) -> bool {
    let pipeline = Arc::clone(pipeline);
    tokio::task::spawn_blocking(move || pipeline.has_changed()).await.unwrap_or(false)
}

impl Place {
    fn kept(&self) -> Kept {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
