//! What an operator sets for every environment of a machine, whatever the manifests say. It becomes part of the definition.

use crate::manifest::Diagnostics;
use crate::manifest::document::Document;
use crate::manifest::simulation::Simulator;

use super::{Environment, inputs::Bindings};

/// Time-out of a miner's action in milliseconds.
const ACTION_TIMEOUT: &str = "ROBO_BACKEND_ACTION_TIMEOUT_MS";
/// Steps of an episode at most: a manifest with fewer keeps them.
const MAX_STEPS: &str = "ROBO_BACKEND_MAX_TIMESTEPS_PER_EPISODE";

/// Apply them.
pub(super) fn apply(
    environments: &mut [Environment],
    bindings: &Bindings<'_>,
    document: &Document,
    found: &mut Diagnostics,
) {
    let mut number = |name: &str, most: u32| {
        let text = (bindings.variable)(name).filter(|text| !text.trim().is_empty())?;
        let number = text.trim().parse::<u32>().ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            let message = format!("the environment variable {name} is `{text}`, and not a number from 1 to {most}");
            found.push(document.error(document.root(), message));
        }
        number
    };
    let (timeout, steps) = (number(ACTION_TIMEOUT, 3_600_000), number(MAX_STEPS, 1_000_000));
    for environment in environments {
        let simulation = &mut environment.simulation;
        simulation.max_steps = steps.map_or(simulation.max_steps, |most| simulation.max_steps.min(most));
        let Some(timeout) = timeout.map(u64::from) else { continue };
        if let Simulator::Affinetes(call) = &mut simulation.simulator {
            // A call must be able to last as long as its miner may take.
            let longer = timeout.saturating_sub(environment.action_timeout_ms) * u64::from(simulation.max_steps);
            call.timeout_ms = call.timeout_ms.saturating_add(longer);
        }
        environment.action_timeout_ms = timeout;
    }
}
