//! `robo episode`: one episode by hand, and the episodes of a cycle one by one.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    cycle_read::Stored,
    desk::Desk,
    drive::journal_failure,
    episode_replay, episode_run,
    exit::{Exit, Failure, Result},
    render::{self, Format},
    report,
};
use crate::config::Database;
use crate::cycle::{Episode, Journal, Salt};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Play one episode with a miner, outside of any cycle
    #[command(
        after_help = "Examples:\n  robo episode run --env metaworld/reach-v3 --seed 7 --miner http://127.0.0.1:9000\n  robo episode run --env metaworld/reach-v3 --seed 7 --miner demo:heuristic --video reach.gif\n\nA video is a GIF or, where the program `ffmpeg` is installed, an MP4.\nNothing is written to a database."
    )]
    Run(episode_run::Args),
    /// List the episodes of a cycle
    #[command(after_help = "Examples:\n  robo episode ls\n  robo episode ls 01a20489 --miner 5Fx... --outcome failure")]
    Ls(ListArgs),
    /// Show an episode: outcome, reason, score, latency, trajectory
    Show(ShowArgs),
    /// Play an episode again from the actions that were kept
    #[command(
        after_help = "Examples:\n  robo episode replay 4f2a --check\n  robo episode replay 4f2a --video what-happened.gif\n\nWhich episodes keep their actions is said by `keep_actions` of the stage `episodes/run`. With --check the exit code is 6 when\nthe trajectory is another one."
    )]
    Replay(episode_replay::Args),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Which cycle
    #[arg(default_value = "@latest")]
    cycle: String,

    /// Only of this environment
    #[arg(long, value_name = "FAMILY/TASK")]
    env: Option<String>,

    /// Only of this miner
    #[arg(long, value_name = "HOTKEY")]
    miner: Option<String>,

    /// Only with this outcome: `success`, `failure`, `miner_fault`
    #[arg(long, value_name = "WORD")]
    outcome: Option<String>,

    /// Most that are listed
    #[arg(long, default_value_t = 100)]
    limit: usize,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: Database,
}

/// Which episode of which cycle.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Its id, as `robo episode ls` shows it and as its miner was told, or a unique beginning of it
    id: String,

    /// The cycle it is of
    #[arg(long, default_value = "@latest")]
    cycle: String,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    which: Which,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(args: Args) -> Result {
    match args.verb {
        Verb::Run(args) => episode_run::run(args).await,
        Verb::Ls(args) => {
            let desk = Desk::open(&args.database).await?;
            let result = list(&desk, &args).await;
            desk.close().await;
            result
        }
        Verb::Show(args) => {
            let desk = Desk::open(&args.database).await?;
            let result = show(&desk, &args).await;
            desk.close().await;
            result
        }
        Verb::Replay(args) => {
            let desk = Desk::open(args.database()).await?;
            let result = episode_replay::run(&desk, args).await;
            desk.close().await;
            result
        }
    }
}

/// The id under which a miner knows an episode.
fn id_of(salt: &Salt, episode: &Episode) -> String {
    salt.episode_id(&episode.key.environment, episode.key.seed_index, episode.key.hotkey.as_str())
}

/// A scored episode with its id and the cycle it is of.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) episode: Episode,
    pub(super) stored: Stored,
}

impl Which {
    /// The episode that is meant.
    pub(super) async fn find(&self, desk: &Desk) -> Result<Found> {
        let stored = Stored::find(&desk.store, &self.cycle).await?;
        stored.require_detail()?;
        let episodes = desk.store.scored_episodes(stored.id).await.map_err(journal_failure)?;
        let named = episodes.into_iter().map(|episode| (id_of(&stored.record.salt, &episode), episode));
        let mut matching: Vec<(String, Episode)> = named.filter(|(id, _)| id.starts_with(&self.id)).collect();
        match (matching.pop(), matching.len()) {
            (Some((id, episode)), 0) if !self.id.is_empty() => Ok(Found { id, episode, stored }),
            (None, _) => Err(self.unclear(&stored, "no scored episode")),
            (Some(_), _) => Err(self.unclear(&stored, "more than one episode")),
        }
    }

    fn unclear(&self, stored: &Stored, how_many: &str) -> Failure {
        let error = anyhow::anyhow!("cycle {} has {how_many} whose id begins with `{}`", stored.id, self.id);
        Failure::new(Exit::Usage, error).hint("`robo episode ls` lists them; `--cycle` names another cycle")
    }
}

async fn list(desk: &Desk, args: &ListArgs) -> Result {
    let stored = Stored::find(&desk.store, &args.cycle).await?;
    stored.require_detail()?;
    let mut episodes = desk.store.scored_episodes(stored.id).await.map_err(journal_failure)?;
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    episodes.retain(|episode| {
        fits(&args.env, episode.key.environment.as_str())
            && fits(&args.miner, episode.key.hotkey.as_str())
            && fits(&args.outcome, episode.report.outcome.word())
    });
    let all = episodes.len();
    episodes.truncate(args.limit);
    let rows = episodes.iter().map(|episode| (id_of(&stored.record.salt, episode), episode));
    if args.format == Format::Json {
        let rows: Vec<Value> = rows.map(|(id, episode)| document(&id, episode)).collect();
        render::json(&json!({ "cycle": stored.id, "episodes": rows, "matching": all }));
        return Ok(Exit::Ok);
    }
    let header = ["episode", "environment", "seed", "miner", "outcome", "steps", "return", "score"];
    let mut table = report::plain(header.map(str::to_owned));
    for (id, Episode { key, report, .. }) in rows {
        table.add_row([
            // Enough of it to be the only one, in all likelihood.
            id.chars().take(12).collect(),
            key.environment.to_string(),
            key.seed_index.to_string(),
            key.hotkey.to_string(),
            report.outcome.to_string(),
            report.steps.to_string(),
            format!("{:.1}", report.total_reward),
            report.score.map_or("-".into(), |score| format!("{score:.2}")),
        ]);
    }
    render::line(table.to_string());
    if all > args.limit {
        render::note(format!("{} more; --limit shows them", all - args.limit));
    }
    Ok(Exit::Ok)
}

fn document(id: &str, episode: &Episode) -> Value {
    json!({
        "id": id,
        "environment": episode.key.environment,
        "seed_index": episode.key.seed_index,
        "hotkey": episode.key.hotkey,
        "attempt": episode.attempt,
        "report": episode.report,
    })
}

async fn show(desk: &Desk, args: &ShowArgs) -> Result {
    let found = args.which.find(desk).await?;
    let key = &found.episode.key;
    let actions = desk.store.actions(found.stored.id, key).await.map_err(super::db::failure)?;
    if args.format == Format::Json {
        let mut shown = document(&found.id, &found.episode);
        shown["cycle"] = json!(found.stored.id);
        shown["actions_kept"] = json!(actions.is_some());
        render::json(&shown);
        return Ok(Exit::Ok);
    }
    render::line(format!("Episode {} of cycle {}", found.id, found.stored.id));
    render::line(format!("  {}, seed {}, miner {}", key.environment, key.seed_index, key.hotkey));
    lines(&found.episode).iter().for_each(|line| render::line(format!("  {line}")));
    let kept = match &actions {
        Some(actions) => format!("actions kept ({} bytes): robo episode replay {}", actions.as_bytes().len(), found.id),
        None => "actions not kept (`keep_actions` of the stage says which are)".to_owned(),
    };
    render::line(format!("  {kept}"));
    Ok(Exit::Ok)
}

/// What came of an episode, for people.
fn lines(episode: &Episode) -> Vec<String> {
    let report = &episode.report;
    let mut lines = report_lines(report);
    lines.push(format!("attempt {}, took {:.1} s", episode.attempt, report.wall_ms / 1000.0));
    lines
}

/// What a report says, for people.
pub(super) fn report_lines(report: &crate::cycle::EpisodeReport) -> Vec<String> {
    let mut lines = vec![format!("outcome {}", report.outcome)];
    lines.extend(report.detail.iter().map(|detail| format!("detail {detail}")));
    lines.push(format!("{} steps, return {}", report.steps, report.total_reward));
    lines.extend(report.score.map(|score| format!("score {score}")));
    lines.extend(report.latency.map(|latency| {
        format!("latency p50 {:.1} ms, p95 {:.1} ms, max {:.1} ms", latency.p50_ms, latency.p95_ms, latency.max_ms)
    }));
    lines.extend(report.trajectory_hash.iter().map(|hash| format!("trajectory sha256:{hash}")));
    lines
}
