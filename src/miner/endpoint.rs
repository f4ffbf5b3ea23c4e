//! Where a miner answers: one base address, the three addresses the protocol asks of it.

use std::str::FromStr;

use hyper::{Uri, header::HeaderValue};
use url::Url;

use crate::address::{self, Refusal};

/// A miner's addresses. Whether they may be called is for a [`Route`](super::Route) to find out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `GET`: is anybody there.
    pub health: Url,
    /// `POST`: an episode begins.
    pub reset: Url,
    /// `POST`: what now.
    pub act: Url,
    pub(super) origin: Origin,
    /// What the three requests say of where they go.
    pub(super) targets: Targets,
}

/// Where connections lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    /// Whether TLS is spoken.
    pub(super) secure: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// The addresses as HTTP writes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Targets {
    /// The `Host` header.
    pub(super) host: HeaderValue,
    pub(super) health: Uri,
    pub(super) reset: Uri,
    pub(super) act: Uri,
}

impl FromStr for Endpoint {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::of(&address::parse(text)?)
    }
}

impl Endpoint {
    pub(super) fn of(base: &Url) -> Result<Self, Refusal> {
        let prefix = base.path().trim_end_matches('/');
        let at = |verb: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{prefix}/{verb}"));
            url
        };
        let [health, reset, act] = ["health", "reset", "act"].map(at);
        let origin = Origin::of(base).ok_or(Refusal::Shape)?;
        let targets = Targets::of([&health, &reset, &act]).ok_or(Refusal::Shape)?;
        Ok(Self { health, reset, act, origin, targets })
    }
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { secure: url.scheme() == "https", host, port: url.port_or_known_default()? })
    }
}

impl Targets {
    fn of([health, reset, act]: [&Url; 3]) -> Option<Self> {
        let host = health.host_str()?;
        let host = health.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = |url: &Url| url.path().parse().ok();
        let host = HeaderValue::try_from(host).ok()?;
        Some(Self { host, health: path(health)?, reset: path(reset)?, act: path(act)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_kept() {
        for (base, act) in [
            ("http://10.0.0.1:8000", "http://10.0.0.1:8000/act"),
            ("http://10.0.0.1:8000/", "http://10.0.0.1:8000/act"),
            ("https://miner.example/policies/7/", "https://miner.example/policies/7/act"),
            ("http://[2001:db8::1]:80", "http://[2001:db8::1]/act"),
        ] {
            assert_eq!(base.parse::<Endpoint>().unwrap().act.as_str(), act);
        }
    }

    #[test]
    fn http_says_host_and_path() {
        for (base, host, act, origin) in [
            ("http://10.0.0.1:8000/a b/", "10.0.0.1:8000", "/a%20b/act", ("10.0.0.1", 8000)),
            ("https://miner.example", "miner.example", "/act", ("miner.example", 443)),
            ("http://[2001:db8::1]:81", "[2001:db8::1]:81", "/act", ("2001:db8::1", 81)),
        ] {
            let endpoint: Endpoint = base.parse().unwrap();
            assert_eq!(
                (endpoint.targets.host.to_str().unwrap(), endpoint.targets.act.to_string().as_str()),
                (host, act)
            );
            assert_eq!((endpoint.origin.host.as_str(), endpoint.origin.port), origin);
            assert_eq!(endpoint.origin.secure, base.starts_with("https"));
        }
    }
}
