//! How the API is guarded: who needs a key, how much a client may ask for, whose word for a client's address counts, TLS.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::FalseyValueParser};
use ipnet::IpNet;

/// How the API is guarded.
#[derive(Debug, Clone, Args)]
pub struct Guarding {
    /// Ask for an API key for reads, too; /health and the page that asks people for theirs go without. Keys are made with `robo apikey create`
    #[arg(long, env = "ROBO_BACKEND_REQUIRE_KEY", value_parser = FalseyValueParser::new())]
    pub require_key: bool,

    /// Requests a second that a client without a key may send; 0 for as many as it likes. Clients are told apart by IPv4 address
    /// and by /64 of IPv6
    #[arg(long, env = "ROBO_BACKEND_RATE_LIMIT", value_name = "N", default_value_t = 50)]
    pub rate_limit: u32,

    /// Requests that a client may send at once, before the rate counts
    #[arg(long, env = "ROBO_BACKEND_RATE_BURST", value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_burst: u32,

    /// Connections at a time, of which one client may hold a quarter; more wait
    #[arg(long, env = "ROBO_BACKEND_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    pub max_connections: u32,

    /// How long a client may take for the head of a request, and keep a connection open without one
    #[arg(long, env = "ROBO_BACKEND_IDLE_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = crate::manifest::duration)]
    pub idle_timeout: Duration,

    /// Proxy whose word for its client's address counts, as an address or a network: `10.0.0.0/8`. May be repeated
    #[arg(long = "trusted-proxy", env = "ROBO_BACKEND_TRUSTED_PROXIES", value_name = "CIDR", num_args = 1.., value_delimiter = ',',
          value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// The header in which those proxies say it; one that they do not set themselves is the client's to forge
    #[arg(long, env = "ROBO_BACKEND_FORWARDED_HEADER", value_enum, default_value_t)]
    pub forwarded_header: ForwardedHeader,

    /// Serve HTTPS with this chain of certificates (PEM); read again when it changes
    #[arg(long, env = "ROBO_BACKEND_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, env = "ROBO_BACKEND_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// A header in which proxies name their clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ForwardedHeader {
    /// What nginx, Caddy, Traefik and load balancers set.
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl Default for Guarding {
    fn default() -> Self {
        Self {
            require_key: false,
            rate_limit: 50,
            rate_burst: 200,
            max_connections: 4096,
            idle_timeout: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone).ok_or_else(|| "write an address or a network, as `10.0.0.0/8`".into())
}
