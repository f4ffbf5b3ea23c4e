//! Parts of the engine's bench.

pub(crate) mod bare;
pub(crate) mod cycles;
pub(crate) mod episodes;
pub(crate) mod memory;
pub(crate) mod server;
