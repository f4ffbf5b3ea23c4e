//! One submission: signed, followed into a block, and read back from that block. The only file here that writes to the chain.

use super::{
    plan::{Plan, Way},
    trouble::Trouble,
};
use crate::chain::{Amounts, Call, Included, Network, Node, Patience, Wallet, lock};

/// Weights that are on the chain, and were seen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Number of the block.
    pub block: u64,
    /// Its hash.
    pub hash: String,
    /// The extrinsic's hash.
    pub extrinsic: String,
    /// How they got there.
    pub way: Way,
    /// How many slots have a weight.
    pub paid: usize,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { block, way, paid, .. } = self;
        match way {
            Way::Set => write!(f, "set {paid} weights in block {block}, and read them back there"),
            Way::Commit { round, block: reveal, .. } => write!(
                f,
                "committed {paid} weights in block {block}, and read the commit back there; the chain reveals them about block {reveal} (beacon round {round})"
            ),
        }
    }
}

impl Plan {
    /// Submit it, unless the chain would refuse it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn submit(&self, network: &Network, wallet: &Wallet, patience: Patience) -> Result<Done, Trouble> {
        if !self.refusals.is_empty() {
            return Err(Trouble::Refused(self.refusals.clone()));
        }
        if let Some(paid) = self.sudden_burn {
            return Err(Trouble::SuddenBurn { paid });
        }
        let call = self.call()?;
        let node = Node::reach(network, patience).await?;
        let included = node.submit(&call, wallet).await?;
        self.confirm(&node, &call, &included).await?;
        let Included { block, hash, extrinsic, .. } = included;
        Ok(Done { block, hash, extrinsic, way: self.way, paid: self.vector.amounts.uids.len() })
    }

    fn call(&self) -> Result<Call, Trouble> {
        let (netuid, version_key) = (self.subnet.netuid, self.version_key);
        let Amounts { uids, values } = self.vector.amounts.clone();
        Ok(match self.way {
            Way::Set => Call::SetWeights { netuid, uids, values, version_key },
            Way::Commit { version, round, .. } => {
                let payload = lock(&self.hotkey, &self.vector.amounts, version_key, round)?;
                Call::CommitTimelocked { netuid, payload, reveal_round: round, version }
            }
        })
    }

    /// What was submitted stands on the chain in the block that took it.
    async fn confirm(&self, node: &Node, call: &Call, included: &Included) -> Result<(), Trouble> {
        let (block, hash, netuid) = (included.block, &included.hash, self.subnet.netuid);
        let unread = |problem| Trouble::NotReadBack { block, problem };
        let found = match (call, &self.subnet.seat) {
            (Call::CommitTimelocked { payload, reveal_round, .. }, _) => {
                match node.commit_at(hash, netuid, &self.hotkey, payload).await.map_err(unread)? {
                    Some(round) if round == *reveal_round => return Ok(()),
                    Some(round) => format!("a commit for round {round}"),
                    None => "no such commit".into(),
                }
            }
            (_, Some(seat)) => {
                let found = node.weights_at(hash, netuid, seat.uid).await.map_err(unread)?;
                if found == self.vector.amounts {
                    return Ok(());
                }
                format!("a vector of {} other weights", found.uids.len())
            }
            (_, None) => "nobody with this hotkey".into(),
        };
        Err(Trouble::Unconfirmed { block, found })
    }
}
