//! `robo score`: score a table of success rates offline. JSON in, JSON out; no database, no network.

mod json;
mod request;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::scoring::{Pareto, Weights, WeightsU16, pareto};

use super::exit::{Exit, Failure, Result};
use super::render;
use request::{Missing, Problem, Request};

/// Input beyond this is refused before it is read; the largest table that can be scored is smaller.
const MOST_BYTES: u64 = 256 << 20;

const HELP: &str = concat!(
    "An input:\n\n",
    include_str!("../../examples/scores/epsilon.json"),
    r#"
Every miner needs a rate, successes / episodes, for every environment,
unless --missing-as-zero is given.
Optional keys, with their defaults:
  "temperature": 1.0          of the softmax, above 0
  "rule": "epsilon"           or "first_commit": earlier miners keep their place
                              until somebody is clearly better
  "first_blocks": {}          {"UID": BLOCK} for first_commit; none is latest
  "ties": "both_earlier"      of equal first blocks both count as earlier;
                              or "lower_uid"
  "subset_weighting": "size"  winning s environments together is worth s;
                              "exponential": 2^(s-1), "equal": 1
  "all_zero": "uniform"       who is paid when nobody wins or all rates are 0; or {"burn": UID}
"episodes_per_env" may also be an object with a number for every environment.

Try it:
  robo score examples/scores/epsilon.json
  robo score - < table.json"#
);

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// A JSON file of success rates; `-` reads standard input
    file: PathBuf,

    /// Take the rate that a miner lacks for an environment as 0; without this flag it is an error
    #[arg(long)]
    missing_as_zero: bool,
}

/// Why a file was not scored.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read `{file}`")]
    Unreadable { file: String, source: std::io::Error },
    #[error("`{file}` is larger than {} MiB", MOST_BYTES >> 20)]
    TooLarge { file: String },
    #[error("{text}")]
    Problems { text: String },
}

/// The answer, in the order it is printed.
#[derive(Serialize)]
struct Scored {
    pareto_frontier: Vec<u16>,
    winner: Option<u16>,
    epsilons: BTreeMap<String, f64>,
    thresholds: BTreeMap<u16, BTreeMap<String, f64>>,
    subset_scores: BTreeMap<u16, f64>,
    weights: BTreeMap<u16, f64>,
    weights_u16: WeightsU16,
}

pub(super) async fn run(args: Args) -> Result {
    // Reading waits for standard input and counting may take a while: neither belongs on a thread that serves others.
    let scored = tokio::task::spawn_blocking(move || score(&args)).await??;
    render::json(&serde_json::to_value(scored)?);
    Ok(Exit::Ok)
}

fn score(args: &Args) -> Result<Scored> {
    let path = args.file.as_path();
    let missing = if args.missing_as_zero { Missing::Zero } else { Missing::Error };
    let is_stdin = path.as_os_str() == "-";
    let file = if is_stdin { "<stdin>".into() } else { path.display().to_string() };
    let text = read(path, is_stdin, file.clone())?;
    let request = request::read(&text, missing).map_err(|problems| refusal(&file, &text, &problems))?;
    answer(&request)
}

fn read(path: &Path, is_stdin: bool, file: String) -> Result<String> {
    let mut bytes = Vec::new();
    let mut read = |source: &mut dyn Read| source.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    let result = if is_stdin {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(|mut opened| read(&mut opened))
    };
    if let Err(source) = result {
        let failure = Failure::new(Exit::Usage, Error::Unreadable { file, source });
        return Err(failure.hint("name a JSON file, or `-` to read standard input"));
    }
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Failure::new(Exit::Usage, Error::TooLarge { file }));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        refusal(&file, &text, &[Problem { at, path: String::new(), message: "not UTF-8 text".into() }])
    })
}

fn answer(request: &Request) -> Result<Scored> {
    let found = pareto(&request.table, request.rule, request.ties, request.subset_weighting).map_err(|error| {
        Failure::new(Exit::Failed, error).hint("score fewer environments together, or write `\"ties\": \"lower_uid\"`")
    })?;
    let Weights { weights, weights_u16 } = found.weights(request.temperature, request.all_zero)?;
    let Pareto { frontier, winner, epsilons, thresholds, points, .. } = found;
    Ok(Scored { pareto_frontier: frontier, winner, epsilons, thresholds, subset_scores: points, weights, weights_u16 })
}

/// Everything that is wrong with a document, a line each: file, line, column, path, message.
fn refusal(file: &str, text: &str, problems: &[Problem]) -> Failure {
    let places = json::Lines::new(text);
    let lines: Vec<String> = problems
        .iter()
        .map(|Problem { at, path, message }| {
            let (line, column) = places.place(*at);
            let colon = if path.is_empty() { "" } else { ": " };
            format!("{file}:{line}:{column}: {path}{colon}{message}")
        })
        .collect();
    let text = match &lines[..] {
        [line] => line.clone(),
        _ => format!("`{file}` has {} problems\n  {}", lines.len(), lines.join("\n  ")),
    };
    Failure::new(Exit::Usage, Error::Problems { text }).hint("`robo score --help` shows a whole input")
}
