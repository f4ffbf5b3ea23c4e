//! What an environment family's Python environment is made of, and a digest over all of it.
//!
//! The digest covers the requirements lock and the package's sources: what decides how the simulator behaves. Byte code
//! and everything else in the directory is left out.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::environment as wire;

/// The Python package of the build context.
const PACKAGE: &str = "robo_eval_env";

/// The parts of a build, relative to the pipeline's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Directory that holds the package.
    pub context: String,
    /// Lock file.
    pub requirements: String,
    /// SHA-256 in hex over the lock file and the package's Python sources.
    pub digest: String,
}

/// Find and digest a build's files; what is missing is reported where the manifest names it.
pub(super) fn resolve(
    document: &Document,
    build: &wire::Build,
    manifest: &Path,
    root: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<Build> {
    let beside = std::path::absolute(manifest).ok()?.parent()?.to_owned();
    let context = normalise(&beside.join(&build.context.value));
    let lock = normalise(&context.join(&build.requirements.value));
    let mut check = |at, ok: bool, message: String| {
        if !ok {
            diagnostics.push(document.error(at, message));
        }
        ok
    };
    let package = context.join(PACKAGE);
    let context_is_there = check(
        build.context.at,
        package.is_dir(),
        format!("the build context `{}` has no Python package `{PACKAGE}`", build.context.value),
    );
    let found = context_is_there
        && check(
            build.requirements.at,
            lock.is_file(),
            format!("there is no requirements lock `{}` in the build context", build.requirements.value),
        );
    let outside = "the build must lie below the directory that holds `environments`".to_owned();
    let inside = found && check(build.context.at, context.starts_with(root) && lock.starts_with(root), outside);
    if !inside {
        return None;
    }
    match digest(&context, &lock) {
        Ok(digest) => Some(Build { context: relative(&context, root), requirements: relative(&lock, root), digest }),
        Err(error) => {
            diagnostics.push(document.error(build.context.at, format!("cannot read the build context: {error}")));
            None
        }
    }
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// The path without `.` and `..`, as text: it may not exist, and links are the operator's business.
fn normalise(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// SHA-256 in hex over the lock file and the package's Python sources under `context`.
pub(crate) fn digest(context: &Path, lock: &Path) -> io::Result<String> {
    let mut sources = Vec::new();
    collect_sources(&context.join(PACKAGE), &mut sources)?;
    let mut files: Vec<(String, PathBuf)> = sources.into_iter().map(|file| (relative(&file, context), file)).collect();
    files.sort();
    files.insert(0, (relative(lock, context), lock.to_owned()));
    let mut hasher = Sha256::new();
    for (name, file) in files {
        let content = fs::read(file)?;
        // Lengths keep two different sets of files from running together into the same bytes.
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    Ok(hex::encode(hasher.finalize()))
}

fn collect_sources(directory: &Path, sources: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "__pycache__" {
            collect_sources(&path, sources)?;
        } else if !kind.is_dir() && path.extension().is_some_and(|extension| extension == "py") {
            sources.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_what_simulates_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let context = directory.path();
        let lock = context.join("requirements.lock");
        fs::create_dir_all(context.join("robo_eval_env/sub/__pycache__")).unwrap();
        fs::write(&lock, "a==1").unwrap();
        fs::write(context.join("robo_eval_env/a.py"), "1").unwrap();
        fs::write(context.join("robo_eval_env/sub/b.py"), "2").unwrap();
        let first = digest(context, &lock).unwrap();
        fs::write(context.join("robo_eval_env/sub/__pycache__/b.py"), "x").unwrap();
        fs::write(context.join("robo_eval_env/notes.txt"), "x").unwrap();
        assert_eq!(digest(context, &lock).unwrap(), first);
        fs::write(context.join("robo_eval_env/sub/b.py"), "3").unwrap();
        let second = digest(context, &lock).unwrap();
        assert_ne!(second, first);
        fs::write(&lock, "a==2").unwrap();
        assert_ne!(digest(context, &lock).unwrap(), second);
    }
}
