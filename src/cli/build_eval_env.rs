//! `robo build-eval-env`: build the images that environment servers run from.

use std::path::{Path, PathBuf};

use super::{
    exit::{Exit, Failure, Result},
    project,
    render::{self, Format},
};
use crate::config::{self, EVAL_IMAGE, Engines};
use crate::host::Progress;
use crate::manifest::{Diagnostics, Family, load_all};
use crate::runtime::docker::{Build, Built, HostSpec, Hosts, Part, build};

/// Build the image of environment families from their manifests' `build`.
///
/// The image holds the simulators' packages as the locks pin them, the package of `eval-env` and the robo program that is
/// running. It is built on the first Docker host and copied to the others.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo build-eval-env                                     # every family, under the images that the manifests name
  robo build-eval-env metaworld --tag robo-subnet/eval-env:v1
  robo build-eval-env --docker-host ssh://robo@gpu-1 --docker-host ssh://robo@gpu-2")]
pub(super) struct Args {
    /// Environment families [default: all that name the image, or every one]
    #[arg(value_name = "FAMILY")]
    families: Vec<String>,

    /// Name of the image [default: those that the manifests name]
    #[arg(long, value_name = "IMAGE")]
    tag: Option<String>,

    /// Debian image to begin with; `scripts/base-image` makes it where no registry can be reached
    #[arg(long, value_name = "IMAGE", default_value = "debian:bookworm-slim")]
    base: String,

    /// Directory that holds `environments/` [default: the current one, or the nearest above it, else what robo carries]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    #[command(flatten)]
    data: config::DataDir,

    #[command(flatten)]
    engines: Engines,

    /// How to show the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(args: Args) -> Result {
    let specs: std::result::Result<Vec<HostSpec>, String> =
        args.engines.hosts().iter().map(|host| host.parse()).collect();
    let hosts = Hosts::new(&specs.map_err(|problem| Failure::new(Exit::Usage, anyhow::anyhow!(problem)))?);
    let root = project::root(args.root.as_deref(), &args.data)?;
    let images = images(&args, &root)?;
    let mut built = Vec::new();
    for (tag, families) in images {
        let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        render::note(format!("building `{tag}` with {}", names.join(", ")));
        let order = Build {
            tag: tag.clone(),
            base: args.base.clone(),
            parts: families.iter().filter_map(|family| part(family, &root)).collect(),
            program: std::env::current_exe()?,
            index: config::chosen_package_index(),
        };
        let progress = Progress::new(|line| render::note(line));
        let image = build(&hosts, &order, &progress).await.map_err(|error| Failure::new(Exit::Failed, error))?;
        built.push((tag, image));
    }
    match args.format {
        Format::Json => render::line(serde_json::to_string_pretty(&json(&built))?),
        Format::Table => built.iter().for_each(|(tag, image)| render::line(text(tag, image))),
    }
    Ok(Exit::Ok)
}

fn text(tag: &str, image: &Built) -> String {
    format!("{tag}  {}  {} MB", image.id, image.size / 1_000_000)
}

fn json(built: &[(String, Built)]) -> serde_json::Value {
    let image =
        |(tag, image): &(String, Built)| serde_json::json!({ "tag": tag, "digest": image.id, "bytes": image.size });
    built.iter().map(image).collect()
}

/// Which families go into which image.
fn images(args: &Args, root: &Path) -> Result<Vec<(String, Vec<Family>)>> {
    let mut diagnostics = Diagnostics::default();
    let mut families = load_all(root, &mut diagnostics);
    if diagnostics.has_errors() {
        return Err(Failure::new(Exit::Usage, anyhow::anyhow!("{diagnostics}")).hint("check manifests with: robo lint"));
    }
    if let Some(unknown) = args.families.iter().find(|name| !families.iter().any(|family| family.name == **name)) {
        let known: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        return Err(Failure::new(Exit::Usage, anyhow::anyhow!("there is no environment family `{unknown}`"))
            .hint(format!("there are: {}", known.join(", "))));
    }
    if let Some(foreign) = families.iter().find(|family| family.build.is_none() && args.families.contains(&family.name))
    {
        let error = anyhow::anyhow!("`{}` is made by others (`protocol: affinetes`)", foreign.name);
        return Err(Failure::new(Exit::Usage, error).hint("its image is taken as it is: docker pull, docker load"));
    }
    families.retain(|family| family.build.is_some());
    if !args.families.is_empty() {
        families.retain(|family| args.families.contains(&family.name));
    }
    let image_of = |family: &Family| family.image.clone().unwrap_or_else(|| EVAL_IMAGE.into());
    if let Some(tag) = &args.tag {
        if args.families.is_empty() && families.iter().any(|family| image_of(family) == *tag) {
            families.retain(|family| image_of(family) == *tag);
        }
        return Ok(vec![(tag.clone(), families)]);
    }
    let mut images: Vec<(String, Vec<Family>)> = Vec::new();
    for family in families {
        let tag = image_of(&family);
        match images.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, members)) => members.push(family),
            None => images.push((tag, vec![family])),
        }
    }
    Ok(images)
}

/// None for a family that others have made.
fn part(family: &Family, root: &Path) -> Option<Part> {
    let build = family.build.as_ref()?;
    Some(Part {
        family: family.name.clone(),
        context: root.join(&build.context),
        requirements: root.join(&build.requirements),
        digest: build.digest.clone(),
    })
}
