//! Where schedules by block get the block from.

use futures::future::BoxFuture;

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

/// The source of a backend without a chain.
#[derive(Debug, Clone, Copy)]
pub struct NoChain;

impl BlockSource for NoChain {
    fn latest(&self) -> BoxFuture<'_, Result<u64, NoBlock>> {
        Box::pin(async { Err(NoBlock("no chain is configured".into())) })
    }
}
