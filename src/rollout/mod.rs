//! Episodes on an environment server: the protocols (docs/protocols.md) and the clients that speak them.
//!
//! Talks HTTP to `robo env-server`, or to a server of others that plays by itself; never to miners, never to the database.

pub mod affinetes;
mod canary;
mod client;
mod driver;
pub mod network;
pub mod permits;
pub mod protocol;

pub use canary::{Canary, NotACanary};
pub use client::{Client, Error};
pub use driver::{Control, Driver};
