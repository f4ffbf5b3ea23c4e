//! `robo episode run`: one episode with one miner, on an environment server of its own, without a database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde_json::json;

use super::{
    db, env, episode,
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::address::Rules;
use crate::config::{self, DataDir};
use crate::cycle::{EnvironmentId, EpisodeReport, Hotkey, Keep, Outcome, Salt};
use crate::manifest::simulation::Simulation;
use crate::plan;
use crate::rollout::{
    Client,
    protocol::{COLD_START_MS, EpisodeOrder, EpisodesRequest, Open, Origin, ServerMessage},
};
use crate::runtime::{
    DemoMiners, Order, Process, Runtime,
    python::Environments,
    replay::{Film, Script, replay},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The environment
    #[arg(long, value_name = "FAMILY/TASK")]
    env: String,

    /// The simulator's seed
    #[arg(long, value_name = "N")]
    seed: u32,

    /// Secret that the episode's id comes from, 64 hexadecimal digits [default: random]
    #[arg(long, value_name = "HEX")]
    salt: Option<Salt>,

    /// Where the miner answers: `http(s)://host:port[/prefix]`, or `demo:POLICY`
    #[arg(long, value_name = "URL")]
    miner: String,

    /// Film the episode: a file that ends in .gif or .mp4. It is drawn afterwards, outside of the miner's clock
    #[arg(long, value_name = "FILE", value_parser = film_path)]
    video: Option<PathBuf>,

    /// Camera of the simulator to film with [default: the manifest's first, or the simulator's]
    #[arg(long, value_name = "NAME", requires = "video")]
    camera: Option<String>,

    /// Directory that holds environments/ [default: the current one, or the nearest above it]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    data: DataDir,
}

/// A film's path, refused before anything is played when it cannot be written in that form.
pub(super) fn film_path(text: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("gif") => Ok(path),
        Some("mp4") if has_ffmpeg() => Ok(path),
        Some("mp4") => Err("MP4 needs the program `ffmpeg` (package ffmpeg): install it, or write a .gif".to_owned()),
        _ => Err("a video is a file that ends in .gif or .mp4".to_owned()),
    }
}

fn has_ffmpeg() -> bool {
    crate::config::search_path().iter().any(|directory| directory.join("ffmpeg").is_file())
}

pub(super) async fn run(args: Args) -> Result {
    let selection = env::Selection {
        patterns: vec![args.env.clone()],
        root: args.root.clone(),
        data: args.data.clone(),
        format: Format::default(),
    };
    let selected = selection.resolve()?;
    let mut members = selected.families.iter().flat_map(|family| family.members.iter().map(move |one| (family, one)));
    let (Some((family, member)), None) = (members.next(), members.next()) else {
        let error = anyhow::anyhow!("`{}` names more than one environment", args.env);
        return Err(Failure::new(Exit::Usage, error).hint("name one: `robo env ls` lists them"));
    };
    let environment = plan::environment(family, member);
    if environment.simulation.adapter().is_none() {
        return Err(foreign(&environment.simulation.environment));
    }
    let report = play(&args, &selected.root, &environment).await?;
    if let Some(path) = &args.video {
        let film = Film { path, camera: args.camera.as_deref() };
        shoot(&args, &selected.root, &environment, (&report, &film)).await?;
    }
    match args.format {
        Format::Json => {
            let report = EpisodeReport { actions: None, ..report.clone() };
            render::json(&json!({ "environment": args.env, "seed": args.seed, "report": report, "video": args.video }));
        }
        Format::Table => {
            render::line(format!("{}, seed {}", args.env, args.seed));
            episode::report_lines(&report).iter().for_each(|line| render::line(format!("  {line}")));
            args.video.iter().for_each(|path| render::line(format!("  video {}", path.display())));
        }
    }
    Ok(if matches!(report.outcome, Outcome::InfraFault(_)) { Exit::Failed } else { Exit::Ok })
}

/// The refusal of what only our own simulators can do.
pub(super) fn foreign(environment: &EnvironmentId) -> Failure {
    let error = anyhow::anyhow!("`{environment}` is simulated by a server of others (`protocol: affinetes`)");
    Failure::new(Exit::Usage, error)
        .hint("such a server tells no trajectory and takes no actions: docs/environments.md")
}

/// Start a server and a demo miner if one is asked for, play, and end both.
async fn play(args: &Args, root: &Path, environment: &plan::Environment) -> Result<EpisodeReport> {
    let explained = |error: crate::runtime::Error| Failure::from(anyhow::anyhow!(error.explain()));
    let runtime = Process::with_defaults(db::data_dir(&args.data)?, db::progress()).map_err(explained)?;
    let miners = DemoMiners::with_defaults().map_err(explained)?;
    let endpoint = miners.resolve(&args.miner).await.map_err(explained)?;
    let family = environment.simulation.environment.family().to_owned();
    let order = Order { family, server: environment.server.clone(), root: root.to_owned(), kinds: 1 };
    let server = runtime.start(&order).await.map_err(explained)?;
    let client = Client::new(&server.address().url, &server.address().token)?;
    let salt = args.salt.clone().unwrap_or_else(Salt::random);
    let played = match ordered((args.seed, &salt), &environment.simulation.environment, endpoint) {
        Ok(order) => exchange(&client, environment, order).await,
        Err(error) => Err(error),
    };
    server.stop().await;
    miners.stop().await;
    played
}

/// The episode. Its id is a fresh one, as in every cycle: a policy that keeps its state by the id must not find an old one.
fn ordered((seed, salt): (u32, &Salt), environment: &EnvironmentId, endpoint: String) -> Result<EpisodeOrder> {
    let hotkey: Hotkey = "by-hand".parse()?;
    Ok(EpisodeOrder {
        order: 0,
        seed,
        episode_id: salt.episode_id(environment, 0, hotkey.as_str()),
        hotkey,
        endpoint,
        origin: Origin::Ourselves,
        keep: Keep::All,
    })
}

async fn exchange(client: &Client, environment: &plan::Environment, order: EpisodeOrder) -> Result<EpisodeReport> {
    let simulations = vec![environment.simulation.clone()];
    let opened = client.open(&Open { simulations, workers: 1, slots_per_worker: 1 }).await?;
    if let Some(renderer) = opened.renderer {
        render::note(format!("images are drawn by {renderer}"));
    }
    let request = EpisodesRequest {
        run: uuid::Uuid::nil(),
        environment: environment.simulation.environment.clone(),
        action_timeout_ms: environment.action_timeout_ms,
        reset_timeout_ms: environment.reset_timeout_ms,
        per_miner: 1,
        permits: false,
        budget_ms: None,
        spent_ms: BTreeMap::new(),
        cold_start_ms: COLD_START_MS,
        rules: Rules::none(),
        canary: Vec::new(),
        episodes: vec![order],
    };
    let mut messages = std::pin::pin!(client.episodes(&request).await?);
    while let Some(message) = messages.next().await {
        if let ServerMessage::Episode { report, .. } = message? {
            return Ok(report);
        }
    }
    Err(anyhow::anyhow!("the environment server ended without running the episode").into())
}

/// Play the episode again for the camera.
async fn shoot(
    args: &Args,
    root: &Path,
    environment: &plan::Environment,
    (report, film): (&EpisodeReport, &Film<'_>),
) -> Result<()> {
    let simulation: &Simulation = &environment.simulation;
    let Some(actions) = &report.actions else {
        render::note("there is no video: the episode did not come to its end");
        return Ok(());
    };
    let Some(adapter) = simulation.adapter() else { return Err(foreign(&simulation.environment)) };
    let actions = actions.unpack(adapter.action.size as usize)?;
    let environments =
        Environments { data_dir: db::data_dir(&args.data)?, python: config::python(), progress: db::progress() };
    let python = env::prepare(&environments, &root.join(&environment.server.requirements)).await?.python;
    let script = Script { simulation, seed: args.seed, actions: &actions };
    let package = root.join(&environment.server.context);
    replay(&python, &package, &script, Some(film)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_by_hand_has_an_opaque_id_of_its_own() {
        let environment = "metaworld/reach-v3".parse().unwrap();
        let id = |salt: &Salt| ordered((7, salt), &environment, "http://127.0.0.1:9".into()).unwrap().episode_id;
        let salt: Salt = "5a".repeat(32).parse().unwrap();
        assert_eq!(id(&salt), salt.episode_id(&environment, 0, "by-hand"));
        assert_ne!(id(&Salt::random()), id(&Salt::random()));
        assert!(id(&Salt::random()).bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}
