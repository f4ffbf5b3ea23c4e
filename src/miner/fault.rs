//! What went wrong in a call to a miner: the reason that is stored, who answers for it, and a short, harmless text.

use crate::cycle::{Condition, MinerFault, Party, plain_text};

/// A call to a miner that brought no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// The reason that is stored if the miner answers for it.
    pub reason: MinerFault,
    /// What exactly happened. At most 500 characters, none of them control characters.
    pub detail: String,
    /// Who answers for it.
    pub party: Party,
    /// The row of the table of blame, where it is about the connection.
    pub condition: Option<Condition>,
}

impl Fault {
    /// A fault of the miner, whose detail may hold what the miner sent.
    pub fn new(reason: MinerFault, detail: impl AsRef<str>) -> Self {
        Self { reason, detail: plain_text(detail.as_ref()), party: Party::Miner, condition: None }
    }

    /// What the table of blame says of a condition below HTTP.
    pub fn of(condition: Condition, detail: impl AsRef<str>) -> Self {
        Self { party: condition.party(), condition: Some(condition), ..Self::new(MinerFault::ConnectionError, detail) }
    }

    /// The same, and the miner answers for it only if the network worked.
    #[must_use]
    pub fn undecided(self) -> Self {
        Self { party: Party::Undecided, ..self }
    }
}
