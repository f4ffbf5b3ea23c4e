//! Endpoints that their miners hide: encrypted to this backend's key on the chain, and kept so by everything that lasts.
//!
//! A discovery hands them on as `sealed:PACKAGE:TEMPLATE`. Whoever calls the miner opens the package for as long as that takes;
//! what is written down of it afterwards does not say where it was.

use std::collections::HashMap;

use super::config;
use crate::chain::{roster::unsealed, seal::Secret};
use crate::cycle::{EpisodeReport, Hotkey, Miner, Seen, TaskFailure};

/// What such an endpoint begins with. No base85 holds a colon, so the next one ends the package.
const SCHEME: &str = "sealed:";

/// What stands in texts where the endpoint stood.
const HIDDEN: &str = "(hidden)";

/// The endpoint of an encrypted deployment, to be written down.
pub(super) fn written(package: &str, template: &str) -> String {
    format!("{SCHEME}{package}:{template}")
}

/// The words of hidden endpoints, by who hides them.
#[derive(Debug, Default)]
pub(super) struct Hidden(HashMap<Hotkey, Vec<String>>);

/// Put the address in place of every endpoint that is sealed.
///
/// # Errors
/// A `config` failure without the key that they are sealed to.
pub(super) fn open(miners: &mut [Miner], secret: Option<&Secret>) -> Result<Hidden, TaskFailure> {
    let mut hidden = Hidden::default();
    for miner in miners {
        let Some((package, template)) = miner.endpoint.strip_prefix(SCHEME).and_then(|rest| rest.split_once(':'))
        else {
            continue;
        };
        let hotkey = &miner.hotkey;
        let secret = secret.ok_or_else(|| {
            config(format!(
                "the endpoint of `{hotkey}` is encrypted, and there is no private key: name the file of the key that the \
                 miners were discovered with (--private-key-file or ROBO_BACKEND_PRIVATE_KEY_FILE)"
            ))
        })?;
        let address = unsealed(package, template, secret).map_err(|reason| {
            config(format!(
                "the endpoint of `{hotkey}` cannot be read: {reason}; is the private key another one than before?"
            ))
        })?;
        hidden.0.insert(hotkey.clone(), words(&address));
        miner.endpoint = address;
    }
    Ok(hidden)
}

/// What of an address tells where it leads, the longest first.
fn words(address: &str) -> Vec<String> {
    let authority = address.split("://").nth(1).unwrap_or(address).split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let mut words: Vec<String> = [address, authority, host].map(str::to_owned).to_vec();
    // The first label alone is what the miner has encrypted, unless the template has it elsewhere.
    words.extend(address.split(['/', '.', ':']).filter(|part| part.len() == UUID).map(str::to_owned));
    words.retain(|word| !word.is_empty());
    words
}

/// Characters of a UUID.
const UUID: usize = 36;

impl Hidden {
    fn text(&self, hotkey: &Hotkey, text: &mut Option<String>) {
        let words = self.0.get(hotkey).into_iter().flatten();
        if let Some(text) = text {
            *text = words.fold(std::mem::take(text), |text, word| text.replace(word, HIDDEN));
        }
    }

    /// Take the endpoint out of what is told of an episode.
    pub(super) fn hide_report(&self, hotkey: &Hotkey, report: &mut EpisodeReport) {
        self.text(hotkey, &mut report.detail);
    }

    /// Take the endpoint, and what leads to it, out of how a miner was found.
    pub(super) fn hide_sighting(&self, hotkey: &Hotkey, seen: &mut Seen) {
        if self.0.contains_key(hotkey) {
            self.text(hotkey, &mut seen.detail);
            self.text(hotkey, &mut seen.model);
            (seen.address, seen.certificate) = (None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::{FailureClass, MinerStatus};

    const ID: &str = "95edf2b6-e18b-400a-8398-5573df10e5e4";

    fn miner(endpoint: String) -> Miner {
        Miner { uid: 1, hotkey: "a".parse().unwrap(), endpoint, first_block: None }
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_key_alone() {
        let secret = Secret::generate();
        let package = secret.public().seal(ID.parse().unwrap()).unwrap();
        let sealed = written(&package, "http://127.0.0.1:9000/{id}");
        assert!(!sealed.contains(ID));
        let mut miners = [miner(sealed.clone()), miner("http://8.8.8.8".into())];
        open(&mut miners, Some(&secret)).unwrap();
        assert_eq!(miners[0].endpoint, format!("http://127.0.0.1:9000/{ID}"));
        assert_eq!(miners[1].endpoint, "http://8.8.8.8");
        for key in [None, Some(&Secret::generate())] {
            let failure = open(&mut [miner(sealed.clone())], key).unwrap_err();
            assert_eq!((failure.class, failure.message.contains("private key")), (FailureClass::Config, true));
        }
    }

    #[test]
    fn nothing_that_is_written_down_tells_where_it_is() {
        let secret = Secret::generate();
        let package = secret.public().seal(ID.parse().unwrap()).unwrap();
        let hotkey: Hotkey = "a".parse().unwrap();
        for template in ["https://{id}.example.org", "http://127.0.0.1:9000/{id}"] {
            let mut miners = [miner(written(&package, template))];
            let hidden = open(&mut miners, Some(&secret)).unwrap();
            let told = format!("{} and {ID} at 127.0.0.1, or {ID}.example.org", miners[0].endpoint);
            let mut seen = Seen {
                detail: Some(told.clone()),
                address: Some("127.0.0.1".into()),
                certificate: Some("c".into()),
                model: Some(told.clone()),
                ..Seen::new(MinerStatus::Cold)
            };
            hidden.hide_sighting(&hotkey, &mut seen);
            let shown = serde_json::to_string(&seen).unwrap();
            assert!(!shown.contains(ID) && shown.contains(HIDDEN), "{shown}");
            assert_eq!((seen.address, seen.certificate), (None, None));
            let mut other = Seen { detail: Some(told), ..Seen::new(MinerStatus::Cold) };
            hidden.hide_sighting(&"b".parse().unwrap(), &mut other);
            assert!(other.detail.unwrap().contains(ID), "only its own");
        }
    }
}
