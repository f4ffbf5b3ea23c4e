//! A subnet at one block: who is registered, and what they committed. Read by what the runtime says of itself, so that a new
//! runtime needs no new robo.

use std::collections::{BTreeMap, HashMap};

use scale_decode::{
    DecodeAsType, IntoVisitor, TypeResolver,
    visitor::{TypeIdFor, Visitor, types::Variant},
};
use serde::{Deserialize, Serialize};
use subxt::{dynamic, rpcs::client::rpc_params, utils::AccountId32};

use super::{
    Network,
    node::{AtBlock, Node, Patience, Problem, Unreachable},
};

/// Everything that a discovery reads, at one finalized block.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metagraph {
    /// Hash of the chain's block 0, as `0x` and digits.
    pub genesis: String,
    /// The subnet.
    pub netuid: u16,
    /// Number of the block.
    pub block: u64,
    /// Its hash, as `0x` and digits.
    pub hash: String,
    /// Version of the runtime.
    pub spec_version: u32,
    /// The node that was read.
    pub node: String,
    /// Who is registered, by uid.
    pub neurons: Vec<Neuron>,
    /// Commitments by hotkey; it may be one that is no longer registered.
    pub commitments: BTreeMap<String, OnChain>,
}

/// A slot of the subnet and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neuron {
    /// The slot.
    pub uid: u16,
    /// Who serves, as an address (SS58, prefix 42).
    pub hotkey: String,
    /// Who owns, where the chain says it.
    pub coldkey: Option<String>,
    /// Block of its last weights.
    pub last_update: u64,
    /// Whether the chain counts it as active.
    pub active: bool,
    /// Whether it may set weights.
    pub validator_permit: bool,
    /// Block of its registration.
    pub registered_at: Option<u64>,
}

/// A commitment as the chain holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnChain {
    /// Block in which it was written; for one that was locked, in which it was revealed.
    pub block: u64,
    /// What it holds.
    pub content: Content,
}

/// What a commitment's first field holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Bytes, meant as text.
    Text(Vec<u8>),
    /// Encrypted until a round of the public randomness beacon.
    Locked {
        /// The round.
        reveal_round: u64,
    },
    /// Nothing.
    Empty,
    /// Anything else, by the chain's name for it.
    Other(String),
}

#[derive(DecodeAsType)]
struct Registration {
    block: u32,
    info: Info,
}

#[derive(DecodeAsType)]
struct Info {
    fields: Vec<Field>,
}

/// A field of a commitment.
struct Field(Content);

impl Metagraph {
    /// Read a subnet from the first good node.
    ///
    /// # Errors
    /// [`Unreachable`], with what was wrong with each node.
    pub async fn read(network: &Network, netuid: u16, patience: Patience) -> Result<Self, Unreachable> {
        Node::with(network, patience, |node| async move {
            let at = node.finalized(network).await?;
            Reading { node: &node, at, netuid }.all().await
        })
        .await
    }
}

/// A map from uids of a subnet, at one block.
pub(super) async fn by_uid<T: DecodeAsType>(
    at: &AtBlock,
    netuid: u16,
    name: &str,
) -> Result<BTreeMap<u16, T>, Problem> {
    let address = dynamic::storage::<(u16, u16), T>("SubtensorModule", name);
    let mut entries = at.storage().iter(address, (netuid,)).await?;
    let mut found = BTreeMap::new();
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let (_, uid) = entry.key().map_err(Problem::unreadable)?.decode().map_err(Problem::unreadable)?;
        found.insert(uid, entry.value().decode().map_err(Problem::unreadable)?);
    }
    Ok(found)
}

/// A reading in progress: all of it at one block.
struct Reading<'a> {
    node: &'a Node,
    at: AtBlock,
    netuid: u16,
}

impl Reading<'_> {
    async fn all(&self) -> Result<Metagraph, Problem> {
        let hotkeys: BTreeMap<u16, AccountId32> = by_uid(&self.at, self.netuid, "Keys").await?;
        let registered: BTreeMap<u16, u64> = by_uid(&self.at, self.netuid, "BlockAtRegistration").await?;
        let last_update: Vec<u64> = self.of_subnet("LastUpdate").await?;
        let active: Vec<bool> = self.of_subnet("Active").await?;
        let permit: Vec<bool> = self.of_subnet("ValidatorPermit").await?;
        let owners = self.owners(hotkeys.values()).await?;
        let commitments = self.commitments().await?;
        let neurons = hotkeys
            .iter()
            .map(|(uid, hotkey)| {
                let at = usize::from(*uid);
                Neuron {
                    uid: *uid,
                    hotkey: hotkey.to_string(),
                    coldkey: owners.get(&hotkey.0).map(ToString::to_string),
                    last_update: last_update.get(at).copied().unwrap_or_default(),
                    active: active.get(at).copied().unwrap_or_default(),
                    validator_permit: permit.get(at).copied().unwrap_or_default(),
                    registered_at: registered.get(uid).copied(),
                }
            })
            .collect();
        Ok(Metagraph {
            genesis: format!("{:?}", self.node.api.genesis_hash()),
            netuid: self.netuid,
            block: self.at.block_number(),
            hash: format!("{:?}", self.at.block_hash()),
            spec_version: self.at.spec_version(),
            node: self.node.url().to_owned(),
            neurons,
            commitments,
        })
    }

    /// A vector of the subnet, one element for each uid.
    async fn of_subnet<T: DecodeAsType>(&self, name: &str) -> Result<Vec<T>, Problem> {
        let address = dynamic::storage::<(u16,), Vec<T>>("SubtensorModule", name);
        let value = self.at.storage().fetch(address, (self.netuid,)).await?;
        value.decode().map_err(Problem::unreadable)
    }

    /// Coldkeys by hotkey, all in one request: iteration would go over every subnet.
    async fn owners(
        &self,
        hotkeys: impl Iterator<Item = &AccountId32>,
    ) -> Result<HashMap<[u8; 32], AccountId32>, Problem> {
        #[derive(Deserialize)]
        struct Changes {
            changes: Vec<(String, Option<String>)>,
        }
        let entry =
            self.at.storage().entry(dynamic::storage::<(AccountId32,), AccountId32>("SubtensorModule", "Owner"))?;
        let mut asked = HashMap::new();
        for hotkey in hotkeys {
            asked.insert(format!("0x{}", hex::encode(entry.fetch_key((*hotkey,))?)), hotkey.0);
        }
        let keys: Vec<&String> = asked.keys().collect();
        let parameters = rpc_params![keys, self.at.block_hash()];
        let sets: Vec<Changes> = self
            .node
            .rpc
            .request("state_queryStorageAt", parameters)
            .await
            .map_err(|error| Problem::Rpc(error.to_string()))?;
        let mut owners = HashMap::new();
        for (key, value) in sets.into_iter().flat_map(|set| set.changes) {
            let (Some(hotkey), Some(value)) = (asked.get(&key), value) else { continue };
            let bytes = hex::decode(value.trim_start_matches("0x")).ok().and_then(|bytes| bytes.try_into().ok());
            let bytes: [u8; 32] = bytes.ok_or_else(|| Problem::Unreadable(format!("`{value}` is no account")))?;
            owners.insert(*hotkey, AccountId32(bytes));
        }
        Ok(owners)
    }

    async fn commitments(&self) -> Result<BTreeMap<String, OnChain>, Problem> {
        let address = dynamic::storage::<(u16, AccountId32), Registration>("Commitments", "CommitmentOf");
        let mut entries = self.at.storage().iter(address, (self.netuid,)).await?;
        let mut found = BTreeMap::new();
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let (_, hotkey) = entry.key().map_err(Problem::unreadable)?.decode().map_err(Problem::unreadable)?;
            // What one miner wrote must not cost the others their cycle.
            let on_chain = match entry.value().decode() {
                Ok(Registration { block, info }) => OnChain {
                    block: block.into(),
                    content: info.fields.into_iter().next().map_or(Content::Empty, |field| field.0),
                },
                Err(error) => OnChain { block: 0, content: Content::Other(error.to_string()) },
            };
            found.insert(hotkey.to_string(), on_chain);
        }
        for (hotkey, revealed) in self.revealed().await? {
            let is_locked = |on_chain: &OnChain| matches!(on_chain.content, Content::Locked { .. } | Content::Other(_));
            if found.get(&hotkey).is_none_or(is_locked) {
                found.insert(hotkey, revealed);
            }
        }
        Ok(found)
    }

    /// The last commitment of each hotkey that was locked and has been revealed. Older runtimes have none.
    async fn revealed(&self) -> Result<BTreeMap<String, OnChain>, Problem> {
        let address = dynamic::storage::<(u16, AccountId32), Vec<(Vec<u8>, u64)>>("Commitments", "RevealedCommitments");
        let mut found = BTreeMap::new();
        // Only a runtime without the map has none: a node that fails in the middle must not make anybody look locked.
        let storage = self.at.storage();
        let Ok(entry) = storage.entry(address) else { return Ok(found) };
        let mut entries = entry.iter((self.netuid,)).await?;
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let (_, hotkey) = entry.key().map_err(Problem::unreadable)?.decode().map_err(Problem::unreadable)?;
            let all = entry.value().decode().map_err(Problem::unreadable)?;
            if let Some((payload, block)) = all.into_iter().max_by_key(|(_, block)| *block) {
                let content = Content::Text(without_length(&payload).to_vec());
                found.insert(hotkey.to_string(), OnChain { block, content });
            }
        }
        Ok(found)
    }
}

/// Bytes without the compact length (SCALE) in front of them, where it is the length of what follows.
fn without_length(payload: &[u8]) -> &[u8] {
    let (length, rest) = match payload {
        [one, rest @ ..] if one & 3 == 0 => (u32::from(one >> 2), rest),
        [one, two, rest @ ..] if one & 3 == 1 => (u32::from(u16::from_le_bytes([*one, *two]) >> 2), rest),
        [one, two, three, four, rest @ ..] if one & 3 == 2 => {
            (u32::from_le_bytes([*one, *two, *three, *four]) >> 2, rest)
        }
        _ => return payload,
    };
    if rest.len() == length as usize { rest } else { payload }
}

/// Reads a field by the name of its variant: `None`, `Raw0` to `Raw128`, `BigRaw`, hashes, `TimelockEncrypted` and
/// whatever a later runtime adds.
struct FieldVisitor<R>(std::marker::PhantomData<R>);

impl<R: TypeResolver> Visitor for FieldVisitor<R> {
    type TypeResolver = R;
    type Value<'scale, 'resolver> = Field;
    type Error = scale_decode::Error;

    fn visit_variant<'scale, 'resolver>(
        self,
        variant: &mut Variant<'scale, 'resolver, R>,
        _: TypeIdFor<Self>,
    ) -> Result<Field, scale_decode::Error> {
        let name = variant.name().to_owned();
        let fields = variant.fields();
        Ok(Field(match name.as_str() {
            "None" => Content::Empty,
            "TimelockEncrypted" => {
                fields.decode_item(<Vec<u8>>::into_visitor()).transpose()?;
                let reveal_round = fields.decode_item(u64::into_visitor()).transpose()?.unwrap_or_default();
                Content::Locked { reveal_round }
            }
            raw if raw.starts_with("Raw") || raw == "BigRaw" => {
                Content::Text(fields.decode_item(<Vec<u8>>::into_visitor()).transpose()?.unwrap_or_default())
            }
            _ => Content::Other(name),
        }))
    }
}

impl IntoVisitor for Field {
    type AnyVisitor<R: TypeResolver> = FieldVisitor<R>;

    fn into_visitor<R: TypeResolver>() -> FieldVisitor<R> {
        FieldVisitor(std::marker::PhantomData)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_in_front_is_taken_off_and_nothing_else() {
        assert_eq!(without_length(b"\x0cabc"), b"abc");
        assert_eq!(
            without_length(&[&[1 | (100 << 2) as u8, (100 >> 6) as u8][..], &[b'x'; 100]].concat()),
            [b'x'; 100]
        );
        for text in [&b"abc"[..], b"", b"\x0cab", b"{\"model\":1}"] {
            assert_eq!(without_length(text), text);
        }
    }
}
