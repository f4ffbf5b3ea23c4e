//! `chain/miners`: which subnet is meant is settled before anything starts, and is part of the definition.
//!
//! A network that is named stands for a chain and is written down. URLs of nodes only say where a chain is read: those of the
//! command line and the environment are left to the machine that runs the cycle, and may hold keys. The chain itself is known
//! by its first block, which the cycle is pinned to together with the block that was read.

use serde_json::{Map, Value};

use crate::manifest::Diagnostics;

use super::Definition;
use super::inputs::{Bindings, Missing};
use super::kinds::DISCOVERY;
use super::references::Scope;

const NETWORK: &str = "ROBO_BACKEND_NETWORK";
const NETUID: &str = "ROBO_BACKEND_NETUID";
const TEMPLATE: &str = "ROBO_BACKEND_DEPLOYMENT_TEMPLATE";
const DEFAULT_NETWORK: &str = "finney";

/// Fill in what the stage at `index` leaves out.
pub(super) fn resolve(
    scope: &Scope<'_>,
    index: usize,
    settings: &mut Map<String, Value>,
    bindings: &Bindings<'_>,
    found: &mut Diagnostics,
) {
    let draft = &scope.drafts[index];
    let variable = |name: &str| (bindings.variable)(name).filter(|value| !value.trim().is_empty());
    if draft.setting_at("network") == draft.at {
        let network = variable(NETWORK).unwrap_or_else(|| DEFAULT_NETWORK.to_owned());
        if !network.contains("://") {
            settings.insert("network".into(), network.into());
        }
    }
    if draft.setting_at("netuid") == draft.at {
        let problem = |message: String| scope.document.error(draft.at, message);
        match variable(NETUID).map(|text| text.trim().parse::<u16>().map_err(|_| text)) {
            Some(Ok(netuid)) => drop(settings.insert("netuid".into(), netuid.into())),
            Some(Err(text)) => {
                found.push(problem(format!("{NETUID} is `{text}`, and not the uid of a subnet (0 to 65535)")));
            }
            None if bindings.missing == Missing::Tolerate => {}
            None => {
                let help = format!(
                    "set the environment variable {NETUID} or write `with: {{ netuid: UID }}`; who runs cycles may say --netuid"
                );
                found.push(problem(format!("stage `{}` does not know which subnet it is about", draft.id)).help(help));
            }
        }
    }
    if draft.setting_at("template") == draft.at
        && let Some(template) = variable(TEMPLATE)
    {
        settings.insert("template".into(), template.trim().into());
    }
    if let Some(Value::String(template)) = settings.get("template")
        && !template.contains("${{")
        && !(template.starts_with("http") && template.contains("://") && template.contains("{id}"))
    {
        let message = format!("`template` is `{template}`, and not an address with {{id}} in it");
        let problem = scope.document.error(draft.setting_at("template"), message);
        found.push(problem.help("as `https://{id}.deployments.basilica.ai`"));
    }
}

/// What a variable of the subnet was when a definition was made, for whoever makes another one like it.
pub fn subnet_variable(definition: &Definition, name: &str) -> Option<String> {
    let stage = definition.stages.iter().find(|stage| stage.uses == DISCOVERY)?;
    match name {
        NETUID => stage.with.get("netuid").map(Value::to_string),
        // None stands there where URLs were given, whichever they were.
        NETWORK => Some(stage.with.get("network").and_then(Value::as_str).unwrap_or("://").to_owned()),
        TEMPLATE => stage.with.get("template").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    }
}

/// A cycle is pinned to one block: one stage reads it, once.
pub(super) fn happens_once(scope: &Scope<'_>, found: &mut Diagnostics) {
    let mut first: Option<&str> = None;
    for draft in scope.drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == DISCOVERY)) {
        if let Some(first) = first {
            let message = format!("a cycle is pinned to one block, and `{first}` reads it already");
            found.push(scope.document.error(draft.wire.uses.at, message));
        } else if draft.axes().next().is_some() {
            let message = "a cycle is pinned to one block: the stage that reads it cannot have a matrix";
            found.push(scope.document.error(draft.at, message));
        } else if draft.phase != super::Phase::Main {
            let message = "miners are discovered among `stages`, before anything else";
            found.push(scope.document.error(draft.at, message));
        }
        first.get_or_insert(draft.id.as_str());
    }
}
