//! A subnet as a validator has to know it before it sets weights: who has which slot, what the chain demands of weights, and
//! how the validator itself stands. Read at the best block, by what the runtime says of itself.
//!
//! It reports and never judges. What a runtime does not have is `None`, or the value that the chain itself falls back to.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use scale_decode::DecodeAsType;
use serde::Serialize;
use subxt::{
    constants, dynamic,
    ext::frame_decode::{helpers::IntoEncodableValues, storage::IntoDecodableValues},
    storage::DynamicAddress,
    utils::AccountId32,
};

use super::{
    Network,
    metagraph::by_uid,
    network::shown,
    node::{AtBlock, Node, Patience, Problem, Unreachable},
    reveal::{Epochs, Reveal},
};

/// The pallet that all of it is in.
const PALLET: &str = "SubtensorModule";
/// Seconds from block to block where the chain does not say.
const BLOCK_TIME: Duration = Duration::from_secs(12);
/// The account that stands for nobody.
const NOBODY: [u8; 32] = [0; 32];
/// The subnet whose stake is in TAO.
const ROOT: u16 = 0;

/// A subnet at the best block.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subnet {
    /// Which.
    pub netuid: u16,
    /// Number of the block.
    pub block: u64,
    /// Its hash, as `0x` and digits.
    pub hash: String,
    /// Hash of block 0.
    pub genesis: String,
    /// The node that was read.
    pub node: String,
    /// Time from block to block.
    pub block_time: Duration,
    /// Whether there is such a subnet.
    pub exists: bool,
    /// Who is registered, by uid.
    pub slots: BTreeMap<u16, Slot>,
    /// The hotkey of the subnet's owner.
    pub owner: Option<String>,
    /// What the chain demands.
    pub rules: Rules,
    /// How the validator stands; nothing when it is not registered.
    pub seat: Option<Seat>,
}

/// A slot and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its hotkey (SS58, prefix 42).
    pub hotkey: String,
    /// Block of its registration.
    pub registered_at: Option<u64>,
}

/// What a chain demands of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Blocks between two submissions.
    pub rate_limit: u64,
    /// The least version that a client has to state, 0 for any.
    pub version_key: u64,
    /// The least number of weights.
    pub min_allowed: u16,
    /// The largest share of one, of 65535.
    pub max_limit: u16,
    /// Blocks of an epoch.
    pub tempo: u16,
    /// The least stake, in rao.
    pub stake_threshold: u64,
    /// How weights are committed and revealed, where they are not set openly.
    pub reveal: Option<Reveal>,
}

/// How a validator stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seat {
    /// Its slot.
    pub uid: u16,
    /// Block in which it last set or committed weights.
    pub last_update: u64,
    /// Whether it may weigh others.
    pub has_permit: bool,
    /// Its stake as the chain counts it here, in rao: its own, what parents lend it, and TAO by the chain's weight. Nothing
    /// where the runtime keeps stake elsewhere.
    pub stake: Option<f64>,
    /// The weights that stand on the chain as its own, by uid: those that it set last, or that were revealed last.
    pub weights: BTreeMap<u16, u16>,
}

impl Subnet {
    /// Read a subnet, as it concerns this hotkey, from the first good node.
    ///
    /// # Errors
    /// [`Unreachable`], with what was wrong with each node.
    pub async fn read(network: &Network, netuid: u16, hotkey: &str, patience: Patience) -> Result<Self, Unreachable> {
        let hotkey = AccountId32::from_str(hotkey);
        Node::with(network, patience, |node| {
            let hotkey = hotkey.as_ref().ok().copied();
            async move {
                let at = node.latest(network).await?;
                Reading { at, netuid }.all(&node, hotkey).await
            }
        })
        .await
    }

    /// The slot of a hotkey.
    pub fn uid_of(&self, hotkey: &str) -> Option<u16> {
        self.slots.iter().find(|(_, slot)| slot.hotkey == hotkey).map(|(uid, _)| *uid)
    }

    /// The slot of the subnet's owner, whose share is burnt.
    pub fn owner_uid(&self) -> Option<u16> {
        self.uid_of(self.owner.as_deref()?)
    }
}

/// A reading in progress: all of it at one block.
pub(super) struct Reading {
    pub(super) at: AtBlock,
    pub(super) netuid: u16,
}

impl Reading {
    async fn all(&self, node: &Node, hotkey: Option<AccountId32>) -> Result<Subnet, Problem> {
        let slots = self.slots().await?;
        let rules = self.rules().await?;
        let owner: Option<AccountId32> = self.of_subnet("SubnetOwnerHotkey").await?;
        let address = hotkey.map(|hotkey| hotkey.to_string());
        let uid = slots.iter().find(|(_, slot)| Some(&slot.hotkey) == address.as_ref()).map(|(uid, _)| *uid);
        let seat = match (uid, hotkey) {
            (Some(uid), Some(hotkey)) => Some(self.seat(uid, hotkey).await?),
            _ => None,
        };
        Ok(Subnet {
            netuid: self.netuid,
            block: self.at.block_number(),
            hash: format!("{:?}", self.at.block_hash()),
            genesis: format!("{:?}", node.api.genesis_hash()),
            node: shown(node.url()).to_owned(),
            block_time: self.block_time(),
            // A runtime that does not keep a list has those subnets that somebody is on.
            exists: self.of_subnet("NetworksAdded").await?.unwrap_or(!slots.is_empty()),
            slots,
            owner: owner.filter(|owner| owner.0 != NOBODY).map(|owner| owner.to_string()),
            rules,
            seat,
        })
    }

    async fn slots(&self) -> Result<BTreeMap<u16, Slot>, Problem> {
        let hotkeys: BTreeMap<u16, AccountId32> = by_uid(&self.at, self.netuid, "Keys").await?;
        let registered: BTreeMap<u16, u64> = by_uid(&self.at, self.netuid, "BlockAtRegistration").await?;
        let slot = |(uid, hotkey): (u16, AccountId32)| {
            (uid, Slot { hotkey: hotkey.to_string(), registered_at: registered.get(&uid).copied() })
        };
        Ok(hotkeys.into_iter().map(slot).collect())
    }

    async fn rules(&self) -> Result<Rules, Problem> {
        let tempo = self.of_subnet("Tempo").await?.unwrap_or_default();
        let is_hidden = self.of_subnet("CommitRevealWeightsEnabled").await?.unwrap_or(false);
        Ok(Rules {
            rate_limit: self.of_subnet("WeightsSetRateLimit").await?.unwrap_or_default(),
            version_key: self.of_subnet("WeightsVersionKey").await?.unwrap_or_default(),
            min_allowed: self.of_subnet("MinAllowedWeights").await?.unwrap_or_default(),
            max_limit: self.of_subnet("MaxWeightsLimit").await?.unwrap_or(u16::MAX),
            tempo,
            stake_threshold: self.of_all("StakeThreshold").await?.unwrap_or_default(),
            reveal: if is_hidden { Some(self.reveal().await?) } else { None },
        })
    }

    async fn reveal(&self) -> Result<Reveal, Problem> {
        let last: Option<u64> = self.of_subnet("LastEpochBlock").await?;
        let epochs = match last {
            None => Epochs::ByNumber { netuid: self.netuid },
            Some(last) => Epochs::FromTheLast {
                last,
                pending: self.of_subnet("PendingEpochAt").await?.unwrap_or_default(),
                since: self.of_subnet("BlocksSinceLastStep").await?.unwrap_or_default(),
            },
        };
        Ok(Reveal {
            version: self.of_all("CommitRevealWeightsVersion").await?.unwrap_or(4),
            period: self.of_subnet("RevealPeriodEpochs").await?.unwrap_or(1),
            epochs,
        })
    }

    async fn seat(&self, uid: u16, hotkey: AccountId32) -> Result<Seat, Problem> {
        let updates: Vec<u64> = self.of_subnet("LastUpdate").await?.unwrap_or_default();
        let permits: Vec<bool> = self.of_subnet("ValidatorPermit").await?.unwrap_or_default();
        Ok(Seat {
            uid,
            last_update: updates.get(usize::from(uid)).copied().unwrap_or_default(),
            has_permit: permits.get(usize::from(uid)).copied().unwrap_or_default(),
            stake: self.stake(hotkey).await?,
            weights: self.weights(uid).await?,
        })
    }

    pub(super) async fn weights(&self, uid: u16) -> Result<BTreeMap<u16, u16>, Problem> {
        let row: Option<Vec<(u16, u16)>> = self.item("Weights", (self.netuid, uid)).await?;
        Ok(row.unwrap_or_default().into_iter().collect())
    }

    /// Its own stake less what it lends to children, and what parents lend to it: in this subnet's token, and in TAO as far
    /// as the chain counts TAO.
    async fn stake(&self, hotkey: AccountId32) -> Result<Option<f64>, Problem> {
        let Some(own) = self.staked(hotkey, self.netuid).await? else { return Ok(None) };
        let own_tao = self.staked(hotkey, ROOT).await?.unwrap_or_default();
        let lent = self.relatives("ChildKeys", hotkey).await?.iter().map(|(share, _)| share).sum::<f64>();
        let (mut here, mut tao) = (own * (1.0 - lent).max(0.0), own_tao * (1.0 - lent).max(0.0));
        for (share, parent) in self.relatives("ParentKeys", hotkey).await? {
            here += share * self.staked(parent, self.netuid).await?.unwrap_or_default();
            tao += share * self.staked(parent, ROOT).await?.unwrap_or_default();
        }
        let weight: u64 = self.of_all("TaoWeight").await?.unwrap_or_default();
        Ok(Some(here + tao * (weight as f64 / u64::MAX as f64)))
    }

    async fn staked(&self, hotkey: AccountId32, netuid: u16) -> Result<Option<f64>, Problem> {
        let stake: Option<u64> = self.item("TotalHotkeyAlpha", (hotkey, netuid)).await?;
        Ok(stake.map(|stake| stake as f64))
    }

    /// Hotkeys that lend stake to this one or borrow from it, with the share of it.
    async fn relatives(&self, map: &str, hotkey: AccountId32) -> Result<Vec<(f64, AccountId32)>, Problem> {
        let found: Option<Vec<(u64, AccountId32)>> = self.item(map, (hotkey, self.netuid)).await?;
        let share = |(part, hotkey)| (part as f64 / u64::MAX as f64, hotkey);
        Ok(found.unwrap_or_default().into_iter().map(share).collect())
    }

    fn block_time(&self) -> Duration {
        let slot = self.at.constants().entry(constants::dynamic::<u64>("Aura", "SlotDuration"));
        slot.ok().filter(|millis| *millis > 0).map_or(BLOCK_TIME, Duration::from_millis)
    }

    /// What stands under the subnet's number.
    async fn of_subnet<T: DecodeAsType>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.item(name, (self.netuid,)).await
    }

    /// What holds for all subnets; some of it older runtimes have for each subnet.
    async fn of_all<T: DecodeAsType>(&self, name: &str) -> Result<Option<T>, Problem> {
        let storage = self.at.storage();
        let is_map = storage.entry(dynamic::storage::<(), T>(PALLET, name)).is_ok_and(|entry| entry.is_map());
        if is_map { self.of_subnet(name).await } else { self.item(name, ()).await }
    }

    /// What stands under some keys, or the chain's default for it; nothing where the runtime knows of no such entry.
    pub(super) async fn item<K, T>(&self, name: &str, keys: K) -> Result<Option<T>, Problem>
    where
        K: IntoEncodableValues + IntoDecodableValues,
        T: DecodeAsType,
    {
        let storage = self.at.storage();
        let address: DynamicAddress<K, T> = dynamic::storage(PALLET, name);
        let Ok(entry) = storage.entry(address) else { return Ok(None) };
        let Some(value) = entry.try_fetch(keys).await? else { return Ok(None) };
        value.decode().map(Some).map_err(Problem::unreadable)
    }
}
