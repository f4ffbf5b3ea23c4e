//! `chain/miners`: who takes part, as a subnet says at one finalized block, to which the cycle is pinned from then on.
//!
//! The chain is read whole or not at all. What every hotkey is told, the standings that the next discovery goes on from and the
//! pin are one output, which the engine writes down in one transaction. Nothing here calls a miner.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{Context, Error, Invocation, Output, config, documents::LeftOut, sealed};
use crate::chain::{
    Metagraph, Network, Patience, Place,
    roster::{self, Entry, Rules, Status},
    seal::Secret,
};
use crate::cycle::{Discovery, FailureClass, Hotkey, Journal, Miner, Pin, Standing, TaskFailure, plain_text};

/// Hotkeys that are listed with why they do not take part: as many as a large subnet has. Of more only the number is kept.
const LISTED: usize = 4096;
/// Characters of a reason that are kept for each of them.
const REASON: usize = 200;

/// How this machine reads the chain.
#[derive(Debug, Default)]
pub struct Subnet {
    /// Where it is read when the pipeline does not say.
    pub network: Network,
    /// What encrypted deployments are opened with.
    pub secret: Option<Secret>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    network: Option<String>,
    netuid: u16,
    template: String,
}

pub(super) async fn run<J: Journal>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, Error> {
    let Settings { network, netuid, template } = invocation.settings()?;
    check_template(&template)?;
    let network: Network = match network {
        Some(name) => name.parse().map_err(|error| config(format!("`with.network`: {error}")))?,
        None => context.subnet.network.clone(),
    };
    let metagraph = Metagraph::read(&network, netuid, Patience::default())
        .await
        .map_err(|error| TaskFailure { class: FailureClass::Infra, message: error.to_string() })?;
    let known = context.journal.standings(&metagraph.genesis, netuid).await?;
    let known = known.into_iter().map(|(hotkey, standing)| (hotkey.as_str().to_owned(), standing)).collect();
    let rules = Rules {
        template: &template,
        secret: context.subnet.secret.as_ref(),
        addresses: &context.definition.miners.rules,
        known: &known,
    };
    let entries = roster::roster(&metagraph, &rules);
    Ok(found(&metagraph, entries, (&network, &template))?)
}

/// An address with the place for the id in it.
fn check_template(template: &str) -> Result<(), TaskFailure> {
    let is_address = ["http://", "https://"].iter().any(|scheme| template.starts_with(scheme));
    if is_address && template.contains("{id}") {
        return Ok(());
    }
    Err(config(format!(
        "`with.template` is `{template}`, and not an address with {{id}} in it: `{}`",
        roster::TEMPLATE
    )))
}

/// What is made of everybody, as the stage's output.
fn found(
    metagraph: &Metagraph,
    entries: Vec<Entry>,
    (network, template): (&Network, &str),
) -> Result<Output, TaskFailure> {
    let mut statuses: BTreeMap<&'static str, usize> = BTreeMap::new();
    for entry in &entries {
        *statuses.entry(entry.status.word()).or_default() += 1;
    }
    let (mut miners, mut left_out, mut standings) = (Vec::new(), Vec::new(), BTreeMap::new());
    for entry in entries {
        // The chain's own names are names.
        let Ok(hotkey) = entry.hotkey.parse::<Hotkey>() else { continue };
        if let Some(standing) = &entry.standing {
            standings.insert(hotkey.clone(), standing.clone());
        }
        match miner(&entry, hotkey, template) {
            Some(miner) => miners.push(miner),
            None if left_out.len() < LISTED => left_out.push(left_out_of(entry)),
            None => {}
        }
    }
    if miners.is_empty() {
        return Err(nobody(metagraph, network, &statuses));
    }
    let Metagraph { genesis, netuid, block, hash, neurons, .. } = metagraph;
    let uids: BTreeMap<&str, u16> = neurons.iter().map(|neuron| (neuron.hotkey.as_str(), neuron.uid)).collect();
    let value = json!({
        "count": miners.len(), "miners": miners, "block": block, "block_hash": hash, "genesis": genesis,
        "network": network.to_string(), "netuid": netuid, "uids": uids, "statuses": statuses, "left_out": left_out,
    });
    let pin = Pin { genesis: genesis.clone(), netuid: *netuid, block: *block, hash: hash.clone() };
    Ok(Output { discovery: Some(Discovery { pin, standings }), ..value.into() })
}

/// The miner that an entry is, if it takes part.
fn miner(entry: &Entry, hotkey: Hotkey, template: &str) -> Option<Miner> {
    let (Status::Ok, Some(uid), Some(commitment)) = (&entry.status, entry.uid, &entry.commitment) else { return None };
    let endpoint = match &commitment.place {
        Place::Sealed(package) => sealed::written(package, template),
        Place::Url(_) | Place::Deployment(_) => entry.endpoint.clone()?,
    };
    let first_block = entry.standing.as_ref().map(|Standing { first_block, .. }| *first_block);
    Some(Miner { uid, hotkey, endpoint, first_block })
}

fn left_out_of(entry: Entry) -> LeftOut {
    let detail = entry.status.detail().map(|text| plain_text(text).chars().take(REASON).collect());
    LeftOut { uid: entry.uid, status: entry.status.word().to_owned(), detail, hotkey: entry.hotkey }
}

/// There is nobody to evaluate.
fn nobody(metagraph: &Metagraph, network: &Network, statuses: &BTreeMap<&str, usize>) -> TaskFailure {
    let Metagraph { netuid, block, .. } = metagraph;
    if metagraph.neurons.is_empty() {
        return config(format!(
            "No miners found: nobody is registered on subnet {netuid} of `{network}`; is `netuid` \
             (ROBO_BACKEND_NETUID) the right one?"
        ));
    }
    let counts: Vec<String> = statuses.iter().map(|(status, count)| format!("{count} {status}")).collect();
    config(format!(
        "No miners found: of the hotkeys of subnet {netuid} of `{network}` none takes part at block {block} ({}); see why \
         with: robo miners ls --netuid {netuid} --committed",
        counts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address;
    use crate::chain::{Content, Neuron, OnChain};

    /// A subnet of so many hotkeys with what some of them committed.
    fn subnet(size: u16, commitment: impl Fn(u16) -> Option<Vec<u8>>) -> Metagraph {
        let neuron = |uid| Neuron {
            uid,
            hotkey: format!("hot-{uid:0>44}"),
            coldkey: None,
            last_update: 0,
            active: true,
            validator_permit: false,
            registered_at: Some(1),
        };
        let neurons: Vec<Neuron> = (0..size).map(neuron).collect();
        let text = |neuron: &Neuron| {
            let content = Content::Text(commitment(neuron.uid)?);
            Some((neuron.hotkey.clone(), OnChain { block: 50 + u64::from(neuron.uid), content }))
        };
        let commitments = neurons.iter().filter_map(text).collect();
        Metagraph {
            genesis: "0x01".into(),
            netuid: 7,
            block: 100,
            hash: "0x02".into(),
            spec_version: 1,
            node: String::new(),
            neurons,
            commitments,
        }
    }

    fn judged(metagraph: &Metagraph) -> Result<Output, TaskFailure> {
        let (addresses, known) = (address::Rules::default(), BTreeMap::new());
        let rules = Rules { template: roster::TEMPLATE, secret: None, addresses: &addresses, known: &known };
        found(metagraph, roster::roster(metagraph, &rules), (&"test".parse().unwrap(), roster::TEMPLATE))
    }

    #[test]
    fn who_takes_part_is_a_list_of_miners_and_everybody_else_is_told_why() {
        let metagraph = subnet(3, |uid| match uid {
            0 => Some(b"u/a:1:first".to_vec()),
            1 => Some(b"no sense".to_vec()),
            _ => None,
        });
        let Output { value, discovery, publication } = judged(&metagraph).unwrap();
        let miners: Vec<Miner> = serde_json::from_value(value["miners"].clone()).unwrap();
        assert_eq!((miners.len(), miners[0].uid, miners[0].first_block), (1, 0, Some(50)));
        assert_eq!(miners[0].endpoint, "https://first.deployments.basilica.ai");
        assert_eq!(
            (&value["block"], &value["block_hash"], &value["network"]),
            (&json!(100), &json!("0x02"), &json!("test"))
        );
        assert_eq!(value["statuses"], json!({ "ok": 1, "malformed": 1, "none": 1 }));
        let uids: BTreeMap<String, u16> = serde_json::from_value(value["uids"].clone()).unwrap();
        assert_eq!(uids, metagraph.neurons.iter().map(|neuron| (neuron.hotkey.clone(), neuron.uid)).collect());
        assert_eq!(value["left_out"][0]["status"], "malformed");
        assert!(value["left_out"][0]["detail"].as_str().unwrap().contains("neither JSON nor"));
        let discovery = discovery.unwrap();
        assert_eq!(discovery.pin, Pin { genesis: "0x01".into(), netuid: 7, block: 100, hash: "0x02".into() });
        assert_eq!((discovery.standings.len(), publication), (1, None));
    }

    #[test]
    fn a_large_subnet_of_long_nonsense_makes_an_output_of_bearable_size() {
        let metagraph = subnet(5000, |uid| Some(if uid == 0 { b"u/a:1:first".to_vec() } else { vec![b'{'; 1024] }));
        let value = judged(&metagraph).unwrap().value;
        assert_eq!(
            (value["left_out"].as_array().unwrap().len(), &value["statuses"]["malformed"]),
            (LISTED, &json!(4999))
        );
        assert!(value.to_string().len() < 2 << 20, "{}", value.to_string().len());
    }

    #[test]
    fn nobody_is_an_error_with_its_remedy() {
        let none = judged(&subnet(2, |_| None)).unwrap_err();
        assert_eq!(none.class, FailureClass::Config);
        assert!(none.message.starts_with("No miners found: ") && none.message.contains("(2 none)"), "{none}");
        let empty = judged(&subnet(0, |_| None)).unwrap_err();
        assert!(empty.message.contains("nobody is registered on subnet 7 of `test`"), "{empty}");
    }

    #[test]
    fn a_template_is_an_address_with_a_place_for_the_id() {
        assert!(check_template(roster::TEMPLATE).is_ok() && check_template("http://127.0.0.1:9000/{id}").is_ok());
        for wrong in ["https://example.org", "demo:{id}", "{id}", ""] {
            assert!(check_template(wrong).unwrap_err().message.contains("`with.template`"), "{wrong}");
        }
    }
}
