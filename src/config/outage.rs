//! How a machine tells that its own network has failed.

use std::time::Duration;

use clap::Args;

/// How long the network is waited for when nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(300);

/// Outages of this machine's own network.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Outage {
    /// Address that answers whenever this machine's network works, as `1.1.1.1:443`: environment servers probe it to tell an
    /// outage of ours from miners that are down. May be repeated [default: the nodes of the chain that the pipeline reads]
    #[arg(long, env = "ROBO_BACKEND_CANARY", value_name = "HOST:PORT", value_delimiter = ',')]
    pub canary: Vec<String>,

    /// How long a stage waits for this machine's network to come back, before its cycle fails as infrastructure
    #[arg(long, env = "ROBO_BACKEND_NETWORK_PATIENCE", value_name = "DURATION", default_value = "5m",
          value_parser = crate::manifest::duration)]
    pub network_patience: Duration,
}

impl Default for Outage {
    fn default() -> Self {
        Self { canary: Vec::new(), network_patience: PATIENCE }
    }
}
