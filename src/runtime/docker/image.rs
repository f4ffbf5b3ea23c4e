//! Which image a server is made from: there, built from the sources the cycle is pinned to, and the same for all of it.

use std::sync::Arc;

use bollard::models::ImageInspect;

use super::{
    engine::{Engine, is_not_found},
    foreign,
};
use crate::cycle::InfraFault;
use crate::host::ledger::Ledger;
use crate::plan;
use crate::runtime::{Error, Fault};

/// The label of our images: the digests of the builds inside, with commas between them.
pub(super) const BUILDS: &str = "robo.builds";

/// Where everything of ours is in an image.
pub(super) const ROOT: &str = "/opt/robo";

/// The id of the image for a server. The first one that a cycle uses under a name is the one it uses to its end.
pub(super) async fn choose(
    engine: &Engine,
    (family, server): (&str, &plan::Server),
    ledger: &Arc<dyn Ledger>,
) -> Result<String, Error> {
    let name = match server.is_foreign() {
        true => foreign::named(family, server.image.as_deref())?,
        false => server.image.as_deref().unwrap_or_default(),
    };
    let remedy = match server.is_foreign() {
        true => foreign::bring(name),
        false => format!("make it with: robo build-eval-env {family} --tag {name} --docker-host {}", engine.url()),
    };
    let missing = |problem: String| Box::new(Fault::new(InfraFault::ImageMissing, problem).remedy(&remedy));
    let Some(found) = inspect(engine, name).await? else {
        return Err(missing(format!("there is no image `{name}` on {}", engine.url())).into());
    };
    let id = found.id.clone().unwrap_or_default();
    let pinned = ledger.pin(name, &id).await?;
    let chosen = if pinned == id {
        found
    } else {
        inspect(engine, &pinned).await?.ok_or_else(|| {
            let problem = format!(
                "the cycle began with the image {pinned} as `{name}`, which {} does not have; there it is {id}",
                engine.url()
            );
            let remedy = "copy it there with `docker save` and `docker load`, or cancel the cycle and start a new one";
            Box::new(Fault::new(InfraFault::ImageMissing, problem).remedy(remedy))
        })?
    };
    if server.is_foreign() {
        // What it is made of nobody knows here; that it stays the same is all that can be held.
        return Ok(pinned);
    }
    let labels = chosen.config.and_then(|config| config.labels).unwrap_or_default();
    let builds = labels.get(BUILDS).map(String::as_str).unwrap_or_default();
    if !builds.split(',').any(|build| build == server.build_digest) {
        let problem = format!(
            "the image `{name}` on {} does not hold what simulates `{family}` as its sources are now",
            engine.url()
        );
        return Err(missing(problem).into());
    }
    Ok(pinned)
}

/// What the engine knows of an image; nothing when it has none of that name.
pub(super) async fn inspect(engine: &Engine, name: &str) -> Result<Option<ImageInspect>, Error> {
    match engine.client().await?.inspect_image(name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(engine.fault("looking for an image", &error)),
    }
}

/// How other engines are to be told of an image: as what a registry knows it by, from which they can fetch it, or by its
/// id, when it was built or loaded here and has to be there as well. Both name one content and no other.
pub(super) async fn reference(engine: &Engine, id: &str) -> Result<String, Error> {
    let found = inspect(engine, id).await?;
    let digests = found.and_then(|found| found.repo_digests).unwrap_or_default();
    Ok(digests.into_iter().next().unwrap_or_else(|| id.to_owned()))
}

/// Our program in an image.
pub(super) fn program() -> String {
    format!("{ROOT}/bin/robo")
}

/// The directory of the simulators' package in an image.
pub(super) fn package() -> String {
    format!("{ROOT}/eval-env")
}

/// The interpreter in an image that has the packages of a requirements lock.
pub(super) fn python(requirements: &str) -> String {
    format!("{ROOT}/python/{}/bin/python", lock_name(requirements))
}

/// The name of a lock, as directories and files of an image are called after it.
pub(super) fn lock_name(requirements: &str) -> &str {
    let file = requirements.rsplit('/').next().unwrap_or(requirements);
    file.strip_suffix(".lock").unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lock_has_its_interpreter() {
        assert_eq!(python("eval-env/requirements/metaworld.lock"), "/opt/robo/python/metaworld/bin/python");
        assert_eq!(lock_name("plain"), "plain");
    }
}
