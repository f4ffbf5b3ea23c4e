//! Plans: a pipeline and its environments compiled into an immutable, hashed graph of tasks.

mod definition;

pub use definition::{Definition, Environment, Expect, Phase, Retry, Server, Stage, Task};
