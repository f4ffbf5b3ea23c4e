//! `robo cycle diff`: how two cycles differ, in definition, per stage, in scores and in weights.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    cycle_read::Stored,
    db, differences,
    exit::{Exit, Result},
    render::{self, Format},
    report,
};
use crate::plan::{Difference, Fingerprints};
use crate::stage::documents::{ScoresDocument, WeightsDocument};
use crate::store::Store;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  robo cycle diff 01a20489 @latest")]
pub(super) struct Args {
    /// The cycle to begin with
    a: String,

    /// The cycle to compare it with
    b: String,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What became of a stage from one definition to the other.
struct StageChange {
    stage: String,
    /// `same`, `changed`, `new` or `gone`.
    what: &'static str,
    /// Where the change happened: in the stage itself or upstream of it.
    changes: Vec<Difference>,
}

/// A number of both cycles under one name; none where a cycle has no such number.
type Pairs = BTreeMap<[String; 2], (Option<f64>, Option<f64>)>;

struct Documents {
    scores: Option<ScoresDocument>,
    weights: Option<WeightsDocument>,
    digest: Option<String>,
}

pub(super) async fn run(store: &Store, args: &Args) -> Result {
    let (a, b) = (Stored::find(store, &args.a).await?, Stored::find(store, &args.b).await?);
    let stages = stages(&a, &b);
    let (of_a, of_b) = (documents(store, &a).await?, documents(store, &b).await?);
    let scores = pairs(rates(&of_a), rates(&of_b));
    let weights = pairs(shares(&of_a), shares(&of_b));
    if args.format == Format::Json {
        let pair = |names: [&str; 2], pairs: &Pairs| -> Value {
            let one = |(key, (a, b)): (&[String; 2], &(Option<f64>, Option<f64>))| json!({ names[0]: key[0], names[1]: key[1], "a": a, "b": b });
            pairs.iter().map(one).collect()
        };
        render::json(&json!({
            "a": a.id, "b": b.id,
            "definition": { "a": a.definition.hash(), "b": b.definition.hash() },
            "same_salt": a.record.salt == b.record.salt,
            "stages": stages.iter().map(StageChange::document).collect::<Vec<_>>(),
            "scores": pair(["environment", "hotkey"], &scores),
            "weights": pair(["uid", "hotkey"], &weights),
            "weights_digest": { "a": of_a.digest, "b": of_b.digest },
        }));
        return Ok(Exit::Ok);
    }
    print(&a, &b, &stages);
    print_pairs("Success rates", &scores);
    print_pairs("Weights", &weights);
    Ok(Exit::Ok)
}

fn stages(a: &Stored, b: &Stored) -> Vec<StageChange> {
    let (of_a, of_b) = (Fingerprints::of(&a.definition), Fingerprints::of(&b.definition));
    let mut found = Vec::new();
    for stage in &b.definition.stages {
        let changes = of_b.differences(&of_a, &stage.id);
        let what = match (a.definition.stage(&stage.id).is_some(), of_a.whole(&stage.id) == of_b.whole(&stage.id)) {
            (false, _) => "new",
            (true, true) => "same",
            (true, false) => "changed",
        };
        let changes = if what == "changed" { changes } else { Vec::new() };
        found.push(StageChange { stage: stage.id.to_string(), what, changes });
    }
    let gone = a.definition.stages.iter().filter(|stage| b.definition.stage(&stage.id).is_none());
    found.extend(gone.map(|stage| StageChange { stage: stage.id.to_string(), what: "gone", changes: Vec::new() }));
    found
}

impl StageChange {
    fn document(&self) -> Value {
        json!({ "stage": self.stage, "what": self.what, "changes": differences::document(&self.changes) })
    }

    fn lines(&self) -> Vec<String> {
        if self.changes.is_empty() {
            return vec![String::new()];
        }
        let own = |one: &Difference| one.stage.as_str() == self.stage;
        self.changes
            .iter()
            .map(|one| if own(one) { differences::line(one) } else { format!("{} has changed", one.stage) })
            .collect()
    }
}

async fn documents(store: &Store, cycle: &Stored) -> Result<Documents> {
    let Some(result) = store.result(cycle.id).await.map_err(db::failure)? else {
        return Ok(Documents { scores: None, weights: None, digest: None });
    };
    Ok(Documents {
        scores: Some(serde_json::from_str(&result.scores)?),
        weights: Some(serde_json::from_str(&result.weights)?),
        digest: Some(result.digest),
    })
}

fn rates(documents: &Documents) -> Vec<([String; 2], f64)> {
    let entries = documents.scores.iter().flat_map(|scores| &scores.entries);
    entries.map(|one| ([one.environment.to_string(), one.hotkey.to_string()], one.success_rate)).collect()
}

fn shares(documents: &Documents) -> Vec<([String; 2], f64)> {
    let entries = documents.weights.iter().flat_map(|weights| &weights.entries);
    let hotkey = |one: &crate::stage::documents::WeightEntry| {
        one.hotkey.as_ref().map_or_else(|| "(burn)".to_owned(), ToString::to_string)
    };
    entries.map(|one| ([one.uid.to_string(), hotkey(one)], one.weight)).collect()
}

fn pairs(a: Vec<([String; 2], f64)>, b: Vec<([String; 2], f64)>) -> Pairs {
    let mut pairs = Pairs::new();
    a.into_iter().for_each(|(key, value)| pairs.entry(key).or_default().0 = Some(value));
    b.into_iter().for_each(|(key, value)| pairs.entry(key).or_default().1 = Some(value));
    pairs
}

fn print(a: &Stored, b: &Stored, stages: &[StageChange]) {
    render::line(format!("a  {}  definition sha256:{}", a.id, a.definition.hash()));
    render::line(format!("b  {}  definition sha256:{}", b.id, b.definition.hash()));
    if a.record.salt != b.record.salt {
        render::line("their episodes have different seeds: they do not share a salt");
    }
    let mut table = report::plain(["stage", "from a to b", "what changed"].map(str::to_owned));
    for stage in stages {
        table.add_row([stage.stage.clone(), stage.what.to_owned(), stage.lines().join("\n")]);
    }
    render::line(format!("\nStages\n{table}"));
}

/// What differs, and how much does not.
fn print_pairs(title: &str, pairs: &Pairs) {
    let differing: Vec<_> = pairs.iter().filter(|(_, (a, b))| a != b).collect();
    let same = pairs.len() - differing.len();
    render::line(format!("\n{title}: {} differ, {same} do not", differing.len()));
    if differing.is_empty() {
        return;
    }
    let number = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.6}"));
    let mut table = report::plain(["", "miner", "a", "b"].map(str::to_owned));
    for ([name, hotkey], (a, b)) in differing {
        table.add_row([name.clone(), hotkey.clone(), number(a), number(b)]);
    }
    render::line(table.to_string());
}
