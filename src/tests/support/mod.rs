//! What tests of several areas share.

pub(crate) mod chain_node;
pub(crate) mod database;
pub(crate) mod engine;
pub(crate) mod episodes;
pub(crate) mod meddler;
pub(crate) mod own_server;
pub(crate) mod ports;
pub(crate) mod program;
pub(crate) mod replay_node;
pub(crate) mod replay_pool;
pub(crate) mod served;
pub(crate) mod story;
pub(crate) mod subnet;
pub(crate) mod validated;
pub(crate) mod weights_server;
