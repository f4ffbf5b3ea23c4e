//! Whether a document is believed: that it is this subnet's, unchanged, signed where a signature is asked for, and not too
//! old. Pure; every refusal is a sentence that says what can be done.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::document::{Document, Status};
use crate::chain::{Subnet, has_signed};

/// Blocks by which a node may be behind the one that the backend has read.
const LAG: u64 = 25;

/// Why a document is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Another subnet's.
    #[error("the document is for subnet {found}, not {wanted}: name this subnet's backend with --backend-url")]
    Netuid {
        /// What it says.
        found: u16,
        /// What is validated.
        wanted: u16,
    },
    /// Another chain's.
    #[error(
        "the document is for the chain with genesis {found}, and this one has {wanted}: check --network and --backend-url"
    )]
    Genesis {
        /// What it says.
        found: String,
        /// What the node has.
        wanted: String,
    },
    /// Changed on its way.
    #[error(
        "the document's content has another digest than the {0} that it names: it was changed on its way, so use https to reach the backend, or ask its operator"
    )]
    Digest(String),
    /// A cache that mixes documents.
    #[error(
        "the document came under the ETag {0}, which is not its digest: a cache between the backend and here is wrong"
    )]
    Etag(String),
    /// A signature was asked for.
    #[error(
        "the document is not signed by {0}: ask the backend's operator for the hotkey it signs with, and name it with --backend-hotkey"
    )]
    Unsigned(String),
    /// A signature that is none.
    #[error(
        "the document's signature by {0} is not one of its digest: it was changed on its way, or its signer is wrong"
    )]
    Signature(String),
    /// An older one than was seen before.
    #[error(
        "the document (block {block:?}, number {sequence:?}) is older than one that was read before: if the backend was restored from a backup, restart the validator"
    )]
    RolledBack {
        /// Its block.
        block: Option<u64>,
        /// Its place.
        sequence: Option<u64>,
    },
    /// Too old by our measure.
    #[error(
        "the document is {age} blocks old, and at most {most} are accepted: wait for the backend's next cycle, or accept older ones with --max-age-blocks"
    )]
    TooOld {
        /// Blocks since it was made.
        age: u64,
        /// The most.
        most: u64,
    },
    /// Too old by its own word.
    #[error(
        "the document was valid until block {until}, and the chain is at {block}: wait for the backend's next cycle, or ask its operator"
    )]
    Expired {
        /// The last block.
        until: u64,
        /// The best block.
        block: u64,
    },
    /// From a block that does not exist yet.
    #[error(
        "the document is of block {found}, and the chain's best block is {block}: the node lags behind, or the backend reads another chain; check --network"
    )]
    Ahead {
        /// Its block.
        found: u64,
        /// The best block.
        block: u64,
    },
    /// Nothing says how old it is.
    #[error(
        "the document has neither a block nor a time, so nobody can tell how old it is: ask the backend's operator"
    )]
    Undated,
    /// A word from a later version.
    #[error("the backend says that the document is `{0}`, which this version does not know: update robo")]
    Status(String),
}

impl Distrust {
    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Netuid { .. } => "wrong_subnet",
            Self::Genesis { .. } => "wrong_chain",
            Self::Digest(_) | Self::Etag(_) => "wrong_digest",
            Self::Unsigned(_) | Self::Signature(_) => "wrong_signature",
            Self::RolledBack { .. } => "rolled_back",
            Self::TooOld { .. } | Self::Expired { .. } => "too_old",
            Self::Ahead { .. } => "ahead",
            Self::Undated => "undated",
            Self::Status(_) => "unknown_status",
        }
    }
}

/// What a document has to be.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// The subnet.
    pub netuid: u16,
    /// Hotkeys of which one has to have signed; none for no signature.
    pub signers: Vec<String>,
    /// The most blocks since it was made.
    pub max_age: u64,
}

impl Demands {
    /// What can be told of a document without the chain; `last` is the one that was believed before.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn content(&self, document: &Document, etag: Option<&str>, last: Option<&Document>) -> Result<(), Distrust> {
        if let Some(found) = document.netuid.filter(|found| *found != self.netuid) {
            return Err(Distrust::Netuid { found, wanted: self.netuid });
        }
        if let Status::Other(word) = &document.status {
            return Err(Distrust::Status(word.clone()));
        }
        if let Some(digest) = &document.digest {
            if !document.digests.contains(digest) {
                return Err(Distrust::Digest(digest.clone()));
            }
            if let Some(etag) = etag.and_then(digest_of_etag).filter(|etag| etag != digest) {
                return Err(Distrust::Etag(etag));
            }
        }
        self.signed(document)?;
        let place = |document: &Document| Some((document.block?, document.sequence.unwrap_or_default()));
        if let (Some(now), Some(before)) = (place(document), last.and_then(place))
            && now < before
        {
            return Err(Distrust::RolledBack { block: document.block, sequence: document.sequence });
        }
        Ok(())
    }

    /// A signature that is there has to be good, and one that is asked for has to be there. It is over the digest, so a
    /// document without a digest is not signed.
    fn signed(&self, document: &Document) -> Result<(), Distrust> {
        let message = document.digest.as_deref().unwrap_or_default().as_bytes();
        for signature in &document.signatures {
            let Some(hotkey) = &signature.hotkey else { continue };
            let counts = self.signers.is_empty() || self.signers.contains(hotkey);
            if counts && !has_signed(hotkey, message, &signature.signature) {
                return Err(Distrust::Signature(hotkey.clone()));
            }
        }
        let has_one = |signer: &String| {
            let by_it =
                document.signatures.iter().filter(|it| it.hotkey.as_ref().is_none_or(|hotkey| hotkey == signer));
            by_it.into_iter().any(|it| has_signed(signer, message, &it.signature))
        };
        if self.signers.is_empty() || (!message.is_empty() && self.signers.iter().any(has_one)) {
            Ok(())
        } else {
            Err(Distrust::Unsigned(self.signers.join(" or ")))
        }
    }

    /// Blocks since a document was made, if it may still be used.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn age(&self, document: &Document, subnet: &Subnet, now: DateTime<Utc>) -> Result<u64, Distrust> {
        let block = subnet.block;
        if let Some(found) = document.genesis.as_ref().filter(|found| **found != subnet.genesis) {
            return Err(Distrust::Genesis { found: found.clone(), wanted: subnet.genesis.clone() });
        }
        if let Some(found) = document.block.filter(|found| *found > block + LAG) {
            return Err(Distrust::Ahead { found, block });
        }
        let by_clock = |published: DateTime<Utc>| blocks_in((now - published).to_std().unwrap_or_default(), subnet);
        let age = document.block.map(|found| block.saturating_sub(found)).or(document.published_at.map(by_clock));
        if let Some(until) = document.valid_until {
            return if block > until { Err(Distrust::Expired { until, block }) } else { Ok(age.unwrap_or_default()) };
        }
        match age {
            None => Err(Distrust::Undated),
            Some(age) if age > self.max_age => Err(Distrust::TooOld { age, most: self.max_age }),
            Some(age) => Ok(age),
        }
    }
}

fn blocks_in(span: Duration, subnet: &Subnet) -> u64 {
    (span.as_secs_f64() / subnet.block_time.as_secs_f64().max(0.001)) as u64
}

/// The digest that a strong `ETag` is; a weak one and one of another making say nothing.
fn digest_of_etag(etag: &str) -> Option<String> {
    let text = etag.strip_prefix('"')?.strip_suffix('"')?;
    let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use subxt_signer::sr25519::dev;

    use super::*;
    use crate::{evidence, validator::example};

    fn demands() -> Demands {
        Demands { netuid: 7, signers: Vec::new(), max_age: 300 }
    }

    fn body() -> Value {
        let published = json!({"entries": [{"uid": 1, "hotkey": "ann", "weight": 1.0}]});
        let mut body = published.clone();
        body["digest"] = json!(evidence::digest(&published));
        body["block"] = json!(1000);
        body
    }

    fn document(change: impl FnOnce(&mut Value)) -> Document {
        let mut body = body();
        change(&mut body);
        Document::parse(body.to_string().as_bytes()).unwrap()
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Result<(), Distrust> {
        demands().content(&document(change), None, None)
    }

    #[test]
    fn what_says_it_is_something_else_is_not_believed() {
        assert_eq!(judged(|_| ()), Ok(()));
        assert_eq!(judged(|body| body["netuid"] = json!(8)), Err(Distrust::Netuid { found: 8, wanted: 7 }));
        assert_eq!(judged(|body| body["status"] = json!("frozen")), Err(Distrust::Status("frozen".into())));
        let changed = judged(|body| body["entries"][0]["hotkey"] = json!("mallory"));
        assert!(matches!(changed, Err(Distrust::Digest(_))), "{changed:?}");
        for good in ["held", "burn", "stale", "fresh"] {
            assert_eq!(judged(|body| body["status"] = json!(good)), Ok(()));
        }
    }

    #[test]
    fn an_etag_that_is_a_digest_is_the_documents() {
        let digest = document(|_| ()).digest.unwrap();
        let with = |etag: &str| demands().content(&document(|_| ()), Some(etag), None);
        for good in [format!("\"{digest}\""), format!("\"sha256:{digest}\""), "W/\"x\"".into(), "\"v1\"".into()] {
            assert_eq!(with(&good), Ok(()), "{good}");
        }
        assert_eq!(with(&format!("\"{}\"", "0".repeat(64))), Err(Distrust::Etag("0".repeat(64))));
    }

    #[test]
    fn a_signature_is_good_or_the_document_is_not() {
        let (alice, bob) = (dev::alice(), dev::bob());
        let address = |pair: &subxt_signer::sr25519::Keypair| pair.public_key().to_account_id().to_string();
        let digest = document(|_| ()).digest.unwrap();
        let by = |signer: &subxt_signer::sr25519::Keypair, named: &str| {
            let signature = hex::encode(signer.sign(digest.as_bytes()).0);
            document(|body| body["signature"] = json!({"hotkey": named, "signature": signature}))
        };
        let asked = Demands { signers: vec![address(&bob), address(&alice)], ..demands() };
        let good = by(&alice, &address(&alice));
        assert_eq!((asked.content(&good, None, None), demands().content(&good, None, None)), (Ok(()), Ok(())));
        let forged = by(&bob, &address(&alice));
        assert_eq!(asked.content(&forged, None, None), Err(Distrust::Signature(address(&alice))));
        assert_eq!(demands().content(&forged, None, None), Err(Distrust::Signature(address(&alice))));
        let only_bob = Demands { signers: vec![address(&bob)], ..demands() };
        assert_eq!(only_bob.content(&good, None, None), Err(Distrust::Unsigned(address(&bob))));
        assert_eq!(asked.content(&document(|_| ()), None, None), Err(Distrust::Unsigned(asked.signers.join(" or "))));
        let without_digest = document(|body| {
            body.as_object_mut().unwrap().remove("digest");
            body["signature"] = json!({"signature": hex::encode(alice.sign(b"").0)});
        });
        assert!(matches!(asked.content(&without_digest, None, None), Err(Distrust::Unsigned(_))));
    }

    #[test]
    fn an_older_document_does_not_replace_a_newer_one() {
        let numbered = |block: u64, sequence: u64| {
            document(|body| {
                body["block"] = json!(block);
                body["sequence"] = json!(sequence);
            })
        };
        let last = numbered(1000, 5);
        let after = |next: Document| demands().content(&next, None, Some(&last)).is_ok();
        assert!(after(numbered(1000, 5)) && after(numbered(1000, 6)) && after(numbered(1001, 1)));
        assert!(!after(numbered(999, 6)) && !after(numbered(1000, 4)));
    }

    #[test]
    fn age_is_counted_in_blocks() {
        let subnet = example::subnet(1200, &[]);
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let age = |change: &dyn Fn(&mut Value)| demands().age(&document(change), &subnet, now);
        assert_eq!(age(&|_| ()), Ok(200));
        assert_eq!(age(&|body| body["block"] = json!(899)), Err(Distrust::TooOld { age: 301, most: 300 }));
        assert_eq!(age(&|body| body["block"] = json!(1226)), Err(Distrust::Ahead { found: 1226, block: 1200 }));
        assert_eq!(age(&|body| body["valid_until_block"] = json!(1200)), Ok(200));
        let expired = age(&|body| body["valid_until_block"] = json!(1199));
        assert_eq!(expired, Err(Distrust::Expired { until: 1199, block: 1200 }));
        let by_clock = |time: i64| {
            move |body: &mut Value| {
                body["block"] = Value::Null;
                body["timestamp"] = json!(time);
            }
        };
        assert_eq!(age(&by_clock(1_700_000_000 - 120)), Ok(10));
        assert_eq!(age(&by_clock(1_700_000_000 - 12 * 301)), Err(Distrust::TooOld { age: 301, most: 300 }));
        assert_eq!(age(&|body| body["block"] = Value::Null), Err(Distrust::Undated));
        let elsewhere = age(&|body| body["genesis"] = json!("0x1"));
        assert!(matches!(elsewhere, Err(Distrust::Genesis { .. })), "{elsewhere:?}");
    }
}
