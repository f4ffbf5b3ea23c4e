//! `robo cycle explain`: why a stage ran again or was kept, by the components of its fingerprint.

use serde_json::{Value, json};

use super::{
    cycle_logs::describe,
    cycle_miners::{self, Found},
    cycle_read::{Stored, require_stage},
    db, differences,
    exit::{Exit, Result},
    render::{self, Format},
};
use crate::cycle::{CycleId, StageId, TaskEvent};
use crate::plan::{Difference, Fingerprints, Phase};
use crate::store::{EventRow, Store};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A fork or rescore is compared with its parent, any other cycle with the one of the same pipeline before it.

Example:
  robo cycle explain @latest weights")]
pub(super) struct Args {
    /// Which cycle
    cycle: String,

    /// Which of its stages
    stage: StageId,

    /// Compare with this cycle
    #[arg(long, value_name = "CYCLE")]
    against: Option<String>,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The answer.
struct Explanation {
    cycle: CycleId,
    stage: StageId,
    /// `reused`, `ran`, `skipped` or `waiting`.
    what: &'static str,
    why: String,
    against: Option<CycleId>,
    changes: Vec<Difference>,
    components: Value,
    /// What happened besides the ordinary course: attempts that were lost or failed, and tasks that were opened again.
    attempts: Vec<EventRow>,
    /// For a stage that calls miners: how they were found, and what became of their episodes.
    miners: Vec<Found>,
}

pub(super) async fn run(store: &Store, args: &Args) -> Result {
    let explanation = explain(store, args).await?;
    match args.format {
        Format::Json => render::json(&explanation.document()),
        Format::Table => explanation.print(),
    }
    Ok(Exit::Ok)
}

async fn explain(store: &Store, args: &Args) -> Result<Explanation> {
    let stored = Stored::find(store, &args.cycle).await?;
    let id = &args.stage;
    require_stage(&stored, id)?;
    let against = match (&args.against, &stored.lineage.parent) {
        (Some(name), _) => Some(store.resolve(name).await.map_err(db::failure)?),
        (None, Some(parent)) => Some(parent.cycle),
        (None, None) => store.previous(stored.id).await.map_err(db::failure)?,
    };
    let other = match against {
        Some(cycle) => Some(Stored::load(store, cycle).await?),
        None => None,
    };
    let now = Fingerprints::of(&stored.definition);
    let changes = match &other {
        Some(other) => now.differences(&Fingerprints::of(&other.definition), id),
        None => Vec::new(),
    };
    let mut attempts = store.events(stored.id, None).await.map_err(db::failure)?;
    attempts.retain(|row| row.task.stage == *id && row.epoch > 0 && is_unusual(&row.event));
    let calls_miners = stored.definition.stage(id).is_some_and(|stage| stage.uses == "episodes/run");
    let miners = if calls_miners { cycle_miners::find(store, stored.id).await? } else { Vec::new() };
    Ok(Explanation {
        cycle: stored.id,
        what: what(&stored, id),
        why: why(&stored, other.as_ref(), id, &changes),
        against,
        components: json!(now.components(id)),
        stage: id.clone(),
        changes,
        attempts,
        miners,
    })
}

fn is_unusual(event: &TaskEvent) -> bool {
    !matches!(event, TaskEvent::Started | TaskEvent::Succeeded { .. })
}

fn what(stored: &Stored, id: &StageId) -> &'static str {
    let mut tasks = stored.record.tasks.iter().filter(|task| task.key.stage == *id).peekable();
    if stored.lineage.kept.contains(id) {
        "reused"
    } else if tasks.peek().is_some() && tasks.clone().all(|task| task.attempt == 0 && task.status.is_terminal()) {
        "skipped"
    } else if tasks.all(|task| task.attempt == 0) {
        "waiting"
    } else {
        "ran"
    }
}

/// The reason in one sentence.
fn why(stored: &Stored, other: Option<&Stored>, id: &StageId, changes: &[Difference]) -> String {
    let is_main = stored.definition.stage(id).is_some_and(|stage| stage.phase == Phase::Main);
    let Some(other) = other else {
        return "it is the first cycle of its pipeline".into();
    };
    let Some(parent) = stored.lineage.parent.as_ref().filter(|parent| parent.cycle == other.id) else {
        let what =
            if changes.is_empty() { "nothing that decides its output is different from" } else { "compared with" };
        return format!("a cycle of its own runs every stage; {what} cycle {}", other.id);
    };
    let origin = stored.lineage.origin.word();
    if stored.lineage.kept.contains(id) {
        format!(
            "its outputs and episodes come from cycle {}, where it had succeeded with the same fingerprint",
            other.id
        )
    } else if !is_main {
        "it belongs to the end of every cycle".into()
    } else if parent.from == *id {
        format!("the {origin} begins with it")
    } else if !changes.is_empty() {
        format!("its fingerprint is different from that in cycle {}", other.id)
    } else if !other.done().contains(id) {
        format!("it had not succeeded in cycle {}", other.id)
    } else {
        format!("the {origin} begins with `{}`, and it comes after that or is computed again with it", parent.from)
    }
}

impl Explanation {
    fn document(&self) -> Value {
        let attempt = |row: &EventRow| json!({ "task": row.task.to_string(), "attempt": row.attempt, "at": row.at, "event": row.event });
        json!({
            "cycle": self.cycle, "stage": self.stage, "what": self.what, "why": self.why, "against": self.against,
            "changes": differences::document(&self.changes), "components": self.components,
            "attempts": self.attempts.iter().map(attempt).collect::<Vec<_>>(),
            "miners": self.miners.iter().map(Found::document).collect::<Vec<_>>(),
        })
    }

    fn print(&self) {
        render::line(format!("`{}` of cycle {}: {}", self.stage, self.cycle, self.what));
        render::line(format!("  {}", self.why));
        if !self.changes.is_empty() {
            render::line("\nWhat is different");
        }
        for line in differences::lines(&self.changes) {
            render::line(format!("  {line}"));
        }
        if !self.attempts.is_empty() {
            render::line("\nOn the way");
        }
        for row in &self.attempts {
            render::line(format!("  {}  #{} {}", row.task, row.attempt, describe(&row.event)));
        }
        if let Some(table) = cycle_miners::table(&self.miners) {
            render::line(format!("\nMiners\n{table}"));
        }
    }
}
