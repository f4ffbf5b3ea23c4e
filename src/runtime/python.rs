//! The simulators' Python environments: one virtual environment per requirements lock and Python version, built once,
//! checked before every use, rebuilt when it is broken.
//!
//! Talks to the file system, an interpreter and pip. Robust against two processes that build at once (a file lock), and
//! against a death in the middle (a marker that is written last).

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    interpreter::{self, Interpreter, Version},
    pip::{self, Installation},
};
use crate::host::{
    Progress,
    child::{ChildError, LastWords},
    download::DownloadError,
    environment::{Role, from_anywhere},
};

/// Written last into a finished environment.
const MARKER: &str = "robo-environment.json";

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("no Python 3.11 or newer was found{}", if found.is_empty() { String::new() } else { format!(" ({found})") })]
    NoPython { found: String },
    #[error("`{}`, named by ROBO_PYTHON, is not a Python 3.11 or newer: {problem}", path.display())]
    ChosenPython { path: PathBuf, problem: String },
    #[error("the requirements lock `{}` cannot be read", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be written to", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("no space is left on the disk")]
    DiskFull,
    #[error("`{python} -m venv` failed{words}")]
    Venv { python: String, words: LastWords },
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error("the package index cannot be reached{words}")]
    Offline { words: LastWords },
    #[error("a package is not the one that the lock names{words}")]
    WrongHash { words: LastWords },
    #[error("the index has no wheel of a package for this Python and machine{words}")]
    NoWheel { words: LastWords },
    #[error("pip failed{words}")]
    Pip { words: LastWords },
    #[error("the environment was built but is not whole: {damage}")]
    StillBroken { damage: String },
    #[error(transparent)]
    Child(#[from] ChildError),
}

impl Error {
    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoPython { .. } | Self::ChosenPython { .. } => {
                "install Python 3.11 or newer (Debian, Ubuntu: `apt install python3`) or name one with ROBO_PYTHON".into()
            }
            Self::Lock { .. } => "correct `build.requirements` in the environment's manifest".into(),
            Self::Directory { source, .. } if is_full(source) => return Self::DiskFull.remedy(),
            Self::Directory { .. } => "choose another place with --data-dir or ROBO_DATA_DIR".into(),
            Self::DiskFull => "make room (about 1 GB) or choose another place with --data-dir or ROBO_DATA_DIR".into(),
            Self::Venv { .. } => {
                "install Python's venv module (Debian, Ubuntu: `apt install python3-venv`) or name another Python with ROBO_PYTHON".into()
            }
            Self::Offline { .. } => {
                "check the network, or name a mirror with PIP_INDEX_URL and its certificates with PIP_CERT".into()
            }
            Self::WrongHash { .. } => "try again, or name another index with PIP_INDEX_URL".into(),
            Self::NoWheel { .. } => "name another Python (3.11 to 3.13) with ROBO_PYTHON".into(),
            Self::Download(_) | Self::Pip { .. } | Self::StillBroken { .. } | Self::Child(_) => return None,
        })
    }

    /// Whether the operator has to change something before another attempt can help.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            Self::Download(_) | Self::Offline { .. } | Self::WrongHash { .. } | Self::Pip { .. } | Self::Child(_)
        )
    }
}

/// Where environments are kept and what they are made with.
#[derive(Debug, Clone)]
pub struct Environments {
    /// Robo's data directory.
    pub data_dir: PathBuf,
    /// The interpreter the operator has chosen; none to look for one.
    pub python: Option<PathBuf>,
    /// Who is told what happens.
    pub progress: Progress,
}

/// A virtual environment that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its interpreter.
    pub python: PathBuf,
    /// The interpreter's version, as `3.11.7`.
    pub version: String,
}

/// What the marker says: the packages that were there when the environment was finished.
#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    python: String,
    packages: Vec<String>,
}

impl Environments {
    /// The environment for `lock`: built when it is not there, rebuilt when it is broken, otherwise left as it is.
    ///
    /// Giving up the future ends pip; the next call starts over.
    ///
    /// # Errors
    /// [`Error`]; its `remedy` says what to do.
    pub async fn prepare(&self, lock: &Path) -> Result<Environment, Error> {
        let text = fs::read(lock).map_err(|source| Error::Lock { path: lock.into(), source })?;
        let interpreter = interpreter::find(self.python.as_deref()).await?;
        let base = self.data_dir.join("python");
        create(&base)?;
        let key = key(&text, interpreter.version);
        let venv = Venv { root: base.join(&key), version: interpreter.version };
        let _turn = self.take_turn(&base.join(format!("{key}.lock"))).await?;
        match venv.damage().await {
            None => return Ok(venv.environment()),
            Some(Damage::Unfinished) => {}
            Some(Damage::Broken(damage)) => {
                self.progress
                    .say(format!("the simulator's Python environment is broken ({damage}); building it again"));
            }
        }
        self.build(&venv, &interpreter, lock, &text).await?;
        Ok(venv.environment())
    }

    async fn build(&self, venv: &Venv, interpreter: &Interpreter, lock: &Path, text: &[u8]) -> Result<(), Error> {
        remove(&venv.root)?;
        let version = interpreter.version;
        self.progress.say(format!("preparing the simulator's Python environment (Python {version}; only once)"));
        let mut child = interpreter::program(Role::Interpreter, "venv", &interpreter.path)
            .args(["-m", "venv", "--without-pip"])
            .arg(from_anywhere(&venv.root))
            .start()
            .await?;
        let mut words = Vec::new();
        while let Some(line) = child.next_line().await {
            words.push(line);
        }
        if !child.wait().await?.success() {
            words.extend(child.last_words().0);
            let python = interpreter.path.display().to_string();
            let is_full = words.iter().any(|line| line.contains("No space left on device"));
            return Err(if is_full { Error::DiskFull } else { Error::Venv { python, words: LastWords(words) } });
        }
        let installation = Installation {
            python: &venv.python(),
            lock,
            packages: count_packages(&String::from_utf8_lossy(text)),
            downloads: &self.data_dir.join("downloads"),
        };
        pip::install(&installation, &self.progress).await?;
        venv.finish()?;
        match venv.damage().await {
            None => Ok(()),
            Some(Damage::Broken(damage)) => Err(Error::StillBroken { damage }),
            Some(Damage::Unfinished) => Err(Error::StillBroken { damage: "its marker is gone".into() }),
        }
    }

    /// Wait until no other process builds here. The lock goes with the file handle, so a dead builder leaves none.
    async fn take_turn(&self, path: &Path) -> Result<File, Error> {
        let file = File::create(path).map_err(|source| Error::Directory { path: path.into(), source })?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(Error::Directory { path: path.into(), source }),
                Err(TryLockError::WouldBlock) => {}
            }
            if !told {
                self.progress.say("waiting for another robo that prepares the same Python environment");
                told = true;
            }
            // Polled, because a blocking wait for a file lock could not be given up.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

enum Damage {
    /// Not built, or not to the end.
    Unfinished,
    /// Finished once, and changed since.
    Broken(String),
}

struct Venv {
    root: PathBuf,
    version: Version,
}

impl Venv {
    fn python(&self) -> PathBuf {
        self.root.join("bin/python")
    }

    fn site_packages(&self) -> PathBuf {
        self.root.join(format!("lib/python{}.{}/site-packages", self.version.0, self.version.1))
    }

    fn environment(&self) -> Environment {
        Environment { python: self.python(), version: self.version.to_string() }
    }

    /// Write the marker, so that it is there whole or not at all.
    fn finish(&self) -> Result<(), Error> {
        let site = self.site_packages();
        let failed = |source| Error::Directory { path: self.root.clone(), source };
        let mut packages = Vec::new();
        for entry in fs::read_dir(&site).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".dist-info") {
                packages.push(name);
            }
        }
        packages.sort();
        let finished = Finished { python: self.version.to_string(), packages };
        let text = serde_json::to_string_pretty(&finished).expect("a list of texts is JSON");
        let (part, marker) = (self.root.join(".marker.part"), self.root.join(MARKER));
        fs::write(&part, text).and_then(|()| fs::rename(&part, &marker)).map_err(failed)
    }

    /// What is wrong with it, found without importing anything: every installed file is there in its size, and the
    /// interpreter runs.
    async fn damage(&self) -> Option<Damage> {
        let Ok(text) = fs::read_to_string(self.root.join(MARKER)) else { return Some(Damage::Unfinished) };
        let Ok(finished) = serde_json::from_str::<Finished>(&text) else {
            return Some(Damage::Broken(format!("`{MARKER}` is damaged")));
        };
        let site = self.site_packages();
        let missing = finished.packages.iter().find_map(|package| damaged_file(&site, package));
        if let Some(file) = missing {
            return Some(Damage::Broken(format!("`{file}` is missing or changed")));
        }
        match interpreter::version_of(&self.python()).await {
            Ok(version) if version == self.version => None,
            Ok(version) => Some(Damage::Broken(format!("its interpreter is Python {version} now"))),
            Err(problem) => Some(Damage::Broken(format!("its interpreter is of no use: {problem}"))),
        }
    }
}

/// The first file of an installed package that is not there as its `RECORD` says.
fn damaged_file(site: &Path, package: &str) -> Option<String> {
    let record = format!("{package}/RECORD");
    let Ok(lines) = fs::read_to_string(site.join(&record)) else { return Some(record) };
    lines.lines().find_map(|line| {
        let mut fields = line.rsplitn(3, ',');
        let size = fields.next().and_then(|size| size.parse::<u64>().ok());
        let path = fields.nth(1)?.trim_matches('"');
        // Python writes byte code again whenever it likes.
        if path.ends_with(".pyc") {
            return None;
        }
        let is_there = fs::metadata(site.join(path)).is_ok_and(|file| size.is_none_or(|size| size == file.len()));
        (!is_there).then(|| path.to_owned())
    })
}

/// The directory's name: the same lock on the same Python shares an environment.
fn key(lock: &[u8], version: Version) -> String {
    let digest = Sha256::new().chain_update(lock).chain_update(version.to_string()).finalize();
    hex::encode(digest)[..16].to_owned()
}

/// Lines of a lock that name a package.
fn count_packages(lock: &str) -> usize {
    lock.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()) && line.contains("==")).count()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn create(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Directory { path: path.into(), source })
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Directory { path: path.into(), source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_without_hashes_and_comments() {
        let lock = "# pinned\nnumpy==2.4.6 \\\n    --hash=sha256:aa==\nsix==1.17.0 --hash=sha256:bb\n";
        assert_eq!(count_packages(lock), 2);
    }

    #[test]
    fn another_lock_or_another_python_is_another_environment() {
        let keys = [key(b"a", Version(3, 11, 2)), key(b"b", Version(3, 11, 2)), key(b"a", Version(3, 11, 3))];
        assert!(keys.iter().all(|key| key.len() == 16));
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }
}
