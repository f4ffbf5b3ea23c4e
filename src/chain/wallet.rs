//! The hotkey that calls are signed with, read from the key file of a Bittensor wallet. It reads one file and gives away an
//! address; the secret never leaves this module's type, is not shown by it, and is wiped from memory with it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use subxt_signer::sr25519::{Keypair, SecretKeyBytes};
use zeroize::Zeroizing;

/// How key files begin that a password protects: the formats of today and of older wallets.
const ENCRYPTED: [&[u8]; 3] = [b"$NACL", b"$ANSIBLE_VAULT", b"gAAAAA"];
/// Longest file that is read. A key file has some 600 bytes.
const LONGEST: u64 = 64 << 10;

/// A hotkey with its secret, which is never shown.
pub struct Wallet {
    pair: Keypair,
    hotkey: String,
}

/// Why there is no wallet, in words for its owner.
#[derive(Debug, thiserror::Error)]
pub enum NoWallet {
    /// No file.
    #[error("there is no hotkey at `{}`", .0.display())]
    Missing(PathBuf),
    /// A file that cannot be read.
    #[error("the hotkey `{}` cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// A file that a password protects.
    #[error("the hotkey `{}` is encrypted, and is needed without anybody to type its password", .0.display())]
    Encrypted(PathBuf),
    /// Not a key file. What it holds instead may be a secret and is not repeated.
    #[error("`{path}` is no key file of a wallet: {reason}", path = .0.display(), reason = .1)]
    Other(PathBuf, &'static str),
    /// A file whose address is not its seed's.
    #[error("the hotkey `{path}` names the address `{named}`, and its seed is that of `{found}`", path = .path.display())]
    Contradictory {
        /// The file.
        path: PathBuf,
        /// The address that stands in it.
        named: String,
        /// The address that the seed has.
        found: String,
    },
}

impl NoWallet {
    /// What its owner can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "name the wallet with --wallet-name and --hotkey-name, and its folder with --wallets-dir; only the hotkey's file has to be on this machine"
            }
            Self::Unreadable(..) => "let the account that robo runs as read it, and nobody else: chmod 600",
            Self::Encrypted(_) => {
                "write the hotkey again without a password (`btcli wallet regen-hotkey`); the coldkey stays encrypted and is not needed here"
            }
            Self::Other(..) | Self::Contradictory { .. } => {
                "write the file again from the hotkey's mnemonic: btcli wallet regen-hotkey"
            }
        }
    }
}

/// What is read of a key file. Both are plain ASCII, so that they are borrowed from the text and never copied.
#[derive(Deserialize)]
struct KeyFile<'text> {
    #[serde(rename = "secretSeed", borrow, default)]
    seed: Option<&'text str>,
    #[serde(rename = "ss58Address", borrow, default)]
    address: Option<&'text str>,
}

impl Wallet {
    /// Read the file of a hotkey.
    ///
    /// # Errors
    /// [`NoWallet`], which has the remedy.
    pub fn load(path: &Path) -> Result<Self, NoWallet> {
        let bytes = read(path)?;
        if ENCRYPTED.iter().any(|beginning| bytes.starts_with(beginning)) {
            return Err(NoWallet::Encrypted(path.to_owned()));
        }
        let other = |reason| NoWallet::Other(path.to_owned(), reason);
        let file: KeyFile<'_> = serde_json::from_slice(&bytes).map_err(|_| other("it is not the JSON it should be"))?;
        let seed = file.seed.ok_or_else(|| other("it has no `secretSeed`, perhaps only the public half of a key"))?;
        let mut secret = Zeroizing::new(SecretKeyBytes::default());
        hex::decode_to_slice(seed.strip_prefix("0x").unwrap_or(seed), &mut secret[..])
            .map_err(|_| other("its `secretSeed` is not 32 bytes as `0x` and hexadecimal digits"))?;
        let pair = Keypair::from_secret_key(*secret).map_err(|_| other("its `secretSeed` is no key"))?;
        let hotkey = pair.public_key().to_account_id().to_string();
        match file.address {
            None => Err(other("it has no `ss58Address`")),
            Some(named) if named != hotkey => {
                Err(NoWallet::Contradictory { path: path.to_owned(), named: named.to_owned(), found: hotkey })
            }
            Some(_) => Ok(Self { pair, hotkey }),
        }
    }

    /// Read a hotkey where wallets are kept: `WALLETS/NAME/hotkeys/HOTKEY`.
    ///
    /// # Errors
    /// [`NoWallet`], which has the remedy.
    pub fn at(wallets: &Path, name: &str, hotkey: &str) -> Result<Self, NoWallet> {
        Self::load(&wallets.join(name).join("hotkeys").join(hotkey))
    }

    /// Its address (SS58, prefix 42).
    pub fn hotkey(&self) -> &str {
        &self.hotkey
    }

    /// What signs.
    pub(super) fn pair(&self) -> &Keypair {
        &self.pair
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("hotkey", &self.hotkey).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, NoWallet> {
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NoWallet::Missing(path.to_owned()),
        _ => NoWallet::Unreadable(path.to_owned(), error),
    };
    let size = fs::metadata(path).map_err(wrong)?.len();
    if size > LONGEST {
        return Err(NoWallet::Other(path.to_owned(), "it is far too long"));
    }
    fs::read(path).map(Zeroizing::new).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use serde_json::{Value, json};

    use super::*;

    /// The well-known development key `//Alice`.
    const SEED: &str = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
    const ADDRESS: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    fn load(text: &str) -> Result<Wallet, NoWallet> {
        let folder = tempfile::tempdir().unwrap();
        let hotkeys = folder.path().join("miner/hotkeys");
        fs::create_dir_all(&hotkeys).unwrap();
        fs::write(hotkeys.join("default"), text).unwrap();
        Wallet::at(folder.path(), "miner", "default")
    }

    fn file() -> Value {
        json!({ "accountId": "0xd4", "publicKey": "0xd4", "secretPhrase": null, "secretSeed": SEED, "ss58Address": ADDRESS })
    }

    #[test]
    fn a_hotkey_is_read_and_its_secret_is_not_shown() {
        let wallet = load(&file().to_string()).unwrap();
        assert_eq!(wallet.hotkey(), ADDRESS);
        let shown = format!("{wallet:?}");
        assert_eq!(shown, format!("Wallet {{ hotkey: \"{ADDRESS}\", .. }}"));
    }

    #[test]
    fn what_is_no_hotkey_is_said_with_the_remedy_and_without_the_secret() {
        let without = |key: &str, value: Value| {
            let mut file = file();
            file[key] = value;
            file.to_string()
        };
        let cases = [
            ("$NACL\u{1}\u{2}".to_owned(), "is encrypted"),
            ("$ANSIBLE_VAULT;1.1;AES256\n6131".to_owned(), "is encrypted"),
            ("gAAAAABk".to_owned(), "is encrypted"),
            (SEED.to_owned(), "not the JSON"),
            ("{\"secretSeed\": \"0xe5be".to_owned(), "not the JSON"),
            (without("secretSeed", Value::Null), "no `secretSeed`"),
            (without("secretSeed", "0xe5be9a50".into()), "not 32 bytes"),
            (without("secretSeed", format!("{SEED}00").into()), "not 32 bytes"),
            (without("ss58Address", Value::Null), "no `ss58Address`"),
            (without("ss58Address", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty".into()), "its seed is that of"),
            ("x".repeat(70_000), "far too long"),
        ];
        for (text, words) in cases {
            let error = load(&text).unwrap_err();
            let told = format!("{error}; {error:?}; {:?}; {}", error.source(), error.remedy());
            assert!(told.contains(words), "{told}");
            assert!(!told.contains("e5be"), "{told}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_and_one_that_is_no_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Wallet::at(folder.path(), "miner", "default").unwrap_err();
        assert!(missing.to_string().ends_with("miner/hotkeys/default`"), "{missing}");
        assert!(missing.remedy().contains("--wallet-name"));
        assert!(matches!(Wallet::load(folder.path()), Err(NoWallet::Unreadable(..))));
    }
}
