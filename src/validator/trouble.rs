//! Why no weights were set, whatever it was: one sentence, what can be done about it, and a word for programs.

use super::{backend::Unanswered, preflight::Refusal, trust::Distrust, vector::Unpayable};
use crate::{
    chain::{NotLocked, Problem, SubmitError, Unreachable},
    cycle::with_causes,
};

/// Why no weights were set.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The backend does not answer, or not what it should.
    #[error("the backend cannot be read")]
    Backend(#[from] Unanswered),
    /// The backend has nothing yet.
    #[error("the backend has published no weights yet")]
    Nothing,
    /// Its document is not believed.
    #[error("the backend's document is not used")]
    Distrust(#[from] Distrust),
    /// No node answers.
    #[error(transparent)]
    Chain(#[from] Unreachable),
    /// The document cannot be paid.
    #[error(transparent)]
    Unpayable(#[from] Unpayable),
    /// The chain would refuse it.
    #[error("the chain would refuse the weights: {}", sentences(.0))]
    Refused(Vec<Refusal>),
    /// It burns everything, and the one before did not.
    #[error("the vector burns everything, and the last one paid {paid} slots: it is not set")]
    SuddenBurn {
        /// How many slots the last one paid.
        paid: usize,
    },
    /// It cannot be encrypted.
    #[error(transparent)]
    NotLocked(#[from] NotLocked),
    /// The chain has refused it, or nobody knows.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It was accepted, and reading it back failed.
    #[error("the weights are in block {block}, and could not be read back: {problem}")]
    NotReadBack {
        /// The block.
        block: u64,
        /// What went wrong.
        problem: Problem,
    },
    /// It was accepted, and something else stands there.
    #[error("block {block} took the weights, and {found} stands on the chain there")]
    Unconfirmed {
        /// The block.
        block: u64,
        /// What stands there.
        found: String,
    },
}

impl Trouble {
    /// All of it in one line.
    pub fn told(&self) -> String {
        with_causes(self.to_string(), self)
    }

    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Backend(_) => "backend",
            Self::Nothing => "nothing_published",
            Self::Distrust(distrust) => distrust.word(),
            Self::Chain(_) => "chain",
            Self::Unpayable(_) => "unpayable",
            Self::Refused(refusals) => refusals.first().map_or("refused", Refusal::word),
            Self::SuddenBurn { .. } => "sudden_burn",
            Self::NotLocked(_) => "not_locked",
            Self::Submit(_) => "submission",
            Self::NotReadBack { .. } | Self::Unconfirmed { .. } => "unconfirmed",
        }
    }

    /// What can be done about it, a line each; nothing where the sentence says it.
    pub fn remedies(&self) -> Vec<String> {
        match self {
            Self::Backend(Unanswered::Unreachable(_)) => {
                vec!["check --backend-url, and that the backend runs: curl URL/health".into()]
            }
            Self::Backend(_) => vec!["check --backend-url, and look into the backend's log".into()],
            Self::Nothing => vec!["wait for the backend's first cycle".into()],
            Self::Chain(_) => vec!["name other nodes with --network ws://...,wss://..., tried in that order".into()],
            Self::Refused(refusals) => refusals.iter().map(Refusal::remedy).collect(),
            Self::SuddenBurn { .. } => {
                vec![
                    "ask the backend's operator whether nobody has earned anything; if so, set it with --accept-burn"
                        .into(),
                ]
            }
            Self::Submit(error) => vec![error.remedy().to_owned()],
            Self::NotReadBack { .. } | Self::Unconfirmed { .. } => {
                vec![
                    "look at the block in a block explorer; a running validator sets them again when they are due"
                        .into(),
                ]
            }
            Self::Distrust(_) | Self::Unpayable(_) | Self::NotLocked(_) => Vec::new(),
        }
    }
}

fn sentences(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_every_refusal_and_its_remedy() {
        let text = include_str!("../../docs/validator.md");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let sudden = Trouble::SuddenBurn { paid: 1 };
        assert!(sudden.remedies()[0].contains("--accept-burn"));
        let row = rows.iter().find(|row| row.contains(&format!("`{}`", sudden.word()))).unwrap();
        assert!(row.contains("--accept-burn"), "{row}");
        let refusals = [
            Refusal::UnknownSubnet { netuid: 1 },
            Refusal::NotRegistered { hotkey: String::new(), netuid: 1 },
            Refusal::NoPermit { uid: 1 },
            Refusal::Stake { has: 0.0, needs: 1 },
            Refusal::TooSoon { blocks: 1, seconds: 1, last: 1, limit: 1 },
            Refusal::VersionKey { ours: 0, wanted: 1 },
            Refusal::Nothing,
            Refusal::TooFew { found: 0, least: 1 },
            Refusal::TooMuch { uid: 1, share: 1.0, limit: 0.5 },
            Refusal::CommitVersion { wanted: 5 },
        ];
        let words = refusals.iter().map(Refusal::word);
        for word in words.chain(["backend", "chain", "unpayable", "not_locked", "submission", "unconfirmed"]) {
            assert!(rows.iter().any(|row| row.contains(&format!("`{word}`"))), "`{word}` has no row");
        }
    }
}
