//! Plans: a pipeline and its environments compiled into an immutable, hashed graph of tasks.
//!
//! [`compile()`] turns a pipeline's file into a [`Definition`]; a [`Graph`] answers what may run next; [`render`] and
//! [`truth`] give the engine the values of what could not be known before the start.

mod build;
mod compile;
mod definition;
mod draft;
mod environments;
#[cfg(test)]
mod example;
mod expression;
mod fingerprint;
mod graph;
mod graph_of_drafts;
mod inputs;
pub mod kinds;
mod lint;
mod matrix;
mod miners;
mod references;
mod reuse;
mod rules;
pub mod schema;
mod settings;

pub use build::{BuildError, check_builds};
pub use compile::{Compiled, compile};
pub use definition::{
    Concurrency, Definition, Environment, Expansion, Expect, OnLimit, Phase, Retry, Server, Stage, Task, Then,
    retryable,
};
pub use expression::{ExpressionError, render, truth};
pub use fingerprint::{Difference, Fingerprints, fingerprint};
pub use graph::{CycleError, Graph, GraphError};
pub use inputs::{Bindings, Missing, variable_of};
pub use lint::lint;
pub use miners::DEMO_POLICIES;
pub use reuse::{Again, Reuse, Verdict};
