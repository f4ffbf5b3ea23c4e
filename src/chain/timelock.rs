//! Weights that nobody can read before a round of the public randomness beacon: how commit-reveal takes them. Encrypts, and
//! neither knows the beacon's secret nor asks it for anything.

use std::str::FromStr;

use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use ark_std::rand::{RngCore, rngs::OsRng};
use sha2::{Digest, Sha256};
use subxt::{ext::codec::Encode, utils::AccountId32};
use timelock::{
    block_ciphers::AESGCMBlockCipherProvider,
    engines::{EngineBLS, drand::TinyBLS381},
    ibe::fullident::Identity,
    tlock::tle,
};

use super::Amounts;

/// The public key of drand's quicknet, the beacon that the chain follows.
const BEACON: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451\
                      0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
/// Where the two hashes of the ciphertext's header begin: a point comes first. The chain reads each with its length in front,
/// the library writes them bare.
const HASHES: [usize; 2] = [96, 128];
const HASH: u64 = 32;
/// The longest commit that the chain takes.
const LONGEST: usize = 5000;

/// Why weights cannot be locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLocked {
    /// The address of the hotkey is none.
    #[error("`{0}` is not the address of a hotkey")]
    Hotkey(String),
    /// The library's own word.
    #[error("weights cannot be encrypted: {0}")]
    Encryption(String),
    /// More than a block takes.
    #[error("encrypted, the weights have {0} bytes, and the chain takes {LONGEST}")]
    TooLong(usize),
}

/// Weights of a hotkey, readable from `round` on.
///
/// # Errors
/// [`NotLocked`].
pub fn lock(hotkey: &str, amounts: &Amounts, version_key: u64, round: u64) -> Result<Vec<u8>, NotLocked> {
    let key = AccountId32::from_str(hotkey).map_err(|_| NotLocked::Hotkey(hotkey.to_owned()))?;
    let locked = encrypt(&payload(&key, amounts, version_key), round)?;
    if locked.len() > LONGEST { Err(NotLocked::TooLong(locked.len())) } else { Ok(locked) }
}

fn payload(key: &AccountId32, amounts: &Amounts, version_key: u64) -> Vec<u8> {
    (key.0.to_vec(), &amounts.uids, &amounts.values, version_key).encode()
}

fn encrypt(message: &[u8], round: u64) -> Result<Vec<u8>, NotLocked> {
    let wrong = |error: String| NotLocked::Encryption(error);
    let beacon = hex::decode(BEACON).map_err(|error| wrong(error.to_string()))?;
    let beacon = <TinyBLS381 as EngineBLS>::PublicKeyGroup::deserialize_compressed(&beacon[..])
        .map_err(|error| wrong(error.to_string()))?;
    let mut key = [0; 32];
    OsRng.fill_bytes(&mut key);
    let identity = Identity::new(b"", &Sha256::digest(round.to_be_bytes()));
    let ciphertext = tle::<TinyBLS381, AESGCMBlockCipherProvider, _>(beacon, key, message, identity, OsRng)
        .map_err(|error| wrong(format!("{error:?}")))?;
    let mut bytes = Vec::new();
    ciphertext.serialize_compressed(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    Ok(with_lengths(&bytes))
}

fn with_lengths(bare: &[u8]) -> Vec<u8> {
    let [first, second] = HASHES;
    let length = HASH.to_le_bytes();
    [&bare[..first], &length, &bare[first..second], &length, &bare[second..]].concat()
}

#[cfg(test)]
mod tests {
    use timelock::tlock::{TLECiphertext, tld};

    use super::*;

    /// What the beacon published in its round 1000.
    const ROUND: u64 = 1000;
    const SIGNATURE: &str =
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
    /// The payload of [`amounts`], encrypted to that round by `bittensor-drand` 2.0, the reference client's library.
    const OF_THE_REFERENCE: &str = "8aff0d37018dea86ebade66afb40e0d74fc31ce44c3d43b13efb27312033b0502042f25dbf624dc8726d948d508aab84188c5b7553bfd896e599128337841adf5550c2c6fc49b7da1f75b665bde097c82a3c4e225ce1e4c6e058e532f31745722000000000000000587669428f3eb5a17ad44254c2b919305be374c4efeacdaaeceb0c97bac0cb9b2000000000000000abdda6690ef80a368a674be5a4307f221cf90d7d79a3267d52b69cfc7304864d5f000000000000004300000000000000024c45c9b9d1a166644442293fa803a1d6f60cb2f83435989c84c825a7c57af91f47960d74353d95c2460f776049cbae0531dd9db1bbf5bb2c4fdecb8e88803f5a2bc80c00000000000000474c6c48707acb137e79794e08000000000000004145535f47434d5f";
    const PAYLOAD: &str =
        "80000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f080100020008ffff00800700000000000000";

    fn amounts() -> Amounts {
        Amounts { uids: vec![1, 2], values: vec![65535, 32768] }
    }

    fn key() -> AccountId32 {
        AccountId32(std::array::from_fn(|at| at as u8))
    }

    /// As the chain reads it: the hashes with their lengths, which this library's reader does not know.
    fn unlock(locked: &[u8]) -> Vec<u8> {
        let length = HASH.to_le_bytes();
        assert_eq!((&locked[96..104], &locked[136..144]), (&length[..], &length[..]));
        let bare = [&locked[..96], &locked[104..136], &locked[144..]].concat();
        let ciphertext = TLECiphertext::<TinyBLS381>::deserialize_compressed(&bare[..]).unwrap();
        let signature = hex::decode(SIGNATURE).unwrap();
        let signature = <TinyBLS381 as EngineBLS>::SignatureGroup::deserialize_compressed(&signature[..]).unwrap();
        tld::<TinyBLS381, AESGCMBlockCipherProvider>(ciphertext, signature).unwrap()
    }

    #[test]
    fn it_is_the_layout_of_the_reference() {
        assert_eq!(hex::encode(payload(&key(), &amounts(), 7)), PAYLOAD);
        assert_eq!(hex::encode(unlock(&hex::decode(OF_THE_REFERENCE).unwrap())), PAYLOAD);
    }

    #[test]
    fn the_beacon_opens_it_in_its_round() {
        let locked = lock(&key().to_string(), &amounts(), 7, ROUND).unwrap();
        assert_eq!(locked.len(), OF_THE_REFERENCE.len() / 2);
        assert_eq!(hex::encode(unlock(&locked)), PAYLOAD);
        assert_ne!(locked, lock(&key().to_string(), &amounts(), 7, ROUND).unwrap(), "the same key is never used twice");
    }

    #[test]
    fn what_cannot_be_locked_is_said() {
        assert_eq!(lock("somebody", &amounts(), 0, ROUND), Err(NotLocked::Hotkey("somebody".into())));
        let many = Amounts { uids: (0..2000).collect(), values: vec![1; 2000] };
        assert!(matches!(lock(&key().to_string(), &many, 0, ROUND), Err(NotLocked::TooLong(_))));
    }
}
