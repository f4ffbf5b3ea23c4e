//! A child process that stands in the ledger for as long as it runs.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::host::{
    child::{Child, Program},
    ledger::{self, Ledger, RecordError},
};

/// The child with its place in the ledger. Dropping it kills the child and leaves the row to the next sweep.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) child: Child,
    id: Uuid,
    ledger: Arc<dyn Ledger>,
}

impl Recorded {
    /// Start a program and write it down.
    pub(super) async fn start(program: Program, ledger: &Arc<dyn Ledger>) -> Result<Self, RecordError> {
        let (child, id) = ledger::start(program, &**ledger).await?;
        Ok(Self { child, id, ledger: Arc::clone(ledger) })
    }

    /// End it, nicely first, and take it out of the ledger.
    pub(super) async fn stop(self, grace: Duration) {
        self.child.stop(grace).await;
        self.ledger.leave(self.id).await;
    }
}
