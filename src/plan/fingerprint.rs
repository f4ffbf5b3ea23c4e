//! What decides the output of a stage, as named components: how to tell whether it would come out the same again, and
//! what has changed when it would not.
//!
//! A component is a digest over content. Times, paths, attempts and everything that only decides how fast or how often
//! something runs (retries, time-outs, parallelism, pools) are no part of it, and neither is the order of keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kinds::{DISCOVERY, Kind, Type};
use super::{Definition, Expect, Stage};
use crate::cycle::{EnvironmentId, StageId};
use crate::evidence;

/// The components of a stage with their digests; empty for a stage that is not there.
///
/// `kind`, `when`, `expect`, `matrix`, `miners` for stages that call or choose them, `with.<setting>`, `input/<name>` for inputs that expressions still name,
/// `environment/<id>` and `build/<family>` for stages that simulate, `upstream/<stage>` for what it waits for.
pub fn fingerprint(definition: &Definition, stage: &StageId) -> BTreeMap<String, String> {
    Fingerprints::of(definition).components(stage)
}

/// A component that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The stage it belongs to: the one asked about, or one upstream of it.
    pub stage: StageId,
    /// Its name.
    pub component: String,
    /// What it was; none where it is new.
    pub before: Option<Value>,
    /// What it is; none where it is gone.
    pub after: Option<Value>,
}

/// The components of every stage of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprints {
    stages: BTreeMap<StageId, BTreeMap<String, Value>>,
}

const UPSTREAM: &str = "upstream/";

impl Fingerprints {
    /// Those of a definition.
    pub fn of(definition: &Definition) -> Self {
        let mut all = Self { stages: BTreeMap::new() };
        // A definition lists every stage after what it waits for.
        for stage in &definition.stages {
            let mut parts = parts(definition, stage);
            for needed in &stage.depends_on {
                parts.insert(format!("{UPSTREAM}{needed}"), json!(all.whole(needed)));
            }
            all.stages.insert(stage.id.clone(), parts);
        }
        all
    }

    /// Digests of a stage's components.
    pub fn components(&self, stage: &StageId) -> BTreeMap<String, String> {
        let parts = self.stages.get(stage).into_iter().flatten();
        parts.map(|(name, value)| (name.clone(), evidence::digest(value))).collect()
    }

    /// One digest over all components of a stage; none for a stage that is not there.
    pub fn whole(&self, stage: &StageId) -> Option<String> {
        self.stages.contains_key(stage).then(|| evidence::digest(&json!(self.components(stage))))
    }

    /// What differs between a stage `before` and now. What lies upstream is told where it changed, not at each stage
    /// after it.
    pub fn differences(&self, before: &Self, stage: &StageId) -> Vec<Difference> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        self.collect(before, stage, &mut seen, &mut found);
        found
    }

    fn collect(&self, before: &Self, stage: &StageId, seen: &mut BTreeSet<StageId>, found: &mut Vec<Difference>) {
        if !seen.insert(stage.clone()) {
            return;
        }
        let none = BTreeMap::new();
        let (old, new) = (before.stages.get(stage).unwrap_or(&none), self.stages.get(stage).unwrap_or(&none));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (before_value, after) = (old.get(name), new.get(name));
            if before_value == after {
                continue;
            }
            let upstream = name.strip_prefix(UPSTREAM).and_then(|id| id.parse::<StageId>().ok());
            match upstream.filter(|_| before_value.is_some() && after.is_some()) {
                Some(upstream) => self.collect(before, &upstream, seen, found),
                None => found.push(Difference {
                    stage: stage.clone(),
                    component: name.clone(),
                    before: before_value.cloned(),
                    after: after.cloned(),
                }),
            }
        }
    }
}

/// The components of a stage but for what is upstream.
fn parts(definition: &Definition, stage: &Stage) -> BTreeMap<String, Value> {
    let mut parts = BTreeMap::from([("kind".to_owned(), json!(stage.uses))]);
    if let Some(when) = &stage.when {
        parts.insert("when".into(), json!(when));
    }
    if stage.expect != Expect::Complete {
        parts.insert("expect".into(), json!(stage.expect));
    }
    let cells: Vec<Value> = stage.tasks.iter().map(|task| json!([task.key.cell, task.matrix])).collect();
    match &stage.expansion {
        Some(expansion) => drop(parts.insert("matrix".into(), json!(expansion))),
        None if stage.tasks.iter().any(|task| !task.key.cell.is_empty()) => {
            parts.insert("matrix".into(), Value::Array(cells));
        }
        None => {}
    }
    for (name, value) in &stage.with {
        parts.insert(format!("with.{name}"), value.clone());
    }
    if ["episodes/run", DISCOVERY].contains(&stage.uses.as_str()) && !definition.miners.is_default() {
        parts.insert("miners".into(), json!(definition.miners));
    }
    parts.extend(inputs(definition, stage));
    parts.extend(simulators(definition, stage));
    parts
}

/// Inputs that the stage's expressions still name. Those that could be filled in are in its settings already.
fn inputs(definition: &Definition, stage: &Stage) -> Vec<(String, Value)> {
    let mut texts = vec![json!(stage.with).to_string()];
    texts.extend(stage.when.clone());
    texts.extend(stage.expansion.as_ref().map(|expansion| json!(expansion).to_string()));
    let named = |name: &str| texts.iter().any(|text| names_input(text, name));
    let used = definition.inputs.iter().filter(|(name, _)| named(name));
    used.map(|(name, value)| (format!("input/{name}"), value.clone())).collect()
}

/// Whether `inputs.<name>` stands in the text, or `inputs` in any other form, which may mean all of them.
fn names_input(text: &str, name: &str) -> bool {
    text.match_indices("inputs").any(|(at, word)| match text[at + word.len()..].strip_prefix('.') {
        Some(rest) => {
            rest.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        }
        None => text[..at].contains("${{") || !text.contains("${{"),
    })
}

/// What simulates, for a stage whose kind is about an environment.
fn simulators(definition: &Definition, stage: &Stage) -> Vec<(String, Value)> {
    let is_about = |kind: &Kind| kind.settings.iter().any(|setting| setting.kind == Type::Environment);
    if !Kind::find(&stage.uses).is_some_and(is_about) {
        return Vec::new();
    }
    let named = named_environments(stage);
    let mut found = Vec::new();
    for environment in &definition.environments {
        let id = &environment.simulation.environment;
        // A stage whose environments are known only later may use each of them.
        if !named.is_empty() && !named.contains(id) {
            continue;
        }
        let play = json!({
            "simulation": environment.simulation,
            "action_timeout_ms": environment.action_timeout_ms,
            "reset_timeout_ms": environment.reset_timeout_ms,
        });
        let server = &environment.server;
        let build = json!({ "digest": server.build_digest, "image": server.image, "protocol": server.protocol });
        found.push((format!("environment/{id}"), play));
        found.push((format!("build/{}", id.family()), build));
    }
    found
}

fn named_environments(stage: &Stage) -> BTreeSet<EnvironmentId> {
    let values = stage.tasks.iter().flat_map(|task| task.matrix.values()).chain(stage.with.values());
    values.filter_map(|value| value.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::example::{definition, stage};

    fn changed(before: &Definition, after: &Definition, id: &str) -> Vec<String> {
        let differences = Fingerprints::of(after).differences(&Fingerprints::of(before), &stage(id));
        differences.iter().map(|one| format!("{}:{}", one.stage, one.component)).collect()
    }

    fn set(definition: &mut Definition, id: &str, change: impl Fn(&mut Stage)) {
        change(definition.stages.iter_mut().find(|stage| stage.id.as_str() == id).unwrap());
    }

    #[test]
    fn components_are_named_and_only_what_decides_the_output_is_among_them() {
        let before = definition();
        let names: Vec<String> = fingerprint(&before, &stage("episodes")).into_keys().collect();
        let expected =
            ["build/m", "environment/m/a", "kind", "matrix", "upstream/discover", "with.episodes", "with.miners"];
        assert_eq!(names, expected);
        let mut after = before.clone();
        set(&mut after, "episodes", |stage| {
            stage.timeout_ms += 1;
            stage.retry.max_attempts += 1;
            stage.max_parallel = Some(1);
        });
        after.environments[0].server.workers = Some(7);
        after.environments[0].server.context = "elsewhere".into();
        assert_eq!(Fingerprints::of(&before), Fingerprints::of(&after));
    }

    #[test]
    fn a_change_is_told_where_it_happened() {
        let before = definition();
        let mut after = before.clone();
        set(&mut after, "episodes", |stage| drop(stage.with.insert("episodes".into(), json!(5))));
        assert_eq!(changed(&before, &after, "weights"), ["episodes:with.episodes"]);
        assert!(changed(&before, &after, "discover").is_empty());
        let mut rebuilt = before.clone();
        rebuilt.environments[0].server.build_digest = "other".into();
        assert_eq!(changed(&before, &rebuilt, "aggregate"), ["episodes:build/m"]);
        let mut asked = before.clone();
        set(&mut asked, "weights", |stage| stage.when = Some("inputs.paid".into()));
        asked.inputs.insert("paid".into(), json!(true));
        assert_eq!(changed(&before, &asked, "weights"), ["weights:input/paid", "weights:when"]);
    }

    #[test]
    fn an_input_counts_for_the_expressions_that_name_it() {
        assert!(names_input("${{ inputs.n + stages.a.b }}", "n"));
        assert!(!names_input("${{ inputs.name }}", "n"));
        assert!(names_input("${{ inputs[stages.a.b] }}", "n"));
        assert!(!names_input("of inputs to ${{ stages.a.b }}", "n"));
    }
}
