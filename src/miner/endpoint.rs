//! Where a miner answers: one base address, the three addresses the protocol asks of it.

use std::str::FromStr;

use reqwest::Url;

/// A miner's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `GET`: is anybody there.
    pub health: Url,
    /// `POST`: an episode begins.
    pub reset: Url,
    /// `POST`: what now.
    pub act: Url,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint is not `http(s)://host:port[/prefix]`")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let base = Url::parse(text.trim()).map_err(|_| InvalidEndpoint)?;
        let plain = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() || !plain {
            return Err(InvalidEndpoint);
        }
        let prefix = base.path().trim_end_matches('/');
        let at = |verb: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{prefix}/{verb}"));
            url
        };
        Ok(Self { health: at("health"), reset: at("reset"), act: at("act") })
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
    fn everything_else_is_refused() {
        for text in
            ["", "miner", "demo:random", "ftp://h/", "http://", "file:///etc/passwd", "http://u:p@h/", "http://h/?q=1"]
        {
            assert_eq!(text.parse::<Endpoint>(), Err(InvalidEndpoint), "{text}");
        }
    }
}
