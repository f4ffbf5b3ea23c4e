//! What of a finished cycle another definition could go on with, and why not the rest. Pure: it compares two definitions
//! and is told what had succeeded.

use std::collections::{BTreeMap, BTreeSet};

use super::{Definition, Difference, Fingerprints, Phase};
use crate::cycle::StageId;

/// What becomes of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Its outputs and episodes are kept.
    Reused,
    /// It runs again.
    Again(Again),
    /// The other cycle had no such stage.
    New,
}

/// Why a stage runs again.
#[derive(Debug, Clone, PartialEq)]
pub enum Again {
    /// Something that decides its output is different.
    Changed(Vec<Difference>),
    /// It had not succeeded.
    NotDone,
    /// It belongs to the end of every cycle.
    EveryTime,
    /// Somebody asked for it.
    Asked,
    /// It comes after this one, which runs again.
    After(StageId),
}

/// The verdict on every stage of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Reuse {
    /// In the definition's order.
    pub stages: Vec<(StageId, Verdict)>,
    /// Stages that only the other definition has.
    pub gone: Vec<StageId>,
}

impl Reuse {
    /// What `definition` could keep of a cycle that ran `before`, in which the stages of `done` have succeeded. Stages in
    /// `again` and all after them run again whatever else holds.
    pub fn of(
        definition: &Definition,
        before: &Definition,
        done: &BTreeSet<StageId>,
        again: &BTreeSet<StageId>,
    ) -> Self {
        let (now, then) = (Fingerprints::of(definition), Fingerprints::of(before));
        let mut verdicts: BTreeMap<&StageId, Verdict> = BTreeMap::new();
        let mut stages = Vec::new();
        for stage in &definition.stages {
            let runs_again = |id: &&StageId| !matches!(verdicts.get(*id), Some(Verdict::Reused));
            let verdict = if stage.phase != Phase::Main {
                Verdict::Again(Again::EveryTime)
            } else if again.contains(&stage.id) {
                Verdict::Again(Again::Asked)
            } else if before.stage(&stage.id).is_none() {
                Verdict::New
            } else if now.whole(&stage.id) != then.whole(&stage.id) {
                Verdict::Again(Again::Changed(now.differences(&then, &stage.id)))
            } else if !done.contains(&stage.id) {
                Verdict::Again(Again::NotDone)
            } else if let Some(needed) = stage.depends_on.iter().find(runs_again) {
                Verdict::Again(Again::After(needed.clone()))
            } else {
                Verdict::Reused
            };
            verdicts.insert(&stage.id, verdict.clone());
            stages.push((stage.id.clone(), verdict));
        }
        let gone = before.stages.iter().filter(|stage| definition.stage(&stage.id).is_none());
        Self { stages, gone: gone.map(|stage| stage.id.clone()).collect() }
    }

    /// The stages that are kept.
    pub fn kept(&self) -> Vec<StageId> {
        let kept = self.stages.iter().filter(|(_, verdict)| *verdict == Verdict::Reused);
        kept.map(|(stage, _)| stage.clone()).collect()
    }

    /// The verdict on a stage.
    pub fn verdict(&self, stage: &StageId) -> Option<&Verdict> {
        self.stages.iter().find(|(id, _)| id == stage).map(|(_, verdict)| verdict)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::example::{definition, stage};

    fn ids(names: &[&str]) -> BTreeSet<StageId> {
        names.iter().map(|name| stage(name)).collect()
    }

    const ALL: [&str; 6] = ["discover", "episodes", "aggregate", "weights", "shadow", "teardown"];

    #[test]
    fn what_is_asked_for_runs_again_with_all_after_it_and_branches_beside_it_are_kept() {
        let reuse = Reuse::of(&definition(), &definition(), &ids(&ALL), &ids(&["weights"]));
        assert_eq!(reuse.kept(), [stage("discover"), stage("episodes"), stage("aggregate"), stage("shadow")]);
        let reuse = Reuse::of(&definition(), &definition(), &ids(&ALL), &ids(&["episodes"]));
        assert_eq!(reuse.kept(), [stage("discover")]);
        assert_eq!(reuse.verdict(&stage("weights")), Some(&Verdict::Again(Again::After(stage("aggregate")))));
    }

    #[test]
    fn what_failed_is_new_or_gone_is_told_apart() {
        let mut now = definition();
        now.stages[4].id = stage("other");
        let reuse = Reuse::of(&now, &definition(), &ids(&["discover", "episodes"]), &ids(&[]));
        assert_eq!(reuse.verdict(&stage("aggregate")), Some(&Verdict::Again(Again::NotDone)));
        assert_eq!(reuse.verdict(&stage("other")), Some(&Verdict::New));
        assert_eq!(reuse.verdict(&stage("teardown")), Some(&Verdict::Again(Again::EveryTime)));
        assert_eq!(reuse.gone, [stage("shadow")]);
        now.stages[0].with.insert("miners".into(), json!([1]));
        let reuse = Reuse::of(&now, &definition(), &ids(&ALL), &ids(&[]));
        let Some(Verdict::Again(Again::Changed(differences))) = reuse.verdict(&stage("weights")) else { panic!() };
        assert_eq!((differences.len(), differences[0].component.as_str()), (1, "with.miners"));
    }
}
