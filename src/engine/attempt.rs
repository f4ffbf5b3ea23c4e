//! One attempt of one task: what it runs and what its settings come to.

use std::sync::Arc;

use serde_json::Value;

use crate::cycle::{FailureClass, TaskFailure, TaskKey};
use crate::plan::{self, Secrets, Stage};
use crate::stage::{self, Output};

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
    /// The stage's settings with every expression evaluated, for stages without secrets.
    ///
    /// # Errors
    /// A `config` failure when an expression cannot be evaluated.
    pub fn settings(&self) -> Result<Value, TaskFailure> {
        self.settings_with(&Secrets::default())
    }

    /// The stage's settings with every expression evaluated, secrets among them: for the stage alone, never to be kept.
    ///
    /// # Errors
    /// A `config` failure when an expression cannot be evaluated or a secret is not there.
    pub fn settings_with(&self, secrets: &Secrets) -> Result<Value, TaskFailure> {
        let config = |message: String| TaskFailure { class: FailureClass::Config, message: secrets.mask(&message) };
        if let Some(when) = &self.stage.when {
            // The dispatcher starts a task whose condition cannot be evaluated, so that the reason is recorded here.
            plan::truth(when, &self.context).map_err(|error| config(format!("`when`: {error}")))?;
        }
        let named = secrets.named_in(&self.stage.with).map_err(|error| config(error.to_string()))?;
        let with_secrets = named.map(|named| {
            let mut context = self.context.clone();
            context["secrets"] = named;
            context
        });
        let context = with_secrets.as_ref().unwrap_or(&self.context);
        plan::render(&Value::Object(self.stage.with.clone()), context)
            .map_err(|error| config(format!("`with`: {error}, in `${{{{ {} }}}}`", error.expression)))
    }
}

/// What an attempt left behind, without the pipeline's secrets: all of it that anybody else gets to see.
///
/// # Errors
/// That of the attempt; and a `config` failure when weights would be published that hold a secret.
pub fn without_secrets(result: Result<Output, stage::Error>, secrets: &Secrets) -> Result<Output, stage::Error> {
    match result {
        Ok(Output { value, publication, discovery }) => {
            let texts = publication.iter().flat_map(|it| [&it.scores, &it.weights]);
            if texts.into_iter().any(|text| secrets.shows_in(text)) {
                let message = "the weights would show a secret, so they are not published".to_owned();
                return Err(TaskFailure { class: FailureClass::Config, message }.into());
            }
            Ok(Output { value: secrets.mask_value(value), publication, discovery })
        }
        Err(stage::Error::Failed(TaskFailure { class, message })) => {
            Err(TaskFailure { class, message: secrets.mask(&message) }.into())
        }
        Err(error) => Err(error),
    }
}

/// The failure of an attempt that took too long.
pub(super) fn timed_out(stage: &Stage) -> TaskFailure {
    let seconds = stage.timeout_ms as f64 / 1000.0;
    TaskFailure { class: FailureClass::Timeout, message: format!("took longer than its timeout of {seconds} s") }
}
