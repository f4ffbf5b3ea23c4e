//! Canaries: addresses that answer whenever this machine's network works. Whether one takes a connection tells an outage of
//! our own from a miner that is down.
//!
//! Opens TCP connections and closes them at once. Nothing is sent.

use std::{fmt, io, net::SocketAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// Longest time for a probe. It is shorter than the second after which the kernel sends a lost SYN again: a connection that
/// opens only then says that packets were lost.
const PATIENCE: Duration = Duration::from_millis(900);

/// A second connection is tried after this, so that one lost packet does not look like an outage.
const SECOND: Duration = Duration::from_millis(200);

/// A canary: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Canary {
    host: String,
    port: u16,
}

/// Not a canary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `HOST:PORT`")]
pub struct NotACanary(String);

impl Canary {
    /// The canary behind a URL: its host and port.
    pub fn of_url(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        let usual = match scheme {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => return None,
        };
        host.parse().or_else(|_| format!("{host}:{usual}").parse()).ok()
    }

    /// The same place as an `http` URL, which is how the ways out of a container are named.
    pub fn to_url(&self) -> String {
        format!("http://{self}")
    }

    /// Whether it is known by a name, so that a probe asks a name server, too.
    pub fn is_named(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_err()
    }

    /// Whether it answers now, and from where. A refused connection is an answer: packets came back.
    ///
    /// # Errors
    /// What the system says. A name that is not looked up in time counts as no answer.
    pub async fn probe(&self) -> io::Result<SocketAddr> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        timeout(PATIENCE, self.connect()).await.map_err(late)?
    }

    /// Both connections go to one address: a lookup cannot be cancelled, so a probe has only one.
    async fn connect(&self) -> io::Result<SocketAddr> {
        let mut addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let address = addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let second = async {
            sleep(SECOND).await;
            TcpStream::connect(address).await
        };
        let (first, second) = (TcpStream::connect(address), std::pin::pin!(second));
        let opened = tokio::select! {
            opened = first => opened,
            opened = second => opened,
        };
        match opened {
            Ok(_) => Ok(address),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(address),
            Err(error) => Err(error),
        }
    }
}

impl FromStr for Canary {
    type Err = NotACanary;

    fn from_str(text: &str) -> Result<Self, NotACanary> {
        let parse = || {
            let (host, port) = text.trim().rsplit_once(':')?;
            let host = match host.strip_prefix('[') {
                Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?,
                None => host,
            };
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
            let is_host = !host.is_empty() && host.bytes().all(letters);
            let port = port.parse().ok().filter(|port| *port > 0)?;
            is_host.then(|| Self { host: host.to_owned(), port })
        };
        parse().ok_or_else(|| NotACanary(text.to_owned()))
    }
}

impl TryFrom<String> for Canary {
    type Error = NotACanary;

    fn try_from(text: String) -> Result<Self, NotACanary> {
        text.parse()
    }
}

impl From<Canary> for String {
    fn from(canary: Canary) -> Self {
        canary.to_string()
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_a_host_and_a_port() {
        for text in ["1.1.1.1:443", "node.example:9944", "[2606:4700::1]:443"] {
            assert_eq!(text.parse::<Canary>().unwrap().to_string(), text);
        }
        for bad in ["", "1.1.1.1", ":80", "a:0", "a:99999", "http://a:80", "[x]:80", "a b:80"] {
            assert!(bad.parse::<Canary>().is_err(), "{bad}");
        }
        let of = |url: &str| Canary::of_url(url).map(|canary| canary.to_string());
        assert_eq!(of("wss://node.example/key"), Some("node.example:443".into()));
        assert_eq!(of("ws://user:pw@127.0.0.1:9944"), Some("127.0.0.1:9944".into()));
        assert_eq!(of("ftp://a"), None);
        assert!("node.example:1".parse::<Canary>().unwrap().is_named());
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let canary: Canary = address.to_string().parse().unwrap();
        assert_eq!(canary.probe().await.unwrap(), address);
        drop(listener);
        assert_eq!(canary.probe().await.unwrap(), address);
        let nowhere: Canary = "no-such-host.invalid:1".parse().unwrap();
        assert!(nowhere.probe().await.is_err());
    }
}
