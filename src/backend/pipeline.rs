//! A pipeline's file as a backend keeps it: the last version that could be used.
//!
//! An edit counts from the next cycle on. A file that has become wrong is told about and changes nothing.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::config;
use crate::cycle::Salt;
use crate::manifest::Diagnostics;
use crate::plan::{self, Bindings, Compiled, Missing};
use crate::store::NewCycle;

/// A pipeline's file with the inputs of this backend.
#[derive(Debug, Clone)]
pub struct Pipeline {
    file: PathBuf,
    inputs: Vec<(String, String)>,
    discovery: Option<config::Discovery>,
    seen: Option<(SystemTime, u64)>,
    compiled: Compiled,
}

impl Pipeline {
    /// Read a pipeline.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(file: &Path, inputs: &[(String, String)]) -> Result<Self, Diagnostics> {
        Self::read_as(file, inputs, None)
    }

    /// Read a pipeline whose miners are discovered as the command line says, where it does not say itself.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read_for(
        file: &Path,
        inputs: &[(String, String)],
        discovery: config::Discovery,
    ) -> Result<Self, Diagnostics> {
        Self::read_as(file, inputs, Some(discovery))
    }

    fn read_as(
        file: &Path,
        inputs: &[(String, String)],
        discovery: Option<config::Discovery>,
    ) -> Result<Self, Diagnostics> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let seen = stamp(&file);
        let compiled = compile(&file, inputs, discovery.as_ref())?;
        Ok(Self { file, inputs: inputs.to_vec(), discovery, seen, compiled })
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.compiled.definition.pipeline
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
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
        let own = self.inputs.iter().filter(|(name, _)| !inputs.iter().any(|(given, _)| given == name));
        let inputs: Vec<(String, String)> = own.chain(inputs).cloned().collect();
        compile(&self.file, &inputs, self.discovery.as_ref())
    }

    /// Whether the file has changed since it was last read.
    pub(super) fn has_changed(&self) -> bool {
        stamp(&self.file) != self.seen
    }

    /// Read it again, with all that it refers to.
    ///
    /// # Errors
    /// Every mistake in it; then it stays as it was until it changes again.
    pub(super) async fn reread(&mut self) -> Result<(), Diagnostics> {
        self.seen = stamp(&self.file);
        let (file, inputs, discovery) = (self.file.clone(), self.inputs.clone(), self.discovery.clone());
        let compiled = tokio::task::spawn_blocking(move || compile(&file, &inputs, discovery.as_ref())).await;
        // A compiler that panicked has left nothing behind; what we have stays good.
        if let Ok(compiled) = compiled {
            self.compiled = compiled?;
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
    file: &Path,
    inputs: &[(String, String)],
    discovery: Option<&config::Discovery>,
) -> Result<Compiled, Diagnostics> {
    let variable = |name: &str| match discovery {
        Some(discovery) => discovery.variable(name),
        None => config::input_variable(name),
    };
    plan::compile(file, &Bindings { flags: inputs, variable: &variable, missing: Missing::Refuse })
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
