//! This machine: data directory, child processes, pinned downloads.
