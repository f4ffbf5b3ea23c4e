//! The project that robo carries: the pipelines, environment manifests and simulator sources of the repository that it was built
//! from. A lone program works with them, and `robo init` writes them out for editing.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

#[derive(RustEmbed)]
#[folder = "pipelines"]
#[include = "*.yaml"]
struct Pipelines;

#[derive(RustEmbed)]
#[folder = "environments"]
#[include = "*.yaml"]
struct Environments;

#[derive(RustEmbed)]
#[folder = "eval-env"]
#[include = "README.md"]
#[include = "pyproject.toml"]
#[include = "requirements/*"]
#[include = "robo_eval_env/*.py"]
#[include = "robo_eval_env/*/*.py"]
#[include = "robo_eval_env/py.typed"]
struct EvalEnv;

#[derive(RustEmbed)]
#[folder = "schemas"]
#[include = "*.json"]
struct Schemas;

/// Every file by its path from the project's root.
fn files() -> BTreeMap<String, Cow<'static, [u8]>> {
    fn of<E: RustEmbed>(folder: &str) -> impl Iterator<Item = (String, Cow<'static, [u8]>)> {
        E::iter().filter_map(move |name| Some((format!("{folder}/{name}"), E::get(&name)?.data)))
    }
    of::<Pipelines>("pipelines")
        .chain(of::<Environments>("environments"))
        .chain(of::<EvalEnv>("eval-env"))
        .chain(of::<Schemas>("schemas"))
        .collect()
}

/// The pipeline of this name, as a path from the project's root: `subnet`, `subnet.yaml` and `pipelines/subnet.yaml` name the same.
pub fn pipeline(name: &Path) -> Option<String> {
    let name = name.to_str()?;
    let name = name.strip_prefix("./").unwrap_or(name);
    let name = name.strip_prefix("pipelines/").unwrap_or(name);
    let name = name.strip_suffix(".yaml").unwrap_or(name);
    pipelines().iter().any(|known| known == name).then(|| format!("pipelines/{name}.yaml"))
}

/// Names of the pipelines, sorted. Files with another dot in their names are examples of what pipelines read.
pub fn pipelines() -> Vec<String> {
    let names = Pipelines::iter().filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned));
    let mut names: Vec<String> = names.filter(|name| !name.contains('.')).collect();
    names.sort();
    names
}

/// Have the project in a directory of its own below `data_dir`, and say where. Every version of robo has another one, so a cycle
/// finds the files that it began with.
///
/// # Errors
/// What the system says of a file that cannot be written.
pub fn unpack(data_dir: &Path) -> io::Result<PathBuf> {
    let files = files();
    let mut digest = Sha256::new();
    for (name, content) in &files {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    let directory = data_dir.join("projects").join(&hex::encode(digest.finalize())[..16]);
    for (name, content) in &files {
        let file = directory.join(name);
        if fs::read(&file).ok().as_deref() != Some(content) {
            write(&file, content)?;
        }
    }
    Ok(directory)
}

/// What became of a file that was to be written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is new.
    New,
    /// It was there already, with the same contents.
    Same,
    /// It was there with other contents, and stays as it was.
    Kept,
    /// It was there with other contents, and was replaced.
    Replaced,
}

/// Write the project into a directory. A file that was edited there stays unless `force` is given.
///
/// # Errors
/// The file that cannot be written, and what the system says of it.
pub fn write_out(directory: &Path, force: bool) -> Result<Vec<(PathBuf, Written)>, (PathBuf, io::Error)> {
    let mut written = Vec::new();
    for (name, content) in files() {
        let file = directory.join(name);
        let what = match fs::read(&file) {
            Ok(found) if found == *content => Written::Same,
            Ok(_) if !force => Written::Kept,
            Ok(_) => Written::Replaced,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Written::New,
            Err(error) => return Err((file, error)),
        };
        if matches!(what, Written::New | Written::Replaced) {
            write(&file, &content).map_err(|error| (file.clone(), error))?;
        }
        written.push((file, what));
    }
    Ok(written)
}

/// Write a file as a whole or not at all: another process may do the same at this moment.
fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let part = tempfile::Builder::new().permissions(permissions()).tempfile_in(directory)?;
    fs::write(part.path(), content)?;
    part.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Everybody may read it: simulators and containers run as other users.
fn permissions() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Diagnostics, load_all};
    use crate::plan::{Bindings, Missing, compile};

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn what_is_carried_is_what_the_repository_has_and_all_that_simulates() {
        let files = files();
        for (name, content) in &files {
            assert_eq!(fs::read(repository().join(name)).unwrap(), **content, "{name}");
        }
        for folder in ["pipelines", "environments", "schemas", "eval-env/robo_eval_env", "eval-env/robo_eval_env/hooks"]
        {
            for entry in fs::read_dir(repository().join(folder)).unwrap() {
                let name = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
                let is_meant = [".yaml", ".py", ".json"].iter().any(|extension| name.ends_with(extension));
                assert!(!is_meant || files.contains_key(&name), "{name} is not carried");
            }
        }
        assert!(!files.keys().any(|name| name.contains("__pycache__") || name.contains("/tests/")), "{files:?}");
    }

    #[test]
    fn a_lone_program_compiles_what_the_repository_compiles() {
        let data = tempfile::TempDir::new().unwrap();
        let root = unpack(data.path()).unwrap();
        for name in pipelines() {
            let bindings = |name: &str| (name == "ROBO_BACKEND_NETUID").then(|| "7".to_owned());
            let bindings = Bindings { flags: &[], variable: &bindings, missing: Missing::Tolerate };
            let name = format!("pipelines/{name}.yaml");
            let hash = |root: &Path| compile(&root.join(&name), &bindings).map(|it| it.definition.hash());
            let (ours, theirs) = (hash(&root), hash(repository()));
            assert_eq!(ours.map_err(|it| it.to_string()), theirs.map_err(|it| it.to_string()), "{name}");
        }
        let mut found = Diagnostics::default();
        assert!(!load_all(&root, &mut found).is_empty() && !found.has_errors(), "{found}");
    }

    #[test]
    fn an_edit_below_the_data_directory_is_undone_and_one_of_the_operator_is_kept() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = unpack(folder.path()).unwrap();
        let file = root.join("pipelines/subnet.yaml");
        let own = fs::read(&file).unwrap();
        fs::write(&file, "edited").unwrap();
        assert_eq!((unpack(folder.path()).unwrap(), fs::read(&file).unwrap()), (root, own.clone()));

        let project = folder.path().join("project");
        assert!(write_out(&project, false).unwrap().iter().all(|(_, what)| *what == Written::New));
        let file = project.join("pipelines/subnet.yaml");
        fs::write(&file, "edited").unwrap();
        let of = |written: Vec<(PathBuf, Written)>| written.into_iter().find(|(name, _)| *name == file).unwrap().1;
        assert_eq!(of(write_out(&project, false).unwrap()), Written::Kept);
        assert_eq!(fs::read_to_string(&file).unwrap(), "edited");
        assert_eq!(of(write_out(&project, true).unwrap()), Written::Replaced);
        assert_eq!((of(write_out(&project, true).unwrap()), fs::read(&file).unwrap()), (Written::Same, own));
    }

    #[test]
    fn a_pipeline_has_a_short_name() {
        for name in ["subnet", "subnet.yaml", "pipelines/subnet.yaml", "./pipelines/subnet.yaml"] {
            assert_eq!(pipeline(Path::new(name)).as_deref(), Some("pipelines/subnet.yaml"));
        }
        for name in ["/pipelines/subnet.yaml", "other", "../subnet", ""] {
            assert_eq!(pipeline(Path::new(name)), None, "{name}");
        }
    }
}
