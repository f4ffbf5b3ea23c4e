//! What an environment server may use and reach, for runtimes that can hold it to that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one server may use. None of it is a promise: a runtime without walls lets a server use what there is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory, swap included; none leaves it to the operator's default.
    pub memory: Option<u64>,
    /// Cores; none for as many as there are.
    pub cpus: Option<f64>,
    /// Graphics cards.
    pub gpus: u32,
    /// Processes and threads; none for the runtime's default.
    pub pids: Option<u32>,
    /// What it may reach.
    pub network: Network,
}

/// What a server may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Nothing.
    None,
    /// The miners' endpoints.
    #[default]
    MinersOnly,
    /// Everything.
    Full,
}
