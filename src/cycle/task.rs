//! The states of a task and the one function that changes them.
//!
//! The live run and recovery both call [`TaskStatus::apply`], so what a crash leaves behind means what it meant before.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a task failed, which decides whether it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Our machinery: worth another attempt.
    Infra,
    /// It took longer than the stage's time-out: worth another attempt.
    Timeout,
    /// What the operator wrote cannot work: never tried again.
    Config,
    /// Too few episodes could be scored for the stage's `expect`.
    BelowQuorum,
}

impl FailureClass {
    /// Whether another attempt may help.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Infra | Self::Timeout)
    }
}

/// A failed attempt, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct TaskFailure {
    /// What kind of failure.
    pub class: FailureClass,
    /// What happened, and where it helps what to do.
    pub message: String,
}

/// Something that happened to a task. The journal keeps these; nothing else changes a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskEvent {
    /// An attempt began.
    Started,
    /// The attempt was lost with its process; the task may start again. Does not count against `max_attempts`.
    Lost,
    /// The attempt ended well, with this output.
    Succeeded {
        /// What later stages read as `stages.<id>.<field>`.
        output: Value,
    },
    /// The attempt failed and another follows.
    Retried {
        /// Why.
        failure: TaskFailure,
    },
    /// The attempt failed and no other follows.
    Failed {
        /// Why.
        failure: TaskFailure,
    },
    /// The task will not run: its `when` is false or something it needs did not succeed.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The cycle was cancelled before the task ended.
    Cancelled,
}

impl TaskEvent {
    /// The word stored and shown for this kind of event.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Lost => "lost",
            Self::Succeeded { .. } => "succeeded",
            Self::Retried { .. } => "retried",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TaskStatus {
    /// Not begun, or waiting for another attempt.
    #[default]
    Pending,
    /// An attempt runs.
    Running,
    /// Ended well.
    Succeeded {
        /// Its output.
        output: Value,
    },
    /// Ended badly.
    Failed {
        /// Why.
        failure: TaskFailure,
    },
    /// Never ran.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Stopped with the cycle.
    Cancelled,
}

/// The event cannot happen to a task in that state: a bug, or a journal somebody edited.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a task that is {status} cannot be {event}")]
pub struct IllegalTransition {
    pub(super) status: &'static str,
    pub(super) event: &'static str,
}

impl TaskStatus {
    /// The status after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event cannot happen in this state. No event is legal after a terminal state.
    pub fn apply(&self, event: &TaskEvent) -> Result<Self, IllegalTransition> {
        use TaskEvent as E;
        match (self, event) {
            (Self::Pending, E::Started) => Ok(Self::Running),
            (Self::Running, E::Lost | E::Retried { .. }) => Ok(Self::Pending),
            (Self::Running, E::Succeeded { output }) => Ok(Self::Succeeded { output: output.clone() }),
            (Self::Running, E::Failed { failure }) => Ok(Self::Failed { failure: failure.clone() }),
            (Self::Pending, E::Skipped { reason }) => Ok(Self::Skipped { reason: reason.clone() }),
            (Self::Pending | Self::Running, E::Cancelled) => Ok(Self::Cancelled),
            (status, event) => Err(IllegalTransition { status: status.word(), event: event.word() }),
        }
    }

    /// Whether nothing more can happen to the task.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The word stored and shown.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = TaskEvent> {
        let failure = TaskFailure { class: FailureClass::Infra, message: "x".into() };
        prop_oneof![
            Just(TaskEvent::Started),
            Just(TaskEvent::Lost),
            Just(TaskEvent::Succeeded { output: Value::Null }),
            Just(TaskEvent::Retried { failure: failure.clone() }),
            Just(TaskEvent::Failed { failure }),
            Just(TaskEvent::Skipped { reason: "x".into() }),
            Just(TaskEvent::Cancelled),
        ]
    }

    proptest! {
        #[test]
        fn nothing_happens_after_the_end(events in prop::collection::vec(event(), 0..40)) {
            let mut status = TaskStatus::default();
            for event in &events {
                match status.apply(event) {
                    Ok(next) => {
                        prop_assert!(!status.is_terminal());
                        status = next;
                    }
                    Err(error) => prop_assert!(error.to_string().contains(status.word())),
                }
            }
        }
    }
}
