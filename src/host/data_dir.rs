//! The directory that outlives us: embedded database, Python environments.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::config::DataDir;

/// Why there is no data directory.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Nothing says where it should be.
    #[error("there is no place for robo's data: neither --data-dir, ROBO_DATA_DIR, XDG_DATA_HOME nor HOME is set")]
    NoHome,
    /// It cannot be made or written to.
    #[error("the data directory `{}` cannot be written to", path.display())]
    NotWritable {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The data directory, made if it is not there, as an absolute path that can be written to.
///
/// # Errors
/// [`DataDirError`] when it cannot be; choosing another with `--data-dir` is the remedy.
pub fn data_dir(config: &DataDir) -> Result<PathBuf, DataDirError> {
    let path = match (&config.data_dir, crate::config::default_data_dir()) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => path,
        (None, None) => return Err(DataDirError::NoHome),
    };
    let not_writable = |source| DataDirError::NotWritable { path: path.clone(), source };
    fs::create_dir_all(&path).map_err(not_writable)?;
    let path = path.canonicalize().map_err(not_writable)?;
    probe(&path).map_err(|source| DataDirError::NotWritable { path: path.clone(), source })?;
    Ok(path)
}

/// Write a byte and take it back: permissions, read-only mounts and full disks all show here.
fn probe(path: &Path) -> io::Result<()> {
    let file = path.join(format!(".probe-{}", std::process::id()));
    let written = fs::write(&file, b"x");
    let removed = fs::remove_file(&file);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_where_asked() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("a/b");
        let path = data_dir(&DataDir { data_dir: Some(wanted.clone()) }).unwrap();
        assert_eq!(path, wanted.canonicalize().unwrap());
        assert!(fs::read_dir(path).unwrap().next().is_none());
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_named() {
        let error = data_dir(&DataDir { data_dir: Some("/proc/robo".into()) }).unwrap_err();
        assert!(error.to_string().contains("/proc/robo"), "{error}");
    }
}
