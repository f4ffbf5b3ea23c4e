//! What is read from the chain, from a node that replays a real one; and what miners wrote there, by the vectors of the
//! subnet's references.

use std::{collections::BTreeMap, fs, time::Duration};

use robo::chain::{Amounts, Commitment, Head, Metagraph, Network, Patience, Place, Problem, roster, seal::Secret};
use serde_json::Value;

use crate::support::{
    program::Place as Workplace,
    replay_node::{Fault, ReplayNode, data},
};

const NETUID: u16 = 7;

fn patience() -> Patience {
    Patience { connect: Duration::from_secs(60), read: Duration::from_secs(120), rounds: 1 }
}

fn network(urls: &[&str]) -> Network {
    urls.join(",").parse().unwrap()
}

#[tokio::test]
async fn a_subnet_is_read_at_one_block_in_few_round_trips() {
    let node = ReplayNode::start(Fault::None).await;
    let metagraph = Metagraph::read(&network(&[&node.url]), NETUID, patience()).await.unwrap();
    assert_eq!((metagraph.block, metagraph.spec_version, metagraph.neurons.len()), (100, 461, 256));
    assert_eq!(metagraph.commitments.len(), 230);
    assert!(metagraph.neurons.iter().enumerate().all(|(at, neuron)| usize::from(neuron.uid) == at));
    assert!(metagraph.neurons.iter().all(|neuron| neuron.coldkey.is_some() && neuron.hotkey.len() == 48));
    assert!(metagraph.neurons.iter().any(|neuron| neuron.validator_permit));
    // Three maps of at most 256 entries, a page each and the look for a next one, and the coldkeys.
    let trips = node.calls("state_getKeysPaged") + node.calls("state_queryStorageAt");
    assert!(trips <= 4 * 3 + 1, "{trips} round trips");
    let head = Head::read(&network(&[&node.url]), patience()).await.unwrap();
    assert_eq!((head.block, head.best, head.spec_version), (100, 102, 461));
}

#[tokio::test]
async fn everybody_has_a_status_and_nobody_ends_the_reading() {
    let node = ReplayNode::start(Fault::None).await;
    let metagraph = Metagraph::read(&network(&[&node.url]), NETUID, patience()).await.unwrap();
    let addresses = robo::address::Rules::default();
    let known = BTreeMap::new();
    let rules = roster::Rules { template: roster::TEMPLATE, secret: None, addresses: &addresses, known: &known };
    let entries = roster::roster(&metagraph, &rules);
    let mut statuses: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &entries {
        *statuses.entry(entry.status.word()).or_default() += 1;
    }
    assert_eq!(statuses.values().sum::<usize>(), entries.len());
    assert!(
        entries.len() >= 256 && statuses["ok"] > 0 && statuses["none"] > 0 && statuses["malformed"] > 0,
        "{statuses:?}"
    );
}

/// How often a reading asks for keys, but for the last time.
async fn good_calls(node: &ReplayNode) -> usize {
    let before = node.calls("state_getKeysPaged");
    Metagraph::read(&network(&[&node.url]), NETUID, patience()).await.unwrap();
    node.calls("state_getKeysPaged") - before - 1
}

#[tokio::test]
async fn a_bad_node_is_left_for_the_next_and_none_is_one_clear_error() {
    let good = ReplayNode::start(Fault::None).await;
    let nowhere = "ws://127.0.0.1:9";
    let found = Metagraph::read(&network(&[nowhere, &good.url]), NETUID, patience()).await.unwrap();
    assert_eq!(found.node, good.url);
    // The last map that is read is that of revealed commitments: a node that fails there is no good either.
    let last = Fault::BrokenAfter("state_getKeysPaged", good_calls(&good).await);
    for fault in [Fault::Stalled, Fault::Garbage, Fault::Broken("state_queryStorageAt"), last] {
        let bad = ReplayNode::start(fault).await;
        let found = Metagraph::read(&network(&[&bad.url, &good.url]), NETUID, patience()).await.unwrap();
        assert_eq!((found.node, found.commitments.len()), (good.url.clone(), 230), "{fault:?}");
        let alone = Metagraph::read(&network(&[&bad.url]), NETUID, patience()).await.unwrap_err();
        let is_right = match (&alone.problems[0].1, fault) {
            (Problem::Stalled { finalized: 100, best: 1100 }, Fault::Stalled) => true,
            (Problem::Unreadable(_), Fault::Garbage) => true,
            (Problem::Rpc(text), Fault::Broken(_) | Fault::BrokenAfter(..)) => text.contains("pruned"),
            _ => false,
        };
        assert!(is_right, "{fault:?}: {alone}");
    }
    let error = Metagraph::read(&network(&[nowhere]), NETUID, patience()).await.unwrap_err().to_string();
    assert!(error.starts_with("no node of the network `ws://127.0.0.1:9` can be read; ws://127.0.0.1:9: "), "{error}");
}

#[tokio::test]
async fn a_node_that_says_nothing_is_given_up() {
    let silent = ReplayNode::start(Fault::Silent("state_getKeysPaged")).await;
    let short = Patience { read: Duration::from_millis(200), ..patience() };
    let error = Metagraph::read(&network(&[&silent.url]), NETUID, short).await.unwrap_err();
    assert!(matches!(error.problems[..], [(_, Problem::Silent(_))]), "{error}");
}

#[tokio::test]
async fn another_chain_than_the_named_one_is_refused() {
    let node = ReplayNode::start(Fault::None).await;
    let network = network(&[&node.url]).on_chain("0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03");
    let error = Metagraph::read(&network, NETUID, patience()).await.unwrap_err();
    assert!(matches!(error.problems[..], [(_, Problem::Genesis { .. })]), "{error}");
}

fn vectors(name: &str) -> Value {
    let path = data(name);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; ROBO_CHAIN_DATA names the folder that has it", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Where we read more strictly than the references, or keep more: each with why.
const OUR_OWN: [(&str, &str); 8] = [
    ("seed_json_no_chute", "without a deployment nobody can be called"),
    ("seed_json_null_chute", "the same"),
    ("seed_json_missing_revision", "text that begins with `{` is JSON or nothing"),
    ("seed_json_broken", "the same"),
    ("seed_json_empty_model", "a model has a name"),
    ("empty_deployment", "without a deployment nobody can be called"),
    ("invalid_utf8_dropped", "bytes that are no text are not guessed at"),
    ("nul_byte_kept", "no name has control characters"),
];

#[test]
fn commitments_are_read_as_the_references_read_them() {
    let vectors = vectors("commitment_vectors.json");
    let mut read = 0;
    for vector in vectors["parse"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let found = Commitment::parse(&hex::decode(vector["raw_hex"].as_str().unwrap()).unwrap());
        if OUR_OWN.iter().any(|(own, _)| *own == name) {
            assert!(found.is_err(), "{name}: {found:?}");
            continue;
        }
        let is_json = vector["raw"].as_str().unwrap().trim_start().starts_with('{');
        let reference = &vector[if is_json { "seed" } else { "kinitro" }];
        assert_eq!(found.is_ok(), reference["valid"].as_bool().unwrap(), "{name}: {found:?}");
        let Ok(found) = found else { continue };
        read += 1;
        let parsed = &reference["parsed"];
        let text = |key: &str| parsed[key].as_str().unwrap_or_default().trim().to_owned();
        let model = found.model.unwrap();
        assert_eq!((model.repository, model.revision), (text("huggingface_repo"), text("revision_sha")), "{name}");
        match found.place {
            Place::Sealed(package) => assert_eq!(package, text("encrypted_deployment"), "{name}"),
            Place::Deployment(id) => assert_eq!(id, text(if is_json { "chute_id" } else { "deployment_id" }), "{name}"),
            // The references cut an address at its colon.
            Place::Url(url) => assert!(url.starts_with(&text("deployment_id")), "{name}"),
        }
    }
    assert!(read >= 12, "{read}");
}

#[test]
fn encrypted_deployments_are_those_of_the_reference() {
    let vectors = vectors("commitment_vectors.json");
    for vector in vectors["encrypt"].as_array().unwrap() {
        let secret = Secret::from_hex(vector["backend_private_hex"].as_str().unwrap()).unwrap();
        assert_eq!(secret.public().to_hex(), vector["backend_public_hex"], "{vector}");
        let opened = secret.open(vector["base85"].as_str().unwrap()).unwrap();
        assert_eq!(opened.to_string(), vector["uuid"], "{vector}");
    }
    let failures = vectors["decrypt_failures"].as_array().unwrap();
    assert_eq!(failures.len(), 12);
    for vector in failures {
        let secret = Secret::from_hex(vector["private_hex"].as_str().unwrap()).unwrap();
        assert!(secret.open(vector["base85"].as_str().unwrap()).is_err(), "{vector}");
    }
}

#[test]
fn weights_are_the_sixteen_bits_of_the_reference() {
    for vector in vectors("weights_u16.json").as_array().unwrap() {
        let weights = vector["weights"].as_object().unwrap();
        let weights = weights.iter().map(|(uid, weight)| (uid.parse().unwrap(), weight.as_f64().unwrap())).collect();
        let Amounts { uids, values } = Amounts::of(&weights);
        let wanted = &vector["sdk_max_upscale"];
        assert_eq!(serde_json::json!({ "uids": uids, "values": values }), *wanted);
    }
}

#[tokio::test]
async fn miners_and_the_chain_are_shown() {
    let node = ReplayNode::start(Fault::None).await;
    let url = node.url.clone();
    // The node answers while the programs run.
    tokio::task::spawn_blocking(move || {
        let place = Workplace::new();
        let status = place.json(&["chain", "status", "--network", &url, "--format", "json"]);
        assert_eq!((&status["block"], &status["spec_version"]), (&100.into(), &461.into()), "{status}");
        let of_subnet = ["--netuid", "7", "--network", &url];
        let listed = place.json(&[&["miners", "ls", "--format", "json"][..], &of_subnet].concat());
        let miners = listed["miners"].as_array().unwrap();
        assert!(miners.len() >= 256, "{}", miners.len());
        let ok = miners.iter().find(|miner| miner["status"] == "ok").unwrap();
        let hotkey = ok["hotkey"].as_str().unwrap();
        let shown = place.run(&[&["commitment", "show", hotkey][..], &of_subnet].concat());
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        assert!(shown.stdout.contains(ok["commitment"]["model"].as_str().unwrap()), "{}", shown.stdout);
        let nobody = place.run(&[&["commitment", "show", "5nobody"][..], &of_subnet].concat());
        assert_eq!((nobody.code, nobody.stderr.contains("robo miners ls")), (1, true), "{}", nobody.stderr);
    })
    .await
    .unwrap();
}

#[test]
fn keys_are_made_once_and_what_is_sealed_is_opened() {
    let place = Workplace::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backend.key");
    let file = file.to_str().unwrap();
    let made = place.run(&["crypto", "generate-keypair", "--out", file]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = place.run(&["crypto", "generate-keypair", "--out", file]);
    assert_eq!((again.code, again.stderr.contains("never overwritten")), (1, true), "{}", again.stderr);
    let id = "95edf2b6-e18b-400a-8398-5573df10e5e4";
    let sealed = place.run(&["crypto", "encrypt", id, "--public-key", made.stdout.trim()]);
    let opened = place.run(&["crypto", "decrypt", sealed.stdout.trim(), "--private-key-file", file]);
    assert_eq!((opened.code, opened.stdout.trim()), (0, id), "{}", opened.stderr);
    let parsed = place.json(&["commitment", "parse", &format!("u/p:1:e:{}", sealed.stdout.trim()), "--format", "json"]);
    assert_eq!(parsed["place"]["sealed"], sealed.stdout.trim());
    let wrong = place.run(&["commitment", "parse", "hello world"]);
    assert_eq!((wrong.code, wrong.stderr.contains("neither JSON nor")), (1, true), "{}", wrong.stderr);
}
