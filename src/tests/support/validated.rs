//! Subnet 7 as a node replays it, with //Alice as its validator (uid 0), and rules that a test can change by their names.

use std::path::Path;

use robo::chain::{Network, Patience, Wallet};
use subxt::{
    OnlineClient, SubstrateConfig,
    client::{ClientAtBlock, OnlineClientAtBlockImpl},
    dynamic,
    ext::{
        codec::Encode,
        frame_decode::{helpers::IntoEncodableValues, storage::IntoDecodableValues},
        scale_value::Value,
    },
};

use super::{
    replay_node::{Fault, ReplayNode},
    replay_pool::Keys,
};

pub(crate) const NETUID: u16 = 7;
/// The well-known development account //Alice: its address and its secret.
pub(crate) const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
pub(crate) const SECRET: &str = "e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";

/// A node, and its storage by name.
pub(crate) struct Chain {
    pub(crate) node: ReplayNode,
    at: ClientAtBlock<SubstrateConfig, OnlineClientAtBlockImpl<SubstrateConfig>>,
}

impl Chain {
    pub(crate) async fn start() -> Self {
        let node = ReplayNode::start(Fault::None).await;
        let api = OnlineClient::<SubstrateConfig>::from_insecure_url(&node.url).await.unwrap();
        let at = api.at_block(100_u64).await.unwrap();
        let chain = Self { node, at };
        *chain.node.pool().keys.lock().unwrap() = Keys {
            weights: chain.key("Weights", (NETUID, 0_u16)),
            last_update: chain.key("LastUpdate", (NETUID,)),
            commits: chain.key("TimelockedWeightCommits", (NETUID, 0_u64)),
            events: chain.key_of("System", "Events", ()),
            signer: account(ALICE),
        };
        chain
    }

    /// What stands under this name, from now on.
    pub(crate) fn set<K: IntoEncodableValues + IntoDecodableValues>(&self, entry: &str, keys: K, value: impl Encode) {
        self.node.put(&self.key(entry, keys), Some(&value.encode()));
    }

    /// Nothing stands there any more.
    pub(crate) fn unset<K: IntoEncodableValues + IntoDecodableValues>(&self, entry: &str, keys: K) {
        self.node.put(&self.key(entry, keys), None);
    }

    /// Give a slot to a hotkey in a block.
    pub(crate) fn seat(&self, uid: u16, hotkey: &str, block: u64) {
        self.set("Keys", (NETUID, uid), account(hotkey));
        self.set("BlockAtRegistration", (NETUID, uid), block);
    }

    fn key<K: IntoEncodableValues + IntoDecodableValues>(&self, entry: &str, keys: K) -> String {
        self.key_of("SubtensorModule", entry, keys)
    }

    fn key_of<K: IntoEncodableValues + IntoDecodableValues>(&self, pallet: &str, entry: &str, keys: K) -> String {
        let entry = self.at.storage().entry(dynamic::storage::<K, Value>(pallet, entry)).unwrap();
        format!("0x{}", hex::encode(entry.fetch_key(keys).unwrap()))
    }

    pub(crate) fn network(&self) -> Network {
        self.node.url.parse().unwrap()
    }
}

/// Times that a busy machine keeps.
pub(crate) fn patience() -> Patience {
    use std::time::Duration;
    Patience { connect: Duration::from_secs(60), read: Duration::from_secs(120), rounds: 1 }
}

/// An account by its address.
pub(crate) fn account(hotkey: &str) -> [u8; 32] {
    hotkey.parse::<subxt::utils::AccountId32>().unwrap().0
}

/// The address of a hotkey that nobody has.
pub(crate) fn stranger(number: u8) -> String {
    subxt::utils::AccountId32([number; 32]).to_string()
}

/// //Alice's wallet in a folder of wallets, under the names `alice` and `default`.
pub(crate) fn wallet(wallets: &Path) -> Wallet {
    let hotkeys = wallets.join("alice/hotkeys");
    std::fs::create_dir_all(&hotkeys).unwrap();
    let file = serde_json::json!({ "secretSeed": format!("0x{SECRET}"), "ss58Address": ALICE });
    std::fs::write(hotkeys.join("default"), file.to_string()).unwrap();
    Wallet::at(wallets, "alice", "default").unwrap()
}
