//! This machine: the data directory, child processes and who they are, pinned downloads.
//!
//! Level 0 in spirit: it knows nothing of cycles, and every other module may use it.

pub mod child;
mod data_dir;
pub mod descriptors;
pub mod download;
pub mod environment;
mod identity;
pub mod ledger;
pub mod process;
mod progress;
mod routes;
pub mod socket;
mod stall;

pub use data_dir::{DataDirError, data_dir};
pub use identity::{Identity, State};
pub use progress::Progress;
pub use routes::has_default_route;
pub use stall::Stalls;
