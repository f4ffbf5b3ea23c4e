//! Episodes on an environment server: the protocol (docs/protocols.md) and the client that speaks it.
//!
//! Talks HTTP to `robo env-server`; never to miners, never to the database.

mod client;
pub mod protocol;

pub use client::{Client, Error};
