//! Runs a plan: decides what runs next, runs it, and survives crashes.
//!
//! `dispatcher` decides (pure), `run` performs, the journal remembers. The engine sees the [`crate::cycle::Journal`]
//! trait, never a database.

mod attempt;
mod dispatcher;
mod run;
#[cfg(test)]
mod tests;

pub use attempt::{Attempt, without_secrets};
pub use run::{Control, Ending, Error, Scope, run};
