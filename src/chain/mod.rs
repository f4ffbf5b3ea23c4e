//! The chain: typed reads and submits, the only user of `subxt`.
//!
//! [`Metagraph`] reads a subnet at one block. [`Commitment`] and [`seal`] understand what miners wrote there, [`roster`] decides
//! who takes part. What is decided here about a miner is said to it in words.

mod amounts;
mod commitment;
mod metagraph;
mod network;
mod node;
pub mod roster;
pub mod seal;

pub use amounts::Amounts;
pub use commitment::{Commitment, Malformed, Place, deployed_at};
pub use metagraph::{Content, Metagraph, Neuron, OnChain};
pub use network::{Network, Unknown};
pub use node::{Head, Node, Patience, Problem, Unreachable};
