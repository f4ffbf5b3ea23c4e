//! What a pipeline allows of its miners' endpoints.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Place, Refusal, parse, place,
    written::{address, check_place},
};

/// Ports of services that would do something with a request that was never meant for them: remote shells, mail, name
/// servers, container engines, databases.
pub const FORBIDDEN_PORTS: [u16; 21] =
    [22, 23, 25, 53, 110, 143, 445, 465, 587, 993, 995, 2375, 2376, 2379, 3306, 3389, 5432, 5900, 6379, 11_211, 27_017];

/// Where endpoints may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// To public addresses.
    #[default]
    Public,
    /// To private ones and to this machine, too: for local work.
    Private,
    /// Anywhere: for what robo serves itself, or an operator has typed.
    Anywhere,
}

/// What endpoints have to keep to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Where they may lead.
    #[serde(default)]
    pub reach: Reach,
    /// Ports that they may not have.
    #[serde(default = "ports")]
    pub forbidden_ports: Vec<u16>,
}

fn ports() -> Vec<u16> {
    FORBIDDEN_PORTS.to_vec()
}

impl Default for Rules {
    fn default() -> Self {
        Self { reach: Reach::Public, forbidden_ports: ports() }
    }
}

impl Rules {
    /// For endpoints that no stranger has chosen.
    pub fn none() -> Self {
        Self { reach: Reach::Anywhere, forbidden_ports: Vec::new() }
    }

    /// The endpoint in a text, if it may be called as far as its text says: a name may lead anywhere.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, text: &str) -> Result<Url, Refusal> {
        let url = parse(text)?;
        check_place(&url, |place| self.allows(place))?;
        match url.port_or_known_default() {
            Some(port) if self.forbidden_ports.contains(&port) => Err(Refusal::Port(port)),
            _ => Ok(url),
        }
    }

    /// Whether what a name server has answered may be called: all of it, since whoever mixes addresses of ours into it
    /// means us to reach them.
    ///
    /// # Errors
    /// [`Refusal::Name`].
    pub fn check_answers(&self, answers: impl IntoIterator<Item = IpAddr>) -> Result<(), Refusal> {
        let mut places = answers.into_iter().map(place);
        places.find(|place| !self.allows(*place)).map_or(Ok(()), |place| Err(Refusal::Name(place)))
    }

    /// The address that is written in an endpoint, if it is one.
    pub fn written_address(url: &Url) -> Option<IpAddr> {
        address(url)
    }

    fn allows(&self, place: Place) -> bool {
        match (place, self.reach) {
            (Place::Public, _) | (Place::Local(_), Reach::Private) | (_, Reach::Anywhere) => true,
            (Place::Local(_) | Place::Never(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> Result<(), Refusal> {
        Rules::default().check(text).map(drop)
    }

    fn private(text: &str) -> Result<(), Refusal> {
        Rules { reach: Reach::Private, ..Rules::default() }.check(text).map(drop)
    }

    #[test]
    fn local_work_reaches_what_is_local_and_nothing_more() {
        for text in ["http://127.0.0.1:9000", "http://10.1.2.3", "http://[::1]:9000", "http://localhost:9000"] {
            assert!(public(text).unwrap_err().is_local(), "{text}");
            assert_eq!(private(text), Ok(()), "{text}");
        }
        for text in ["http://169.254.169.254", "http://0.0.0.0", "http://[::ffff:127.0.0.1]", "http://224.0.0.1"] {
            assert!(public(text).is_err() && !private(text).unwrap_err().is_local(), "{text}");
            assert!(Rules::none().check(text).is_ok(), "{text}");
        }
        assert_eq!(public("http://8.8.8.8:8000"), Ok(()));
        assert_eq!(public("http://miner.example:8000"), Ok(()), "what a name leads to is seen when it is looked up");
    }

    #[test]
    fn ports_of_other_services_are_refused_and_the_list_is_the_operators() {
        for port in [22, 25, 2375, 6379] {
            assert_eq!(public(&format!("http://8.8.8.8:{port}")), Err(Refusal::Port(port)));
        }
        let rules = Rules { forbidden_ports: vec![80], ..Rules::default() };
        assert_eq!(rules.check("http://miner.example").map(drop), Err(Refusal::Port(80)));
        assert!(rules.check("http://miner.example:6379").is_ok() && rules.check("https://miner.example").is_ok());
    }

    #[test]
    fn one_private_answer_is_enough() {
        let check = |answers: &[&str]| {
            Rules::default().check_answers(answers.iter().map(|address| address.parse::<IpAddr>().unwrap()))
        };
        assert_eq!(check(&["8.8.8.8", "2606:4700::1"]), Ok(()));
        for mixed in [&["8.8.8.8", "10.0.0.1"], &["8.8.8.8", "::1"], &["fe80::1", "8.8.8.8"]] {
            assert!(check(mixed).is_err(), "{mixed:?}");
        }
    }

    #[test]
    fn a_refusal_says_the_remedy_where_there_is_one_and_never_where_a_name_led() {
        let loopback = public("http://127.0.0.1:1").unwrap_err().to_string();
        assert!(loopback.starts_with("127.0.0.1 is loopback") && loopback.contains("allow_private_endpoints"));
        let metadata = public("http://169.254.169.254").unwrap_err().to_string();
        assert!(!metadata.contains("allow_private_endpoints"), "{metadata}");
        let answers = ["10.7.7.7".parse().unwrap()];
        let name = Rules::default().check_answers(answers).unwrap_err().to_string();
        assert!(name.contains("private") && !name.contains("10.7"), "{name}");
    }
}
