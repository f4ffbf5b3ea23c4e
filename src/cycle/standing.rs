//! What a discovery leaves behind for good: the block that its cycle is pinned to, and since when each hotkey has served what
//! it serves. Plain values; who takes part is decided in `chain`, and `store` keeps these.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Hotkey;

/// The block of a chain that everything in a cycle is as of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Hash of the chain's block 0, as `0x` and digits: which chain, whatever its nodes are called.
    pub genesis: String,
    /// The subnet.
    pub netuid: u16,
    /// Number of the block.
    pub block: u64,
    /// Its hash, as `0x` and digits.
    pub hash: String,
}

/// Since when a hotkey has served what it serves. It is kept from one discovery to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Block of the commitment that named this model and this endpoint first.
    pub first_block: u64,
    /// Block of its registration: whoever gets the slot later has another one, and nothing of its predecessor.
    pub registered_at: Option<u64>,
    /// The model, with its revision.
    pub model: String,
    /// SHA-256 of the endpoint in hex. Never the endpoint itself, which some miners hide.
    pub endpoint: String,
}

/// What is written down with the output of a discovery, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The block that was read, to which the cycle is pinned from then on.
    pub pin: Pin,
    /// The standing of every hotkey that has one at that block. Those of others stay as they were.
    pub standings: BTreeMap<Hotkey, Standing>,
}
