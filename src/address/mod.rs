//! Which addresses a miner may announce: the one place that knows what is public, what is private and what is nobody's.
//!
//! Pure: it reads texts and numbers, asks no name server and opens nothing. Whoever resolves a name brings each answer
//! here before it is dialled.

mod ranges;
mod rules;
mod written;

pub use ranges::{Place, not_public_v4, not_public_v6, place};
pub use rules::{FORBIDDEN_PORTS, Reach, Rules};
pub use written::{Refusal, parse};
