//! `robo weights`: show published weights, and give out a vector that the publish guard holds.

use chrono::Utc;
use comfy_table::{CellAlignment, Table};
use serde_json::json;

use super::{
    db,
    exit::{Exit, Failure, Result},
    render::{self, Format},
    report,
};
use crate::{
    api::{
        documents::{self, Weight},
        standing::{self, Validity},
    },
    config,
    store::{PublicationRow, ReleaseAnswer, Scope, Standing, Store},
};

/// The cycle that is meant when none is named.
const LATEST: &str = "@latest";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo weights show
  robo weights show 0190c5a2 --format json
  robo weights ls
  robo weights release 0190c5a2 --reason 'the new frontier is right: checked with robo cycle diff'")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,

    /// Subnet whose weights are the latest [default: the first subnet that published; local weights before any has]
    #[arg(long, env = "ROBO_BACKEND_NETUID", global = true)]
    netuid: Option<u16>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the weights that count, or those of a cycle
    Show(Show),
    /// List what was published, and what is held back
    Ls(Ls),
    /// Give validators a vector that the publish guard holds; it becomes the latest
    Release(Release),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Number or UUID of a cycle, or the start of a UUID; @latest means what validators are given
    #[arg(default_value = LATEST)]
    cycle: String,

    /// How to print it; JSON is the body of /v1/weights/latest
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: config::Database,
}

#[derive(Debug, clap::Args)]
struct Ls {
    /// How many, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,

    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: config::Database,
}

#[derive(Debug, clap::Args)]
struct Release {
    /// Number or UUID of the cycle whose weights are held, or the start of a UUID
    cycle: String,

    /// Why it is right to give it out; kept beside the vector for everybody to read
    #[arg(long)]
    reason: String,

    /// How to print what came of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: config::Database,
}

pub(super) async fn run(args: Args) -> Result {
    let database = match &args.verb {
        Verb::Show(show) => &show.database,
        Verb::Ls(ls) => &ls.database,
        Verb::Release(release) => &release.database,
    };
    let store = Store::open_as_is(database, &db::progress()).await.map_err(db::failure)?;
    let scope = args.netuid.map_or(Scope::First, |netuid| Scope::Subnet { netuid, genesis: None });
    let store = store.serving(scope);
    let done = obey(&store, &args.verb).await;
    store.close().await;
    done
}

async fn obey(store: &Store, verb: &Verb) -> Result {
    store.require_schema().await.map_err(db::failure)?;
    match verb {
        Verb::Show(args) => show(store, args).await,
        Verb::Ls(args) => ls(store, args).await,
        Verb::Release(args) => release(store, args).await,
    }
}

async fn show(store: &Store, show: &Show) -> Result {
    let row = find(store, &show.cycle).await?;
    match show.format {
        Format::Json => {
            let cycle = store.cycle_summary(row.cycle).await.map_err(db::failure)?;
            let standing = store.standing().await.map_err(db::failure)?;
            let counts = standing.latest.as_ref().is_some_and(|latest| latest.cycle == row.cycle);
            let validity = Validity::default();
            let status = standing::of(&standing, Utc::now(), validity)?.filter(|_| counts);
            render::json(&documents::weights((&row, &cycle), validity, status.as_ref())?);
        }
        Format::Table => {
            render::line(heading(&row));
            render::line(table(&documents::weight_entries(&row)?).to_string());
            let Standing { latest, held } = store.standing().await.map_err(db::failure)?;
            if let Some(held) = held.filter(|_| latest.is_some_and(|latest| latest.cycle == row.cycle)) {
                render::note(format!("a newer vector is held back, that of cycle {}: {}", held.cycle, why(&held)));
                render::note(how_to_release(&held));
            }
        }
    }
    Ok(Exit::Ok)
}

/// Why a vector is held.
pub(super) fn why(row: &PublicationRow) -> &str {
    row.held.as_deref().unwrap_or_default()
}

/// What a person does about it.
pub(super) fn how_to_release(row: &PublicationRow) -> String {
    format!(
        "look at it with `robo weights show {0}`; give it out with `robo weights release {0} --reason ...`",
        row.cycle
    )
}

async fn ls(store: &Store, args: &Ls) -> Result {
    let rows = store.publications(args.limit).await.map_err(db::failure)?;
    let counts = store.latest_publication().await.map_err(db::failure)?.map(|row| row.sequence);
    if args.format == Format::Json {
        let of_row = |row: &PublicationRow| {
            json!({
                "sequence": row.sequence, "cycle": row.cycle, "block": row.block, "created_at": row.created_at,
                "digest": row.publication.digest, "status": status(row, counts), "held": row.held,
                "released": row.release.as_ref().map(|it| json!({ "reason": it.reason, "at": it.at })),
            })
        };
        render::json(&json!({ "publications": rows.iter().map(of_row).collect::<Vec<_>>() }));
        return Ok(Exit::Ok);
    }
    let mut table = report::plain(["no", "cycle", "published", "status", "why"].map(str::to_owned));
    for row in &rows {
        let released = row.release.as_ref().map(|it| format!("; released: {}", it.reason)).unwrap_or_default();
        table.add_row([
            row.sequence.to_string(),
            row.cycle.to_string(),
            row.created_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            status(row, counts).to_owned(),
            format!("{}{released}", why(row)),
        ]);
    }
    render::line(table.to_string());
    Ok(Exit::Ok)
}

/// A word for where a publication stands; `counts` is the sequence of the one that validators are given.
fn status(row: &PublicationRow, counts: Option<i64>) -> &'static str {
    match row.is_given_out() {
        false => "held",
        true if Some(row.sequence) == counts => "latest",
        true => "past",
    }
}

async fn release(store: &Store, args: &Release) -> Result {
    let cycle = store.resolve(&args.cycle).await.map_err(db::failure)?;
    let answer = store.release_publication(cycle, &args.reason).await.map_err(db::failure)?;
    let refused = |problem: String, hint: &str| Err(Failure::new(Exit::Failed, anyhow::anyhow!(problem)).hint(hint));
    let said = match answer {
        ReleaseAnswer::Released => format!("the weights of cycle {cycle} are the latest now"),
        ReleaseAnswer::AlreadyReleased => format!("the weights of cycle {cycle} were released before"),
        ReleaseAnswer::NotHeld => {
            return refused(format!("the weights of cycle {cycle} are not held"), "`robo weights ls` shows which are");
        }
        ReleaseAnswer::Outdated(by) => {
            return refused(
                format!("the weights of cycle {by} are newer than those of cycle {cycle}, and count"),
                "an older vector is not put in the place of a newer one; `robo cycle fork` evaluates again",
            );
        }
        ReleaseAnswer::Unpublished => {
            let problem = format!("cycle {cycle} has published no weights");
            return refused(problem, "one publishes when it completes; `robo weights ls` lists them");
        }
    };
    match args.format {
        Format::Json => render::json(&json!({ "cycle": cycle, "released": true, "message": said })),
        Format::Table => render::line(said),
    }
    Ok(Exit::Ok)
}

async fn find(store: &Store, cycle: &str) -> Result<PublicationRow> {
    let (row, none) = if cycle == LATEST {
        (store.latest_publication().await, "no weights have been published yet".to_owned())
    } else {
        let id = store.resolve(cycle).await.map_err(db::failure)?;
        (store.publication(id).await, format!("cycle `{id}` has published no weights"))
    };
    row.map_err(db::failure)?.ok_or_else(|| {
        Failure::new(Exit::Failed, anyhow::anyhow!(none))
            .hint("`robo cycle ls` lists all cycles; one publishes when it completes with `robo run-pipeline FILE`")
    })
}

fn heading(row: &PublicationRow) -> String {
    let block = row.block.map(|block| format!(" at block {block}")).unwrap_or_default();
    let when = row.created_at.format("%Y-%m-%d %H:%M:%S UTC");
    let held = match (&row.held, &row.release) {
        (None, _) => String::new(),
        (Some(held), None) => format!("\nHELD BACK: {held}"),
        (Some(held), Some(release)) => format!("\nheld ({held}) and released: {}", release.reason),
    };
    format!("cycle {}{block}, published {when}\nsha256 {}{held}", row.cycle, row.publication.digest)
}

fn table(weights: &[Weight]) -> Table {
    let mut table = report::plain(["uid", "miner", "weight", "u16"].map(str::to_owned));
    for entry in weights {
        table.add_row([
            entry.uid.to_string(),
            entry.hotkey.clone().unwrap_or_else(|| "(burn)".into()),
            format!("{:.6}", entry.weight),
            entry.weight_u16.to_string(),
        ]);
    }
    for column in [0, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
