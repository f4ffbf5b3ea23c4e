//! What a miner did wrong, in words it can read: the reason and a short, harmless text.

use crate::cycle::{MinerFault, plain_text};

/// A miner's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// The reason that is stored.
    pub reason: MinerFault,
    /// What exactly happened. At most 500 characters, none of them control characters.
    pub detail: String,
}

impl Fault {
    /// A fault whose detail may hold what the miner sent.
    pub fn new(reason: MinerFault, detail: impl AsRef<str>) -> Self {
        Self { reason, detail: plain_text(detail.as_ref()) }
    }
}
