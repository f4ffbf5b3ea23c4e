//! How a process that is to stop lets its episodes end: none begins any more, and whoever stops it waits for those that
//! have begun.

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Shared by all cycles of a process.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    asked: CancellationToken,
    begun: TaskTracker,
}

impl Drain {
    /// Have nothing more begin, and wait for what has begun.
    pub async fn drained(&self) {
        self.asked.cancel();
        self.begun.close();
        self.begun.wait().await;
    }

    /// Cancelled once nothing more is to begin.
    pub(super) fn asked(&self) -> &CancellationToken {
        &self.asked
    }

    /// Go on; once nothing more is to begin, never: whoever waits here is stopped instead.
    pub(super) async fn hold(&self) {
        if self.asked.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    /// Leave to begin, as [`Drain::hold`] gives it. What was begun has ended when the token is dropped.
    pub(super) async fn begin(&self) -> TaskTrackerToken {
        self.hold().await;
        self.begun.token()
    }
}
