//! `robo episode replay`: the actions of an episode in its simulator once more, compared with what was written down.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    db,
    desk::Desk,
    env,
    episode::{Found, Which},
    episode_run::{self, film_path},
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::config::{self, Database};
use crate::manifest::simulation::Determinism;
use crate::plan;
use crate::runtime::{
    python::Environments,
    replay::{Ending, Film, Script, replay},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Demand the trajectory that was written down
    #[arg(long)]
    check: bool,

    /// Film it: a file that ends in .gif or .mp4
    #[arg(long, value_name = "FILE", value_parser = film_path)]
    video: Option<PathBuf>,

    /// Camera of the simulator to film with [default: the manifest's first, or the simulator's]
    #[arg(long, value_name = "NAME", requires = "video")]
    camera: Option<String>,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: Database,
}

impl Args {
    /// Where the cycles are.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }
}

pub(super) async fn run(desk: &Desk, args: Args) -> Result {
    let found = args.which.find(desk).await?;
    let key = &found.episode.key;
    let root = Path::new(&found.stored.record.root);
    let definition = &found.stored.definition;
    let Some(environment) = definition.environment(&key.environment) else {
        return Err(anyhow::anyhow!("the cycle's definition has no environment `{}`", key.environment).into());
    };
    let simulation = &environment.simulation;
    let Some(adapter) = simulation.adapter() else { return Err(episode_run::foreign(&key.environment)) };
    let Some(actions) = desk.store.actions(found.stored.id, key).await.map_err(db::failure)? else {
        let error = anyhow::anyhow!("the actions of episode {} were not kept", found.id);
        let hint =
            "`keep_actions: all`, `failures` or `sample` of the stage `episodes/run` keeps them from the next cycle on";
        return Err(Failure::new(Exit::Failed, error).hint(hint));
    };
    if let Err(changed) = plan::check_builds(definition, root) {
        render::note(format!("warning: {changed}; another trajectory would be no wonder"));
    }
    let actions = actions.unpack(adapter.action.size as usize)?;
    let environments =
        Environments { data_dir: desk.data_dir.clone(), python: config::python(), progress: db::progress() };
    let python = env::prepare(&environments, &root.join(&environment.server.requirements)).await?.python;
    let seed = found.stored.record.salt.seed(&key.environment, key.seed_index);
    let script = Script { simulation, seed, actions: &actions };
    let film = args.video.as_ref().map(|path| Film { path, camera: args.camera.as_deref() });
    let ending = replay(&python, &root.join(&environment.server.context), &script, film.as_ref()).await?;
    tell(&args, &found, simulation.determinism, ending.as_ref())
}

/// Show how it ended this time, and whether that is how it ended before.
fn tell(args: &Args, found: &Found, determinism: Determinism, ending: Option<&Ending>) -> Result {
    let before = found.episode.report.trajectory_hash.as_deref();
    let now = ending.map(|ending| ending.trajectory_hash.as_str());
    let is_same = before.is_some() && before == now;
    match args.format {
        Format::Json => render::json(&json!({
            "id": found.id, "end": ending, "recorded_trajectory_hash": before, "same": is_same, "video": args.video,
        })),
        Format::Table => {
            render::line(format!("Episode {} played again", found.id));
            if let Some(ending) = ending {
                render::line(format!("  {} steps, return {}", ending.steps, ending.total_reward));
            }
            render::line(format!("  trajectory sha256:{}", now.unwrap_or("none: it did not come to its end")));
            let word = if is_same { "the same as" } else { "NOT the same as" };
            render::line(format!("  {word} what was recorded, sha256:{}", before.unwrap_or("none")));
            args.video.iter().for_each(|path| render::line(format!("  video {}", path.display())));
        }
    }
    if is_same || !args.check {
        return Ok(Exit::Ok);
    }
    if determinism == Determinism::None {
        render::note("the manifest promises no equal trajectories (`determinism: none`)");
    }
    Ok(Exit::Mismatch)
}
