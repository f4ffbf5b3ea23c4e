//! `robo cycle fork` and `robo cycle rescore`: a new cycle that goes on with what another has finished.
//!
//! Decides what is kept (pure, in [`crate::plan::Reuse`]), has the store copy it in one transaction, and drives the new
//! cycle. The parent is only read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    cycle_read::{Stored, main_stage},
    db,
    desk::Desk,
    differences,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    inputs::{self, Inputs},
    render, run_pipeline,
};
use crate::config;
use crate::cycle::{CycleId, CycleRecord, CycleStatus, Pin, StageId};
use crate::plan::{
    self, Again, Bindings, Definition, Graph, Missing, Phase, Reuse, Stage, Verdict,
    kinds::{DISCOVERY, Kind},
};
use crate::store::{Admission, NewCycle, NewFork, Origin, Publishing};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Everything that is not STAGE or downstream of it is kept if it succeeded, side branches too. With --with, what is upstream
of STAGE must be the same in FILE as in the cycle; the difference is shown otherwise. Inputs keep the cycle's values unless
-i sets them. The salt is the cycle's, so seeds and episodes stay what they are.

Example:
  robo cycle fork @latest --from weights --with pipelines/quickstart.yaml")]
pub(super) struct Fork {
    /// Which cycle
    cycle: String,

    /// The first stage that runs again
    #[arg(long, value_name = "STAGE")]
    from: StageId,

    #[command(flatten)]
    change: Change,

    #[command(flatten)]
    options: drive::Options,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stages that compute from episodes and settings alone run again, and `weights/publish` with them; everything else is kept,
notifications and `finally` are left out. Nothing is simulated and no miner is asked.

Examples:
  robo cycle rescore @latest --check      # exits 6 unless the weights come out the same, byte for byte
  robo cycle rescore @latest --with pipelines/stricter.yaml")]
pub(super) struct Rescore {
    /// Which cycle
    cycle: String,

    #[command(flatten)]
    change: Change,

    /// Demand that scores and weights come out identical; the definition must be unchanged
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    options: drive::Options,
}

/// What is different in the new cycle.
#[derive(Debug, clap::Args)]
struct Change {
    /// Go on with the definition of this pipeline in place of the cycle's own
    #[arg(long = "with", value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    inputs: Inputs,

    /// Let its weights become the latest, which validators are given. Without it they are kept with the cycle only
    #[arg(long)]
    publish: bool,
}

pub(super) async fn fork(desk: &Desk, args: &Fork) -> Result {
    let parent = Stored::find(&desk.store, &args.cycle).await?;
    parent.require_detail()?;
    parent.require_ended()?;
    let (definition, root) = args.change.definition(&parent)?;
    main_stage(&definition, &args.from)?;
    let again = BTreeSet::from([args.from.clone()]);
    let reuse = Reuse::of(&definition, &parent.definition, &parent.done(), &again);
    require_upstream(&definition, &reuse, &again, parent.id)?;
    let plan = Plan { parent: &parent, definition, root, reuse, origin: Origin::Fork, skipped: Vec::new() };
    match plan.create(desk, args.from.clone(), args.change.publishing()).await? {
        Admission::Created(cycle) => drive(desk, cycle, &args.options).await,
        Admission::Refused { group, limit, open } => Ok(run_pipeline::refused(desk, (&group, limit), open)),
    }
}

pub(super) async fn rescore(desk: &Desk, args: &Rescore) -> Result {
    let parent = Stored::find(&desk.store, &args.cycle).await?;
    parent.require_detail()?;
    parent.require_ended()?;
    let (definition, root) = args.change.definition(&parent)?;
    let expected = if args.check { Some(expected(desk, &parent, &definition).await?) } else { None };
    let again = scoring(&definition)?;
    let from = definition.stages.iter().map(|stage| &stage.id).find(|id| again.contains(id)).cloned();
    let from = from.ok_or_else(|| Failure::new(Exit::Usage, anyhow::anyhow!("the pipeline scores nothing")))?;
    let reuse = Reuse::of(&definition, &parent.definition, &parent.done(), &again);
    require_upstream(&definition, &reuse, &again, parent.id)?;
    let left_out = reuse.stages.iter().filter(|(id, verdict)| *verdict != Verdict::Reused && !again.contains(id));
    let skipped = left_out.map(|(id, _)| (id.clone(), "no part of a rescore".to_owned())).collect();
    let plan = Plan { parent: &parent, definition, root, reuse, origin: Origin::Rescore, skipped };
    let cycle = match plan.create(desk, from, args.change.publishing()).await? {
        Admission::Created(cycle) => cycle,
        Admission::Refused { group, limit, open } => return Ok(run_pipeline::refused(desk, (&group, limit), open)),
    };
    let exit = drive(desk, cycle, &args.options).await?;
    match expected {
        Some(expected) if exit == Exit::Ok => compare(desk, cycle, &expected).await,
        _ => Ok(exit),
    }
}

impl Change {
    /// The definition of the new cycle and the directory its paths start from.
    fn definition(&self, parent: &Stored) -> Result<(Definition, String)> {
        let Some(file) = &self.file else {
            if !self.inputs.inputs.is_empty() {
                let error = anyhow::anyhow!("inputs can be set only together with --with FILE");
                return Err(Failure::new(Exit::Usage, error)
                    .hint("a cycle holds its definition with all inputs filled in: name the pipeline it came from"));
            }
            return Ok((parent.definition.clone(), parent.record.root.clone()));
        };
        recompile(file, &self.inputs, &parent.definition)
    }

    fn publishing(&self) -> Publishing {
        if self.publish { Publishing::Public } else { Publishing::Draft }
    }
}

/// Compile a pipeline with the inputs of another cycle, but for those that the command line sets.
fn recompile(file: &Path, inputs: &Inputs, parent: &Definition) -> Result<(Definition, String)> {
    let variable = |name: &str| {
        let known = parent.inputs.iter().find(|(input, _)| plan::variable_of(input) == name);
        let known = known.map(|(_, value)| text(value)).or_else(|| plan::subnet_variable(parent, name));
        known.or_else(|| config::input_variable(name))
    };
    let bindings = Bindings { flags: &inputs.inputs, variable: &variable, missing: Missing::Refuse };
    let compiled = plan::compile(file, &bindings).map_err(|problems| inputs::refused(&problems))?;
    Ok((compiled.definition, compiled.root.display().to_string()))
}

/// A value as one would type it.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The stages of a rescore: pure ones and the publication of what they come to, as far as nothing else stands between
/// them and the end.
fn scoring(definition: &Definition) -> Result<BTreeSet<StageId>> {
    let graph = Graph::new(definition)?;
    let is_pure = |stage: &&Stage| {
        stage.uses == "weights/publish" || Kind::find(&stage.uses).is_some_and(|kind| kind.is_pure(&stage.with))
    };
    let pure = graph.phase(Phase::Main).filter(is_pure);
    let mut scoring: BTreeSet<StageId> = pure.map(|stage| stage.id.clone()).collect();
    // What is not pure and leads to scoring is kept, with everything it was made of.
    let impure = |id: &&StageId| !scoring.contains(*id);
    let before: BTreeSet<&StageId> = scoring.iter().flat_map(|id| graph.ancestors(id)).filter(impure).collect();
    let needed: BTreeSet<StageId> = before.iter().flat_map(|id| graph.ancestors(id)).cloned().collect();
    scoring.retain(|id| !needed.contains(id));
    Ok(scoring)
}

/// Refuse when something that must be kept cannot be.
fn require_upstream(definition: &Definition, reuse: &Reuse, again: &BTreeSet<StageId>, parent: CycleId) -> Result<()> {
    let graph = Graph::new(definition)?;
    let upstream: BTreeSet<&StageId> = again.iter().flat_map(|id| graph.ancestors(id)).collect();
    for stage in upstream.into_iter().filter(|id| !again.contains(id)) {
        let (message, hint) = match reuse.verdict(stage) {
            Some(Verdict::Reused) | None => continue,
            Some(Verdict::Again(Again::Changed(changes))) => {
                let changes = differences::lines(changes).join("\n  ");
                (format!("`{stage}` would come out differently than in cycle {parent}:\n  {changes}"), stage)
            }
            Some(Verdict::New) => (format!("cycle {parent} had no stage `{stage}`"), stage),
            Some(Verdict::Again(Again::After(needed))) => {
                (format!("`{stage}` comes after `{needed}`, which cannot be kept"), needed)
            }
            Some(Verdict::Again(_)) => (format!("`{stage}` has not succeeded in cycle {parent}"), stage),
        };
        return Err(Failure::new(Exit::Usage, anyhow::anyhow!(message))
            .hint(format!("run it again, too: robo cycle fork {parent} --from {hint}")));
    }
    Ok(())
}

/// A fork that can be made.
struct Plan<'a> {
    parent: &'a Stored,
    definition: Definition,
    root: String,
    reuse: Reuse,
    origin: Origin,
    skipped: Vec<(StageId, String)>,
}

impl Plan<'_> {
    async fn create(self, desk: &Desk, from: StageId, publishing: Publishing) -> Result<Admission> {
        let kept = self.reuse.kept();
        self.warn_of_known_seeds(&kept, publishing);
        let word = self.origin.word();
        let tasks = self.definition.stages.iter().flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone()));
        let new = NewFork {
            cycle: NewCycle {
                pipeline: self.definition.pipeline.clone(),
                definition: self.definition.to_json(),
                definition_hash: self.definition.hash(),
                root: self.root,
                salt: self.parent.record.salt.clone(),
                pin: pin(&self.parent.record, &self.definition, &kept),
                tasks: tasks.collect(),
            },
            parent: self.parent.id,
            origin: self.origin,
            from,
            kept,
            skipped: self.skipped,
            publishing,
        };
        let admission = desk.store.create_fork(&new).await.map_err(db::failure)?;
        let Admission::Created(cycle) = &admission else { return Ok(admission) };
        let kept: Vec<&str> = new.kept.iter().map(StageId::as_str).collect();
        render::note(format!("cycle {cycle}: {word} of {} from `{}`", new.parent, new.from));
        render::note(format!("keeps {}", if kept.is_empty() { "nothing".into() } else { kept.join(", ") }));
        if self.parent.record.status != CycleStatus::Completed {
            let shown = format!(
                "when it completes, the salt of {} is known, and that one can no longer be retried",
                new.parent
            );
            render::note(shown);
        }
        Ok(admission)
    }

    /// The seeds of an ended cycle are no secret any more.
    fn warn_of_known_seeds(&self, kept: &[StageId], publishing: Publishing) {
        let plays = |id: &StageId| self.definition.stage(id).is_some_and(|stage| stage.uses == "episodes/run");
        let plays_again = self.reuse.stages.iter().any(|(id, _)| plays(id) && !kept.contains(id));
        if plays_again && publishing == Publishing::Public {
            render::note(
                "warning: it publishes the result of episodes whose seeds have been known since the first cycle ended",
            );
        }
    }
}

/// The block that a fork is pinned to from its start: that of its parent, unless it discovers miners anew.
fn pin(parent: &CycleRecord, definition: &Definition, kept: &[StageId]) -> Option<Pin> {
    let discovers = definition.stages.iter().any(|stage| stage.uses == DISCOVERY && !kept.contains(&stage.id));
    parent.pin.clone().filter(|_| !discovers)
}

/// The documents that have to come out again.
async fn expected(desk: &Desk, parent: &Stored, definition: &Definition) -> Result<crate::cycle::Publication> {
    if definition.hash() != parent.definition.hash() {
        let error = anyhow::anyhow!("--check asks for the same result, and the definition is not the same");
        return Err(Failure::new(Exit::Usage, error)
            .hint(format!("leave --with out, or compare with: robo cycle diff {}", parent.id)));
    }
    let result = desk.store.result(parent.id).await.map_err(db::failure)?;
    result.ok_or_else(|| {
        Failure::new(Exit::Failed, anyhow::anyhow!("cycle {} has no weights to compare with", parent.id))
    })
}

async fn compare(desk: &Desk, cycle: CycleId, expected: &crate::cycle::Publication) -> Result {
    let found = desk.store.result(cycle).await.map_err(db::failure)?;
    let digest = found.as_ref().map_or("none", |found| found.digest.as_str());
    let what = match &found {
        Some(found) if found == expected => {
            render::note(format!("identical: weights sha256:{digest}"));
            return Ok(Exit::Ok);
        }
        Some(found) if found.digest == expected.digest => "the weights are identical, the scores are not".to_owned(),
        _ => format!("the weights are sha256:{digest}, and they were sha256:{}", expected.digest),
    };
    Err(Failure::new(Exit::Mismatch, anyhow::anyhow!(what))
        .hint("somebody changed the database by hand, or this robo scores differently from the one that ran the cycle"))
}
