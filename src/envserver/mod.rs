//! `robo env-server`: drives episodes between simulator workers and miners.
//!
//! ```text
//! engine --HTTP, NDJSON--> server --> run (one per request) --> episode (one task each)
//!                                      |  scheduler decides       |            |
//!                                      |                      slots, worker   miner::Client
//!                                    fleet keeps the workers alive (pipe, MessagePack)
//! ```
//!
//! The worker simulates and never sees a miner; the miner acts and never sees a seed; nothing here is written down: what
//! ended is told to the engine at once, and what was not told did not happen.

mod budget;
mod episode;
mod fleet;
mod frame;
mod guest;
mod latency;
mod memory;
mod processor;
mod run;
mod scheduler;
mod server;
mod slots;
mod spawner;
mod throttle;
mod witness;
mod worker;

pub use server::{Config, Error, Server};
pub use spawner::Python;
