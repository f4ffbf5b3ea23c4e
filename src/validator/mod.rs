//! The validator's side: what a backend has published, put on chain with somebody else's hotkey.
//!
//! `document.rs` reads a weights document, `trust.rs` says whether it is believed, `vector.rs` resolves it against the subnet as
//! it is now, `preflight.rs` finds what the chain would refuse, `plan.rs` puts these together: all pure. `backend.rs` asks the
//! backend, `emission.rs` submits and reads back, `run.rs` does it again and again, and `report.rs` tells how it goes.

mod backend;
mod document;
mod emission;
#[cfg(test)]
mod example;
mod health;
mod pace;
mod plan;
mod preflight;
mod report;
mod run;
mod trouble;
mod trust;
mod vector;

pub use backend::{Backend, BackendUrl, Unanswered};
pub use document::{Document, Malformed, Status};
pub use emission::Done;
pub use health::serve;
pub use pace::Cadence;
pub use plan::{Burns, Plan, Terms, Way};
pub use preflight::Refusal;
pub use report::Report;
pub use run::{Settings, Turn, Validator};
pub use trouble::Trouble;
pub use trust::{Demands, Distrust};
pub use vector::{Burnt, Unpayable, Vector, Why};
