//! The client for endpoints that strangers control, and the demo miner.
//!
//! Speaks the miner protocol (docs/protocols.md) and judges what comes back. It never follows an endpoint anywhere else,
//! never reads more than a small answer, never waits past a deadline, and never sees a seed. `dial.rs` is the one place that
//! looks names up and opens connections.

mod action;
mod answer;
mod canonical;
mod client;
mod deadline;
pub mod demo;
mod dial;
mod endpoint;
mod fault;
mod idle;
mod image;
mod line;
mod names;
mod request;
mod route;
mod session;
mod socket;
mod trust;
mod warm_up;
mod wire;

pub use action::check;
pub use client::{Client, Limits};
pub use endpoint::Endpoint;
pub use fault::Fault;
pub use image::Image;
pub use request::{Frame, TaskConfig};
pub use route::{Peer, Route};
pub use session::{Answer, Session, Timeouts};
pub use warm_up::{Health, NotReady};
