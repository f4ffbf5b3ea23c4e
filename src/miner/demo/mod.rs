//! `robo demo-miner`: a miner that serves a hand-written policy, for the quickstart, tests and benches.
//!
//! It sees what every miner sees (proprioception) and answers over the real protocol. With a [`Misbehaviour`] it breaks that
//! protocol on purpose.

mod episodes;
mod follower;
mod grasp;
mod misbehaviour;
mod policy;
mod routes;
mod server;

pub use misbehaviour::{Kind, Misbehaviour};
pub use policy::Policy;
pub use server::{Settings, serve};
