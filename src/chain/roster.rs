//! Who takes part: from what stands on the chain to a status for every hotkey, which it can read. Pure; the chain, the keys
//! and what was known before are given.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Commitment, Content, Malformed, Metagraph, Neuron, OnChain, Place, deployed_at,
    seal::{Secret, Unreadable},
};
use crate::{address, cycle::Standing};

/// Where deployments answer that are named by their id alone: at the host that the subnet's miners use today.
pub const TEMPLATE: &str = "https://{id}.deployments.basilica.ai";

/// What is made of a hotkey's commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status", content = "detail")]
pub enum Status {
    /// It takes part.
    Ok,
    /// Nothing is committed.
    None,
    /// Still locked: it takes part once it is revealed.
    Locked(String),
    /// No commitment that can be read, and why.
    Malformed(String),
    /// Encrypted, and not to this backend's key.
    NotDecryptable(String),
    /// Its endpoint is one that is never called.
    EndpointForbidden(String),
    /// The same endpoint, or the same model at the same revision, was committed before by this hotkey.
    DuplicateOf(String),
    /// Committed, and no longer registered.
    Deregistered,
}

impl Status {
    /// The word for it, as JSON has it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::None => "none",
            Self::Locked(_) => "locked",
            Self::Malformed(_) => "malformed",
            Self::NotDecryptable(_) => "not_decryptable",
            Self::EndpointForbidden(_) => "endpoint_forbidden",
            Self::DuplicateOf(_) => "duplicate_of",
            Self::Deregistered => "deregistered",
        }
    }

    /// What else there is to say.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Ok | Self::None | Self::Deregistered => None,
            Self::Locked(text)
            | Self::Malformed(text)
            | Self::NotDecryptable(text)
            | Self::EndpointForbidden(text)
            | Self::DuplicateOf(text) => Some(text),
        }
    }
}

/// A hotkey and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its slot; none when it is not registered.
    pub uid: Option<u16>,
    /// Who.
    pub hotkey: String,
    /// What is made of its commitment.
    #[serde(flatten)]
    pub status: Status,
    /// What it committed, where that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commitment: Option<Commitment>,
    /// Where it answers, normalised; none for one that is encrypted, which nobody is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What its seniority rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

/// What a discovery needs next to the chain.
pub struct Rules<'a> {
    /// Addresses of deployments, with `{id}` for the id.
    pub template: &'a str,
    /// What encrypted deployments are opened with.
    pub secret: Option<&'a Secret>,
    /// Which addresses are called at all.
    pub addresses: &'a address::Rules,
    /// Standings of the last discovery, by hotkey.
    pub known: &'a BTreeMap<String, Standing>,
}

/// Every hotkey that is registered or has committed something: those with a uid first, in its order.
pub fn roster(metagraph: &Metagraph, rules: &Rules<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = metagraph
        .neurons
        .iter()
        .map(|neuron| entry(neuron, metagraph.commitments.get(&neuron.hotkey), rules))
        .collect();
    mark_duplicates(&mut entries);
    let registered: HashMap<&str, u16> =
        metagraph.neurons.iter().map(|neuron| (neuron.hotkey.as_str(), neuron.uid)).collect();
    let gone = metagraph.commitments.keys().filter(|hotkey| !registered.contains_key(hotkey.as_str()));
    entries.extend(gone.map(|hotkey| Entry {
        uid: None,
        hotkey: hotkey.clone(),
        status: Status::Deregistered,
        commitment: None,
        endpoint: None,
        standing: None,
    }));
    entries
}

fn entry(neuron: &Neuron, on_chain: Option<&OnChain>, rules: &Rules<'_>) -> Entry {
    let mut entry = Entry {
        uid: Some(neuron.uid),
        hotkey: neuron.hotkey.clone(),
        status: Status::None,
        commitment: None,
        endpoint: None,
        standing: None,
    };
    let Some(on_chain) = on_chain else { return entry };
    let text = match &on_chain.content {
        Content::Text(text) => text,
        Content::Empty => return entry,
        Content::Locked { reveal_round } => {
            entry.status = Status::Locked(format!("it can be read from round {reveal_round} of the beacon on"));
            return entry;
        }
        Content::Other(name) => {
            entry.status = Status::Malformed(format!("the commitment holds no text but `{name}`"));
            return entry;
        }
    };
    let commitment = match Commitment::parse(text) {
        Ok(commitment) => commitment,
        Err(reason) => {
            entry.status = Status::Malformed(reason.to_string());
            return entry;
        }
    };
    match endpoint(&commitment.place, rules) {
        Ok(endpoint) => {
            entry.standing = Some(standing(neuron, on_chain.block, (&commitment, &endpoint), rules.known));
            let is_hidden = matches!(commitment.place, Place::Sealed(_));
            entry.endpoint = (!is_hidden).then_some(endpoint);
            entry.status = Status::Ok;
        }
        Err(status) => entry.status = status,
    }
    entry.commitment = Some(commitment);
    entry
}

/// The address in one notation, so that two that lead to one place are equal.
fn endpoint(place: &Place, rules: &Rules<'_>) -> Result<String, Status> {
    let malformed = |reason: Malformed| Status::Malformed(reason.to_string());
    let forbidden = |refusal: address::Refusal| Status::EndpointForbidden(refusal.to_string());
    match place {
        Place::Url(url) => normalised(url, rules.addresses).map_err(forbidden),
        Place::Deployment(id) => {
            normalised(&deployed_at(rules.template, id).map_err(malformed)?, rules.addresses).map_err(forbidden)
        }
        Place::Sealed(package) => {
            let Some(secret) = rules.secret else {
                return Err(Status::NotDecryptable("this backend has no private key".into()));
            };
            // What is wrong with the address would tell where it leads.
            let hidden =
                |_| Status::EndpointForbidden("the encrypted deployment is at an address that is not called".into());
            let address = unsealed(package, rules.template, secret);
            let address = address.map_err(|reason| Status::NotDecryptable(reason.to_string()))?;
            normalised(&address, rules.addresses).map_err(hidden)
        }
    }
}

/// The address in an encrypted deployment. For whoever calls it, and nobody else.
///
/// # Errors
/// [`Unreadable`], with the reason.
pub fn unsealed(package: &str, template: &str, secret: &Secret) -> Result<String, Unreadable> {
    // The id is a UUID, which is always a label of a host name.
    secret.open(package).map(|id| template.replace("{id}", &id.to_string()))
}

fn normalised(address: &str, rules: &address::Rules) -> Result<String, address::Refusal> {
    rules.check(address).map(|url| url.as_str().trim_end_matches('/').to_owned())
}

/// Seniority goes on while hotkey, registration, model and endpoint stay: a commitment that is sent again changes nothing.
fn standing(
    neuron: &Neuron,
    block: u64,
    (commitment, endpoint): (&Commitment, &str),
    known: &BTreeMap<String, Standing>,
) -> Standing {
    let now = Standing {
        first_block: block,
        registered_at: neuron.registered_at,
        model: commitment.model.as_ref().map(ToString::to_string).unwrap_or_default(),
        endpoint: hex::encode(Sha256::digest(endpoint)),
    };
    match known.get(&neuron.hotkey) {
        Some(before) if (Standing { first_block: block, ..before.clone() }) == now => {
            Standing { first_block: before.first_block.min(block), ..now }
        }
        _ => now,
    }
}

/// Among those that are fine, the oldest keeps an endpoint or a model; in the same block the one registered first, then the
/// lower uid.
fn mark_duplicates(entries: &mut [Entry]) {
    let mut order: Vec<usize> = (0..entries.len()).filter(|at| entries[*at].status == Status::Ok).collect();
    order.sort_by_key(|at| {
        let entry = &entries[*at];
        entry.standing.as_ref().map(|standing| (standing.first_block, standing.registered_at, entry.uid))
    });
    let mut holders: HashMap<String, String> = HashMap::new();
    for at in order {
        let Some(standing) = entries[at].standing.clone() else { continue };
        let mut claims = vec![format!("at {}", standing.endpoint)];
        // Two commitments that name no model do not name the same one.
        claims.extend((!standing.model.is_empty()).then(|| format!("model {}", standing.model)));
        match claims.iter().find_map(|claim| holders.get(claim)) {
            Some(holder) => entries[at].status = Status::DuplicateOf(holder.clone()),
            None => {
                for claim in claims {
                    holders.insert(claim, entries[at].hotkey.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: BTreeMap<String, Standing> = BTreeMap::new();

    fn neuron(uid: u16, registered_at: u64) -> Neuron {
        Neuron {
            uid,
            hotkey: format!("hot-{uid}"),
            coldkey: None,
            last_update: 0,
            active: true,
            validator_permit: false,
            registered_at: Some(registered_at),
        }
    }

    fn metagraph(commitments: &[(&str, u64, &str)]) -> Metagraph {
        let text = |block, text: &str| OnChain { block, content: Content::Text(text.into()) };
        Metagraph {
            genesis: String::new(),
            netuid: 7,
            block: 100,
            hash: String::new(),
            spec_version: 1,
            node: String::new(),
            neurons: (0..4).map(|uid| neuron(uid, 10)).collect(),
            commitments: commitments
                .iter()
                .map(|(who, block, words)| ((*who).to_owned(), text(*block, words)))
                .collect(),
        }
    }

    fn judged(metagraph: &Metagraph, known: &BTreeMap<String, Standing>) -> Vec<Entry> {
        roster(metagraph, &Rules { template: TEMPLATE, secret: None, addresses: &address::Rules::default(), known })
    }

    fn words(entries: &[Entry]) -> Vec<(&str, Option<&str>)> {
        entries.iter().map(|entry| (entry.status.word(), entry.status.detail())).collect()
    }

    #[test]
    fn every_hotkey_has_a_status() {
        let metagraph = metagraph(&[
            ("hot-0", 5, "u/a:1:first"),
            ("hot-1", 6, "no commitment"),
            ("hot-2", 7, "u/b:1:http://10.0.0.1:8000/"),
            ("hot-9", 8, "u/c:1:gone"),
        ]);
        let entries = judged(&metagraph, &NOTHING);
        assert_eq!(
            words(&entries),
            [
                ("ok", None),
                (
                    "malformed",
                    Some("the commitment is neither JSON nor `model:revision:deployment` nor the id of a deployment")
                ),
                ("endpoint_forbidden", entries[2].status.detail()),
                ("none", None),
                ("deregistered", None),
            ]
        );
        assert_eq!(entries[0].endpoint.as_deref(), Some("https://first.deployments.basilica.ai"));
        assert_eq!((entries[4].uid, &*entries[4].hotkey), (None, "hot-9"));
    }

    #[test]
    fn the_oldest_keeps_an_endpoint_or_a_model_and_others_are_told_whose_it_is() {
        let metagraph = metagraph(&[
            ("hot-0", 9, "u/a:1:https://Host.example:443/"),
            ("hot-1", 8, "u/b:1:https://host.example"),
            ("hot-2", 7, "u/b:1:other"),
            ("hot-3", 7, "u/c:1:other"),
        ]);
        let entries = judged(&metagraph, &NOTHING);
        // hot-1 is a copy of hot-2's model, so that its endpoint is nobody's but hot-0's.
        assert_eq!(
            words(&entries),
            [("ok", None), ("duplicate_of", Some("hot-2")), ("ok", None), ("duplicate_of", Some("hot-2"))]
        );
    }

    #[test]
    fn commitments_without_a_model_are_copies_only_of_their_endpoint() {
        let metagraph =
            metagraph(&[("hot-0", 5, "one"), ("hot-1", 6, "two"), ("hot-2", 7, "One"), ("hot-3", 8, "e:x")]);
        let entries = judged(&metagraph, &NOTHING);
        assert_eq!(
            words(&entries),
            [
                ("ok", None),
                ("ok", None),
                ("duplicate_of", Some("hot-0")),
                ("not_decryptable", Some("this backend has no private key")),
            ]
        );
        assert_eq!(entries[0].endpoint.as_deref(), Some("https://one.deployments.basilica.ai"));
    }

    #[test]
    fn seniority_goes_on_while_nothing_changes_and_dies_with_the_registration() {
        let first = metagraph(&[("hot-0", 5, "u/a:1:here")]);
        let known: BTreeMap<String, Standing> =
            judged(&first, &NOTHING).into_iter().filter_map(|entry| Some((entry.hotkey, entry.standing?))).collect();
        let since = |metagraph: &Metagraph| judged(metagraph, &known)[0].standing.as_ref().unwrap().first_block;
        assert_eq!(since(&metagraph(&[("hot-0", 50, "u/a:1:here")])), 5, "sent again");
        assert_eq!(since(&metagraph(&[("hot-0", 50, "u/a:2:here")])), 50, "another revision");
        assert_eq!(since(&metagraph(&[("hot-0", 50, "u/a:1:there")])), 50, "another endpoint");
        let mut later = metagraph(&[("hot-0", 50, "u/a:1:here")]);
        later.neurons[0].registered_at = Some(40);
        assert_eq!(since(&later), 50, "registered anew");
    }

    #[test]
    fn an_encrypted_endpoint_is_known_and_never_said() {
        let id = "95edf2b6-e18b-400a-8398-5573df10e5e4";
        let secret = Secret::generate();
        let sealed = format!("u/a:1:e:{}", secret.public().seal(id.parse().unwrap()).unwrap());
        let metagraph = metagraph(&[("hot-0", 6, &sealed), ("hot-1", 5, &format!("u/b:1:{id}"))]);
        let addresses = address::Rules::default();
        let known = NOTHING;
        let rules = |template| Rules { template, secret: Some(&secret), addresses: &addresses, known: &known };
        let entries = roster(&metagraph, &rules(TEMPLATE));
        // The same endpoint, whether it is hidden or not.
        assert_eq!(words(&entries[..2]), [("duplicate_of", Some("hot-1")), ("ok", None)]);
        assert_eq!(entries[0].standing.as_ref().unwrap().endpoint, entries[1].standing.as_ref().unwrap().endpoint);
        let private = roster(&metagraph, &rules("http://127.0.0.1:9000/{id}"));
        assert_eq!(private[0].status.word(), "endpoint_forbidden");
        for entry in [&entries[0], &private[0]] {
            let shown = format!("{entry:?} {}", serde_json::to_string(entry).unwrap());
            assert!(!shown.contains(id) && !shown.contains("127.0.0.1"), "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_read_by_us_is_told_apart() {
        let mut metagraph = metagraph(&[("hot-0", 5, "u/a:1:e:abc"), ("hot-1", 5, "u/a:1:a.b")]);
        metagraph
            .commitments
            .insert("hot-2".into(), OnChain { block: 5, content: Content::Locked { reveal_round: 12 } });
        metagraph.commitments.insert("hot-3".into(), OnChain { block: 5, content: Content::Other("Sha256".into()) });
        let entries = judged(&metagraph, &NOTHING);
        let statuses: Vec<&str> = entries.iter().map(|entry| entry.status.word()).collect();
        assert_eq!(statuses, ["not_decryptable", "malformed", "locked", "malformed"]);
    }
}
