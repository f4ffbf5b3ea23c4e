//! `robo init`: write the project that robo carries into a directory.

use std::path::PathBuf;

use super::{
    exit::{Exit, Failure, Result},
    render,
};
use crate::shipped::{self, Written};

/// Write the pipelines, environment manifests and simulator sources that robo carries into a directory, for editing
///
/// Without them, robo uses its own copies. Files in the directory where a verb is run win over these. A file that was edited stays
/// as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  robo init my-subnet && cd my-subnet\n  robo run-pipeline pipelines/quickstart.yaml"
)]
pub(super) struct Args {
    /// Where to
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Replace files that were edited
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: Args) -> Result {
    let written = shipped::write_out(&args.directory, args.force).map_err(|(file, error)| {
        Failure::new(Exit::Failed, anyhow::Error::from(error).context(format!("cannot write `{}`", file.display())))
            .hint("choose a directory that you may write to")
    })?;
    let count = |what: Written| written.iter().filter(|(_, found)| *found == what).count();
    for (file, _) in written.iter().filter(|(_, what)| *what == Written::Kept) {
        render::note(format!("`{}` was edited and stays as it is; --force replaces it", file.display()));
    }
    let (new, replaced) = (count(Written::New), count(Written::Replaced));
    let (same, kept) = (count(Written::Same), count(Written::Kept));
    let parts = [(new, "written"), (replaced, "replaced"), (same, "the same already"), (kept, "kept as edited")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    render::line(format!("{} files in `{}`: {}", written.len(), args.directory.display(), parts.join(", ")));
    for name in shipped::pipelines() {
        render::line(format!("  {}", args.directory.join("pipelines").join(format!("{name}.yaml")).display()));
    }
    Ok(Exit::Ok)
}
