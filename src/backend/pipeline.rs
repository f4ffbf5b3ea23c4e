//! A pipeline's file as a backend keeps it: the last version that could be used.
//!
//! An edit counts from the next cycle on. A file that has become wrong is told about and changes nothing.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::config::{self, Interval};
use crate::cycle::Salt;
use crate::manifest::Diagnostics;
use crate::plan::{self, Bindings, Compiled, Missing};
use crate::schedule::{Schedule, Timing};
use crate::store::NewCycle;

/// What a backend's command line adds to its pipelines.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Whose miners are discovered.
    pub discovery: config::Discovery,
    /// How often, and how many episodes.
    pub evaluation: config::Evaluation,
    /// What containers run.
    pub place: config::Place,
}

impl Outside {
    fn variable(&self, name: &str) -> Option<String> {
        let own = self.evaluation.variable(name).or_else(|| self.place.variable(name));
        own.or_else(|| self.discovery.variable(name))
    }

    /// When a pipeline with these schedules is due.
    fn schedules(&self, own: Vec<Schedule>) -> Vec<Schedule> {
        match self.evaluation.interval(!own.is_empty()) {
            Interval::Own => own,
            Interval::Every(seconds) => vec![Schedule::of(Timing::Interval(seconds))],
            Interval::Never => Vec::new(),
        }
    }
}

/// A pipeline's file, and what the command line adds to it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// The project whose environments it plays, where that is not the one that the file is in.
    pub root: Option<PathBuf>,
    /// Values for its inputs.
    pub inputs: Vec<(String, String)>,
    /// What it does not say itself.
    pub outside: Option<Outside>,
}

impl Source {
    /// Read the pipeline.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(&self) -> Result<Pipeline, Diagnostics> {
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let source = Self { file, ..self.clone() };
        let compiled = source.compile(&source.inputs)?;
        let seen = stamps(&compiled.files);
        Ok(Pipeline { source, seen, compiled })
    }

    /// The name of a pipeline that cannot be read: that of its file.
    pub fn stem(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn compile(&self, inputs: &[(String, String)]) -> Result<Compiled, Diagnostics> {
        compile((&self.file, self.root.as_deref()), inputs, self.outside.as_ref())
    }
}

/// A pipeline's file with the inputs of this backend.
#[derive(Debug, Clone)]
pub struct Pipeline {
    source: Source,
    seen: Vec<Stamp>,
    compiled: Compiled,
}

impl Pipeline {
    /// Read a pipeline.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(file: &Path, inputs: &[(String, String)]) -> Result<Self, Diagnostics> {
        Source { file: file.to_owned(), root: None, inputs: inputs.to_vec(), outside: None }.read()
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.compiled.definition.pipeline
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.source.file
    }

    /// What it came to when it was last read well.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// What the file comes to now with these inputs, which beat those of this backend.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn compile_with(&self, inputs: &[(String, String)]) -> Result<Compiled, Diagnostics> {
        let own = self.source.inputs.iter().filter(|(name, _)| !inputs.iter().any(|(given, _)| given == name));
        let inputs: Vec<(String, String)> = own.chain(inputs).cloned().collect();
        self.source.compile(&inputs)
    }

    /// Whether one of its files has changed since it was last read.
    pub(super) fn has_changed(&self) -> bool {
        stamps(&self.compiled.files) != self.seen
    }

    /// Read it again, with all that it refers to.
    ///
    /// # Errors
    /// Every mistake in it; then it stays as it was until it changes again.
    pub(super) async fn reread(&mut self) -> Result<(), Diagnostics> {
        self.seen = stamps(&self.compiled.files);
        let source = self.source.clone();
        let compiled = tokio::task::spawn_blocking(move || source.compile(&source.inputs)).await;
        // A compiler that panicked has left nothing behind; what we have stays good.
        if let Ok(compiled) = compiled {
            self.compiled = compiled?;
            // An edit in between is seen when the next cycle starts, before which everything is read again.
            self.seen = stamps(&self.compiled.files);
        }
        Ok(())
    }
}

/// A cycle of a compiled pipeline, with a random salt.
pub fn new_cycle(compiled: &Compiled) -> NewCycle {
    let definition = &compiled.definition;
    NewCycle {
        pipeline: definition.pipeline.clone(),
        definition: definition.to_json(),
        definition_hash: definition.hash(),
        root: compiled.root.display().to_string(),
        salt: Salt::random(),
        pin: None,
        tasks: definition.stages.iter().flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone())).collect(),
    }
}

fn compile(
    (file, root): (&Path, Option<&Path>),
    inputs: &[(String, String)],
    outside: Option<&Outside>,
) -> Result<Compiled, Diagnostics> {
    let variable = |name: &str| match outside {
        Some(outside) => outside.variable(name),
        None => config::input_variable(name),
    };
    let bindings = Bindings { flags: inputs, variable: &variable, missing: Missing::Refuse };
    let mut compiled = plan::compile_in(file, root, &bindings)?;
    if let Some(outside) = outside {
        compiled.schedules = outside.schedules(compiled.schedules);
    }
    Ok(compiled)
}

/// What changes with a file. None when it is not there.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}
