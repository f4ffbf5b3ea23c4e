//! What can go wrong with the place where an environment server runs, told apart so that each has its remedy.
//!
//! Speaks of places and servers, whatever the place is made of.

use std::fmt;

use crate::cycle::{InfraFault, Outcome};
use crate::host::child::LastWords;

/// A server that cannot be had, or no more, through no fault of any miner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is to the episodes that needed the server.
    pub reason: InfraFault,
    /// What happened.
    pub problem: String,
    /// What the operator can do about it.
    pub remedy: Option<String>,
    /// The end of what the server said.
    pub last_words: LastWords,
}

impl Fault {
    /// A fault without a remedy, of a server that has said nothing.
    pub(super) fn new(reason: InfraFault, problem: impl Into<String>) -> Self {
        Self { reason, problem: problem.into(), remedy: None, last_words: LastWords::default() }
    }

    /// With what the operator can do about it.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// With the end of what the server said.
    pub(super) fn last_words(self, last_words: LastWords) -> Self {
        Self { last_words, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", Outcome::InfraFault(self.reason), self.problem, self.last_words)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_its_reason_first_and_the_servers_last_words_last() {
        let words = LastWords(vec!["out of paper".into()]);
        let fault = Fault::new(InfraFault::DiskFull, "it cannot print").last_words(words);
        assert_eq!(fault.to_string(), "infra_fault(disk_full): it cannot print\n  out of paper");
    }
}
