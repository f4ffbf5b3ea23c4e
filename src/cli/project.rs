//! Which files a verb works with: those of the project that it is run in, else those that robo carries.

use std::path::{Path, PathBuf};

use super::{
    db,
    exit::{Exit, Failure, Result},
    render,
};
use crate::{config, manifest, shipped};

/// A pipeline's file.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) file: PathBuf,
    /// The project whose environments it plays, where that is not the one that the file is in.
    pub(super) root: Option<PathBuf>,
}

/// The file that an operator means. One that is there wins over one that robo carries.
pub(super) fn pipeline(given: &Path, data: &config::DataDir) -> Result<Found> {
    if given.exists() {
        return Ok(Found { file: given.to_owned(), root: None });
    }
    let Some(name) = shipped::pipeline(given) else { return Ok(Found { file: given.to_owned(), root: None }) };
    if Path::new(&name).exists() {
        return Ok(Found { file: name.into(), root: None });
    }
    let root = here();
    let whose =
        root.as_ref().map_or_else(String::new, |root| format!(" with the environments of `{}`", root.display()));
    render::note(format!("using `{name}` as robo carries it{whose}; `robo init` writes it out for editing"));
    Ok(Found { file: unpack(data)?.join(name), root })
}

/// The project whose environments a verb is about: the one that was named or that it is run in, else the one that robo carries.
pub(super) fn root(given: Option<&Path>, data: &config::DataDir) -> Result<PathBuf> {
    if let Some(given) = given {
        let root = manifest::root_of(&given.join("pipeline.yaml"));
        return root.map_err(|problem| {
            Failure::new(Exit::Usage, anyhow::anyhow!(manifest::Diagnostics::from(problem).to_string()))
        });
    }
    if let Some(root) = here() {
        return Ok(root);
    }
    render::note("using the environments that robo carries; `robo init` writes them out for editing");
    unpack(data)
}

/// The project that the current directory belongs to.
fn here() -> Option<PathBuf> {
    manifest::root_of(Path::new("pipeline.yaml")).ok()
}

fn unpack(data: &config::DataDir) -> Result<PathBuf> {
    let data_dir = db::data_dir(data)?;
    shipped::unpack(&data_dir).map_err(|error| {
        let what = format!("cannot write the project that robo carries to `{}`", data_dir.display());
        Failure::new(Exit::Failed, anyhow::Error::from(error).context(what))
            .hint("choose a directory that you may write to with --data-dir, or work in the folder of a project")
    })
}
