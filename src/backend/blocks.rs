//! Where schedules by block get the block from.

use std::{sync::OnceLock, time::Duration};

use futures::future::BoxFuture;
use tokio::{sync::watch, task::JoinSet};

use crate::chain::{Head, Network, Patience};

/// How often the chain is asked: half the time between two blocks of the public ones.
const PAUSE: Duration = Duration::from_secs(6);

/// Knows the latest block that cannot be taken back.
pub trait BlockSource: Send + Sync + 'static {
    /// Its number.
    ///
    /// # Errors
    /// [`NoBlock`]. Nothing is due then, and nothing is missed: the next answer is compared with the last one.
    fn latest(&self) -> BoxFuture<'_, Result<u64, NoBlock>>;
}

/// Why there is no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoBlock(pub String);

/// The finalized head of a chain. It is read beside everything else, so that nobody waits for a node, and only once
/// somebody has asked for it.
pub struct FinalizedHead {
    network: Network,
    pause: Duration,
    reading: OnceLock<Reading>,
}

struct Reading {
    seen: watch::Receiver<Result<u64, NoBlock>>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl FinalizedHead {
    /// That of a network. No node is asked yet.
    pub fn of(network: Network) -> Self {
        Self { network, pause: PAUSE, reading: OnceLock::new() }
    }

    /// The same, asked again after another time.
    #[must_use]
    pub fn every(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    fn read(&self) -> Reading {
        let (network, pause) = (self.network.clone(), self.pause);
        let (sender, seen) = watch::channel(Err(NoBlock(format!("no block of `{network}` has been read yet"))));
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Each round is told; the next one comes soon enough.
            let patience = Patience { rounds: 1, ..Patience::default() };
            loop {
                let head = Head::read(&network, patience).await;
                let seen = head.map(|head| head.block).map_err(|error| NoBlock(error.to_string()));
                if sender.send(seen).is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        });
        Reading { seen, _task: task }
    }
}

impl BlockSource for FinalizedHead {
    fn latest(&self) -> BoxFuture<'_, Result<u64, NoBlock>> {
        let latest = self.reading.get_or_init(|| self.read()).seen.borrow().clone();
        Box::pin(async { latest })
    }
}
