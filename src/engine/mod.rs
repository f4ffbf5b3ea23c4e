//! Runs a plan: decides what runs next, runs it, and survives crashes.
//!
//! `dispatcher` decides (pure), over the books of `board`; `run` performs; the journal remembers. The engine sees the
//! [`crate::cycle::Journal`] trait, never a database.

mod attempt;
mod board;
mod context;
mod dispatcher;
mod expansion;
mod gates;
#[cfg(test)]
mod lessons;
mod limits;
mod run;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use attempt::{Attempt, without_secrets};
pub use run::{Control, Ending, Error, Scope, run};
