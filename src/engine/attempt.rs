//! One attempt of one task: what it runs and what its settings come to.

use std::sync::Arc;

use serde_json::Value;

use crate::cycle::{FailureClass, TaskFailure, TaskKey};
use crate::plan::{self, Stage};

/// An attempt to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The task.
    pub task: TaskKey,
    /// From 1.
    pub number: u32,
    /// The stage it belongs to.
    pub stage: Arc<Stage>,
    /// What `${{ }}` in its settings may refer to.
    pub context: Value,
}

impl Attempt {
    /// The stage's settings with every expression evaluated.
    ///
    /// # Errors
    /// A `config` failure when an expression cannot be evaluated.
    pub fn settings(&self) -> Result<Value, TaskFailure> {
        let config = |message| TaskFailure { class: FailureClass::Config, message };
        if let Some(when) = &self.stage.when {
            // The dispatcher starts a task whose condition cannot be evaluated, so that the reason is recorded here.
            plan::truth(when, &self.context).map_err(|error| config(format!("`when`: {error}")))?;
        }
        plan::render(&Value::Object(self.stage.with.clone()), &self.context)
            .map_err(|error| config(format!("`with`: {error}")))
    }
}

/// The failure of an attempt that took too long.
pub(super) fn timed_out(stage: &Stage) -> TaskFailure {
    let seconds = stage.timeout_ms as f64 / 1000.0;
    TaskFailure { class: FailureClass::Timeout, message: format!("took longer than its timeout of {seconds} s") }
}
