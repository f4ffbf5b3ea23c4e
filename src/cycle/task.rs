//! The states of a task and the one function that changes them.
//!
//! The live run and recovery both call [`TaskStatus::apply`], so what a crash leaves behind means what it meant before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a task failed. Its stage says which of these are worth another attempt (`retry.on`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Our machinery.
    Infra,
    /// It took longer than the stage's time-out, or waited longer for its turn than the stage allows.
    Timeout,
    /// What the operator wrote cannot work.
    Config,
    /// Too few episodes could be scored for the stage's `expect`.
    BelowQuorum,
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
    /// The attempt failed and no other follows. Of a task that had not begun: it cannot, or waited too long for its turn.
    Failed {
        /// Why.
        failure: TaskFailure,
    },
    /// The last attempt failed and a person decides what follows.
    Paused {
        /// Why.
        failure: TaskFailure,
    },
    /// A person has let a paused task go on, with all its attempts.
    Resumed,
    /// The task will not run: its `when` is false or something it needs did not succeed.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The cycle was cancelled before the task ended, or another task of its stage failed and `fail_fast` ended the rest.
    Cancelled,
    /// A person wants a task that has ended to run again, with all its attempts.
    Reopened,
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
            Self::Paused { .. } => "paused",
            Self::Resumed => "resumed",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled => "cancelled",
            Self::Reopened => "reopened",
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
    /// Waits for a person, who resumes or cancels its cycle.
    Paused {
        /// Why its last attempt failed.
        failure: TaskFailure,
    },
    /// Never ran.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Stopped with the cycle, or with the rest of its stage.
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
    /// [`IllegalTransition`] when the event cannot happen in this state. After a terminal state a person may reopen the
    /// task, as [`Role`](super::Role) allows; nothing else is legal there.
    pub fn apply(&self, event: &TaskEvent) -> Result<Self, IllegalTransition> {
        use TaskEvent as E;
        match (self, event) {
            (Self::Pending, E::Started) => Ok(Self::Running),
            (Self::Running, E::Lost | E::Retried { .. }) => Ok(Self::Pending),
            (Self::Running, E::Succeeded { output }) => Ok(Self::Succeeded { output: output.clone() }),
            (Self::Pending | Self::Running, E::Failed { failure }) => Ok(Self::Failed { failure: failure.clone() }),
            (Self::Running, E::Paused { failure }) => Ok(Self::Paused { failure: failure.clone() }),
            (Self::Paused { .. }, E::Resumed) => Ok(Self::Pending),
            (Self::Pending, E::Skipped { reason }) => Ok(Self::Skipped { reason: reason.clone() }),
            (Self::Pending | Self::Running | Self::Paused { .. }, E::Cancelled) => Ok(Self::Cancelled),
            (status, E::Reopened) if status.is_terminal() => Ok(Self::Pending),
            (status, event) => Err(IllegalTransition { status: status.word(), event: event.word() }),
        }
    }

    /// Whether nothing more happens to the task by itself.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Pending | Self::Running | Self::Paused { .. })
    }

    /// Whether it has ended, or waits, without success.
    pub fn lacks_success(&self) -> bool {
        !matches!(self, Self::Pending | Self::Running | Self::Succeeded { .. })
    }

    /// The word stored and shown.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Paused { .. } => "paused",
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
            Just(TaskEvent::Failed { failure: failure.clone() }),
            Just(TaskEvent::Paused { failure }),
            Just(TaskEvent::Resumed),
            Just(TaskEvent::Reopened),
            Just(TaskEvent::Skipped { reason: "x".into() }),
            Just(TaskEvent::Cancelled),
        ]
    }

    proptest! {
        #[test]
        fn after_the_end_only_a_person_changes_anything(events in prop::collection::vec(event(), 0..40)) {
            let mut status = TaskStatus::default();
            for event in &events {
                match status.apply(event) {
                    Ok(next) => {
                        prop_assert_eq!(status.is_terminal(), *event == TaskEvent::Reopened);
                        status = next;
                    }
                    Err(error) => prop_assert!(error.to_string().contains(status.word())),
                }
            }
        }
    }
}
