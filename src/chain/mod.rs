//! The chain: typed reads and submits, the only user of `subxt`.
//!
//! [`Metagraph`] reads a subnet at one block. [`Commitment`] and [`seal`] understand what miners wrote there, [`roster`] decides
//! who takes part. What is decided here about a miner is said to it in words. [`Node::submit`] makes a [`Call`] with the
//! hotkey of a [`Wallet`], and a [`Refusal`] says why the chain does not take it. [`Subnet`] is what a validator has to know
//! before it sets weights; [`lock`] and [`reveal`] are commit-reveal.

mod amounts;
mod call;
mod commitment;
mod metagraph;
mod network;
mod node;
mod refusal;
pub mod reveal;
pub mod roster;
pub mod seal;
mod signature;
mod submit;
mod subnet;
mod timelock;
mod wallet;
mod written;

pub use amounts::Amounts;
pub use call::Call;
pub use commitment::{Commitment, Malformed, Model, Place, deployed_at};
pub use metagraph::{Content, Metagraph, Neuron, OnChain};
pub use network::{Network, Unknown};
pub use node::{Head, Node, Patience, Problem, Unreachable};
pub use refusal::{Reason, Refusal};
pub use signature::{has_signed, is_hotkey};
pub use submit::{Included, Rehearsed, SubmitError, Waits};
pub use subnet::{Rules, Seat, Slot, Subnet};
pub use timelock::{NotLocked, lock};
pub use wallet::{NoWallet, Wallet};
