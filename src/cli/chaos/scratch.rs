//! Where `robo chaos` works: a database that holds nothing else, so that no validator ever sees what it publishes.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::super::{
    db,
    exit::{Exit, Failure, Result},
};
use crate::config::{DataDir, Database};
use crate::store::Store;

/// What the directories of all runs begin with, before the number of the process.
const NAME: &str = "chaos-";

/// A database for one run, and how others get to it. The directory goes with this value.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The database.
    pub(super) config: Database,
    directory: Option<PathBuf>,
}

impl Scratch {
    /// An embedded database in a directory of its own; a server that is named is taken as it is.
    pub(super) fn new(given: &Database) -> Result<Self> {
        if given.database_url.is_some() {
            return Ok(Self { config: given.clone(), directory: None });
        }
        let data = db::data_dir(&given.data)?;
        remove_leftovers(&data);
        let directory = data.join(format!("{NAME}{}", std::process::id()));
        make(&data, &directory).map_err(|error| {
            let what = format!("cannot make `{}`", directory.display());
            Failure::new(Exit::Failed, anyhow::Error::from(error).context(what))
        })?;
        let config = Database { data: DataDir { data_dir: Some(directory.clone()) }, ..given.clone() };
        Ok(Self { config, directory: Some(directory) })
    }

    /// Refuse a database in which somebody's results are.
    pub(super) async fn check(&self, store: &Store) -> Result<()> {
        if self.directory.is_some() || store.cycles(1).await.map_err(db::failure)?.is_empty() {
            return Ok(());
        }
        let error =
            anyhow::anyhow!("the database holds cycles, and what chaos publishes would become the latest weights");
        Err(Failure::new(Exit::Usage, error)
            .hint("name an empty database, or leave --database-url out: then one is made and removed again"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // What stays is removed by the next run.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// A directory that the account of an embedded server can get to, with the simulators that are installed already.
fn make(data: &Path, directory: &Path) -> std::io::Result<()> {
    fs::create_dir(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for shared in ["python", "downloads"] {
        fs::create_dir_all(data.join(shared))?;
        symlink(data.join(shared), directory.join(shared))?;
    }
    Ok(())
}

/// Directories of runs that were killed themselves.
fn remove_leftovers(data: &Path) {
    let Ok(entries) = fs::read_dir(data) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(NAME)).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // If it cannot be removed, it only takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let names = [format!("{NAME}{}", u32::MAX), format!("{NAME}{}", std::process::id()), format!("{NAME}x")];
        for name in &names {
            fs::create_dir(data.path().join(name)).unwrap();
        }
        remove_leftovers(data.path());
        assert_eq!(names.map(|name| data.path().join(name).exists()), [false, true, true]);
    }
}
