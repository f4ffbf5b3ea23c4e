//! `concurrency`: the group of a pipeline's cycles, its inputs filled in.

use serde_json::{Map, Value};

use crate::manifest::Diagnostics;
use crate::manifest::located::Located;
use crate::manifest::pipeline::ConcurrencyWire;

use super::Concurrency;
use super::expression::{self, Part};
use super::references::Scope;

/// The longest name of a group.
const LONGEST: usize = 200;

/// Resolve the limit on cycles; what is wrong with it is reported.
pub(super) fn resolve(
    scope: &Scope<'_>,
    wire: &Located<ConcurrencyWire>,
    found: &mut Diagnostics,
) -> Option<Concurrency> {
    let ConcurrencyWire { group, limit, on_limit } = &wire.value;
    if let Some(limit) = limit.as_ref().filter(|limit| limit.value == 0) {
        found.push(scope.document.error(limit.at, "at least 1 cycle must be able to run"));
    }
    let limit = limit.as_ref().map_or(1, |limit| limit.value);
    let open = is_open(scope, group, found)?;
    let written = Value::from(group.value.as_str());
    // Without a value for its inputs the pipeline is only being checked.
    let value = if open { Ok(written) } else { scope.evaluate(group.at, &written, &Map::new()) };
    let text = match value {
        Ok(Value::String(text)) => text,
        Ok(other @ (Value::Number(_) | Value::Bool(_))) => other.to_string(),
        Ok(other) => {
            let message = format!("a group is a text, this is {}", expression::kind_of(&other));
            found.push(scope.document.error(group.at, message));
            return None;
        }
        Err(problem) => {
            found.push(problem);
            return None;
        }
    };
    if text.trim().is_empty() || text.chars().count() > LONGEST {
        found.push(scope.document.error(group.at, format!("a group is a text of 1 to {LONGEST} characters")));
        return None;
    }
    Some(Concurrency { group: text, limit, on_limit: *on_limit })
}

/// Whether the group uses an input that has no value. None when it uses what it cannot.
fn is_open(scope: &Scope<'_>, group: &Located<String>, found: &mut Diagnostics) -> Option<bool> {
    let mut open = false;
    let mut sound = true;
    let mut refuse = |part: &str, message: String, help: Option<String>| {
        let problem = scope.document.error_within(group.at, part, message);
        found.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
        sound = false;
    };
    let parts = expression::parts(&group.value).map_err(|error| refuse("${{", error.message, error.help));
    for part in parts.unwrap_or_default() {
        let Part::Expression(expression) = part else { continue };
        match expression::references(&expression) {
            Err(error) => refuse(&expression, error.message, error.help),
            Ok(names) => {
                for name in names {
                    let input = name.strip_prefix("inputs.").map(|rest| rest.split('.').next().unwrap_or(rest));
                    match input.map(|input| scope.input(&name, input)) {
                        Some(Ok(input)) => open |= !input.waits_for.is_empty(),
                        Some(Err((message, help))) => refuse(&name, message, help),
                        None => refuse(&name, format!("a group can use `inputs` only, not `{name}`"), None),
                    }
                }
            }
        }
    }
    sound.then_some(open)
}
