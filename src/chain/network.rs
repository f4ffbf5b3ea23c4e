//! Which chain: names that operators know, and what is asserted of the node behind them.

use std::{fmt, str::FromStr};

/// A chain and the nodes it is read from, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    name: String,
    urls: Vec<String>,
    is_public: bool,
    genesis: Option<&'static str>,
}

/// Not the name of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `finney`, `test`, `local` nor a list of ws:// or wss:// URLs with commas between them")]
pub struct Unknown(String);

const FINNEY: [&str; 3] =
    ["wss://entrypoint-finney.opentensor.ai:443", "wss://lite.chain.opentensor.ai:443", "wss://lite.sub.latent.to:443"];
const FINNEY_GENESIS: &str = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03";
const TEST: &str = "wss://test.finney.opentensor.ai:443";
const LOCAL: &str = "ws://127.0.0.1:9944";

impl Network {
    /// The nodes.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The hash of block 0, as `0x` and digits, where the name stands for one chain only.
    pub fn genesis(&self) -> Option<&'static str> {
        self.genesis
    }

    /// The same, with a genesis block that is asserted.
    #[must_use]
    pub fn on_chain(self, genesis: &'static str) -> Self {
        Self { genesis: Some(genesis), ..self }
    }

    /// Whether blocks come by the clock: a head that is minutes old is then an outage.
    pub fn is_public(&self) -> bool {
        self.is_public
    }
}

impl Default for Network {
    fn default() -> Self {
        let urls = FINNEY.map(str::to_owned).to_vec();
        Self { name: "finney".into(), urls, is_public: true, genesis: Some(FINNEY_GENESIS) }
    }
}

impl FromStr for Network {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let known = |urls: &[&str], is_public, genesis| {
            let is_list = text.contains("://");
            let list = || urls.iter().map(|url| shown(url)).collect::<Vec<_>>().join(",");
            let name = if is_list { list() } else { text.to_owned() };
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            Ok(Self { name, urls, is_public, genesis })
        };
        match text {
            "finney" => known(&FINNEY, true, Some(FINNEY_GENESIS)),
            "test" => known(&[TEST], true, None),
            "local" => known(&[LOCAL], false, None),
            _ => {
                let urls: Vec<&str> = text.split(',').map(str::trim).collect();
                let is_url = |url: &&str| {
                    ["ws://", "wss://"].iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len())
                };
                if urls.iter().all(is_url) { known(&urls, false, None) } else { Err(Unknown(text.to_owned())) }
            }
        }
    }
}

/// A node's URL as far as anybody may see it: what comes after the host may be a key.
pub(super) fn shown(url: &str) -> &str {
    let Some(start) = url.find("://").map(|at| at + 3) else { return url };
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    // Nor who it is said to be.
    if url[start..end].contains('@') { "(a node)" } else { &url[..end] }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_are_networks() {
        let finney: Network = "finney".parse().unwrap();
        assert!(finney.genesis().is_some() && finney.is_public() && finney.urls().len() == 3);
        let two: Network = "ws://a:1, wss://b".parse().unwrap();
        assert_eq!((two.urls(), two.genesis()), (&["ws://a:1".to_owned(), "wss://b".to_owned()][..], None));
        let keyed: Network = "wss://node.example/v1/secret-key,wss://me:secret@other".parse().unwrap();
        assert_eq!(keyed.to_string(), "wss://node.example,(a node)");
        assert!(keyed.urls()[0].ends_with("/secret-key"), "what is shown is not what is called");
        for wrong in ["", "mainnet", "http://a", "ws://", "ws://a,,"] {
            assert_eq!(wrong.parse::<Network>(), Err(Unknown(wrong.into())));
        }
    }
}
