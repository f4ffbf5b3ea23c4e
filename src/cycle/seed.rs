//! Paired seeds: the same list for every miner, unknown to all of them until the cycle ends.
//!
//! Each miner meets the list in an order of its own, also unknown, so that two miners cannot tell by counting that they are at
//! the same seed. The order mixes seeds within windows of [`WINDOW`]: whoever compares miners block by block, as soon as both
//! have played the same seeds, needs only whole windows.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EnvironmentId;

/// Seeds that are mixed with each other. Large enough that one guess in sixteen is right, small enough that a comparison by
/// blocks can stop early: a list of 50 has three whole windows.
pub const WINDOW: u32 = 16;

/// The secret of a cycle: 32 bytes, committed to by their hash when the cycle starts, shown when it ends.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Salt([u8; 32]);

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a salt is 64 hexadecimal digits (32 bytes)")]
pub struct InvalidSalt;

impl Salt {
    /// A fresh salt from the operating system's random source.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256 of the salt in hex: what is published before the first episode.
    pub fn commitment(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    /// Seed of episode `index` in `environment`: the first four bytes, big-endian, of
    /// HMAC-SHA256(salt, environment ‖ 0x00 ‖ index as u64 big-endian). 32 bits because that is the
    /// range every simulator's seeding accepts.
    pub fn seed(&self, environment: &EnvironmentId, index: u32) -> u32 {
        let bytes = self.derive(environment.as_str(), index, "");
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// The opaque id a miner sees for an episode. It is derived from the same secret with the miner's hotkey,
    /// so two miners cannot tell that they met the same seed.
    pub fn episode_id(&self, environment: &EnvironmentId, index: u32, hotkey: &str) -> String {
        hex::encode(&self.derive(environment.as_str(), index, hotkey)[16..32])
    }

    /// In which order a miner meets the seeds 0 to `episodes - 1` of `environment`. Within each window of [`WINDOW`] seeds, the
    /// last one may be shorter, they are sorted by HMAC-SHA256(salt, "order" ‖ 0x00 ‖ environment ‖ 0x00 ‖ hotkey ‖ 0x00 ‖
    /// index as u64 big-endian).
    pub fn order(&self, environment: &EnvironmentId, hotkey: &str, episodes: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..episodes).collect();
        for window in order.chunks_mut(WINDOW as usize) {
            window.sort_by_cached_key(|index| self.order_key(environment.as_str(), hotkey, *index));
        }
        order
    }

    /// The place of each seed in [`Salt::order`].
    pub fn places(&self, environment: &EnvironmentId, hotkey: &str, episodes: u32) -> Vec<u32> {
        let mut places = vec![0; episodes as usize];
        for (place, index) in (0..).zip(self.order(environment, hotkey, episodes)) {
            places[index as usize] = place;
        }
        places
    }

    fn order_key(&self, environment: &str, hotkey: &str, index: u32) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in ["order", environment, hotkey] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(&u64::from(index).to_be_bytes());
        mac.finalize().into_bytes().into()
    }

    fn derive(&self, environment: &str, index: u32, hotkey: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(environment.as_bytes());
        mac.update(&[0]);
        mac.update(&u64::from(index).to_be_bytes());
        if !hotkey.is_empty() {
            mac.update(&[0]);
            mac.update(hotkey.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl FromStr for Salt {
    type Err = InvalidSalt;

    fn from_str(text: &str) -> Result<Self, InvalidSalt> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidSalt)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Salt {
    type Error = InvalidSalt;

    fn try_from(text: String) -> Result<Self, InvalidSalt> {
        text.parse()
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> Self {
        hex::encode(salt.0)
    }
}

/// Debug output shows only the commitment: a salt in a log would give every seed away.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Salt(sha256:{})", self.commitment())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn salt() -> Salt {
        "00".repeat(32).parse().unwrap()
    }

    #[test]
    fn seeds_are_pinned() {
        // Computed with Python: hmac.new(bytes(32), b"metaworld/reach-v3\0" + (0).to_bytes(8, "big"), "sha256").
        let environment: EnvironmentId = "metaworld/reach-v3".parse().unwrap();
        assert_eq!(salt().seed(&environment, 0), 0xf063_ea84);
    }

    #[test]
    fn orders_are_pinned() {
        // Computed with Python: for each window of 16, sorted(window, key=lambda k: hmac.new(bytes(32),
        // b"order\0metaworld/reach-v3\0" + hotkey + b"\0" + k.to_bytes(8, "big"), "sha256").digest()).
        let environment: EnvironmentId = "metaworld/reach-v3".parse().unwrap();
        let order = |hotkey: &str| salt().order(&environment, hotkey, 20);
        assert_eq!(order("5Fx"), [7, 14, 5, 0, 11, 4, 12, 13, 10, 1, 6, 8, 9, 2, 3, 15, 19, 18, 16, 17]);
        assert_eq!(order("5Fy"), [3, 7, 14, 1, 8, 10, 5, 15, 2, 4, 11, 6, 0, 9, 13, 12, 19, 18, 17, 16]);
    }

    proptest! {
        #[test]
        fn an_order_is_a_permutation_that_stays_within_its_windows(
            bytes: [u8; 32], hotkey in "[a-z]{1,8}", episodes in 0u32..100,
        ) {
            let environment: EnvironmentId = "m/a".parse().unwrap();
            let order = Salt(bytes).order(&environment, &hotkey, episodes);
            prop_assert!((0..).zip(&order).all(|(place, index): (u32, _)| place / WINDOW == index / WINDOW));
            let places = Salt(bytes).places(&environment, &hotkey, episodes);
            prop_assert!((0..).zip(&order).all(|(place, index): (u32, _)| places[*index as usize] == place));
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..episodes).collect::<Vec<_>>());
            // A longer list begins with the same whole windows.
            let longer = Salt(bytes).order(&environment, &hotkey, episodes + 40);
            let whole = (episodes - episodes % WINDOW) as usize;
            prop_assert_eq!(&longer[..whole], &Salt(bytes).order(&environment, &hotkey, episodes)[..whole]);
        }

        #[test]
        fn orders_differ_by_miner_environment_and_salt(bytes: [u8; 32], other: [u8; 32], x in "[a-z]{1,8}", y in "[a-z]{1,8}") {
            prop_assume!(bytes != other && x != y);
            let (a, b): (EnvironmentId, EnvironmentId) = ("m/a".parse().unwrap(), "m/b".parse().unwrap());
            let order = Salt(bytes).order(&a, &x, 64);
            prop_assert_ne!(&order, &Salt(bytes).order(&a, &y, 64));
            prop_assert_ne!(&order, &Salt(bytes).order(&b, &x, 64));
            prop_assert_ne!(&order, &Salt(other).order(&a, &x, 64));
        }
    }

    #[test]
    fn who_counts_another_miners_episodes_guesses_one_seed_in_a_window() {
        let environment: EnvironmentId = "m/a".parse().unwrap();
        // Scouts and a follower, each of whom knows how many episodes every one of them has been given so far.
        let follower = salt().order(&environment, "follower", 16);
        let right = (0..1000).map(|scout| {
            let scout = salt().order(&environment, &format!("scout{scout}"), 16);
            scout.iter().zip(&follower).filter(|(theirs, ours)| theirs == ours).count()
        });
        // A random permutation of any length has one fixed point on average.
        let right = right.sum::<usize>() as f64 / 1000.0;
        assert!((0.85..1.15).contains(&right), "{right} of 16");
    }

    #[test]
    fn seeds_and_ids_differ_by_index_environment_and_miner() {
        let (a, b): (EnvironmentId, EnvironmentId) = ("m/a".parse().unwrap(), "m/b".parse().unwrap());
        let seeds: HashSet<u32> = (0..500).flat_map(|k| [salt().seed(&a, k), salt().seed(&b, k)]).collect();
        assert_eq!(seeds.len(), 1000);
        assert_ne!(salt().episode_id(&a, 0, "x"), salt().episode_id(&a, 0, "y"));
    }

    #[test]
    fn the_debug_form_hides_the_salt() {
        assert!(!format!("{:?}", salt()).contains(&"00".repeat(32)));
    }
}
