//! What `benches/api.rs` measures with.

pub(crate) mod pollers;
pub(crate) mod processes;
pub(crate) mod publish;
pub(crate) mod wrk;
