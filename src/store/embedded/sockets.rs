//! The directory of the server's socket: private, and short enough for the kernel, which takes 107 bytes of path.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Error, Server, account::Account};

/// The longest path of a socket.
const LONGEST: usize = 107;

/// Make (or take over from a server that has died) the directory for the socket of the server of `data_dir`.
///
/// Its name follows from the data directory, so that a server that is started again is found in the same place.
pub(super) fn make(data_dir: &Path, account: &Account) -> Result<PathBuf, Error> {
    let name = format!("robo-{}", &hex::encode(Sha256::digest(data_dir.as_os_str().as_bytes()))[..16]);
    let path = base(account).join(name);
    if path.symlink_metadata().is_err() {
        account.make_directory(&path)?;
    }
    if !account.owns_alone(&path) {
        return Err(Error::NotOurs(path));
    }
    // The caller has made sure that no server lives here. A lock file left by one could name a process of today.
    for entry in fs::read_dir(&path).map_err(Error::file(&path))?.flatten() {
        fs::remove_file(entry.path()).map_err(Error::file(&entry.path()))?;
    }
    Ok(path)
}

/// The user's own directory where there is one that fits; for root one that the lent account can get to.
fn base(account: &Account) -> PathBuf {
    let shared = Path::new("/tmp");
    match account {
        Account::Lent(_) => shared.into(),
        Account::Own => crate::config::runtime_dir().filter(|path| fits(path)).unwrap_or_else(|| shared.into()),
    }
}

fn fits(base: &Path) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let socket = base.join("robo-0123456789abcdef").join(format!(".s.PGSQL.{}.lock", Server::PORT));
    // The server reads its directories as a list with quotes and commas: only plain names pass it unchanged.
    base.is_dir() && base.as_os_str().as_bytes().iter().all(plain) && socket.as_os_str().len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_too_long_or_odd_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        assert!(fits(parent.path()));
        for bad in ["x".repeat(90).as_str(), "a,b", "a b"] {
            let path = parent.path().join(bad);
            fs::create_dir(&path).unwrap();
            assert!(!fits(&path), "{bad}");
        }
    }

    #[test]
    fn what_somebody_else_left_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(!Account::Own.owns_alone(&link));
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(!Account::Own.owns_alone(&open));
    }
}
