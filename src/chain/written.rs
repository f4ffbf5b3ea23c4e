//! What a validator has written, read back from the block that took it: a submission that the chain accepted and that is not
//! there afterwards is no success.

use std::str::FromStr;

use scale_decode::DecodeAsType;
use subxt::{
    dynamic,
    utils::{AccountId32, H256},
};

use super::{
    Amounts,
    node::{Node, Problem},
    subnet::Reading,
};

/// A commit as the chain keeps it: who, in which block, what, and from which round of the beacon on it can be read.
#[derive(DecodeAsType)]
struct Commit(AccountId32, #[expect(dead_code, reason = "decoded by position")] u64, Vec<u8>, u64);

impl Node {
    /// The weights of a slot at a block.
    ///
    /// # Errors
    /// [`Problem`].
    pub async fn weights_at(&self, hash: &str, netuid: u16, uid: u16) -> Result<Amounts, Problem> {
        let reading = self.reading(hash, netuid).await?;
        let row = reading.weights(uid).await?;
        Ok(Amounts { uids: row.keys().copied().collect(), values: row.values().copied().collect() })
    }

    /// The round from which this commit of a hotkey can be read, if it is there at a block. Nothing as well where the runtime
    /// keeps commits elsewhere.
    ///
    /// # Errors
    /// [`Problem`].
    pub async fn commit_at(
        &self,
        hash: &str,
        netuid: u16,
        hotkey: &str,
        payload: &[u8],
    ) -> Result<Option<u64>, Problem> {
        let reading = self.reading(hash, netuid).await?;
        let address = dynamic::storage::<(u16, u64), Vec<Commit>>("SubtensorModule", "TimelockedWeightCommits");
        let storage = reading.at.storage();
        let Ok(entry) = storage.entry(address) else { return Ok(None) };
        let mut epochs = entry.iter((netuid,)).await?;
        while let Some(epoch) = epochs.next().await {
            let commits = epoch?.value().decode().map_err(Problem::unreadable)?;
            if let Some(Commit(.., round)) =
                commits.iter().find(|Commit(who, _, bytes, _)| who.to_string() == hotkey && bytes == payload)
            {
                return Ok(Some(*round));
            }
        }
        Ok(None)
    }

    async fn reading(&self, hash: &str, netuid: u16) -> Result<Reading, Problem> {
        let block = H256::from_str(hash).map_err(|_| Problem::Unreadable(format!("`{hash}` is no hash of a block")))?;
        Ok(Reading { at: self.api.at_block(block).await?, netuid })
    }
}
