//! Builds the image of environment families: a stock Debian, the simulators' locks, the running `robo`, the Python package.
//!
//! The Dockerfile is written here, since which locks go in is known only now. What changes seldom stands first, so that a
//! second build takes seconds. Hosts beside the first get a copy: an image that was built twice has two ids.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use bollard::{
    body_full, body_try_stream,
    query_parameters::{BuildImageOptionsBuilder, ImportImageOptionsBuilder},
};
use futures::{StreamExt, TryStreamExt};

use super::{
    engine::Engine,
    hosts::Hosts,
    image::{self, BUILDS, ROOT},
};
use crate::host::{
    Progress,
    child::{ChildError, Program},
    environment::{Role, from_anywhere},
};
use crate::runtime::Error;

/// Packages of Debian that simulators and their cameras need, and `nft`, which keeps a container to its miners.
const PACKAGES: &str =
    "ca-certificates libegl1 libegl-mesa0 libgl1-mesa-dri libglvnd0 libosmesa6 nftables python3 python3-venv";

/// Lines of a failed build that are told.
const TAIL: usize = 20;

/// An image to be built.
#[derive(Debug, Clone)]
pub struct Build {
    /// Its name.
    pub tag: String,
    /// The Debian it begins with.
    pub base: String,
    /// What goes in, at least one.
    pub parts: Vec<Part>,
    /// The program that is to serve in it.
    pub program: PathBuf,
    /// Where pip is to look, if not at PyPI.
    pub index: Option<String>,
}

/// A family in an image.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name.
    pub family: String,
    /// Directory of the Python package.
    pub context: PathBuf,
    /// Its requirements lock.
    pub requirements: PathBuf,
    /// Digest of both.
    pub digest: String,
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its id, which is the digest of its contents.
    pub id: String,
    /// Bytes on disk.
    pub size: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The engine cannot be asked.
    #[error("{}", .0.explain())]
    Place(Error),
    /// Two parts do not go together.
    #[error("{0}; build them under different tags")]
    Mixed(String),
    /// A file of it cannot be read.
    #[error("cannot read what goes into the image")]
    Read(#[source] io::Error),
    /// Our own program cannot be made smaller.
    #[error("cannot strip the program that goes into the image")]
    Strip(#[source] ChildError),
    /// A step of it failed.
    #[error("Failed to build eval container `{tag}`: {problem}\n{tail}")]
    Step {
        /// The image.
        tag: String,
        /// What the engine said.
        problem: String,
        /// The last lines before it.
        tail: String,
    },
}

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        Self::Place(error)
    }
}

/// Build an image on the first host and copy it to the others.
///
/// # Errors
/// [`BuildError`].
pub async fn build(hosts: &Hosts, build: &Build, progress: &Progress) -> Result<Built, BuildError> {
    let engine = hosts.first()?;
    let context = context(build).await?;
    run(engine, build, context, progress).await?;
    let found = image::inspect(engine, &build.tag).await?;
    let found = found.ok_or_else(|| step(build, "the engine does not know it after the build", &[]))?;
    for other in hosts.others() {
        progress.say(format!("copying `{}` to {}", build.tag, other.url()));
        copy(engine, other, &build.tag).await?;
    }
    let size = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    Ok(Built { id: found.id.unwrap_or_default(), size })
}

async fn run(engine: &Engine, build: &Build, context: Vec<u8>, progress: &Progress) -> Result<(), BuildError> {
    let arguments: HashMap<&str, &str> = build.index.iter().map(|index| ("PIP_INDEX_URL", index.as_str())).collect();
    let options = BuildImageOptionsBuilder::new().t(&build.tag).rm(true).forcerm(true).buildargs(&arguments).build();
    let client = engine.client().await?;
    let mut steps = client.build_image(options, None, Some(body_full(context.into())));
    let mut lines: Vec<String> = Vec::new();
    while let Some(said) = steps.next().await {
        let said = match said {
            Ok(said) => said,
            Err(bollard::errors::Error::DockerStreamError { error }) => return Err(step(build, &error, &lines)),
            Err(error) => return Err(engine.fault("building an image", &error).into()),
        };
        if let Some(problem) = said.error_detail.and_then(|detail| detail.message) {
            return Err(step(build, &problem, &lines));
        }
        for line in said.stream.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty()) {
            progress.say(line.trim_end());
            lines.push(line.trim_end().to_owned());
        }
    }
    Ok(())
}

fn step(build: &Build, problem: &str, lines: &[String]) -> BuildError {
    let mut tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    // It has not come further than the image that it begins with.
    if lines.last().is_none_or(|line| line.contains(" : FROM ")) {
        let hint = format!("`scripts/base-image {}` makes the base image where no registry can be reached", build.base);
        let _ = write!(tail, "\n{hint}");
    }
    BuildError::Step { tag: build.tag.clone(), problem: problem.to_owned(), tail }
}

/// Carry an image from one engine to another.
async fn copy(from: &Engine, to: &Engine, tag: &str) -> Result<(), BuildError> {
    let image = from.client().await?.export_image(tag).map_err(io::Error::other);
    let options = ImportImageOptionsBuilder::new().build();
    let client = to.client().await?;
    let mut loading = client.import_image(options, body_try_stream(image), None);
    while let Some(said) = loading.next().await {
        said.map_err(|error| to.fault("copying an image", &error))?;
    }
    Ok(())
}

/// The files that the engine is given, as a tar.
async fn context(build: &Build) -> Result<Vec<u8>, BuildError> {
    let locks = locks(&build.parts)?;
    let dockerfile = dockerfile(build, &locks.keys().map(String::as_str).collect::<Vec<_>>());
    let work = tempfile::tempdir().map_err(BuildError::Read)?;
    let program = stripped(&build.program, work.path()).await?;
    let package = build.parts.first().map(|part| part.context.join("robo_eval_env")).unwrap_or_default();
    let packed = tokio::task::spawn_blocking(move || pack(&dockerfile, &locks, &program, &package)).await;
    packed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(BuildError::Read)
}

/// The locks by name. One name stands for one lock, and all parts share one package.
fn locks(parts: &[Part]) -> Result<BTreeMap<String, PathBuf>, BuildError> {
    let mut locks: BTreeMap<String, PathBuf> = BTreeMap::new();
    let Some(first) = parts.first() else { return Err(BuildError::Mixed("no family was named".into())) };
    for part in parts {
        if part.context != first.context {
            let mixed = format!("`{}` and `{}` have different build contexts", first.family, part.family);
            return Err(BuildError::Mixed(mixed));
        }
        let name = image::lock_name(&part.requirements.to_string_lossy()).to_owned();
        let other = locks.insert(name.clone(), part.requirements.clone());
        if other.is_some_and(|other| other != part.requirements) {
            return Err(BuildError::Mixed(format!("two different locks are called `{name}`")));
        }
    }
    Ok(locks)
}

fn dockerfile(build: &Build, locks: &[&str]) -> String {
    let mut text = format!(
        "FROM {}\n\
         RUN apt-get update \\\n \
         && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {PACKAGES} \\\n \
         && rm -rf /var/lib/apt/lists/*\n\
         ARG PIP_INDEX_URL\n\
         ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt\n",
        build.base
    );
    for lock in locks {
        let python = format!("{ROOT}/python/{lock}");
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "COPY locks/{lock}.lock {ROOT}/locks/{lock}.lock\n\
             RUN python3 -m venv {python} \\\n \
             && {python}/bin/python -m pip install --disable-pip-version-check --no-cache-dir --progress-bar off \\\n    \
             --only-binary=:all: --no-deps --require-hashes --requirement {ROOT}/locks/{lock}.lock"
        );
    }
    let mut builds: Vec<&str> = build.parts.iter().map(|part| part.digest.as_str()).collect();
    builds.sort_unstable();
    builds.dedup();
    let _ = writeln!(
        text,
        "COPY eval-env {ROOT}/eval-env\n\
         RUN python3 -m compileall -q {ROOT}/eval-env\n\
         COPY bin/robo {ROOT}/bin/robo\n\
         RUN {ROOT}/bin/robo --version\n\
         LABEL {BUILDS}=\"{}\"",
        builds.join(",")
    );
    text
}

/// A copy of the program without what only debuggers read; the program itself where nothing can make one.
async fn stripped(program: &Path, directory: &Path) -> Result<PathBuf, BuildError> {
    let copy = directory.join("robo");
    let strip = Program::new(Role::Tool, "`strip`", "strip").arg("-o").arg(&copy).arg(from_anywhere(program));
    match strip.start().await {
        Ok(mut child) => match child.wait().await.map_err(BuildError::Strip)? {
            status if status.success() => Ok(copy),
            status => Err(BuildError::Strip(child.ended(status))),
        },
        Err(ChildError::Start { .. }) => Ok(program.to_owned()),
        Err(error) => Err(BuildError::Strip(error)),
    }
}

fn pack(dockerfile: &str, locks: &BTreeMap<String, PathBuf>, program: &Path, package: &Path) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, Path::new("Dockerfile"), (dockerfile.as_bytes(), 0o644))?;
    for (name, lock) in locks {
        append(&mut archive, Path::new(&format!("locks/{name}.lock")), (&fs::read(lock)?, 0o644))?;
    }
    append(&mut archive, Path::new("bin/robo"), (&fs::read(program)?, 0o755))?;
    let mut files = Vec::new();
    collect(package, &mut files)?;
    files.sort();
    for file in files {
        let name = file.strip_prefix(package).unwrap_or(&file);
        append(&mut archive, &Path::new("eval-env/robo_eval_env").join(name), (&fs::read(&file)?, 0o644))?;
    }
    archive.into_inner()
}

/// One file, of nobody and of no time: the same contents are the same layer.
fn append(archive: &mut tar::Builder<Vec<u8>>, name: &Path, (bytes, mode): (&[u8], u32)) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes)
}

/// Every file below a directory but byte code.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "__pycache__" {
                collect(&entry.path(), files)?;
            }
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(family: &str, lock: &str) -> Part {
        Part {
            family: family.into(),
            context: "/src/eval-env".into(),
            requirements: format!("/src/eval-env/requirements/{lock}.lock").into(),
            digest: format!("digest-of-{lock}"),
        }
    }

    fn of(parts: Vec<Part>) -> Build {
        Build {
            tag: "t:1".into(),
            base: "debian:bookworm-slim".into(),
            parts,
            program: "/bin/robo".into(),
            index: None,
        }
    }

    #[test]
    fn families_that_share_a_lock_share_its_packages() {
        let build = of(vec![part("arm", "metaworld"), part("arm-vision", "metaworld"), part("walker", "control")]);
        let locks = locks(&build.parts).unwrap();
        assert_eq!(locks.keys().collect::<Vec<_>>(), ["control", "metaworld"]);
        let text = dockerfile(&build, &["control", "metaworld"]);
        assert_eq!(text.matches("-m venv").count(), 2, "{text}");
        assert!(text.starts_with("FROM debian:bookworm-slim\n"), "{text}");
        assert!(text.contains("LABEL robo.builds=\"digest-of-control,digest-of-metaworld\""), "{text}");
        assert!(!text.contains("# syntax"), "{text}");
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let elsewhere = Part { context: "/other".into(), ..part("b", "y") };
        assert!(locks(&[part("a", "x"), elsewhere]).unwrap_err().to_string().contains("different build contexts"));
        let twin = Part { requirements: "/other/x.lock".into(), ..part("b", "x") };
        assert!(locks(&[part("a", "x"), twin]).unwrap_err().to_string().contains("two different locks"));
        assert!(locks(&[]).is_err());
    }

    #[test]
    fn a_base_that_cannot_be_had_is_told_from_a_step_that_fails() {
        let build = of(vec![part("arm", "metaworld")]);
        let said = |line: &str| step(&build, "no such host", &[line.to_owned()]).to_string();
        let base = said("Step 1/11 : FROM debian:bookworm-slim");
        assert!(base.contains("Failed to build eval container `t:1`: no such host"), "{base}");
        assert!(base.contains("scripts/base-image debian:bookworm-slim"), "{base}");
        assert!(!said("Step 2/11 : RUN apt-get update").contains("base-image"));
    }

    #[tokio::test]
    async fn the_context_holds_sources_and_no_byte_code() {
        let place = tempfile::tempdir().unwrap();
        let package = place.path().join("robo_eval_env");
        fs::create_dir_all(package.join("hooks/__pycache__")).unwrap();
        fs::write(package.join("hooks/a.py"), "pass").unwrap();
        fs::write(package.join("hooks/__pycache__/a.pyc"), "x").unwrap();
        let program = place.path().join("robo");
        fs::write(&program, "program").unwrap();
        let packed = pack("FROM x", &BTreeMap::new(), &program, &package).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["Dockerfile", "bin/robo", "eval-env/robo_eval_env/hooks/a.py"]);
        assert_eq!(packed, pack("FROM x", &BTreeMap::new(), &program, &package).unwrap());
    }
}
