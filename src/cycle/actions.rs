//! The actions of an episode, small enough to keep: what its miner answered, step by step, so that it can be played again.

use std::io::{self, Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most that is kept of one episode; one that needs more is not kept at all.
const LARGEST: usize = 512 << 10;

/// The most numbers that are unpacked: no environment has a million steps of a thousand numbers and is kept.
const MOST_BYTES: u64 = 256 << 20;

/// Actions one after the other, 64-bit floats, little-endian, deflated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actions(Vec<u8>);

impl Actions {
    /// Pack the numbers of all actions; none when they take too much even so.
    pub fn pack(numbers: &[f64]) -> Option<Self> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        numbers.iter().try_for_each(|number| encoder.write_all(&number.to_le_bytes())).ok()?;
        encoder.finish().ok().filter(|bytes| bytes.len() <= LARGEST).map(Self)
    }

    /// What was stored.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The actions, each of `size` numbers.
    ///
    /// # Errors
    /// When the bytes are damaged, or not of whole actions of that size.
    pub fn unpack(&self, size: usize) -> io::Result<Vec<Vec<f64>>> {
        let mut bytes = Vec::new();
        ZlibDecoder::new(self.0.as_slice()).take(MOST_BYTES).read_to_end(&mut bytes)?;
        let (numbers, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || size == 0 || numbers.len() % size != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the actions are not whole"));
        }
        let numbers: Vec<f64> = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        Ok(numbers.chunks(size).map(<[f64]>::to_vec).collect())
    }
}

impl Serialize for Actions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| de::Error::custom("actions are Base64"))
    }
}

/// Which episodes keep their actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// None.
    #[default]
    Nothing,
    /// Those that were no success.
    Failures,
    /// All.
    All,
}

impl Keep {
    /// Whether it is the default.
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_bit_by_bit(numbers in prop::collection::vec(any::<f64>(), 0..60)) {
            let whole = &numbers[..numbers.len() / 3 * 3];
            let text = serde_json::to_string(&Actions::pack(whole).unwrap()).unwrap();
            let actions: Actions = serde_json::from_str(&text).unwrap();
            let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&actions.unpack(3).unwrap().concat()), bits(whole));
        }
    }

    #[test]
    fn what_is_damaged_or_too_large_is_refused() {
        let actions = Actions::pack(&[1.0, 2.0, 3.0]).unwrap();
        assert!(actions.unpack(2).is_err() && actions.unpack(0).is_err());
        assert!(Actions::from_bytes(vec![1, 2, 3]).unpack(1).is_err());
        let noise: Vec<f64> = (0..200_000u64).map(|n| f64::from_bits(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert_eq!(Actions::pack(&noise), None);
        assert!(serde_json::from_str::<Actions>("\"!\"").is_err());
    }
}
