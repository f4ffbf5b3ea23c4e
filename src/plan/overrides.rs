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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::{Compiled, Missing, compile};

    fn compiled(variables: &[(&str, &str)]) -> Result<Compiled, Diagnostics> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/quickstart.yaml");
        compile(&file, &Bindings { flags: &[], variable: &variable, missing: Missing::Refuse })
    }

    /// Time-out and most steps of each environment.
    fn found(variables: &[(&str, &str)]) -> Vec<(u64, u32)> {
        let environments = compiled(variables).unwrap().definition.environments;
        environments.iter().map(|it| (it.action_timeout_ms, it.simulation.max_steps)).collect()
    }

    #[test]
    fn what_is_set_counts_in_every_environment_and_lengthens_no_episode() {
        let own = found(&[]);
        assert!(own.iter().all(|(timeout, steps)| (*timeout, *steps) != (250, 60)) && own.len() > 1, "{own:?}");
        let set = found(&[(ACTION_TIMEOUT, "250"), (MAX_STEPS, " 60 ")]);
        assert_eq!(set, vec![(250, 60); own.len()]);
        assert_eq!(found(&[(ACTION_TIMEOUT, ""), (MAX_STEPS, "100000")]), own);
        let hash = |variables: &[(&str, &str)]| compiled(variables).unwrap().definition.hash();
        assert_ne!(hash(&[(ACTION_TIMEOUT, "250")]), hash(&[]), "it is part of the definition");
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (name, text) in [(ACTION_TIMEOUT, "0"), (ACTION_TIMEOUT, "100ms"), (MAX_STEPS, "-1"), (MAX_STEPS, "many")] {
            let told = compiled(&[(name, text)]).unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(text), "{told}");
        }
    }
}
