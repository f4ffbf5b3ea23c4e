//! A validator between a backend that serves documents and a node that replays subnet 7: what it sets, when, and what it says
//! when it does not. Blocks are made by the tests; nothing here waits for the clock.

use std::{net::SocketAddr, time::Duration};

use robo::{
    chain::{Head, Wallet, reveal::Reveal},
    cycle::{Pin, PublishGuard},
    validator::{
        Backend, Burns, Cadence, Demands, Distrust, Refusal, Settings, Terms, Trouble, Turn, Unanswered, Unpayable,
        Validator, serve,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    database::{TestDatabase, Version},
    program::Place,
    replay_pool::{Deed, Taken},
    served::Served,
    validated::{ALICE, Chain, NETUID, SECRET, patience, stranger, wallet},
    weights_server::{WeightsServer, published, published_bare},
};
use crate::weights::{WHOLE, publish_at};

/// The best block of the node at first.
const BEST: u64 = 102;

/// Slot 0 is the validator's and the owner's; 1 and 2 are ann's and bob's.
async fn chain() -> Chain {
    let chain = Chain::start().await;
    chain.set("SubnetOwnerHotkey", (NETUID,), crate::support::validated::account(ALICE));
    chain.seat(1, &ann(), 0);
    chain.seat(2, &bob(), 0);
    chain
}

fn ann() -> String {
    stranger(11)
}

fn bob() -> String {
    stranger(12)
}

/// 75 % for ann and 25 % for bob.
fn entries() -> Value {
    let entry = |uid: u16, hotkey: String, weight: f64| json!({"uid": uid, "hotkey": hotkey, "weight": weight});
    json!([entry(1, ann(), 0.75), entry(2, bob(), 0.25)])
}

/// The same, made in this block.
fn document(block: u64) -> Value {
    published(block, entries())
}

fn settings(chain: &Chain) -> Settings {
    Settings {
        network: chain.network(),
        patience: patience(),
        terms: Terms {
            demands: Demands { netuid: NETUID, signers: Vec::new(), max_age: 5_000 },
            burn_uid: None,
            version_key: 0,
            burns: Burns::default(),
        },
        cadence: Cadence::EachTempo,
        poll: Duration::from_secs(60),
        missed: 2,
    }
}

fn alice() -> Wallet {
    wallet(tempfile::tempdir().unwrap().path())
}

fn at(address: SocketAddr) -> Backend {
    Backend::new(&format!("http://{address}").parse().unwrap()).unwrap()
}

fn validator(chain: &Chain, backend: &WeightsServer) -> Validator {
    Validator::new(settings(chain), alice(), at(backend.address))
}

fn weights(pairs: &[(u16, u16)]) -> Taken {
    let (uids, values) = pairs.iter().copied().unzip();
    Taken::Weights { uids, values, version_key: 0 }
}

#[tokio::test]
async fn weights_are_set_read_back_and_set_again_each_tempo() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    let mut validator = validator(&chain, &backend);
    let Turn::Set(done) = validator.turn().await.unwrap() else { panic!("the first are due at once") };
    assert_eq!((done.block, done.paid), (BEST + 1, 2));
    assert_eq!(chain.node.pool().taken(), [weights(&[(1, 65535), (2, 21845)])]);
    // The same document again, and a new one: neither is a reason to set weights before a tempo is over.
    let due = done.block + 360;
    for document in [document(90), document(95)] {
        backend.publish(document);
        let turn = validator.turn().await.unwrap();
        assert!(matches!(turn, Turn::NotDue { due: found, .. } if found == due), "{turn:?}");
    }
    chain.node.finalize(due - 2 - 1);
    assert!(matches!(validator.turn().await.unwrap(), Turn::NotDue { .. }));
    chain.node.finalize(due - 2);
    assert!(matches!(validator.turn().await.unwrap(), Turn::Set(_)));
    assert_eq!(chain.node.pool().taken().len(), 2);
    let (full, unchanged) = backend.answers();
    assert_eq!((full, unchanged), (2, 3), "asked for again only when it has changed");
    // Another process knows from the chain when they were set.
    let mut restarted = self::validator(&chain, &backend);
    assert!(matches!(restarted.turn().await.unwrap(), Turn::NotDue { .. }));
}

/// What our own backend publishes and serves is what a validator believes, down to the digest.
#[tokio::test]
async fn what_our_own_backend_serves_is_set() {
    let (chain, database) = (chain().await, TestDatabase::new(Version::Default).await);
    let store = database.store().await;
    let head = Head::read(&chain.network(), patience()).await.unwrap();
    let pin = Pin { genesis: head.genesis, netuid: NETUID, block: 90, hash: "0x5a".into() };
    publish_at(&store, pin, Some(&ann()), (WHOLE, PublishGuard::default())).await;
    let served = Served::of(&store).await;
    let mut validator = Validator::new(settings(&chain), alice(), Backend::new(&served.url.parse().unwrap()).unwrap());
    let Turn::Set(done) = validator.turn().await.unwrap() else { panic!("the first are due at once") };
    assert_eq!((done.paid, chain.node.pool().taken()), (1, vec![weights(&[(1, 65535)])]));

    // A backend that serves the same netuid on another chain.
    let elsewhere = TestDatabase::new(Version::Default).await;
    let store = elsewhere.store().await;
    let other = Pin { genesis: "0x00".into(), netuid: NETUID, block: 91, hash: "0x5b".into() };
    publish_at(&store, other, Some(&ann()), (WHOLE, PublishGuard::default())).await;
    let served = Served::of(&store).await;
    let mut stranger = Validator::new(settings(&chain), alice(), Backend::new(&served.url.parse().unwrap()).unwrap());
    chain.node.finalize(done.block + 360);
    let trouble = stranger.turn().await.unwrap_err();
    assert!(format!("{trouble:?}").contains("Genesis"), "{trouble:?}");
}

#[tokio::test]
async fn a_backend_that_is_down_is_waited_for_and_missed_only_once_the_document_is_old() {
    let (chain, address) = (chain().await, WeightsServer::nobody());
    let mut validator = Validator::new(settings(&chain), alice(), at(address));
    let trouble = validator.turn().await.unwrap_err();
    assert!(matches!(trouble, Trouble::Backend(Unanswered::Unreachable(_))), "{trouble:?}");
    assert!(trouble.remedies()[0].contains("--backend-url"));
    let backend = WeightsServer::start_at(address, None).await;
    assert!(matches!(validator.turn().await.unwrap_err(), Trouble::Nothing));
    backend.publish(document(90));
    assert!(matches!(validator.turn().await.unwrap(), Turn::Set(_)));
    // Gone again: the document that is held goes on chain until it is too old.
    drop(backend);
    chain.node.finalize(1000);
    assert!(matches!(validator.turn().await.unwrap(), Turn::Set(_)));
    chain.node.finalize(90 + 5_001 - 2);
    let trouble = validator.turn().await.unwrap_err();
    assert!(matches!(trouble, Trouble::Distrust(Distrust::TooOld { age: 5_001, most: 5_000 })), "{trouble:?}");
    let (_, health) = validator.report().health();
    assert_eq!((&health["backend"], &health["chain"]), (&json!("backend"), &json!("ok")), "{health}");
}

#[tokio::test]
async fn the_same_vector_of_a_later_cycle_is_as_young_as_that_cycle() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(published_bare(90, entries()))).await);
    let mut validator = validator(&chain, &backend);
    validator.turn().await.unwrap();
    chain.node.finalize(90 + 5_001 - 2);
    backend.publish(published_bare(5_000, entries()));
    let trouble = validator.turn().await.unwrap_err();
    assert!(matches!(trouble, Trouble::Distrust(Distrust::TooOld { .. })), "{trouble:?}");
    assert_eq!(backend.answers(), (1, 1), "the backend says that nothing has changed");
    assert!(matches!(validator.turn().await.unwrap(), Turn::Set(_)));
    assert_eq!(backend.answers(), (2, 1));
}

#[tokio::test]
async fn a_chain_that_is_down_is_waited_for() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    let nowhere = Settings { network: "ws://127.0.0.1:9".parse().unwrap(), ..settings(&chain) };
    let mut validator = Validator::new(nowhere, alice(), at(backend.address));
    let trouble = validator.turn().await.unwrap_err();
    assert!(matches!(trouble, Trouble::Chain(_)), "{trouble:?}");
    assert!(validator.document().is_some(), "the backend is asked all the same");
    let (is_well, health) = validator.report().health();
    assert_eq!((is_well, &health["chain"]), (true, &json!("chain")), "{health}");
}

#[tokio::test]
async fn what_is_not_believed_never_replaces_what_is() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    let mut validator = validator(&chain, &backend);
    validator.turn().await.unwrap();
    let mut changed = document(95);
    changed["entries"][0]["hotkey"] = stranger(66).into();
    let mut elsewhere = document(95);
    elsewhere["netuid"] = 8.into();
    for wrong in [changed, elsewhere, document(80), json!({"entries": "none"})] {
        backend.publish(wrong);
        assert!(matches!(validator.turn().await.unwrap(), Turn::NotDue { .. }));
        assert_eq!(validator.document().unwrap().block, Some(90));
        assert_ne!(validator.report().health().1["backend"], "ok");
    }
    backend.publish(document(96));
    validator.turn().await.unwrap();
    assert_eq!(validator.document().unwrap().block, Some(96));
    assert_eq!(validator.report().health().1["backend"], "ok");
}

#[tokio::test]
async fn the_share_of_who_has_moved_or_gone_is_burnt() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    // Bob lost slot 2 to somebody, and came back elsewhere.
    chain.seat(2, &stranger(66), 95);
    chain.seat(5, &bob(), 96);
    validator(&chain, &backend).turn().await.unwrap();
    assert_eq!(chain.node.pool().taken(), [weights(&[(0, 21845), (1, 65535)])]);
    chain.seat(5, &stranger(67), 97);
    chain.node.finalize(1000);
    let mut validator = validator(&chain, &backend);
    validator.turn().await.unwrap();
    assert_eq!(chain.node.pool().taken()[1], weights(&[(0, 21845), (1, 65535)]));
    assert!(validator.report().metrics().unwrap().contains("robo_validator_burnt_share 0.25\n"));
    // Nobody owns the subnet: the others must not have it.
    chain.unset("SubnetOwnerHotkey", (NETUID,));
    chain.node.finalize(2000);
    let trouble = validator.turn().await.unwrap_err();
    assert!(matches!(trouble, Trouble::Unpayable(Unpayable::NoBurnSlot { .. })), "{trouble:?}");
    assert!(trouble.told().contains("name a slot with --burn-uid"), "{}", trouble.told());
}

#[tokio::test]
async fn the_references_document_pays_only_who_had_the_slot() {
    let chain = chain().await;
    chain.seat(2, &stranger(66), 95);
    let reference = json!({
        "cycle_id": 12, "block_number": 90, "timestamp": "2026-01-05T10:00:00", "weights": {"1": 0.75, "2": 0.25},
        "weights_u16": {"uids": [1, 2], "values": [49151, 16383]},
        "metadata": {"n_miners_evaluated": 2, "n_environments": 1, "evaluation_duration_seconds": 61.0},
    });
    let backend = WeightsServer::start(Some(reference)).await;
    validator(&chain, &backend).turn().await.unwrap();
    assert_eq!(chain.node.pool().taken(), [weights(&[(0, 21845), (1, 65535)])]);
}

#[tokio::test]
async fn with_commit_reveal_weights_are_committed_and_the_commit_is_read_back() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    chain.set("CommitRevealWeightsEnabled", (NETUID,), true);
    let mut validator = validator(&chain, &backend);
    let Turn::Set(done) = validator.turn().await.unwrap() else { panic!("it is due") };
    assert!(done.to_string().contains("the chain reveals them about block 360"), "{done}");
    let taken = chain.node.pool().taken();
    let [Taken::Commit { payload, round, version: 4 }] = &taken[..] else { panic!("{taken:?}") };
    assert!(payload.len() > 250 && payload.ends_with(b"AES_GCM_"), "{}", payload.len());
    // Round 1 was in August 2023, and one comes every three seconds; this chain makes four blocks a second.
    let now = chrono::Utc::now().timestamp() as u64;
    let due = (now + (360 + 3 - BEST) / 4 - 1_692_803_367) / 3;
    assert!(due.abs_diff(*round) < 40, "{round} is not about {due}");
}

#[tokio::test]
async fn what_the_chain_takes_and_does_not_keep_is_no_success() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    *chain.node.pool().deed.lock().unwrap() = Deed::Wrong;
    let mut validator = validator(&chain, &backend);
    let trouble = validator.turn().await.unwrap_err();
    assert!(matches!(trouble, Trouble::Unconfirmed { block: 103, .. }), "{trouble:?}");
    assert!(
        validator.report().metrics().unwrap().contains("robo_validator_failures_total{reason=\"unconfirmed\"} 1\n")
    );
}

/// What is found before anything is signed, by its words; the rule is changed before and stays changed.
async fn refused(chain: &Chain, backend: &WeightsServer) -> Vec<String> {
    let mut validator = validator(chain, backend);
    let words = |refusals: &[Refusal]| refusals.iter().map(|refusal| refusal.word().to_owned()).collect();
    match validator.plan().await {
        Ok((_, plan)) => words(&plan.refusals),
        Err(Trouble::Refused(refusals)) => words(&refusals),
        Err(other) => panic!("{}", other.told()),
    }
}

#[tokio::test]
async fn every_rule_of_the_chain_is_read_from_it() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    assert_eq!(refused(&chain, &backend).await, Vec::<String>::new());
    // The owner is somebody else, since an owner needs neither a permit nor stake.
    chain.set("SubnetOwnerHotkey", (NETUID,), [11_u8; 32]);
    chain.set("ValidatorPermit", (NETUID,), vec![false; 256]);
    assert_eq!(refused(&chain, &backend).await, ["no_permit"]);
    chain.set("ValidatorPermit", (NETUID,), vec![true; 256]);
    chain.set("StakeThreshold", (), u64::MAX);
    assert_eq!(refused(&chain, &backend).await, ["stake"]);
    chain.set("StakeThreshold", (), 0_u64);
    let mut updates = vec![0_u64; 256];
    updates[0] = 10;
    chain.set("LastUpdate", (NETUID,), &updates);
    assert_eq!(refused(&chain, &backend).await, ["rate_limit"]);
    chain.set("WeightsSetRateLimit", (NETUID,), BEST - 10);
    assert_eq!(refused(&chain, &backend).await, Vec::<String>::new());
    chain.set("WeightsVersionKey", (NETUID,), 1_u64);
    chain.set("MinAllowedWeights", (NETUID,), 3_u16);
    chain.set("MaxWeightsLimit", (NETUID,), 40_000_u16);
    assert_eq!(refused(&chain, &backend).await, ["version_key", "too_few", "too_much"]);
    chain.set("CommitRevealWeightsEnabled", (NETUID,), true);
    chain.set("CommitRevealWeightsVersion", (), 5_u16);
    assert_eq!(refused(&chain, &backend).await.last().unwrap(), "commit_version");
    chain.set("Tempo", (NETUID,), 0_u16);
    assert_eq!(refused(&chain, &backend).await.last().unwrap(), "never_revealed");
    chain.seat(0, &stranger(66), 100);
    assert_eq!(refused(&chain, &backend).await, ["not_registered"]);
    chain.set("NetworksAdded", (NETUID,), false);
    assert_eq!(refused(&chain, &backend).await, ["unknown_subnet"]);
}

#[tokio::test]
async fn stake_is_counted_as_the_chain_counts_it() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    let (own, parent) = (crate::support::validated::account(ALICE), [77_u8; 32]);
    let half = u64::MAX / 2;
    let set = |key: [u8; 32], netuid: u16, stake: u64| {
        chain.set("TotalHotkeyAlpha", (subxt::utils::AccountId32(key), netuid), stake);
    };
    set(own, NETUID, 1_000);
    set(own, 0, 400);
    set(parent, NETUID, 2_000);
    set(parent, 0, 800);
    chain.set("TaoWeight", (), half);
    chain.set("ChildKeys", (subxt::utils::AccountId32(own), NETUID), vec![(half, [78_u8; 32])]);
    chain.set("ParentKeys", (subxt::utils::AccountId32(own), NETUID), vec![(half, parent)]);
    let (_, plan) = validator(&chain, &backend).plan().await.unwrap();
    // Half of its own and half of its parent's, and TAO for half of what it is.
    let stake = plan.subnet.seat.unwrap().stake.unwrap();
    assert!((stake - (500.0 + 1_000.0 + 0.5 * (200.0 + 400.0))).abs() < 1e-6, "{stake}");
    assert_eq!(plan.subnet.rules.reveal, None::<Reveal>);
}

#[tokio::test]
async fn too_long_without_success_is_unhealthy() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    let mut validator = validator(&chain, &backend);
    validator.turn().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, validator.report(), stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let health = async || client.get(format!("{base}/health")).send().await.unwrap();
    let answer = health().await;
    assert_eq!(answer.status(), 200);
    let shown: Value = answer.json().await.unwrap();
    assert_eq!((&shown["status"], &shown["last"]["block"]), (&json!("healthy"), &json!(103)), "{shown}");
    // From now on the chain would refuse them, for more than the two tempos that may be missed.
    chain.set("SubnetOwnerHotkey", (NETUID,), [11_u8; 32]);
    chain.set("ValidatorPermit", (NETUID,), vec![false; 256]);
    chain.node.finalize(103 + 360 - 2);
    validator.turn().await.unwrap_err();
    assert_eq!(health().await.status(), 200);
    chain.node.finalize(103 + 721 - 2);
    validator.turn().await.unwrap_err();
    let answer = health().await;
    assert_eq!(answer.status(), 503);
    let shown: Value = answer.json().await.unwrap();
    assert_eq!((&shown["status"], &shown["weights"]), (&json!("unhealthy"), &json!("no_permit")), "{shown}");
    let metrics = client.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    for line in ["healthy 0", "set_total 1", "failures_total{reason=\"no_permit\"} 2", "best_block 824", "chain_up 1"] {
        assert!(metrics.contains(&format!("robo_validator_{line}\n")), "{line}: {metrics}");
    }
    chain.set("ValidatorPermit", (NETUID,), vec![true; 256]);
    validator.turn().await.unwrap();
    assert_eq!(health().await.status(), 200);
    stop.cancel();
    server.await.unwrap().unwrap();
}

/// The program with a wallet of its own, against these two.
fn arguments(place: &Place, node: &str, backend: &str) -> Vec<String> {
    let wallets = place.data.path().join("wallets");
    wallet(&wallets);
    let of = |flag: &str, value: &str| [flag.to_owned(), value.to_owned()];
    [
        of("validate", "--log-level=debug").to_vec(),
        of("--backend-url", backend).to_vec(),
        of("--network", node).to_vec(),
        of("--netuid", "7").to_vec(),
        of("--wallet-name", "alice").to_vec(),
        of("--wallets-dir", wallets.to_str().unwrap()).to_vec(),
    ]
    .concat()
}

#[tokio::test]
async fn the_program_shows_sets_and_meets_the_rate_limit() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    chain.seat(2, &stranger(66), 95);
    let (node, url) = (chain.node.url.clone(), backend.url());
    tokio::task::spawn_blocking(move || {
        let place = Place::new();
        let run = |more: &[&str]| {
            let arguments = arguments(&place, &node, &url);
            let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
            let ran = place.run(&all);
            assert!(!ran.stderr.contains(SECRET) && !ran.stdout.contains(SECRET), "the secret is told");
            ran
        };
        let shown = run(&["--dry-run"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        insta::assert_snapshot!("validate_dry_run", shown.stdout.replace(&node, "ws://NODE"));
        let json: Value = serde_json::from_str(&run(&["--dry-run", "--format", "json"]).stdout).unwrap();
        assert_eq!((&json["refusals"], &json["weights"][0]["uid"]), (&json!([]), &json!(0)), "{json}");
        assert_eq!(json["burnt"][0]["why"]["kind"], "gone", "{json}");
        let set = run(&["--once"]);
        assert_eq!((set.code, set.stdout.contains("read them back there")), (0, true), "{}{}", set.stdout, set.stderr);
        let again = run(&["--once"]);
        assert_eq!(again.code, 1, "{}", again.stdout);
        insta::assert_snapshot!("validate_rate_limit", last_lines(&again.stderr));
        let refused = run(&["--dry-run"]);
        assert_eq!(
            (refused.code, refused.stdout.contains("the chain would refuse it:")),
            (1, true),
            "{}",
            refused.stdout
        );
    })
    .await
    .unwrap();
    assert_eq!(chain.node.pool().taken().len(), 1);
}

/// The error and what is hinted, without the log before it.
#[tokio::test]
async fn the_validators_guide_works_as_it_is_written() {
    let (chain, backend) = (chain().await, WeightsServer::start(Some(document(90))).await);
    let (node, url) = (chain.node.url.clone(), backend.url());
    tokio::task::spawn_blocking(move || {
        let place = Place::new();
        let own = arguments(&place, &node, &url);
        let commands = crate::guides::blocks("docs/validator.md", &["sh"]).concat();
        let commands: Vec<&str> = commands.lines().collect();
        assert_eq!(commands.len(), 2, "{commands:?}");
        for command in commands {
            // A reader's own backend, node and wallet in place of the page's.
            let words = command.strip_prefix("robo ").unwrap().replace("https://robo.example", &url);
            let words = words.replace("--wallet-name validator", "--wallet-name alice");
            let beside = ["--network", node.as_str(), "--wallets-dir", own.last().unwrap()];
            let ran = place.run(&words.split(' ').chain(beside).collect::<Vec<_>>());
            assert_eq!(ran.code, 0, "{command}: {}", ran.stderr);
        }
    })
    .await
    .unwrap();
}

fn last_lines(stderr: &str) -> String {
    stderr.lines().skip_while(|line| !line.starts_with("error:")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_program_starts_while_everything_is_down_and_ends_when_it_is_told_to() {
    let nobody = WeightsServer::nobody();
    tokio::task::spawn_blocking(move || {
        let place = Place::new();
        let arguments = arguments(&place, "ws://127.0.0.1:9", &format!("http://{nobody}"));
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(["--listen", "127.0.0.1:0"]);
        let mut running = place.start(&all);
        running.until("validating subnet 7");
        running.until("the backend cannot be read");
        running.until("no node of the network");
        let backend = Handle::current().block_on(WeightsServer::start_at(nobody, Some(document(90))));
        running.until("the backend works again");
        drop(backend);
        running.signal(nix::sys::signal::Signal::SIGTERM);
        let ran = running.wait();
        assert_eq!((ran.code, ran.stderr.ends_with("\"message\":\"stopped\"}\n")), (0, true), "{}", ran.stderr);
        assert!(!ran.stderr.contains(SECRET), "the secret is told");
    })
    .await
    .unwrap();
}

#[test]
fn what_cannot_be_used_is_said_at_once() {
    let place = Place::new();
    let run = |more: &[&str]| place.run(&[&["validate", "--netuid", "7", "--once"], more].concat());
    let address = run(&["--backend-url", "https://user:hunter2@robo.example"]);
    assert_eq!((address.code, address.stderr.contains("hunter2")), (2, false), "{}", address.stderr);
    assert!(address.stderr.contains("must not hold a user or a password"), "{}", address.stderr);
    let wallet = run(&["--backend-url", "http://127.0.0.1:9", "--wallets-dir", "/nonexistent"]);
    assert_eq!((wallet.code, wallet.stderr.contains("--wallet-name")), (2, true), "{}", wallet.stderr);
    let hotkey = run(&["--backend-url", "http://127.0.0.1:9", "--backend-hotkey", "bob"]);
    assert_eq!((hotkey.code, hotkey.stderr.contains("not the address of a hotkey")), (2, true), "{}", hotkey.stderr);
}
