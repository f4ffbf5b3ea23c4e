//! An endpoint as a miner writes it. What can be read in two ways is refused: a check and a connection must never mean
//! different machines.

use std::net::{IpAddr, Ipv6Addr};

use url::Url;

use super::{Place, place};

/// Why an endpoint may not be called. For the miner to read as well: nothing in it tells of our networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error("the endpoint is not `http(s)://host[:port][/prefix]`, without user name, query and fragment")]
    Shape,
    /// It is one in disguise.
    #[error("the endpoint's host must be written as it is meant: `{0}`")]
    Notation(String),
    /// The port belongs to something else.
    #[error("port {0} belongs to another service than a miner")]
    Port(u16),
    /// The address is written in it.
    #[error("{0} is {words}, and miners are called at public addresses only{more}", words = words(.1), more = remedy(.1))]
    Address(IpAddr, Place),
    /// The name leads there. The address is not said: whoever asks might learn how our networks look.
    #[error("the name leads to an address that is {words}, and miners are called at public addresses only{more}", words = words(.0), more = remedy(.0))]
    Name(Place),
}

impl Refusal {
    /// Whether `allow_private_endpoints` would let it pass.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Address(_, Place::Local(_)) | Self::Name(Place::Local(_)))
    }
}

fn words(place: &Place) -> &'static str {
    match place {
        Place::Public => "public",
        Place::Local(words) | Place::Never(words) => words,
    }
}

fn remedy(place: &Place) -> &'static str {
    match place {
        Place::Local(_) => " (a pipeline for local work says `miners: { allow_private_endpoints: true }`)",
        Place::Public | Place::Never(_) => "",
    }
}

/// The host of a URL as an address, if it is one.
pub(super) fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Whether a name is that of the machine itself, whatever a name server says.
pub(super) fn is_own_name(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.ends_with(".localhost")
}

/// An endpoint, read strictly.
///
/// # Errors
/// [`Refusal::Shape`] and [`Refusal::Notation`]. Whether it may be called is for [`Rules`](super::Rules) to say.
pub fn parse(text: &str) -> Result<Url, Refusal> {
    let text = text.trim();
    let url = Url::parse(text).map_err(|_| Refusal::Shape)?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !matches!(url.scheme(), "http" | "https") || !plain || url.fragment().is_some() || url.port() == Some(0) {
        return Err(Refusal::Shape);
    }
    let (_, rest) = text.split_once("://").ok_or(Refusal::Shape)?;
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Refusal::Shape);
    }
    let read = url.host_str().ok_or(Refusal::Shape)?;
    let written = host_of(authority);
    let is_same = match (written.strip_prefix('['), read.strip_prefix('[')) {
        // One IPv6 address has many spellings, none of which is another address.
        (Some(inner), Some(canonical)) => {
            let address = |text: &str| text.trim_end_matches(']').parse::<Ipv6Addr>().ok();
            address(inner).is_some() && address(inner) == address(canonical)
        }
        (None, None) => written.eq_ignore_ascii_case(read) && !read.ends_with('.'),
        _ => false,
    };
    if is_same { Ok(url) } else { Err(Refusal::Notation(read.trim_end_matches('.').to_owned())) }
}

/// The host of `host[:port]`.
fn host_of(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// What an endpoint's own text says of where it leads, as far as it says.
pub(super) fn check_place(url: &Url, allows: impl Fn(Place) -> bool) -> Result<(), Refusal> {
    let loopback = Place::Local("this machine's own");
    match address(url) {
        Some(address) if !allows(place(address)) => Err(Refusal::Address(address, place(address))),
        None if is_own_name(url) && !allows(loopback) => Err(Refusal::Name(loopback)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_is_taken() {
        for text in [
            "http://miner.example",
            "https://Miner.Example:8443/policies/7/",
            "http://1.2.3.4:8000",
            "http://[2606:4700::1]:8000/x",
            "http://[2606:4700:0:0::1]",
            "http://xn--mnchen-3ya.example",
            " http://a_b.example/a b ",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn an_address_in_disguise_is_told_how_to_write_it() {
        for (text, plain) in [
            ("http://2130706433", "127.0.0.1"),
            ("http://0x7f000001:8000", "127.0.0.1"),
            ("http://0177.0.0.1", "127.0.0.1"),
            ("http://127.1", "127.0.0.1"),
            ("http://0x8.8.8.8", "8.8.8.8"),
            ("http://8.8.8.8.", "8.8.8.8"),
            ("http://%31%32%37.0.0.1", "127.0.0.1"),
            ("http://１２７.0.0.1", "127.0.0.1"),
            ("http://127。0。0。1", "127.0.0.1"),
            ("http://miner.example.:80", "miner.example"),
            ("http://münchen.example", "xn--mnchen-3ya.example"),
            ("http://ⓔxample.com", "example.com"),
            ("http://exa\tmple.com", "example.com"),
        ] {
            assert_eq!(parse(text), Err(Refusal::Notation(plain.to_owned())), "{text}");
        }
    }

    #[test]
    fn everything_else_is_no_endpoint() {
        for text in [
            "",
            "miner",
            "demo:random",
            "ftp://h/",
            "http://",
            "file:///etc/passwd",
            "http://u:p@h/",
            "http://@h/",
            "http://public.example@127.0.0.1/",
            "http://h/?q=1",
            "http://h/#f",
            "http://h:0",
            "http://h:99999",
            "http://[::1%eth0]",
            "http:/h",
            "http:h",
        ] {
            assert_eq!(parse(text), Err(Refusal::Shape), "{text}");
        }
    }
}
