//! Paired seeds: the same list for every miner, unknown to all of them until the cycle ends.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EnvironmentId;

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
