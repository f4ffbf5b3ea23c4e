//! A key of the API: what its holder shows, and what is kept of it.
//!
//! Kept is one SHA-256. Slow hashes with a salt are for passwords, of which an attacker can try the likely ones; a key is 256 bits
//! from the system's random source, and whoever holds its digest would have to try all of them. A fast hash is as safe then, and
//! cannot be used to keep the server busy.

use std::fmt;

use sha2::{Digest, Sha256};

/// What every key begins with, so that people and scanners of leaked secrets know one when they see it.
const PREFIX: &str = "robo_";

/// Hexadecimal digits after that.
const DIGITS: usize = 64;

/// How much of a key is shown when it is listed: enough to tell keys apart, and 32 of 256 bits.
const SHOWN: usize = PREFIX.len() + 8;

/// A key of the API.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one, that nobody can guess.
    pub fn random() -> Self {
        Self(format!("{PREFIX}{}", hex::encode(rand::random::<[u8; DIGITS / 2]>())))
    }

    /// The key that somebody shows, if it can be one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = text.strip_prefix(PREFIX)?;
        (digits.len() == DIGITS && digits.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// The whole key: for its holder, once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its first characters, for lists.
    pub fn start(&self) -> &str {
        &self.0[..SHOWN]
    }

    /// What is kept of it.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// Not the key: it must not get into a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}...)", self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_read_back_and_is_not_in_logs() {
        let token = Token::random();
        assert_eq!(Token::parse(token.expose()), Some(token.clone()));
        assert_ne!(token, Token::random());
        assert!(!format!("{token:?}").contains(token.expose()) && token.expose().starts_with(token.start()));
        assert_eq!(token.start().len(), 13);
    }

    #[test]
    fn anything_else_is_none() {
        let good = Token::random();
        let digits = good.expose().strip_prefix("robo_").unwrap();
        let others =
            ["", "robo_", digits, &format!("robo_{}", digits.to_uppercase()), &format!("{}0", good.expose()), "robo_é"];
        for text in others {
            // Sixty-four digits without a letter are the same in capitals: too rare to care for.
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
