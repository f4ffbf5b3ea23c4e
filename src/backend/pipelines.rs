//! The pipelines of a backend, shared by those who run their schedules, read them again and show them.
//!
//! Reading happens here alone: when a file has changed, when somebody asks for it, and before a cycle starts. A file that has
//! never been usable is tried again at every look, and keeps nobody else from working.

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::{Pipeline, pipeline::Source};
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
    source: Source,
    kept: RwLock<Kept>,
    /// How often that was asked for when this one was last read for it.
    heard: AtomicU64,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its last good version; none when it has never been usable.
    pub pipeline: Option<Arc<Pipeline>>,
    /// Its file.
    pub file: PathBuf,
    /// What it calls itself, or its file's name where that cannot be read.
    pub name: String,
    /// Why its file can no longer be used.
    pub problem: Option<Diagnostics>,
}

impl Pipelines {
    /// These.
    pub fn new(pipelines: Vec<Pipeline>) -> Self {
        Self::with_broken(pipelines.into_iter().map(|it| (it.source().clone(), Ok(it))).collect())
    }

    /// These, of which some cannot be read.
    pub fn with_broken(read: Vec<(Source, Result<Pipeline, Diagnostics>)>) -> Self {
        let place = |(source, read): (Source, Result<Pipeline, Diagnostics>)| {
            let (pipeline, problem) = match read {
                Ok(pipeline) => (Some(pipeline), None),
                Err(problems) => (None, Some(problems)),
            };
            let kept = Kept::new(&source, pipeline.map(Arc::new), problem);
            Place { source, kept: RwLock::new(kept), heard: AtomicU64::default() }
        };
        Self(Arc::new(Shared { places: read.into_iter().map(place).collect(), asked: AtomicU64::default() }))
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
    pub(super) async fn refresh(&self, place: usize) -> Option<Arc<Pipeline>> {
        let asked = self.0.asked.load(Ordering::Relaxed);
        let is_asked = self.0.places[place].heard.swap(asked, Ordering::Relaxed) != asked;
        let before = self.0.places[place].kept();
        // The mistake may be in a file that no good version has had, so one that is broken is tried at every look.
        if let Some(pipeline) = before.pipeline.as_ref().filter(|_| !is_asked && before.problem.is_none())
            && !has_changed(pipeline).await
        {
            return before.pipeline;
        }
        let Kept { pipeline, problem, name, file } = self.reread(place).await;
        let hash = |pipeline: &Arc<Pipeline>| pipeline.compiled().definition.hash();
        let (now, was) = (pipeline.as_ref().map(hash), before.pipeline.as_ref().map(hash));
        let is_another = before.problem.is_some() || now != was;
        if let Some(hash) = now.filter(|_| problem.is_none() && (is_asked || is_another)) {
            let file = file.display();
            info!("{file} was read again: the next cycle of `{name}` has the definition {hash}");
        }
        pipeline
    }

    /// One of them, read now with all that it refers to. A mistake in it is told, and leaves it as it was.
    pub(super) async fn reread(&self, place: usize) -> Kept {
        let place = &self.0.places[place];
        let before = place.kept();
        let (pipeline, problem) = match before.pipeline.as_deref().cloned() {
            Some(mut pipeline) => {
                let problem = pipeline.reread().await.err();
                (Some(pipeline), problem)
            }
            None => {
                let source = place.source.clone();
                match tokio::task::spawn_blocking(move || source.read()).await {
                    Ok(Ok(pipeline)) => (Some(pipeline), None),
                    Ok(Err(problems)) => (None, Some(problems)),
                    // A compiler that panicked has left nothing behind.
                    Err(_) => (None, before.problem.clone()),
                }
            }
        };
        let is_known =
            |problems: &Diagnostics| before.problem.as_ref().is_some_and(|it| it.to_string() == problems.to_string());
        if let Some(problems) = problem.as_ref().filter(|problems| !is_known(problems)) {
            let file = before.file.display();
            match pipeline {
                Some(_) => error!("{file} can no longer be used; cycles start from its last good version:\n{problems}"),
                None => warn!("{file} cannot be used, and no cycle of it starts:\n{problems}"),
            }
        }
        if let Some(pipeline) = &pipeline {
            let was = before.pipeline.as_ref().map(|it| &it.compiled().warnings);
            tell_of(pipeline, was);
        }
        let kept = Kept::new(&place.source, pipeline.map(Arc::new), problem);
        *place.kept.write().unwrap_or_else(PoisonError::into_inner) = kept.clone();
        kept
    }
}

impl Kept {
    fn new(source: &Source, pipeline: Option<Arc<Pipeline>>, problem: Option<Diagnostics>) -> Self {
        let name = pipeline.as_ref().map_or_else(|| source.stem(), |pipeline| pipeline.name().to_owned());
        let file = pipeline.as_ref().map_or_else(|| source.file.clone(), |pipeline| pipeline.file().to_owned());
        Self { pipeline, file, name, problem }
    }
}

/// Log what is wrong beside a pipeline without keeping it from working, once: manifests that it does not use, for example.
pub fn tell_of(pipeline: &Pipeline, was: Option<&Diagnostics>) {
    let warnings = &pipeline.compiled().warnings;
    if !warnings.is_empty() && was != Some(warnings) {
        warn!("{} can be used, with warnings:\n{warnings}", pipeline.file().display());
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
