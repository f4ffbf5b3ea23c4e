//! `robo weights`: show published weights.

use comfy_table::{CellAlignment, Table};

use super::{
    db,
    exit::{Exit, Failure, Result},
    render::{self, Format},
    report,
};
use crate::{
    api::documents::{self, Weight},
    config,
    store::{PublicationRow, Store},
};

/// The cycle that is meant when none is named.
const LATEST: &str = "@latest";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  robo weights show\n  robo weights show 0190c5a2 --format json")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the weights that count, or those of a cycle
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Id of a cycle, or the start of one; @latest means whatever was published last
    #[arg(default_value = LATEST)]
    cycle: String,

    /// How to print it; JSON is the body of /v1/weights/latest
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: config::Database,
}

pub(super) async fn run(args: Args) -> Result {
    let Verb::Show(show) = args.verb;
    let store = Store::open_as_is(&show.database, &db::progress()).await.map_err(db::failure)?;
    let shown = self::show(&store, &show).await;
    store.close().await;
    shown
}

async fn show(store: &Store, show: &Show) -> Result {
    store.require_schema().await.map_err(db::failure)?;
    let row = find(store, &show.cycle).await?;
    match show.format {
        Format::Json => {
            let cycle = store.cycle_summary(row.cycle).await.map_err(db::failure)?;
            render::json(&documents::weights(&row, &cycle)?);
        }
        Format::Table => {
            render::line(heading(&row));
            render::line(table(&documents::weight_entries(&row)?).to_string());
        }
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
    format!("cycle {}{block}, published {when}\nsha256 {}", row.cycle, row.publication.digest)
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
