//! `robo chaos`: kill a cycle with SIGKILL at its journal writes, resume it, and demand the same result.
//!
//! Runs the program itself as another process, for the real thing is to be killed; looks into the database for what came
//! of it. It works in a database of its own and never touches anybody's weights.

mod evidence;
mod scratch;
mod toy;

use std::{
    collections::BTreeSet,
    fmt,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    db,
    exit::{Exit, Failure, Result},
    inputs::{self, Inputs},
    mortal::{DieAt, Side},
    project,
    render::{self, Format},
    report,
};
use crate::config::Database;
use crate::cycle::{CycleId, Salt};
use crate::host::environment::{self, Role};
use crate::plan::Definition;
use crate::store::{NewCycle, Store};
use evidence::Evidence;
use scratch::Scratch;

/// What stands before the number of writes when a run was told to count them.
pub(super) const WRITES: &str = "journal writes: ";

/// Points of a pipeline from a file, when nobody says how many.
const POINTS: usize = 10;

/// Kill a cycle at its journal writes, resume it, and demand the same bytes
///
/// Runs the pipeline once undisturbed. Then, again and again with the same salt, kills the process with SIGKILL right before
/// or right after one of its writes to the journal, resumes the cycle, and compares: status of every task, scores, weights,
/// outcome and trajectory of every episode. Works in a database of its own, which is removed afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo chaos                                               # a built-in pipeline, both sides of every write
  robo chaos pipelines/quickstart.yaml -i episodes_per_env=1 --points 5
  robo chaos pipelines/quickstart.yaml --points 5 --seed 7 # the same points again
  robo chaos pipelines/quickstart.yaml --moments 20        # and twenty times at any moment

A pipeline whose result depends on more than its salt differs without any kill: miners that answer by chance, or that miss
their deadline on a busy machine. Exit codes: 0 all the same, 1 the pipeline does not complete, 6 something differs.")]
pub(super) struct Args {
    /// The pipeline [default: a built-in one that needs no simulator]
    #[arg(value_name = "FILE")]
    pipeline: Option<PathBuf>,

    #[command(flatten)]
    inputs: Inputs,

    /// How many points to kill at, chosen by chance, or `all` [default: all of the built-in pipeline, 10 of a file]
    #[arg(long, value_name = "N|all")]
    points: Option<Points>,

    /// How many times more to kill it at a moment chosen by chance, whatever it does then [default: 0]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    moments: usize,

    /// What chance begins with; printed, so that a run can be repeated [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Secret that the episodes' seeds come from, 64 hexadecimal digits [default: from the seed]
    #[arg(long, value_name = "HEX")]
    salt: Option<Salt>,

    /// How to show the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: Database,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Points {
    All,
    Some(usize),
}

impl FromStr for Points {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.parse() {
            Ok(count @ 1..) => Ok(Self::Some(count)),
            _ if text == "all" => Ok(Self::All),
            _ => Err("write a number from 1, or `all`".into()),
        }
    }
}

/// A cycle that can be run any number of times.
struct Trial {
    store: Store,
    config: Database,
    definition: Definition,
    root: String,
    salt: Salt,
}

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// At a write to the journal.
    At(DieAt),
    /// So long after its start, from outside.
    After(Duration),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(point) => point.fmt(f),
            Self::After(delay) => write!(f, "{:.3} s", delay.as_secs_f64()),
        }
    }
}

/// What came of killing at one point.
struct Verdict {
    at: Death,
    /// Whether the process died there; a write that depends on chance may not come again.
    killed: bool,
    differences: Vec<String>,
}

pub(super) async fn run(args: Args) -> Result {
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut chance = StdRng::seed_from_u64(seed);
    let (definition, root) = match &args.pipeline {
        Some(file) => {
            let compiled = inputs::compile(&project::pipeline(file, &args.database.data)?, &args.inputs)?;
            (compiled.definition, compiled.root.display().to_string())
        }
        None => (toy::definition()?, ".".to_owned()),
    };
    let salt = args.salt.clone().unwrap_or_else(|| salt_of(&mut chance));
    render::note(format!("chaos with `{}`, --seed {seed}", definition.pipeline));
    let scratch = Scratch::new(&args.database)?;
    let store = Store::open(&scratch.config, &db::progress()).await.map_err(db::failure)?;
    let trial = Trial { store, config: scratch.config.clone(), definition, root, salt };
    let result = match scratch.check(&trial.store).await {
        Ok(()) => torment(&trial, &args, &mut chance).await,
        refused => refused.map(|()| Exit::Usage),
    };
    trial.store.close().await;
    result
}

fn salt_of(chance: &mut StdRng) -> Salt {
    let bytes: [u8; 32] = chance.random();
    hex::encode(bytes).parse().expect("32 bytes in hexadecimal are a salt")
}

/// Run undisturbed, then with a death at every chosen point.
async fn torment(trial: &Trial, args: &Args, chance: &mut StdRng) -> Result {
    let started = Instant::now();
    let (calm, writes) = trial.undisturbed().await?;
    let took = started.elapsed();
    let all = (1..=writes).flat_map(|write| [Side::Before, Side::After].map(|side| DieAt::Write(write, side)));
    let default = if args.pipeline.is_some() { Points::Some(POINTS) } else { Points::All };
    let points = choose(all.collect(), args.points.unwrap_or(default), chance);
    let points = points.into_iter().map(Death::At);
    // Also the time in which it writes nothing: while it simulates, starts servers, or has just begun.
    let moments = (0..args.moments).map(|_| Death::After(took.mul_f64(chance.random())));
    let points: Vec<Death> = points.chain(moments).collect();
    render::note(format!("undisturbed: {writes} journal writes; killing at {} points", points.len()));
    let mut verdicts = Vec::with_capacity(points.len());
    for (index, at) in points.iter().enumerate() {
        let verdict = trial.killed_at(*at, &calm).await?;
        let result = if verdict.differences.is_empty() { "the same" } else { "DIFFERENT" };
        let death = if verdict.killed { "" } else { " (it ended before that)" };
        render::note(format!("{}/{} killed at {at}{death}, resumed: {result}", index + 1, points.len()));
        verdicts.push(verdict);
    }
    show(trial, writes, &verdicts, args.format);
    conclude(&verdicts, &calm)
}

fn choose(mut all: Vec<DieAt>, points: Points, chance: &mut StdRng) -> Vec<DieAt> {
    let Points::Some(count) = points else { return all };
    let mut places = BTreeSet::new();
    while places.len() < count.min(all.len()) {
        places.insert(chance.random_range(0..all.len()));
    }
    let mut place = 0..;
    all.retain(|_| place.next().is_some_and(|place| places.contains(&place)));
    all
}

impl Trial {
    /// A run in which nothing goes wrong, and how many writes it makes.
    async fn undisturbed(&self) -> Result<(Evidence, u64)> {
        let cycle = self.create().await?;
        let ran = self.resume(cycle, Some(DieAt::Never)).await?;
        let said = must_complete(&ran, "the pipeline does not complete even when nothing disturbs it")?;
        let writes = said.lines().find_map(|line| line.strip_prefix(WRITES)?.parse().ok());
        let writes = writes.ok_or_else(|| anyhow::anyhow!("the run did not say how many writes it made"))?;
        Ok((Evidence::of(&self.store, &self.definition, cycle).await?, writes))
    }

    /// A run that dies at a point and is resumed.
    async fn killed_at(&self, at: Death, calm: &Evidence) -> Result<Verdict> {
        let cycle = self.create().await?;
        let ran = match at {
            Death::At(point) => self.resume(cycle, Some(point)).await?,
            Death::After(delay) => self.resume_for(cycle, delay).await?,
        };
        let killed = ran.status.signal() == Some(nix::sys::signal::Signal::SIGKILL as i32);
        if killed {
            let ran = self.resume(cycle, None).await?;
            must_complete(&ran, &format!("the cycle {cycle}, killed at {at}, cannot be resumed"))?;
        } else {
            must_complete(&ran, &format!("the cycle {cycle} failed before it could be killed at {at}"))?;
        }
        let evidence = Evidence::of(&self.store, &self.definition, cycle).await?;
        Ok(Verdict { at, killed, differences: calm.differences(&evidence) })
    }

    async fn create(&self) -> Result<CycleId> {
        let stages = self.definition.stages.iter();
        let new = NewCycle {
            pipeline: self.definition.pipeline.clone(),
            definition: self.definition.to_json(),
            definition_hash: self.definition.hash(),
            root: self.root.clone(),
            salt: self.salt.clone(),
            pin: None,
            tasks: stages.flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone())).collect(),
        };
        self.store.create_cycle(&new).await.map_err(db::failure)
    }

    /// The real program in a process of its own, to its end.
    async fn resume(&self, cycle: CycleId, die_at: Option<DieAt>) -> Result<Output> {
        Ok(self.program(cycle, die_at)?.output().await?)
    }

    /// The same, killed after a while unless it has ended by then.
    async fn resume_for(&self, cycle: CycleId, delay: Duration) -> Result<Output> {
        let child = self.program(cycle, None)?.spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
        let mut output = std::pin::pin!(child.wait_with_output());
        if let Ok(ended) = tokio::time::timeout(delay, &mut output).await {
            return Ok(ended?);
        }
        // Not waited for yet, so the number is still its own.
        if let Some(pid) = pid {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        Ok(output.await?)
    }

    fn program(&self, cycle: CycleId, die_at: Option<DieAt>) -> Result<tokio::process::Command> {
        let program = std::env::current_exe()?;
        // A build may have replaced the file we run from; the new one is as good.
        let program =
            program.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map(Path::new).unwrap_or(&program);
        // The operator's own command once more: it needs whatever the pipeline needed.
        let mut command = environment::command(Role::Whole, program);
        command.args(["cycle", "resume", &cycle.to_string(), "--format", "json"]);
        if let Some(at) = die_at {
            command.args(["--die-at", &at.to_string()]);
        }
        for (flag, directory) in [("--data-dir", &self.config.data.data_dir), ("--pg-bin", &self.config.pg_bin)] {
            if let Some(directory) = directory {
                command.arg(flag).arg(directory);
            }
        }
        // In the environment: other users of this machine can read a command line.
        match &self.config.database_url {
            Some(url) => command.env("ROBO_BACKEND_DATABASE_URL", url),
            None => command.env_remove("ROBO_BACKEND_DATABASE_URL"),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }
}

/// What the run said, if it ended well.
fn must_complete(ran: &Output, otherwise: &str) -> Result<String> {
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if ran.status.success() {
        return Ok(said);
    }
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("{otherwise} ({}):\n{}", ran.status, said.trim_end())))
}

fn show(trial: &Trial, writes: u64, verdicts: &[Verdict], format: Format) {
    let killed = verdicts.iter().filter(|verdict| verdict.killed).count();
    let same = verdicts.iter().filter(|verdict| verdict.differences.is_empty()).count();
    if format == Format::Json {
        let different = verdicts.iter().filter(|verdict| !verdict.differences.is_empty());
        let different = different.map(|verdict| json!({ "at": verdict.at.to_string(), "in": verdict.differences }));
        render::json(&json!({
            "pipeline": trial.definition.pipeline, "salt": trial.salt, "journal_writes": writes,
            "points": verdicts.len(), "killed": killed, "resumed": killed, "identical": same,
            "different": different.collect::<Vec<_>>(),
        }));
        return;
    }
    let mut table =
        report::plain(["pipeline", "writes", "points", "killed", "resumed", "identical"].map(str::to_owned));
    let counts = [verdicts.len(), killed, killed, same].map(|count| count.to_string());
    table.add_row([trial.definition.pipeline.clone(), writes.to_string()].into_iter().chain(counts));
    render::line(format!("{table}"));
}

fn conclude(verdicts: &[Verdict], calm: &Evidence) -> Result {
    let different: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.differences.is_empty()).collect();
    let Some(first) = different.first() else {
        render::note(format!("every one of {} facts is the same after every death", calm.len()));
        return Ok(Exit::Ok);
    };
    let what = first.differences.join(", ");
    let error = anyhow::anyhow!(
        "{} of {} resumed cycles differ from the undisturbed one; the first, killed at {}, in {what}",
        different.len(),
        verdicts.len(),
        first.at
    );
    Err(Failure::new(Exit::Mismatch, error).hint(
        "run the pipeline twice without any death: if the results differ as well, it depends on more than its salt",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_the_same_points_again() {
        let all: Vec<DieAt> = (1..=50).map(|write| DieAt::Write(write, Side::Before)).collect();
        let chosen = |seed| choose(all.clone(), Points::Some(5), &mut StdRng::seed_from_u64(seed));
        assert_eq!(chosen(1).len(), 5);
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        assert_eq!(choose(all.clone(), Points::Some(500), &mut StdRng::seed_from_u64(1)), all);
        assert_eq!(choose(all.clone(), Points::All, &mut StdRng::seed_from_u64(1)), all);
    }

    #[test]
    fn points_are_a_number_or_all() {
        assert_eq!("all".parse(), Ok(Points::All));
        assert_eq!("3".parse(), Ok(Points::Some(3)));
        for bad in ["0", "-1", "some", ""] {
            assert!(bad.parse::<Points>().is_err(), "{bad}");
        }
    }
}
