//! Installing a requirements lock into a fresh virtual environment.
//!
//! Runs a pinned pip straight from its wheel, so that neither `ensurepip` nor a system's pip is needed. Talks to the
//! package index through pip; never decides whether an environment has to be built.

use std::path::{Path, PathBuf};

use super::{interpreter, python::Error};
use crate::host::{
    Progress,
    child::LastWords,
    download::{self, WheelPin},
    environment::{Role, from_anywhere},
};

const PIP: WheelPin = WheelPin {
    project: "pip",
    file: "pip-26.3-py3-none-any.whl",
    sha256: "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",
};

/// What is installed where.
#[derive(Debug)]
pub(super) struct Installation<'a> {
    /// The virtual environment's interpreter.
    pub(super) python: &'a Path,
    /// The requirements lock, each line pinned by version and hash.
    pub(super) lock: &'a Path,
    /// How many packages the lock holds.
    pub(super) packages: usize,
    /// Where pip itself is kept.
    pub(super) downloads: &'a Path,
}

/// Install every package of the lock, and nothing else.
pub(super) async fn install(installation: &Installation<'_>, progress: &Progress) -> Result<(), Error> {
    let wheel = download::wheel(&PIP, installation.downloads, progress).await?;
    let mut pip = interpreter::program(Role::Pip, "pip", installation.python)
        // These two stand above what a user's pip.conf says.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .arg(from_anywhere(&entry(wheel)))
        .args(["install", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"])
        .args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--progress-bar=off", "-r"])
        .arg(from_anywhere(installation.lock))
        .start()
        .await?;
    let mut seen = 0;
    while let Some(line) = pip.next_line().await {
        tracing::debug!("pip: {line}");
        if let Some(message) = translate(&line, &mut seen, installation.packages) {
            progress.say(message);
        }
    }
    let status = pip.wait().await?;
    if status.success() { Ok(()) } else { Err(diagnose(&pip.last_words())) }
}

/// A wheel is a zip file, and Python can run a package inside one.
fn entry(wheel: PathBuf) -> PathBuf {
    wheel.join("pip")
}

/// A line of pip's output in our words, if it is worth showing.
fn translate(line: &str, seen: &mut usize, packages: usize) -> Option<String> {
    if let Some(rest) = line.strip_prefix("Collecting ") {
        *seen += 1;
        let (name, version) = rest.split_whitespace().next()?.split_once("==")?;
        return Some(format!("installing {name} {version} ({seen} of {packages})"));
    }
    line.starts_with("Installing collected packages").then(|| format!("unpacking {packages} packages"))
}

/// What pip's complaint means for the person who has to act.
fn diagnose(words: &LastWords) -> Error {
    let text = words.0.join("\n");
    let has = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    // The order matters: when it is offline, pip ends by saying that no version was found.
    if has(&["No space left on device", "Disk quota exceeded"]) {
        Error::DiskFull
    } else if has(&["DO NOT MATCH THE HASHES"]) {
        Error::WrongHash { words: complaints(words) }
    } else if has(&[
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ProxyError",
        "SSLError",
        "ConnectionResetError",
        "Network is unreachable",
        "Connection broken",
        "IncompleteRead",
    ]) {
        Error::Offline { words: complaints(words) }
    } else if has(&["No matching distribution found"]) {
        Error::NoWheel { words: complaints(words) }
    } else {
        Error::Pip { words: words.clone() }
    }
}

/// The lines that say what is wrong; the rest is how pip got there.
fn complaints(words: &LastWords) -> LastWords {
    let mut lines: Vec<String> = words.0.iter().filter(|line| line.starts_with("ERROR:")).cloned().collect();
    if lines.is_empty() {
        lines.extend(words.0.last().cloned());
    }
    LastWords(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pips_progress_is_put_in_our_words() {
        let mut seen = 11;
        let line = "Collecting numpy==2.4.6 (from -r requirements/metaworld.lock (line 40))";
        assert_eq!(translate(line, &mut seen, 31).as_deref(), Some("installing numpy 2.4.6 (12 of 31)"));
        assert_eq!(translate("  Using cached numpy.whl (16.6 MB)", &mut seen, 31), None);
        let line = "Installing collected packages: numpy, six";
        assert_eq!(translate(line, &mut seen, 31).as_deref(), Some("unpacking 31 packages"));
    }

    #[test]
    fn pips_complaints_are_told_apart() {
        let words = |text: &str| LastWords(text.lines().map(str::to_owned).collect());
        let offline = words(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'\nERROR: No matching distribution found for six==1.17.0",
        );
        assert!(matches!(diagnose(&offline), Error::Offline { words } if words.0.len() == 1));
        let full = words("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device");
        assert!(matches!(diagnose(&full), Error::DiskFull));
        let none = words("ERROR: No matching distribution found for six==9");
        assert!(matches!(diagnose(&none), Error::NoWheel { .. }));
        assert!(matches!(diagnose(&words("Traceback")), Error::Pip { .. }));
    }
}
