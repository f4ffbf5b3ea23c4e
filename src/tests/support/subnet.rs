//! A small subnet of a test's own on the replay node: who is registered where, and what each has committed.
//!
//! It is made of the recorded one, whose keys are taken as they are: what a key is made of (hashes of names) need not be known
//! here. Accounts are those that had committed something, known by their place in the recording.

use std::collections::BTreeMap;

use subxt::utils::AccountId32;

use super::replay_node::ReplayNode;

/// Storage of the runtime: pallet and name, hashed.
const KEYS: &str = "0x658faa385070e074c85bf6b568cf05559f99a2ce711f3a31b2fc05604c93f179";
const REGISTERED_AT: &str = "0x658faa385070e074c85bf6b568cf05555306000b65aa58c97bf98ad9f8619049";
const COMMITMENTS: &str = "0xca407206ec1ab726b2636c4b145ac287419a60ae8b01e6dcaebd7317e43c69bf";

/// The subnet's uid, in the order of its bytes.
const NETUID: &str = "0700";

/// The subnet of a node, and what may stand on it.
pub(crate) struct Subnet<'a> {
    node: &'a ReplayNode,
    /// Keys of the accounts' commitments, which end with the account.
    accounts: Vec<String>,
}

impl<'a> Subnet<'a> {
    /// Nobody is registered and nothing committed from now on.
    pub(crate) fn empty(node: &'a ReplayNode) -> Self {
        let mut accounts = Vec::new();
        node.store(|storage| {
            let of = |map: &str| format!("{map}{NETUID}");
            accounts = storage.keys().filter(|key| key.starts_with(&of(COMMITMENTS))).cloned().collect();
            let gone = [of(KEYS), of(REGISTERED_AT), of(COMMITMENTS)];
            storage.retain(|key, _| !gone.iter().any(|prefix| key.starts_with(prefix)));
        });
        assert!(accounts.len() > 200, "the recorded subnet is there");
        Self { node, accounts }
    }

    /// The hotkey of an account, as people write it.
    pub(crate) fn hotkey(&self, account: usize) -> String {
        let bytes: [u8; 32] = hex::decode(self.account(account)).unwrap().try_into().unwrap();
        AccountId32(bytes).to_string()
    }

    fn account(&self, account: usize) -> &str {
        let key = &self.accounts[account];
        &key[key.len() - 64..]
    }

    /// Give a slot to an account, in a block.
    pub(crate) fn register(&self, uid: u16, account: usize, block: u64) {
        let uid = hex::encode(uid.to_le_bytes());
        self.put(format!("{KEYS}{NETUID}{uid}"), format!("0x{}", self.account(account)));
        self.put(format!("{REGISTERED_AT}{NETUID}{uid}"), format!("0x{}", hex::encode(block.to_le_bytes())));
    }

    /// Have an account commit a text, in a block.
    pub(crate) fn commit(&self, account: usize, block: u32, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length <= 128, "one field holds 128 bytes");
        // A deposit, the block, and one field: `Raw` with its length.
        let value = [&[0; 8][..], &block.to_le_bytes(), &[1 << 2, length + 1], text.as_bytes()].concat();
        self.put(self.accounts[account].clone(), format!("0x{}", hex::encode(value)));
    }

    fn put(&self, key: String, value: String) {
        self.node.store(|storage: &mut BTreeMap<String, String>| drop(storage.insert(key, value)));
    }
}
