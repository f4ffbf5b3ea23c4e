//! What must hold between stages, once each is resolved.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cycle::PublishGuard;
use crate::manifest::Diagnostics;

use super::codeless;
use super::discovery;
use super::draft::Draft;
use super::expression;
use super::graph_of_drafts::Ancestry;
use super::references::Scope;

/// Check the pipeline as a whole.
pub(super) fn check(scope: &Scope<'_>, ancestry: &Ancestry, found: &mut Diagnostics) {
    environments_run_once(scope, found);
    late_environments_run_once(scope, found);
    one_publication(scope, found);
    guards_can_be_kept(scope, found);
    burns_have_a_slot(scope, found);
    discovery::happens_once(scope, found);
    aggregates_have_episodes(scope, ancestry, found);
    codeless::check(scope, found);
}

/// An episode is (cycle, environment, seed index, miner): two tasks over one environment would share their episodes.
fn environments_run_once(scope: &Scope<'_>, found: &mut Diagnostics) {
    let mut runs: BTreeMap<String, String> = BTreeMap::new();
    for draft in scope.drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == "episodes/run")) {
        let at = draft.setting_at("environment");
        for task in &draft.tasks {
            let setting = draft.with.get("environment").cloned().unwrap_or(Value::Null);
            // A value that is wrong has been reported when the setting was checked.
            let Ok(value) = scope.evaluate(at, &setting, &task.matrix) else {
                // An input without a value is reported where it is declared, if it must have one.
                let text = setting.as_str().unwrap_or_default();
                if !expression::needs_only(text, &["inputs", "matrix"]) {
                    found.push(scope.document.error(at, "the environment must be known before the cycle starts"));
                }
                break;
            };
            let Some(environment) = value.as_str().filter(|text| !text.is_empty()) else { continue };
            if let Some(other) = runs.insert(environment.to_owned(), task.key.to_string()) {
                let message = format!("`{environment}` is run twice: by `{other}` and by `{}`", task.key);
                let problem = scope.document.error(at, message);
                found.push(problem.help("an environment runs once in a cycle; raise `episodes` to run more of them"));
            }
        }
    }
}

/// Which environments a matrix over outputs stands for is known too late to compare them with those of another stage.
fn late_environments_run_once(scope: &Scope<'_>, found: &mut Diagnostics) {
    let runs: Vec<&Draft<'_>> =
        scope.drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == "episodes/run")).collect();
    for draft in runs.iter().filter(|draft| draft.expansion.is_some()) {
        let own = draft.with.get("environment").and_then(Value::as_str).unwrap_or_default().replace(' ', "");
        let only_environments = draft.axes().eq(["environment"]) && own == "${{matrix.environment}}";
        if runs.len() > 1 || !only_environments {
            let message = "a matrix over outputs can be that of `episodes/run` only in the pipeline's one such stage, with `environment` as its one list";
            found.push(scope.document.error(draft.at, message));
        }
    }
}

fn one_publication(scope: &Scope<'_>, found: &mut Diagnostics) {
    let mut first: Option<&str> = None;
    for draft in scope.drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == "weights/publish")) {
        if let Some(first) = first {
            let message = format!("only one stage may publish weights, and `{first}` does");
            found.push(scope.document.error(draft.wire.uses.at, message));
        } else if draft.axes().next().is_some() {
            found.push(scope.document.error(draft.at, "weights are published once: the stage cannot have a matrix"));
        }
        first.get_or_insert(draft.id.as_str());
    }
}

/// Not after hours of episodes.
fn burns_have_a_slot(scope: &Scope<'_>, found: &mut Diagnostics) {
    for draft in scope.drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == "scores/weights")) {
        // As it is written: what is wrong with it is said elsewhere.
        let has_slot = draft.wire.with.0.iter().any(|(name, _)| name.value == "burn_uid");
        if draft.with.get("all_zero").is_some_and(|word| word == "burn") && !has_slot {
            let problem = scope.document.error(draft.setting_at("all_zero"), "`all_zero: burn` needs `burn_uid`");
            found.push(problem.help("write `burn_uid: UID`, on most subnets 0, the slot of the owner"));
        }
    }
}

/// Limits of a publish guard that are written down and not computed are checked before anything starts.
fn guards_can_be_kept(scope: &Scope<'_>, found: &mut Diagnostics) {
    for draft in scope.drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == "weights/publish")) {
        let at = draft.setting_at("guard");
        let Some(Ok(value)) = draft.with.get("guard").map(|guard| scope.evaluate(at, guard, &serde_json::Map::new()))
        else {
            continue;
        };
        // What is no mapping has been reported when the setting was checked.
        if !value.is_object() {
            continue;
        }
        let checked = serde_json::from_value::<PublishGuard>(value).map_err(|error| error.to_string());
        if let Err(problem) = checked.and_then(|guard| guard.check()) {
            let help = "it takes `coverage`, `infra_faults`, `unreachable` and `answered` from 0 to 1, and `jump` from 0 to 2, none of which must be given";
            found.push(scope.document.error(at, format!("the publish guard cannot be kept: {problem}")).help(help));
        }
    }
}

fn aggregates_have_episodes(scope: &Scope<'_>, ancestry: &Ancestry, found: &mut Diagnostics) {
    let is = |stage: usize, name: &str| scope.drafts[stage].kind.is_some_and(|kind| kind.name == name);
    for index in (0..scope.drafts.len()).filter(|index| is(*index, "scores/aggregate")) {
        let unknown = |stage: &usize| scope.drafts[*stage].kind.is_none();
        if !ancestry.of(index).iter().any(|stage| is(*stage, "episodes/run") || unknown(stage)) {
            let draft = &scope.drafts[index];
            let problem = scope.document.error(draft.at, format!("no stage before `{}` runs episodes", draft.id));
            found.push(problem.help("name the `episodes/run` stage in `depends_on`"));
        }
    }
}
