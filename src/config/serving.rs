//! How the API is served: where it listens, and what it tells whom.

use std::net::IpAddr;

use clap::Args;

/// How the API is served.
#[derive(Debug, Clone, Args)]
pub struct Serving {
    /// Address to listen on
    #[arg(long, env = "ROBO_BACKEND_HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "ROBO_BACKEND_PORT", default_value_t = 8000)]
    pub port: u16,

    /// Blocks for which a vector counts after the one its cycle was pinned to; an older one is marked as stale
    #[arg(long, env = "ROBO_BACKEND_VALID_BLOCKS", value_name = "N", default_value_t = 720,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub valid_blocks: u32,

    /// Tell everybody where miners answer; otherwise only operators are told
    #[arg(long, env = "ROBO_BACKEND_SHOW_ENDPOINTS", value_parser = clap::builder::BoolishValueParser::new())]
    pub show_endpoints: bool,
}
