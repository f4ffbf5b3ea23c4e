//! Plans: a pipeline and its environments compiled into an immutable, hashed graph of tasks.
//!
//! [`compile()`] turns a pipeline's file into a [`Definition`]; a [`Graph`] answers what may run next; [`render`] and
//! [`truth`] give the engine the values of what could not be known before the start.

mod budget;
mod build;
mod codeless;
mod compile;
mod concurrency;
mod definition;
mod discovery;
mod draft;
mod environments;
#[cfg(test)]
mod example;
mod expand;
mod expression;
mod fingerprint;
mod foreign;
mod graph;
mod graph_of_drafts;
mod guard;
mod inputs;
pub mod kinds;
mod limits;
mod lint;
mod mapping;
mod matrix;
mod miners;
mod overrides;
mod references;
mod rerun;
mod reuse;
mod rules;
mod schedule;
pub mod schema;
mod secret_use;
mod secrets;
mod settings;
mod vocabulary;

pub use budget::{closing_time, wall_budget};
pub use build::{BuildError, check_builds};
pub use codeless::{file_digest, program_digest};
pub use compile::{Compiled, compile, compile_in};
pub use definition::{
    Concurrency, Definition, Environment, Expansion, Expect, Miners, OnLimit, Phase, Retry, Server, Stage, Task, Then,
    retryable,
};
pub use discovery::subnet_variable;
pub(crate) use environments::{environment, matches};
pub use expand::{ExpansionError, expand};
pub(crate) use expression::references;
pub use expression::{ExpressionError, render, truth};
pub use fingerprint::{Difference, Fingerprints, fingerprint};
pub use graph::{CycleError, Graph, GraphError};
pub use inputs::{Bindings, Missing, variable_of};
pub use kinds::Type as OutputType;
pub use lint::{lint, lint_with};
pub use mapping::{Mapping, MappingError};
pub use miners::DEMO_POLICIES;
pub use rerun::Rerun;
pub use reuse::{Again, Reuse, Verdict};
pub use secrets::{SecretError, SecretSource, Secrets, secret_variable};
