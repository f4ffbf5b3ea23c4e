//! This machine: the data directory, child processes, pinned downloads.
//!
//! Level 0 in spirit: it knows nothing of cycles, and every other module may use it.

pub mod child;
mod data_dir;
pub mod download;
pub mod process;
mod progress;

pub use data_dir::{DataDirError, data_dir};
pub use progress::Progress;
