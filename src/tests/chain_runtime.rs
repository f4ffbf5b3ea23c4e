//! The chain as it is: a real subtensor runtime, older than the one that is replayed elsewhere, is read, committed to and given
//! weights. One story on one node, since each step changes the chain for the next.

use std::{collections::BTreeSet, time::Duration};

use robo::chain::{Call, Metagraph, Network, Node, Patience, Reason, SubmitError, Wallet};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{
    chain_node::{ALICE, BOB, ChainNode, write_hotkey},
    program::{Place, Ran},
    replay_node::ReplayNode,
    weights_server::{WeightsServer, published},
};

const NETUID: u16 = 7;
const TEXT: &str = "bob/policy:deadbeef:https://bob.example.org";

/// `//Charlie`, of whom the subnet has never heard.
const CHARLIE: (&str, &str) = (
    "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
    "0xbc1ede780f784bb6991a585e4f6e61522c14e1cae6ad0895fb57b9a205a8f938",
);

/// When Bob last wrote something, in the recorded storage: `Commitments.LastCommitment` of subnet 7 and Bob.
const LAST_COMMITMENT: &str = "0xca407206ec1ab726b2636c4b145ac28712e87f5eb6c957418d3a44e4809a0ebc0700a647e755c30521d3\
                               8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48";

/// Blocks take seconds there, and readings too on a busy machine.
fn patience() -> Patience {
    Patience { connect: Duration::from_secs(120), read: Duration::from_secs(300), rounds: 1 }
}

/// A miner and validator's machine: the program, the wallets and the node.
struct Machine {
    node: ChainNode,
    place: Place,
    wallets: TempDir,
}

impl Machine {
    fn new() -> Self {
        crate::install_tls();
        let wallets = tempfile::tempdir().unwrap();
        let contradictory = (ALICE.0, BOB.1);
        for (name, key) in [("alice", ALICE), ("bob", BOB), ("charlie", CHARLIE), ("torn", contradictory)] {
            write_hotkey(wallets.path(), name, key);
        }
        Self { node: ChainNode::start(), place: Place::new(), wallets }
    }

    fn network(&self) -> Network {
        self.node.url.parse().unwrap()
    }

    /// `robo` with a subnet's flags behind the words.
    fn run(&self, words: &[&str]) -> Ran {
        self.place.run(&[words, &["--netuid", "7", "--network", &self.node.url]].concat())
    }

    fn json(&self, words: &[&str]) -> Value {
        let ran = self.run(&[words, &["--format", "json"]].concat());
        assert_eq!(ran.code, 0, "robo {words:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// `robo commitment set TEXT` of a wallet.
    fn set<'a>(&'a self, text: &'a str, wallet: &'a str) -> Vec<&'a str> {
        let wallets = self.wallets.path().to_str().unwrap();
        vec!["commitment", "set", text, "--wallet-name", wallet, "--wallets-dir", wallets]
    }

    /// It must be refused with these words.
    fn refused(&self, words: &[&str], code: i32, said: &str) {
        let ran = self.run(words);
        assert_eq!((ran.code, ran.stderr.contains(said)), (code, true), "robo {words:?}: {}", ran.stderr);
    }

    fn wallet(&self, name: &str) -> Wallet {
        Wallet::at(self.wallets.path(), name, "default").unwrap()
    }
}

#[test]
fn a_real_runtime_is_read_committed_to_and_given_weights() {
    let machine = Machine::new();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(a_subnet_is_read(&machine));
    runtime.block_on(its_replay_is_read_alike(&machine));
    everybody_is_listed(&machine);
    nothing_wrong_is_submitted(&machine);
    machine.refused(&machine.set(TEXT, "bob"), 1, "too soon after the last time: the chain's rate limit");
    runtime.block_on(machine.node.remove(LAST_COMMITMENT));
    a_miner_commits(&machine);
    a_validator_sets_weights_and_meets_the_rate_limit(&machine, &runtime);
    runtime.block_on(the_chain_refuses_in_words(&machine));
}

async fn a_subnet_is_read(machine: &Machine) {
    let metagraph = Metagraph::read(&machine.network(), NETUID, patience()).await.unwrap();
    assert_eq!((metagraph.spec_version, metagraph.neurons.len(), metagraph.commitments.len()), (218, 256, 230));
    let hotkeys: BTreeSet<&str> = metagraph.neurons.iter().map(|neuron| neuron.hotkey.as_str()).collect();
    assert_eq!(hotkeys.len(), 256);
    let alice = &metagraph.neurons[0];
    assert_eq!((&*alice.hotkey, alice.validator_permit, alice.active), (ALICE.0, true, true));
    assert!(metagraph.neurons.iter().all(|neuron| neuron.coldkey.is_some() && neuron.registered_at.is_some()));
}

/// The runtime's own description and the recorded storage, replayed without the runtime.
async fn its_replay_is_read_alike(machine: &Machine) {
    let replay = ReplayNode::older(218, machine.node.metadata().await, "net7_pairs.json.gz").await;
    let there = Metagraph::read(&machine.network(), NETUID, patience()).await.unwrap();
    let here = Metagraph::read(&replay.url.parse().unwrap(), NETUID, patience()).await.unwrap();
    assert_eq!((here.spec_version, &here.commitments), (218, &there.commitments));
    let who = |metagraph: &Metagraph| {
        let neurons = metagraph.neurons.iter();
        neurons.map(|it| (it.uid, it.hotkey.clone(), it.coldkey.clone(), it.registered_at)).collect::<Vec<_>>()
    };
    assert_eq!(who(&here), who(&there));
}

fn everybody_is_listed(machine: &Machine) {
    let listed = machine.json(&["miners", "ls"]);
    let miners = listed["miners"].as_array().unwrap();
    assert_eq!(miners.iter().filter(|miner| miner["uid"].is_number()).count(), 256);
    for status in ["ok", "none", "malformed"] {
        assert!(miners.iter().any(|miner| miner["status"] == status), "{status}");
    }
}

fn nothing_wrong_is_submitted(machine: &Machine) {
    machine.refused(&machine.set("hello, world", "bob"), 1, "neither JSON nor");
    machine.refused(&machine.set("bob/policy:deadbeef:e:short", "bob"), 1, "encrypted deployment");
    machine.refused(&machine.set("bob/policy:deadbeef:not a host", "bob"), 1, "cannot be part of a host name");
    machine.refused(&machine.set(TEXT, "nobody"), 2, "there is no hotkey at");
    machine.refused(&machine.set(TEXT, "charlie"), 1, "is not registered on subnet 7");
    machine.refused(&machine.set(TEXT, "torn"), 2, "its seed is that of");
    let long = format!("bob/policy:deadbeef:https://bob.example.org/{}", "x".repeat(100));
    machine.refused(&machine.set(&long, "bob"), 1, "the chain holds 128 at most");
    let before = machine.json(&["commitment", "show", BOB.0]);
    let rehearsed = machine.json(&[&machine.set(TEXT, "bob")[..], &["--dry-run"]].concat());
    assert_eq!((&rehearsed["dry_run"], &rehearsed["status"]), (&true.into(), &"ok".into()), "{rehearsed}");
    let after = machine.json(&["commitment", "show", BOB.0]);
    assert_eq!((&after["written_at"], &after["commitment"]), (&before["written_at"], &before["commitment"]));
}

fn a_miner_commits(machine: &Machine) {
    let done = machine.json(&machine.set(TEXT, "bob"));
    assert_eq!((&done["hotkey"], &done["final"], &done["status"]), (&BOB.0.into(), &true.into(), &"ok".into()));
    let shown = machine.json(&["commitment", "show", BOB.0]);
    assert_eq!((&shown["commitment"], &shown["written_at"]), (&done["commitment"], &done["block"]), "{shown}");
    assert_eq!(shown["commitment"]["model"], "bob/policy");
    // The same again is not sent again.
    let again = machine.json(&machine.set(&format!("  {TEXT}\n"), "bob"));
    assert_eq!((&again["already_in_block"], &again["extrinsic"]), (&done["block"], &Value::Null), "{again}");
}

/// `robo validate --once` of Alice, with a backend that has this to say.
fn validate(machine: &Machine, backend: &WeightsServer) -> Ran {
    let (url, wallets) = (backend.url(), machine.wallets.path().to_str().unwrap());
    let wallet = ["--wallet-name", "alice", "--wallets-dir", wallets];
    machine.run(&[&["validate", "--once", "--format", "json", "--backend-url", &url], &wallet[..]].concat())
}

fn a_validator_sets_weights_and_meets_the_rate_limit(machine: &Machine, runtime: &Runtime) {
    let read = || runtime.block_on(Metagraph::read(&machine.network(), NETUID, patience())).unwrap();
    let metagraph = read();
    let entry =
        |uid: usize, weight: f64| json!({ "uid": uid, "hotkey": metagraph.neurons[uid].hotkey, "weight": weight });
    let document = published(metagraph.block, json!([entry(1, 0.75), entry(2, 0.25)]));
    let backend = runtime.block_on(WeightsServer::start(Some(document)));
    let done = validate(machine, &backend);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    // It has read the weights back itself; that they are the last is what the chain says to others.
    assert_eq!((&done["paid"], &done["block"]), (&json!(2), &json!(read().neurons[0].last_update)), "{done}");
    let again = validate(machine, &backend);
    assert_eq!((again.code, again.stderr.contains("rate limit")), (1, true), "{}", again.stderr);
    assert!(again.stderr.contains("hint: wait "), "{}", again.stderr);
}

/// What the chain itself says when nobody has looked beforehand.
async fn the_chain_refuses_in_words(machine: &Machine) {
    let node = Node::reach(&machine.network(), patience()).await.unwrap();
    let weights = Call::SetWeights { netuid: NETUID, uids: vec![1, 2], values: vec![65535, 30000], version_key: 0 };
    let error = node.submit(&weights, &machine.wallet("alice")).await.unwrap_err();
    let refusal = match &error {
        SubmitError::Refused(refusal) | SubmitError::Failed { refusal, .. } => refusal,
        _ => panic!("{error}"),
    };
    assert_eq!(refusal.reason(), Some(Reason::TooSoon), "{error}");
    assert!(error.remedy().contains("WeightsSetRateLimit"));
    // This runtime is older than timelocked commits.
    let commit = Call::CommitTimelocked { netuid: NETUID, payload: vec![1], reveal_round: 1, version: 4 };
    let error = node.submit(&commit, &machine.wallet("alice")).await.unwrap_err();
    assert!(matches!(&error, SubmitError::NoSuchCall { spec_version: 218, .. }), "{error}");
}
