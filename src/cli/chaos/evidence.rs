//! What must not depend on how often a cycle was killed, and where two cycles differ in it.

use std::collections::BTreeMap;

use super::super::exit::Result;
use crate::cycle::{CycleId, Journal, TaskStatus};
use crate::plan::{Definition, Stage, kinds::Kind};
use crate::store::Store;

/// What a cycle has come to: each fact under the name by which a difference is told.
#[derive(Debug, PartialEq)]
pub(super) struct Evidence(BTreeMap<String, String>);

impl Evidence {
    /// That of a cycle that has ended.
    pub(super) async fn of(store: &Store, definition: &Definition, cycle: CycleId) -> Result<Self> {
        let mut facts = BTreeMap::new();
        let record = store.load(cycle).await?;
        facts.insert("the cycle's status".to_owned(), record.status.word().to_owned());
        for task in &record.tasks {
            let key = &task.key;
            facts.insert(format!("the status of `{key}`"), task.status.word().to_owned());
            let is_certain = |stage: &Stage| Kind::find(&stage.uses).is_some_and(|kind| kind.is_pure(&stage.with));
            let is_certain = definition.stage(&key.stage).is_some_and(is_certain);
            if let (true, TaskStatus::Succeeded { output }) = (is_certain, &task.status) {
                facts.insert(format!("the output of `{key}`"), output.to_string());
            }
        }
        for episode in store.scored_episodes(cycle).await? {
            let key = &episode.key;
            let name = format!("the episode {} of `{}` in `{}`", key.seed_index, key.hotkey, key.environment);
            let hash = episode.report.trajectory_hash.unwrap_or_default();
            let reward = episode.report.total_reward;
            facts.insert(name, format!("{} {} {reward} {hash}", episode.report.outcome, episode.report.steps));
        }
        if let Some(row) = store.publication(cycle).await? {
            facts.insert("the published scores".to_owned(), row.publication.scores);
            facts.insert("the published weights".to_owned(), row.publication.weights);
        }
        Ok(Self(facts))
    }

    /// How many facts there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is not the same in both, by name.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_changed_is_named() {
        let evidence = |facts: &[(&str, &str)]| {
            Evidence(facts.iter().map(|(name, fact)| ((*name).to_owned(), (*fact).to_owned())).collect())
        };
        let calm = evidence(&[("a", "1"), ("b", "2")]);
        assert!(calm.differences(&calm).is_empty());
        assert_eq!(calm.differences(&evidence(&[("a", "3"), ("c", "2")])), ["a", "b", "c"]);
    }
}
