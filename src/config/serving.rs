//! How the API is served: where it listens, and what it tells whom.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;

/// How the API is served.
#[derive(Debug, Clone, Args)]
pub struct Serving {
    /// Address to listen on: an IP address, with or without brackets, or `localhost`
    #[arg(long, env = "ROBO_BACKEND_HOST", default_value = "0.0.0.0", value_parser = host)]
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

fn host(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let wrong =
        "it is no IP address: write `127.0.0.1`, `::1`, `0.0.0.0` for every address of the machine, or `localhost`";
    bare.parse().map_err(|_| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        assert_eq!(host("localhost").unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!((host("[::1]"), host("::1")), (Ok(Ipv6Addr::LOCALHOST.into()), Ok(Ipv6Addr::LOCALHOST.into())));
        assert!(host("robo.example").unwrap_err().contains("localhost"));
    }
}
