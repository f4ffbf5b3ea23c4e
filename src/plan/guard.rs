//! What the publish guard limits where strangers play and the pipeline says nothing of it.
//!
//! The limits become part of the definition, so that a cycle that was begun earlier keeps the rules it began with.

use serde_json::{Map, Value};

use crate::cycle::PublishGuard;

use super::draft::Draft;
use super::kinds::FINDERS;

/// Write the limits that hold among strangers into the guard of `weights/publish`, for those that it leaves out. A guard that is
/// computed stays as it is.
pub(super) fn fill_in(drafts: &mut [Draft<'_>]) {
    if !strangers_play(drafts) {
        return;
    }
    let limits = serde_json::to_value(PublishGuard::AMONG_STRANGERS).unwrap_or_default();
    let limits = limits.as_object().cloned().unwrap_or_default();
    for draft in drafts.iter_mut().filter(|draft| is(draft, "weights/publish")) {
        let guard = draft.with.entry("guard").or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(guard) = guard else { continue };
        for (name, limit) in &limits {
            guard.entry(name.as_str()).or_insert_with(|| limit.clone());
        }
    }
}

fn is(draft: &Draft<'_>, name: &str) -> bool {
    draft.kind.is_some_and(|kind| kind.name == name)
}

/// Whether episodes are played, and not by demo miners alone as far as is known.
fn strangers_play(drafts: &[Draft<'_>]) -> bool {
    let mut plays = drafts.iter().filter(|draft| is(draft, "episodes/run")).peekable();
    if plays.peek().is_none() {
        return false;
    }
    let finds = drafts.iter().filter(|draft| FINDERS.iter().any(|finder| is(draft, finder)));
    let is_known = |list: &Value| list.as_array().is_some_and(|list| list.iter().all(is_demo));
    let mut lists = finds.chain(plays).filter_map(|draft| match draft.with.get("miners") {
        // Those that another stage finds are looked at there.
        Some(Value::String(_)) if is(draft, "episodes/run") => None,
        list => Some(list.is_some_and(is_known)),
    });
    let mut found = false;
    let all_known = lists.all(|known| {
        found = true;
        known
    });
    !(found && all_known)
}

fn is_demo(miner: &Value) -> bool {
    miner.get("endpoint").and_then(Value::as_str).is_some_and(|endpoint| endpoint.starts_with("demo:"))
}
