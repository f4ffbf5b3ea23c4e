//! A node of the chain that executes a real subtensor runtime (spec 218) on the real storage of subnet 7: `scripts/chain-node
//! run`, for as long as a test holds it. A machine without it fails the test; `scripts/chain-node install` installs it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use subxt::rpcs::{RpcClient, client::rpc_params};

use super::program::repository;

/// A validator with uid 0 on subnet 7: its address, and the seed of `//Alice`, which everybody knows.
pub(crate) const ALICE: (&str, &str) = (
    "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a",
);
/// A miner of that subnet: `//Bob`.
pub(crate) const BOB: (&str, &str) = (
    "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "0x398f0c28f98885e046333d4a41c19cee4c37368a9832c6502f6cfd182e2aef89",
);

/// A node that runs until it is dropped.
pub(crate) struct ChainNode {
    /// `ws://127.0.0.1:PORT`.
    pub(crate) url: String,
    child: Child,
}

impl ChainNode {
    /// Start one and wait until it answers.
    pub(crate) fn start() -> Self {
        let mut child = Command::new(repository().join("scripts/chain-node"))
            .arg("run")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| Some(line.split_once("RPC listening on")?.1.split_once("ws://")?.1.to_owned()));
        // What it says later is read and forgotten, until its end: a full pipe would stop it.
        thread::spawn(move || lines.for_each(drop));
        let node = Self { url: format!("ws://{}", url.as_deref().unwrap_or_default().trim()), child };
        assert!(url.is_some(), "the chain's node does not start; what helps: scripts/chain-node install");
        node
    }

    /// How its runtime describes itself.
    pub(crate) async fn metadata(&self) -> Vec<u8> {
        let rpc = RpcClient::from_insecure_url(&self.url).await.unwrap();
        let hex: String = rpc.request("state_getMetadata", rpc_params![]).await.unwrap();
        hex::decode(hex.trim_start_matches("0x")).unwrap()
    }

    /// Take an entry out of its storage, as if it had never been.
    pub(crate) async fn remove(&self, key: &str) {
        let rpc = RpcClient::from_insecure_url(&self.url).await.unwrap();
        let _: Value = rpc.request("dev_setStorage", rpc_params![json!([[key, null]])]).await.unwrap();
    }
}

impl Drop for ChainNode {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Write a hotkey to `WALLETS/NAME/hotkeys/default`, as wallets have it.
pub(crate) fn write_hotkey(wallets: &Path, name: &str, (address, seed): (&str, &str)) {
    let folder = wallets.join(name).join("hotkeys");
    fs::create_dir_all(&folder).unwrap();
    let file = json!({ "secretPhrase": null, "secretSeed": seed, "ss58Address": address });
    fs::write(folder.join("default"), file.to_string()).unwrap();
}
