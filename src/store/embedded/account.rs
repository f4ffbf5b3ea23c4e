//! Which account the server runs under. Postgres refuses to run as root, so root lends it another one.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Uid, User};

use super::Error;

/// The account of the server.
#[derive(Debug, Clone)]
pub(super) enum Account {
    /// Ours.
    Own,
    /// Another, which root lends.
    Lent(User),
}

impl Account {
    /// The account for a cluster: ours; for root the owner of the cluster, and of one that is not there yet, `nobody`.
    pub(super) fn of(cluster: &Path) -> Result<Self, Error> {
        let owner = fs::metadata(cluster).ok().map(|metadata| Uid::from_raw(metadata.uid()));
        let own = nix::unistd::geteuid();
        if !own.is_root() {
            return if owner.is_none_or(|owner| owner == own) {
                Ok(Self::Own)
            } else {
                Err(Error::NotOurs(cluster.into()))
            };
        }
        let user = match owner.filter(|owner| !owner.is_root()) {
            Some(owner) => User::from_uid(owner),
            None => User::from_name("nobody"),
        };
        user.ok().flatten().map(Self::Lent).ok_or(Error::NoAccount)
    }

    /// Have `command` run under this account.
    pub(super) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match self {
            Self::Own => command,
            Self::Lent(user) => command.uid(user.uid.as_raw()).gid(user.gid.as_raw()),
        }
    }

    /// Make an empty directory of ours that only this account may enter.
    pub(super) fn make_directory(&self, path: &Path) -> Result<(), Error> {
        fs::create_dir(path).map_err(Error::file(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(Error::file(path))?;
        if let Self::Lent(user) = self {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(Error::file(path))?;
        }
        Ok(())
    }

    /// Whether `path` is a directory that this account owns and nobody else may enter.
    pub(super) fn owns_alone(&self, path: &Path) -> bool {
        let uid = match self {
            Self::Own => nix::unistd::geteuid(),
            Self::Lent(user) => user.uid,
        };
        // Not through a link, which somebody else could have left here.
        let metadata = fs::symlink_metadata(path);
        metadata.is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw() && found.mode() & 0o077 == 0)
    }

    /// Check that a lent account gets to `path`; our own has got there already.
    pub(super) fn check_passage(&self, path: &Path) -> Result<(), Error> {
        let Self::Lent(user) = self else { return Ok(()) };
        let barred = path.ancestors().find(|directory| !may_enter(user, directory));
        match barred {
            None => Ok(()),
            Some(directory) => {
                Err(Error::NoPassage { account: user.name.clone(), directory: PathBuf::from(directory) })
            }
        }
    }
}

fn may_enter(user: &User, directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| {
        let bit = match () {
            () if found.uid() == user.uid.as_raw() => 0o100,
            () if found.gid() == user.gid.as_raw() => 0o010,
            () => 0o001,
        };
        found.mode() & bit != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_parent_is_named() {
        let Ok(Some(user)) = User::from_name("nobody") else { panic!("every system has `nobody`") };
        let parent = tempfile::tempdir().unwrap();
        let child = parent.path().join("child");
        fs::create_dir(&child).unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = Account::Lent(user.clone()).check_passage(&child).unwrap_err();
        assert!(error.to_string().contains(&format!("`{}`", parent.path().display())), "{error}");
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(may_enter(&user, parent.path()));
    }
}
