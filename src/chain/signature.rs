//! Whether a hotkey has signed something: the check that needs no node.

use std::str::FromStr;

use subxt::utils::AccountId32;
use subxt_signer::sr25519::{PublicKey, Signature, verify};

/// Whether `signature`, 64 bytes as hexadecimal digits, is this hotkey's (sr25519) over the message. An address or a signature
/// that is none is not its either.
pub fn has_signed(hotkey: &str, message: &[u8], signature: &str) -> bool {
    let Ok(account) = AccountId32::from_str(hotkey) else { return false };
    let Ok(bytes) = hex::decode(signature.trim_start_matches("0x")) else { return false };
    let Ok(bytes) = <[u8; 64]>::try_from(bytes) else { return false };
    verify(&Signature(bytes), message, &PublicKey(account.0))
}

/// Whether it is an address (SS58) at all.
pub fn is_hotkey(text: &str) -> bool {
    AccountId32::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use subxt_signer::sr25519::dev;

    use super::*;

    #[test]
    fn only_the_hotkey_itself_has_signed() {
        let (alice, bob) = (dev::alice(), dev::bob());
        let address = |pair: &subxt_signer::sr25519::Keypair| pair.public_key().to_account_id().to_string();
        let signature = hex::encode(alice.sign(b"weights").0);
        assert!(has_signed(&address(&alice), b"weights", &signature));
        assert!(has_signed(&address(&alice), b"weights", &format!("0x{signature}")));
        assert!(!has_signed(&address(&alice), b"other weights", &signature));
        assert!(!has_signed(&address(&bob), b"weights", &signature));
        for wrong in ["", "00", "zz"] {
            assert!(!has_signed(&address(&alice), b"weights", wrong));
        }
        assert!(is_hotkey(&address(&bob)) && !is_hotkey("bob") && !has_signed("bob", b"weights", &signature));
    }
}
