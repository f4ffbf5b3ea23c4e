//! What a stage asks for and servers of others cannot give (`protocol: affinetes`): said before anything runs.

use serde_json::{Map, Value};

use crate::manifest::{Diagnostic, Diagnostics};

use super::Environment;

/// Warn of settings of `episodes/run` that have no effect in environments that servers of others simulate.
pub(super) fn warn(
    problem: impl Fn(&str, String) -> Diagnostic,
    settings: &Map<String, Value>,
    environments: &[Environment],
    found: &mut Diagnostics,
) {
    let Some(foreign) = environments.iter().find(|environment| environment.server.is_foreign()) else { return };
    let is_kept = settings.get("keep_actions").is_some_and(|value| value != "nothing");
    let has_budget = settings.get("budget_seconds").is_some_and(|value| !value.is_null());
    for (name, _) in
        [("keep_actions", is_kept), ("budget_seconds", has_budget)].into_iter().filter(|(_, is_said)| *is_said)
    {
        let message =
            format!("`{name}` has no effect in `{}`, which a server of others plays", foreign.simulation.environment);
        let help = "such a server tells neither actions nor how long a miner took: docs/environments.md";
        found.push(problem(name, message).warning().help(help));
    }
}
