//! What `robo backend` does beside answering: it starts cycles by the clock and runs every cycle that nobody runs.
//!
//! A round a second: `schedules` decides what has become due, `cycles` takes up what is open and idle. Whatever has gone
//! wrong before, the next round sees the database as it is. Any number of backends share one; rows and leases decide who
//! does what. It wires the engine to the stages, the database and this machine in [`run_cycle`], and never prints.

mod blocks;
mod cycle;
mod cycles;
mod machine;
mod pipeline;
mod pipelines;
mod schedules;

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use blocks::{BlockSource, FinalizedHead, NoBlock};
pub use cycle::{Error, Steering, run_cycle};
pub use cycles::Limits;
pub use machine::Machine;
pub use pipeline::{Outside, Pipeline, Source, new_cycle};
pub use pipelines::{Kept, Pipelines, tell_of};
pub use schedules::Schedules;

use crate::store::Store;
use cycles::Cycles;

/// How often the database is looked at. A due time is seen this much late at most.
const ROUND: Duration = Duration::from_secs(1);

/// The loop over schedules and cycles.
pub struct Backend {
    schedules: Schedules,
    cycles: Cycles,
}

impl Backend {
    /// A backend of these pipelines, whose schedules by block go by `blocks`.
    pub fn new(
        store: &Arc<Store>,
        machine: Machine,
        (pipelines, blocks): (Pipelines, Arc<dyn BlockSource>),
        limits: Limits,
    ) -> Self {
        Self {
            schedules: Schedules::new(Arc::clone(store), pipelines, blocks),
            cycles: Cycles::new(Arc::clone(store), machine, limits),
        }
    }

    /// Work until `stop`, then let episodes end and suspend what runs. When this returns, every cycle that was not at its end is open and free
    /// for others, and all that was started for it has stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut clock = interval(ROUND);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = clock.tick() => {}
                // Its place is free for another.
                () = self.cycles.ended() => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.round() => {}
            }
        }
        self.cycles.suspend().await;
    }

    /// Everything that is done again and again. Each step looks for itself, so that one that fails is made up for in the
    /// next round; what sweeps up after the dead belongs here, too.
    async fn round(&mut self) {
        self.schedules.round(Utc::now()).await;
        self.cycles.round().await;
    }
}

/// Say that the database could not be asked; the next round tries again.
fn unreachable(what: &str, error: crate::store::Error) {
    tracing::error!("{what}: {:#}", anyhow::Error::from(error));
}
