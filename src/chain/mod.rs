//! The chain: typed reads and submits, the only user of `subxt`.
//!
//! [`Metagraph`] reads a subnet at one block. [`Commitment`] and [`seal`] understand what miners wrote there, [`roster`] decides
//! who takes part. What is decided here about a miner is said to it in words. [`Node::submit`] makes a [`Call`] with the
//! hotkey of a [`Wallet`], and a [`Refusal`] says why the chain does not take it.

mod amounts;
mod call;
mod commitment;
mod metagraph;
mod network;
mod node;
mod refusal;
pub mod roster;
pub mod seal;
mod submit;
mod wallet;

pub use amounts::Amounts;
pub use call::Call;
pub use commitment::{Commitment, Malformed, Place, deployed_at};
pub use metagraph::{Content, Metagraph, Neuron, OnChain};
pub use network::{Network, Unknown};
pub use node::{Head, Node, Patience, Problem, Unreachable};
pub use refusal::{Reason, Refusal};
pub use submit::{Included, Rehearsed, SubmitError, Waits};
pub use wallet::{NoWallet, Wallet};
