//! What tests of several areas share.

pub(crate) mod database;
pub(crate) mod engine;
pub(crate) mod own_server;
pub(crate) mod program;
pub(crate) mod replay_node;
pub(crate) mod subnet;
