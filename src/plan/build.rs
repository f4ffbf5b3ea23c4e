//! Whether what simulates is still what a definition was pinned to.

use std::{collections::BTreeSet, io, path::Path};

use super::Definition;
use crate::manifest;

/// What simulates is not what the cycle was pinned to.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its files cannot be read.
    #[error("what simulates `{family}` cannot be read")]
    Unreadable {
        /// The environments' family.
        family: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its files have changed.
    #[error("what simulates `{family}` has changed since the cycle started: `{context}` or `{requirements}`")]
    Changed {
        /// The environments' family.
        family: String,
        /// The simulator's package, relative to the root.
        context: String,
        /// Its requirements lock, relative to the root.
        requirements: String,
    },
}

/// Compare the files under `root` with the digests in the definition.
///
/// # Errors
/// [`BuildError`] for the first family that differs.
pub fn check_builds(definition: &Definition, root: &Path) -> Result<(), BuildError> {
    let mut checked = BTreeSet::new();
    for environment in &definition.environments {
        let family = environment.simulation.environment.family();
        let server = &environment.server;
        // What others have made has no sources here.
        if server.is_foreign() || !checked.insert(family) {
            continue;
        }
        let found = manifest::build_digest(&root.join(&server.context), &root.join(&server.requirements))
            .map_err(|source| BuildError::Unreadable { family: family.to_owned(), source })?;
        if found != server.build_digest {
            return Err(BuildError::Changed {
                family: family.to_owned(),
                context: server.context.clone(),
                requirements: server.requirements.clone(),
            });
        }
    }
    Ok(())
}
