//! `robo cycle miners`: every hotkey that a cycle knows of, whether it took part and, if not, why. For miners, who ask.
//!
//! Endpoints are no part of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    cycle_miners::{self, Found},
    db,
    drive::journal_failure,
    exit::{Exit, Failure, Result},
    render::{self, Format},
    report,
};
use crate::cycle::{CycleRecord, Journal, Miner, TaskStatus, plain_text};
use crate::plan::kinds::FINDERS;
use crate::stage::documents::{LeftOut, Listed};
use crate::store::Store;

/// What is told of a hotkey that has committed nothing.
const NONE: &str = "none";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo cycle miners                       # of the latest cycle
  robo cycle miners 01a20489 --format json
  robo cycle miners --hotkey 5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX")]
pub(super) struct Args {
    /// Which cycle
    #[arg(default_value = "@latest")]
    cycle: String,

    /// Only this hotkey
    #[arg(long)]
    hotkey: Option<String>,

    /// List those who have committed nothing, too
    #[arg(long)]
    all: bool,

    /// How to show them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A hotkey, and what the cycle made of it.
struct Row {
    uid: Option<u16>,
    hotkey: String,
    status: String,
    detail: Option<String>,
    first_block: Option<u64>,
    found: Option<Found>,
}

pub(super) async fn run(store: &Store, args: &Args) -> Result {
    let id = store.resolve(&args.cycle).await.map_err(db::failure)?;
    let record = store.load(id).await.map_err(journal_failure)?;
    let Some(listed) = listed(&record)? else {
        render::note(format!("Cycle {id} does not know its miners yet; see how far it is with: robo cycle show {id}"));
        return Ok(Exit::Ok);
    };
    let statuses = listed.statuses.clone();
    let mut rows = rows(listed, cycle_miners::find(store, id).await?);
    if let Some(hotkey) = &args.hotkey {
        rows.retain(|row| row.hotkey == *hotkey);
        if rows.is_empty() {
            let error = anyhow::anyhow!("`{hotkey}` was neither registered nor had it committed anything");
            return Err(Failure::new(Exit::Failed, error).hint(format!("who was: robo cycle miners {id} --all")));
        }
    }
    if args.format == Format::Json {
        let miners: Vec<Value> = rows.iter().map(Row::document).collect();
        render::json(&json!({ "cycle": id, "pin": record.pin, "statuses": statuses, "miners": miners }));
        return Ok(Exit::Ok);
    }
    let shows_all = args.all || args.hotkey.is_some();
    render::line(table(&rows, shows_all));
    if let Some(pin) = &record.pin {
        render::line(format!("block {} of subnet {}, {}", pin.block, pin.netuid, pin.hash));
    }
    Ok(Exit::Ok)
}

/// What was said of the miners by the stage that found them; nothing before it has ended.
fn listed(record: &CycleRecord) -> Result<Option<Listed>> {
    let stages = record.definition["stages"].as_array().into_iter().flatten();
    let finds = |stage: &&Value| FINDERS.iter().any(|kind| stage["uses"] == *kind);
    let ids: Vec<&str> = stages.filter(finds).filter_map(|stage| stage["id"].as_str()).collect();
    let mut all: Option<Listed> = None;
    for task in record.tasks.iter().filter(|task| ids.contains(&task.key.stage.as_str())) {
        let TaskStatus::Succeeded { output } = &task.status else { continue };
        let Listed { miners, left_out, statuses } = serde_json::from_value(output.clone())?;
        let all = all.get_or_insert_default();
        all.miners.extend(miners);
        all.left_out.extend(left_out);
        all.statuses.extend(statuses);
    }
    Ok(all)
}

/// Everybody once: by uid, and then those who have none.
fn rows(listed: Listed, found: Vec<Found>) -> Vec<Row> {
    let mut found: BTreeMap<String, Found> = found.into_iter().map(|one| (one.hotkey.to_string(), one)).collect();
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for LeftOut { uid, hotkey, status, detail } in listed.left_out {
        let row = Row { uid, status, detail, first_block: None, found: None, hotkey: hotkey.clone() };
        rows.insert(hotkey, row);
    }
    for Miner { uid, hotkey, first_block, .. } in listed.miners {
        let hotkey = hotkey.to_string();
        let (status, found) = ("ok".to_owned(), found.remove(&hotkey));
        rows.insert(hotkey.clone(), Row { uid: Some(uid), status, detail: None, first_block, found, hotkey });
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|row| (row.uid.is_none(), row.uid));
    rows
}

impl Row {
    fn document(&self) -> Value {
        json!({
            "uid": self.uid, "hotkey": self.hotkey, "status": self.status, "detail": self.detail,
            "first_block": self.first_block, "evaluation": self.found.as_ref().map(Found::document),
        })
    }

    /// What there is to say, a line each.
    fn remarks(&self) -> String {
        let evaluation = self.found.iter().flat_map(Found::remarks);
        self.detail.iter().map(|detail| plain_text(detail)).chain(evaluation).collect::<Vec<_>>().join("\n")
    }
}

fn table(rows: &[Row], shows_all: bool) -> String {
    let mut table = report::plain(["uid", "hotkey", "status", "since block", "found", "what"].map(str::to_owned));
    let mut silent = 0;
    for row in rows {
        if row.status == NONE && !shows_all {
            silent += 1;
            continue;
        }
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            or_dash(row.uid.map(|uid| uid.to_string())),
            row.hotkey.clone(),
            row.status.clone(),
            or_dash(row.first_block.map(|block| block.to_string())),
            or_dash(row.found.as_ref().and_then(Found::status).map(|status| status.word().to_owned())),
            row.remarks(),
        ]);
    }
    if silent > 0 {
        table.add_row(["-", &format!("({silent} others)"), NONE, "-", "-", "committed nothing; --all lists them"]);
    }
    table.to_string()
}
