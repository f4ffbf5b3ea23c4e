//! What `robo backend` does beside answering: it starts cycles by the clock and runs every cycle that nobody runs.
//!
//! It wires the engine to the stages, the database and this machine. [`run_cycle`] is the only place that does; whoever
//! runs a cycle, by hand or by the clock, comes through it. It never prints and never decides what a cycle does next.

mod cycle;

pub use cycle::{Error, Steering, run_cycle};
