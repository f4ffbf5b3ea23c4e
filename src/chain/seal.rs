//! Deployments that only the operator of a backend can read: a miner encrypts the id of its deployment to the backend's
//! public key and commits the result.
//!
//! The layout is that of the subnet's reference: an ephemeral X25519 key, and ChaCha20-Poly1305 under the raw shared
//! secret with the first twelve bytes of SHA-256 of the ephemeral public key as nonce. Ephemeral public key (32 bytes),
//! ciphertext (16, the id as the bytes of a UUID) and tag (16) are written as 80 characters of base85 (RFC 1924).

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, array::Array},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

const KEY: usize = 32;
/// Bytes of a package, and the characters they are written as.
const PACKAGE: usize = 64;
const WRITTEN: usize = PACKAGE / 4 * 5;

/// The digits of base85 in RFC 1924.
const DIGITS: &[u8; 85] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Why a package cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not base85 of RFC 1924.
    #[error("the encrypted deployment is not base85 (RFC 1924)")]
    NotBase85,
    /// Not as many characters as a package is written with.
    #[error("the encrypted deployment has {0} characters instead of {WRITTEN}")]
    Length(usize),
    /// A key that gives everybody the same secret.
    #[error("the encrypted deployment's key is not a key: it would hide nothing")]
    Key,
    /// Made for another key, or changed since.
    #[error("the encrypted deployment was made for another key, or changed since")]
    Tag,
}

/// A private key. Never shown.
pub struct Secret(StaticSecret);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A new one.
    pub fn generate() -> Self {
        Self(StaticSecret::from(rand::random::<[u8; KEY]>()))
    }

    /// From its 32 bytes in hexadecimal digits, with or without `0x`, as files hold it.
    pub fn from_hex(text: &str) -> Option<Self> {
        key(text).map(|bytes| Self(StaticSecret::from(bytes)))
    }

    /// As [`Secret::from_hex`] reads it. For a file that only its owner can read, and nothing else.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0.to_bytes())
    }

    /// What miners encrypt to.
    pub fn public(&self) -> Public {
        Public(PublicKey::from(&self.0))
    }

    /// The id of the deployment in a package.
    ///
    /// # Errors
    /// [`Unreadable`], with the reason.
    pub fn open(&self, base85: &str) -> Result<Uuid, Unreadable> {
        let package = decode(base85)?;
        let (ephemeral, sealed) = package.split_at(KEY);
        let ephemeral: [u8; KEY] = ephemeral.try_into().map_err(|_| Unreadable::Key)?;
        let shared = self.0.diffie_hellman(&PublicKey::from(ephemeral));
        let plain = cipher(&shared)?.decrypt(&nonce(&ephemeral), sealed).map_err(|_| Unreadable::Tag)?;
        Uuid::from_slice(&plain).map_err(|_| Unreadable::Tag)
    }
}

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public(PublicKey);

impl Public {
    /// From its 32 bytes in hexadecimal digits, with or without `0x`.
    pub fn from_hex(text: &str) -> Option<Self> {
        key(text).map(|bytes| Self(PublicKey::from(bytes)))
    }

    /// As [`Public::from_hex`] reads it.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0.as_bytes())
    }

    /// A package that only the owner of the private key can open, as base85.
    ///
    /// # Errors
    /// [`Unreadable::Key`] when this is no key.
    pub fn seal(&self, deployment: Uuid) -> Result<String, Unreadable> {
        self.seal_with(deployment, &Secret::generate())
    }

    fn seal_with(&self, deployment: Uuid, ephemeral: &Secret) -> Result<String, Unreadable> {
        let public = ephemeral.public().0;
        let cipher = cipher(&ephemeral.0.diffie_hellman(&self.0))?;
        let sealed = cipher.encrypt(&nonce(public.as_bytes()), &deployment.as_bytes()[..]);
        // Only plaintexts of many gigabytes are refused.
        let sealed = sealed.map_err(|_| Unreadable::Tag)?;
        Ok(encode(&[public.as_bytes(), &sealed[..]].concat()))
    }
}

fn key(text: &str) -> Option<[u8; KEY]> {
    let text = text.trim();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok()?.try_into().ok()
}

// The libraries for base85 panic, or wrap around, where five digits stand for more than four bytes. Strangers write these.

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(WRITTEN);
    for group in bytes.chunks(4) {
        let number = group.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        text.extend([4, 3, 2, 1, 0].map(|place| char::from(DIGITS[(number / 85u32.pow(place) % 85) as usize])));
    }
    text
}

fn decode(base85: &str) -> Result<[u8; PACKAGE], Unreadable> {
    let length = base85.chars().count();
    if length != WRITTEN {
        return Err(Unreadable::Length(length));
    }
    let mut package = [0; PACKAGE];
    for (digits, bytes) in base85.as_bytes().chunks(5).zip(package.chunks_mut(4)) {
        let mut number = 0_u64;
        for digit in digits {
            let value = DIGITS.iter().position(|known| known == digit).ok_or(Unreadable::NotBase85)?;
            number = number * 85 + value as u64;
        }
        let number = u32::try_from(number).map_err(|_| Unreadable::NotBase85)?;
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    Ok(package)
}

fn cipher(shared: &SharedSecret) -> Result<ChaCha20Poly1305, Unreadable> {
    if !shared.was_contributory() {
        return Err(Unreadable::Key);
    }
    Ok(ChaCha20Poly1305::new(&Array::from(*shared.as_bytes())))
}

fn nonce(ephemeral: &[u8; KEY]) -> chacha20poly1305::Nonce {
    let digest = Sha256::digest(ephemeral);
    let mut nonce = chacha20poly1305::Nonce::default();
    nonce.copy_from_slice(&digest[..12]);
    nonce
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIVATE: &str = "77076d0a7318a57d3c16c17251b26645df4c6a2b9c2e0e0a0d0c0b0a09080706";

    fn secret() -> Secret {
        Secret::from_hex(PRIVATE).unwrap()
    }

    #[test]
    fn a_package_opens_with_its_key_and_no_other() {
        let id = Uuid::from_u128(0x95ed_f2b6_e18b_400a_8398_5573_df10_e5e4);
        let ephemeral = Secret::from_hex("396a02765b0cf6b76270af8a6c9106b613371c3ccdb77af207290e3776727fd8").unwrap();
        let sealed = secret().public().seal_with(id, &ephemeral).unwrap();
        assert_eq!(sealed, "KkIA5Bg?<IltX;d(jcLeZ#)r2(9;I;MNJwL2_r}xJVD@Uyc!+=#et!tIFU7Ts=PGFBk@j17I9vO&-)|n");
        assert_eq!(secret().open(&sealed), Ok(id));
        assert_eq!(Secret::generate().open(&sealed), Err(Unreadable::Tag));
        assert_eq!(format!("{:?}", secret()), "Secret(..)", "keys are never shown");
    }

    #[test]
    fn a_key_that_hides_nothing_is_refused() {
        assert_eq!(secret().open(&"0".repeat(WRITTEN)), Err(Unreadable::Key));
        assert_eq!(Public::from_hex(&"00".repeat(32)).unwrap().seal(Uuid::nil()), Err(Unreadable::Key));
    }

    #[test]
    fn five_digits_above_four_bytes_are_no_base85() {
        assert_eq!(secret().open(&"~".repeat(WRITTEN)), Err(Unreadable::NotBase85));
        assert_eq!(secret().open(&format!("\"{}", "0".repeat(WRITTEN - 1))), Err(Unreadable::NotBase85));
        assert_eq!(secret().open("é"), Err(Unreadable::Length(1)));
        assert_eq!(secret().open(&"é".repeat(WRITTEN)), Err(Unreadable::NotBase85));
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(id in any::<u128>(), private in any::<[u8; 32]>()) {
            let secret = Secret::from_hex(&hex::encode(private)).unwrap();
            let id = Uuid::from_u128(id);
            prop_assert_eq!(secret.open(&secret.public().seal(id).unwrap()), Ok(id));
        }

        #[test]
        fn any_text_ends_in_an_id_or_a_reason(text in "[!-~]{75,85}") {
            let _ = secret().open(&text);
        }
    }
}
