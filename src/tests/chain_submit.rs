//! Calls that are signed and submitted: byte for byte as the subnet's reference client writes them, and every way in which a
//! submission ends.

use std::{sync::Arc, time::Duration};

use robo::chain::{Call, Included, Network, Node, Patience, Reason, Rehearsed, SubmitError, Waits, Wallet};
use serde_json::{Value, json};
use subxt::{
    OfflineClient, SubstrateConfig,
    config::{DefaultExtrinsicParamsBuilder, substrate::SpecVersionForRange},
    ext::codec::Decode,
    metadata::Metadata,
    utils::{AccountId32, H256, MultiSignature},
};
use subxt_signer::sr25519;

use crate::support::{
    chain_node::{ALICE, write_hotkey},
    meddler::{Asked, Deed, Fate, Meddler},
    replay_node::{Fault, ReplayNode, golden},
};

/// Of the chain that the reference client was recorded against: its first block, and the one that calls were signed for.
const GENESIS: &str = "0x1dc00e76a13fc48b9c932e076622c5920295afaad4fd805c284a5cf3222ce452";
const BEST: &str = "0xd9f2d5c7e6b387e32b3f41d7808094cc966fbbbbd4709d96471c52d9b1a2b2aa";
const BEST_NUMBER: u64 = 66;
const NONCE: &str = "AccountNonceApi_account_nonce";
const VALIDATION: &str = "TaggedTransactionQueue_validate_transaction";
/// Key of `System.Events`.
const EVENTS: &str = "0x26aa394eea5630e07c48ae0c9558cef780d41e5e16056765bc8461851072c9d7";
/// The events of a block whose only call went well, and of one whose call failed: error 29 of pallet 7, too soon.
const WENT_WELL: &str = "0x04000000000000000000000000";
const FAILED: &str = "0x0400000000000001\
                      03071d000000\
                      0000000000";

/// Bytes of an extrinsic without its length: version, kind of address, account, kind of signature.
const ACCOUNT: usize = 1 + 1 + 32 + 1;
const SIGNATURE: usize = 64;

fn weights() -> Call {
    Call::SetWeights { netuid: 1, uids: vec![0, 1], values: vec![100, 200], version_key: 0 }
}

fn alice() -> Wallet {
    let wallets = tempfile::tempdir().unwrap();
    write_hotkey(wallets.path(), "alice", ALICE);
    Wallet::at(wallets.path(), "alice", "default").unwrap()
}

fn waits() -> Waits {
    let long = Duration::from_secs(60);
    Waits { answer: long, block: long, finality: long }
}

/// A short time, for a block that never comes.
fn short() -> Waits {
    Waits { block: Duration::from_millis(100), ..waits() }
}

/// The node that the reference client was recorded against, with this next nonce of Alice.
fn recorded(asked: &Asked<'_>, calls: &[String], nonce: u8) -> Deed {
    let header = || {
        json!({
            "parentHash": GENESIS, "number": format!("0x{BEST_NUMBER:x}"), "stateRoot": GENESIS, "extrinsicsRoot": GENESIS,
            "digest": { "logs": [] },
        })
    };
    Deed::Answer(match (asked.method, asked.text(0)) {
        ("chain_getBlockHash", _) if asked.parameters.first() == Some(&json!(0)) => json!(GENESIS),
        ("chain_getBlockHash", _) => json!(BEST),
        ("chain_getHeader", Some(BEST)) => header(),
        ("chain_getBlock", _) => {
            json!({ "block": { "header": header(), "extrinsics": calls }, "justifications": null })
        }
        ("state_getStorage", Some(EVENTS)) => json!(WENT_WELL),
        ("state_call", Some(NONCE)) => json!(format!("0x{nonce:02x}000000")),
        _ => return Deed::Pass,
    })
}

/// A node that lets calls end in a way, otherwise as recorded.
async fn node(fate: Fate) -> (ReplayNode, Meddler) {
    node_that(fate, |asked, calls| recorded(asked, calls, 3)).await
}

async fn node_that(
    fate: Fate,
    meddle: impl Fn(&Asked<'_>, &[String]) -> Deed + Send + Sync + 'static,
) -> (ReplayNode, Meddler) {
    let replay = ReplayNode::start(Fault::None).await;
    let meddler = Meddler::before(&replay.url, fate, meddle).await;
    (replay, meddler)
}

async fn reach(meddler: &Meddler) -> Arc<Node> {
    let network: Network = meddler.url.parse().unwrap();
    let patience = Patience { connect: Duration::from_secs(60), read: Duration::from_secs(120), rounds: 1 };
    Node::reach(&network, patience).await.unwrap()
}

fn in_block() -> Fate {
    Fate::Told(vec![json!("ready"), json!({ "inBlock": BEST }), json!({ "finalized": BEST })], Deed::Pass)
}

async fn submit(fate: Fate, waits: Waits) -> Result<Included, SubmitError> {
    let (_replay, meddler) = node(fate).await;
    reach(&meddler).await.submit_within(&weights(), &alice(), waits).await
}

fn bytes(hex: &Value) -> Vec<u8> {
    hex::decode(hex.as_str().unwrap().trim_start_matches("0x")).unwrap()
}

/// An extrinsic without the length in front of it.
fn body(extrinsic: &[u8]) -> &[u8] {
    let rest = &mut &extrinsic[..];
    let length = subxt::ext::codec::Compact::<u32>::decode(rest).unwrap().0;
    assert_eq!(rest.len(), length as usize);
    rest
}

/// What a wallet submits for a call, without the length in front.
async fn submitted(call: &Call, nonce: u8) -> Vec<u8> {
    let (_replay, meddler) = node_that(in_block(), move |asked, calls| recorded(asked, calls, nonce)).await;
    let included = reach(&meddler).await.submit_within(call, &alice(), waits()).await.unwrap();
    assert_eq!((included.block, included.is_final), (BEST_NUMBER, true));
    let calls = meddler.calls();
    assert_eq!(calls.len(), 1, "nothing is submitted twice");
    body(&bytes(&json!(calls[0]))).to_vec()
}

#[tokio::test]
async fn weights_are_written_and_signed_as_the_reference_client_does() {
    let golden = golden().await;
    assert_eq!(
        (&golden["network"]["genesis_hash"], &golden["metadata"]["block_hash"]),
        (&json!(GENESIS), &json!(BEST))
    );
    let calls = golden["calls"].as_array().unwrap();
    let set_weights = bytes(&calls.iter().find(|call| call["function"] == "set_weights").unwrap()["data_hex"]);
    let mortal = |of: &Value| of.as_array().unwrap().iter().find(|one| one["era"]["period"] == 64).unwrap().clone();
    let reference = mortal(&golden["extrinsics"]);
    let reference_call = bytes(&reference["call_data_hex"]);
    let wanted = body(&bytes(&reference["extrinsic_hex"])).to_vec();
    let found = submitted(&weights(), reference["nonce"].as_u64().unwrap() as u8).await;
    // All but the call and its signature are the same; what stands for the call is the reference's call of the same name.
    let extra = &wanted[ACCOUNT + SIGNATURE..wanted.len() - reference_call.len()];
    assert_eq!(found[..ACCOUNT], wanted[..ACCOUNT]);
    assert_eq!(found[ACCOUNT + SIGNATURE..], [extra, &set_weights].concat());
    // What is signed ends as the reference's payload: versions, first block, the block it was signed for.
    let payload = mortal(&golden["signature_payloads"]);
    let end = &bytes(&payload["payload_hex"])[bytes(&payload["call_data_hex"]).len() + extra.len()..];
    let signature = sr25519::Signature(found[ACCOUNT..][..SIGNATURE].try_into().unwrap());
    let account = sr25519::PublicKey(wanted[2..34].try_into().unwrap());
    assert!(sr25519::verify(&signature, [&set_weights, extra, end].concat(), &account));
}

#[tokio::test]
async fn commitments_and_commits_are_written_as_the_runtime_describes_them() {
    let text = "user/policy:01234567:https://my.example.org";
    let found = submitted(&Call::SetCommitment { netuid: 7, text: text.into() }, 0).await;
    // Subnet, one field, its variant: `None` is 0, so that `Raw0` is 1.
    assert!(found.ends_with(&[&[7, 0, 4, 1 + text.len() as u8], text.as_bytes()].concat()));
    let long = "x".repeat(300);
    let found = submitted(&Call::SetCommitment { netuid: 7, text: long.clone() }, 0).await;
    assert!(found.ends_with(&[&[7, 0, 4, 136, 0xb1, 0x04], long.as_bytes()].concat()));
    let commit = Call::CommitTimelocked { netuid: 258, payload: vec![1, 2, 3], reveal_round: 5, version: 4 };
    let found = submitted(&commit, 0).await;
    assert!(found.ends_with(&[7, 118, 2, 1, 0, 12, 1, 2, 3, 5, 0, 0, 0, 0, 0, 0, 0, 4, 0]));
}

/// The library itself, with the reference's own calls: other pallets, both kinds of mortality.
#[tokio::test]
async fn whole_extrinsics_are_those_of_the_reference() {
    let golden = golden().await;
    let metadata = Metadata::decode(&mut &bytes(&golden["metadata"]["v14_hex"])[..]).unwrap();
    let versions = SpecVersionForRange { block_range: 0..u64::MAX, spec_version: 461, transaction_version: 1 };
    let hash = |text: &Value| H256::from_slice(&bytes(text));
    let config = SubstrateConfig::builder()
        .set_genesis_hash(hash(&json!(GENESIS)))
        .set_metadata_for_spec_versions([(461, Arc::new(metadata))])
        .set_spec_version_for_block_ranges([versions])
        .build();
    let at = OfflineClient::new_with_config(config).at_block(BEST_NUMBER).unwrap();
    let calls = at.transactions();
    for call in golden["calls"].as_array().unwrap() {
        let wanted = bytes(&call["data_hex"]);
        assert_eq!(calls.call_data(&calls.from_call_data_bytes(&wanted).unwrap()).unwrap(), wanted, "{call}");
    }
    let signable = |one: &Value| {
        let parameters = DefaultExtrinsicParamsBuilder::new().nonce(one["nonce"].as_u64().unwrap());
        let parameters = match one["era"].as_object() {
            None => parameters.immortal(),
            Some(_) => parameters.mortal_from_unchecked(64, BEST_NUMBER, hash(&json!(BEST))),
        };
        (calls.from_call_data_bytes(&bytes(&one["call_data_hex"])).unwrap(), parameters.build())
    };
    for payload in golden["signature_payloads"].as_array().unwrap() {
        let (call, parameters) = signable(payload);
        let found = calls.create_signable_offline(&call, parameters).unwrap().signer_payload().unwrap();
        assert_eq!(found, bytes(&payload["payload_hex"]), "{payload}");
    }
    for extrinsic in golden["extrinsics"].as_array().unwrap() {
        let (call, parameters) = signable(extrinsic);
        let account = AccountId32(bytes(&extrinsic["public_key_hex"]).try_into().unwrap());
        let signature = MultiSignature::Sr25519(bytes(&extrinsic["signature_hex"]).try_into().unwrap());
        let mut signable = calls.create_signable_offline(&call, parameters).unwrap();
        let found = signable.sign_with_account_and_signature(&account, &signature).unwrap();
        assert_eq!(found.encoded(), bytes(&extrinsic["extrinsic_hex"]), "{extrinsic}");
        assert_eq!(json!(format!("{:?}", found.hash())), extrinsic["extrinsic_hash"]);
    }
}

#[tokio::test]
async fn what_a_pool_refuses_is_said_with_the_remedy() {
    let cases = [
        (1010, "Invalid Transaction", Some("Custom error: 1"), Reason::Stake, "stake more"),
        (1010, "Invalid Transaction", Some("Custom error: 3"), Reason::Subnet, "--netuid"),
        (1010, "Invalid Transaction", Some("Custom error: 6"), Reason::TooSoon, "WeightsSetRateLimit"),
        (1010, "Invalid Transaction", Some("Custom error: 20"), Reason::Unregistered, "register"),
        (1010, "Invalid Transaction", Some("Custom error: 255"), Reason::BadRequest, "permit"),
        (1010, "{\"invalid\":{\"custom\":6}}", None, Reason::TooSoon, "wait"),
        (1014, "Priority is too low: (1 vs 1)", Some("it waits already"), Reason::Waiting, "wait a few blocks"),
    ];
    for (code, message, data, reason, words) in cases {
        let error = submit(Fate::Refused(code, message, data), waits()).await.unwrap_err();
        let SubmitError::Refused(refusal) = &error else { panic!("{error}") };
        assert_eq!(refusal.reason(), Some(reason), "{error}");
        assert!(error.to_string().starts_with("nothing was submitted: ") && error.remedy().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_fails_in_its_block_is_told_by_its_name() {
    let fails = |asked: &Asked<'_>, calls: &[String]| match (asked.method, asked.text(0)) {
        ("state_getStorage", Some(EVENTS)) => Deed::Answer(json!(FAILED)),
        _ => recorded(asked, calls, 3),
    };
    let (_replay, meddler) = node_that(in_block(), fails).await;
    let error = reach(&meddler).await.submit_within(&weights(), &alice(), waits()).await.unwrap_err();
    let SubmitError::Failed { block: BEST_NUMBER, refusal, .. } = &error else { panic!("{error}") };
    assert_eq!(refusal.reason(), Some(Reason::TooSoon), "{error}");
    assert!(error.to_string().contains("SubtensorModule::SettingWeightsTooFast"), "{error}");
}

#[tokio::test]
async fn finality_that_does_not_come_is_said_and_is_no_failure() {
    let best = Fate::Told(vec![json!("ready"), json!({ "inBlock": BEST })], Deed::Hang);
    let hasty = Waits { finality: Duration::from_millis(100), ..waits() };
    let included = submit(best, hasty).await.unwrap();
    assert_eq!((included.block, included.is_final, &*included.hash), (BEST_NUMBER, false, BEST));
    let given_up = Fate::Told(vec![json!({ "inBlock": BEST }), json!({ "finalityTimeout": BEST })], Deed::Hang);
    assert!(!submit(given_up, waits()).await.unwrap().is_final);
}

#[tokio::test]
async fn what_is_lost_after_it_was_submitted_is_unknown_and_says_how_to_look() {
    let cases = [
        (Fate::Told(vec![json!("ready")], Deed::Cut), waits(), ""),
        (Fate::Told(vec![json!("ready")], Deed::Hang), short(), "it was in none after"),
        (Fate::Told(vec![json!({ "usurped": BEST })], Deed::Hang), waits(), "usurped"),
        (Fate::Told(vec![json!("dropped")], Deed::Hang), waits(), "dropped"),
        (Fate::Told(vec![json!(17)], Deed::Hang), waits(), ""),
    ];
    for (fate, waits, words) in cases {
        let case = format!("{fate:?}");
        let error = submit(fate, waits).await.unwrap_err();
        let SubmitError::Unknown { extrinsic, until, .. } = &error else { panic!("{case}: {error}") };
        assert_eq!((extrinsic.len(), *until), (66, BEST_NUMBER + 63), "{case}");
        let told = error.to_string();
        assert!(
            told.starts_with("it is unknown whether the call is in a block") && told.contains(words),
            "{case}: {told}"
        );
        assert!(error.remedy().contains("look before you try again"));
    }
}

#[tokio::test]
async fn a_block_that_cannot_be_read_or_does_not_have_the_call_is_no_success() {
    let without_it: fn(&Asked<'_>, &[String]) -> Deed = |asked, _| recorded(asked, &[], 3);
    let unreadable: fn(&Asked<'_>, &[String]) -> Deed = |asked, calls| match (asked.method, asked.text(0)) {
        ("state_getStorage", Some(EVENTS)) => Deed::Answer(json!("0x04ff")),
        _ => recorded(asked, calls, 3),
    };
    for meddle in [without_it, unreadable] {
        let (_replay, meddler) = node_that(in_block(), meddle).await;
        let error = reach(&meddler).await.submit_within(&weights(), &alice(), waits()).await.unwrap_err();
        assert!(matches!(&error, SubmitError::Unknown { problem, .. } if problem.contains(BEST)), "{error}");
    }
}

#[tokio::test]
async fn a_node_that_fails_before_has_not_got_it() {
    let meddle = |asked: &Asked<'_>, calls: &[String]| match (asked.method, asked.text(0)) {
        ("state_call", Some(NONCE)) => Deed::Cut,
        _ => recorded(asked, calls, 3),
    };
    let (_replay, meddler) = node_that(in_block(), meddle).await;
    let error = reach(&meddler).await.submit_within(&weights(), &alice(), waits()).await.unwrap_err();
    assert!(matches!(&error, SubmitError::NotSent(_)), "{error}");
    assert!(meddler.calls().is_empty());
}

#[tokio::test]
async fn a_rehearsal_asks_the_runtime_and_submits_nothing() {
    let says = |answer: &'static str| {
        move |asked: &Asked<'_>, calls: &[String]| match (asked.method, asked.text(0)) {
            ("state_call", Some(VALIDATION)) => Deed::Answer(json!(answer)),
            _ => recorded(asked, calls, 3),
        }
    };
    // Priority, nothing it requires, nothing it provides, longevity, to be passed on.
    let (_replay, good) = node_that(in_block(), says("0x000000000000000000000040000000000000000001")).await;
    let rehearsed = reach(&good).await.rehearse(&weights(), &alice()).await.unwrap();
    assert!(matches!(rehearsed, Rehearsed { block: BEST_NUMBER, length: 100.. }), "{rehearsed:?}");
    let (_replay, too_soon) = node_that(in_block(), says("0x01000706")).await;
    let error = reach(&too_soon).await.rehearse(&weights(), &alice()).await.unwrap_err();
    assert!(matches!(&error, SubmitError::Refused(refusal) if refusal.reason() == Some(Reason::TooSoon)), "{error}");
    assert!(good.calls().is_empty() && too_soon.calls().is_empty());
    let too_long = Call::SetCommitment { netuid: 7, text: "x".repeat(513) };
    let error = reach(&good).await.rehearse(&too_long, &alice()).await.unwrap_err();
    assert!(matches!(error, SubmitError::TooLong { length: 513, most: 512 }), "{error}");
}
