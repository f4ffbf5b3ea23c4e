//! The client for endpoints that strangers control, and the demo miner.
//!
//! Speaks the miner protocol (docs/protocols.md) and judges what comes back. It never follows an endpoint anywhere else,
//! never reads more than a small answer, never waits past a deadline, and never sees a seed.

mod action;
mod answer;
mod client;
pub mod demo;
mod dial;
mod endpoint;
mod fault;
mod idle;
mod image;
mod line;
mod request;
mod session;
mod wire;

pub use action::check;
pub use client::{Client, Limits};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use fault::Fault;
pub use image::Image;
pub use request::{Frame, TaskConfig};
pub use session::{Answer, Session, Timeouts};
