//! The cluster on disk: made whole or not at all, and only ever opened by the major version that made it.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
};

use crate::host::environment::{self, Role};

use super::{Error, Layout, account::Account};

/// Name of the cluster's superuser, whatever account the server runs under.
const SUPERUSER: &str = "robo";

/// The major version that made the cluster; none if there is no cluster.
pub(super) fn major(cluster: &Path) -> Result<Option<u32>, Error> {
    if !cluster.exists() {
        return Ok(None);
    }
    let path = cluster.join("PG_VERSION");
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let major = text.trim().parse();
    major.map(Some).map_err(|_| Error::Start(format!("`{}` does not hold a version", path.display())))
}

/// Make the cluster if it is not there. `initdb` works beside its place, so that a crash leaves nothing half done there.
pub(super) fn make(layout: &Layout, programs: &Path, account: &Account) -> Result<(), Error> {
    if layout.cluster().exists() {
        return Ok(());
    }
    let unfinished = layout.unfinished();
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::file(&unfinished))?;
    }
    account.make_directory(&unfinished)?;
    let initdb = programs.join("initdb");
    let mut command = environment::command(Role::Database, &initdb);
    command
        .args(["--auth=trust", "--no-locale", "--encoding=UTF8", "--username", SUPERUSER, "--pgdata"])
        .arg(&unfinished)
        .current_dir("/")
        .stdin(Stdio::null())
        // Standard output carries our report; standard error is the log.
        .stdout(std::io::stderr());
    let status = account.apply(&mut command).status().map_err(Error::file(&initdb))?;
    if !status.success() {
        // What it leaves behind would only use up a disk that may be full.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(Error::Start(format!("`initdb` failed ({status})")));
    }
    fs::rename(&unfinished, layout.cluster()).map_err(Error::file(&layout.cluster()))?;
    let synced = File::open(&layout.data_dir).and_then(|directory| directory.sync_all());
    synced.map_err(Error::file(&layout.data_dir))
}
