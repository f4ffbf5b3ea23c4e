//! What an operator sets for a machine, whatever the manifests say. It becomes part of the definition. A setting that cannot take
//! effect is an error.

use crate::config::{EVAL_IMAGE_VARIABLE, EVAL_MEM_LIMIT_VARIABLE};
use crate::manifest::document::Document;
use crate::manifest::simulation::Simulator;
use crate::manifest::{self, Diagnostic, Diagnostics, Family};

use super::draft::Draft;
use super::inputs::{Bindings, Missing};
use super::{Environment, kinds::WEIGHTS};

/// Time-out of a miner's action in milliseconds.
const ACTION_TIMEOUT: &str = "ROBO_BACKEND_ACTION_TIMEOUT_MS";
/// Steps of an episode at most: a manifest with fewer keeps them.
const MAX_STEPS: &str = "ROBO_BACKEND_MAX_TIMESTEPS_PER_EPISODE";

/// Episodes of every miner in every environment: sets an input of the pipeline.
const EPISODES: &str = "ROBO_BACKEND_EPISODES_PER_ENV";
/// Temperature of the softmax over frontier miners.
const TEMPERATURE: &str = "ROBO_BACKEND_PARETO_TEMPERATURE";

/// A variable that is set to something.
fn set(bindings: &Bindings<'_>, name: &str) -> Option<String> {
    (bindings.variable)(name).filter(|text| !text.trim().is_empty())
}

/// Image and memory of the containers of families that do not pin their own. A third-party server keeps its image: no other image
/// has that server in it.
pub(super) fn apply_to_containers(
    environments: &mut [Environment],
    families: &[Family],
    bindings: &Bindings<'_>,
    found: &mut Diagnostics,
) {
    let image = set(bindings, EVAL_IMAGE_VARIABLE);
    let memory = set(bindings, EVAL_MEM_LIMIT_VARIABLE).and_then(|text| {
        let message = |problem| format!("the environment variable {EVAL_MEM_LIMIT_VARIABLE} is `{text}`: {problem}");
        let size = manifest::memory(text.trim());
        size.map_err(|problem| found.push(Diagnostic::of_command_line(message(problem)))).ok()
    });
    for environment in environments {
        let of = environment.simulation.environment.family();
        let pinned = families.iter().find(|family| family.name == of).map(|family| family.pinned).unwrap_or_default();
        let server = &mut environment.server;
        if let Some(image) = image.as_ref().filter(|_| !pinned.image && !server.is_foreign()) {
            server.image = Some(image.trim().to_owned());
        }
        if let Some(memory) = memory.filter(|_| !pinned.memory) {
            server.resources.memory = Some(memory);
        }
    }
}

/// The temperature of stages that name none. A stage that takes it from an input `temperature` has it from there.
pub(super) fn apply_to_stages(
    drafts: &mut [Draft<'_>],
    (inputs, bindings): (&[&str], &Bindings<'_>),
    document: &Document,
    found: &mut Diagnostics,
) {
    if bindings.missing == Missing::Tolerate {
        return;
    }
    let mut refuse = |message: String| found.push(Diagnostic::of_command_line(message));
    if set(bindings, EPISODES).is_some() && !inputs.contains(&"episodes_per_env") {
        refuse(format!("{EPISODES} has no effect: the pipeline has no input `episodes_per_env`"));
    }
    let Some(text) = set(bindings, TEMPERATURE) else { return };
    let Some(number) = text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0) else {
        return refuse(format!("the environment variable {TEMPERATURE} is `{text}`, and not a number above 0"));
    };
    let mut has_effect = false;
    for draft in drafts.iter_mut().filter(|draft| draft.kind.is_some_and(|kind| kind.name == WEIGHTS)) {
        match draft.wire.with.0.iter().find(|(name, _)| name.value == "temperature") {
            None => {
                draft.with.insert("temperature".to_owned(), number.into());
                has_effect = true;
            }
            Some((_, written)) => {
                let is_input = document.text(written.0).is_some_and(|text| text.contains("inputs.temperature"));
                has_effect |= is_input && inputs.contains(&"temperature");
            }
        }
    }
    if !has_effect {
        refuse(format!(
            "{TEMPERATURE} has no effect: no stage `{WEIGHTS}` leaves its `temperature` out or takes it from `inputs.temperature`"
        ));
    }
}

/// Time-outs and steps.
pub(super) fn apply(environments: &mut [Environment], bindings: &Bindings<'_>, found: &mut Diagnostics) {
    let mut number = |name: &str, most: u32| {
        let text = set(bindings, name)?;
        let number = text.trim().parse::<u32>().ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            let message = format!("the environment variable {name} is `{text}`, and not a number from 1 to {most}");
            found.push(Diagnostic::of_command_line(message));
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
    use crate::plan::{Compiled, Missing, compile, compile_in};

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
    fn image_and_memory_replace_what_manifests_say_and_do_not_pin() {
        let set = [(EVAL_IMAGE_VARIABLE, "mine:v2"), (EVAL_MEM_LIMIT_VARIABLE, "3g")];
        let folder = tempfile::TempDir::new().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(repository.join(name)).unwrap();
        let own = read("environments/metaworld.yaml").replace("../eval-env", "eval-env");
        let foreign = read("examples/environments/affinetes.yaml");
        for (pinned, image, memory) in [
            ("", "mine:v2", 3 << 30),
            ("pinned: [image]\n", "robo-subnet/eval-env:v1", 3 << 30),
            ("pinned: [image, memory]\n", "robo-subnet/eval-env:v1", 8 << 30),
        ] {
            let (mut found, files) = (Diagnostics::default(), folder.path().join("environments"));
            std::fs::create_dir_all(&files).unwrap();
            std::fs::write(files.join("own.yaml"), format!("{pinned}{own}")).unwrap();
            std::fs::write(files.join("foreign.yaml"), &foreign).unwrap();
            let package = files.join("eval-env/robo_eval_env");
            std::fs::create_dir_all(&package).unwrap();
            std::fs::create_dir_all(files.join("eval-env/requirements")).unwrap();
            std::fs::write(files.join("eval-env/requirements/metaworld.lock"), "").unwrap();
            let families = manifest::load_all(folder.path(), &mut found);
            assert_eq!(families.len(), 2, "{found}");
            let members = families.iter().flat_map(|family| family.members.iter().map(move |member| (family, member)));
            let mut environments: Vec<Environment> =
                members.map(|(family, member)| crate::plan::environments::environment(family, member)).collect();
            let variable =
                |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let bindings = Bindings { flags: &[], variable: &variable, missing: Missing::Refuse };
            apply_to_containers(&mut environments, &families, &bindings, &mut found);
            assert!(!found.has_errors(), "{found}");
            for Environment { server, simulation, .. } in environments {
                let found = (server.image.as_deref(), server.resources.memory);
                match server.is_foreign() {
                    true => {
                        assert_eq!(found, (Some("robo-subnet/legacy-eval-env:v1"), Some(3 << 30)), "{simulation:?}")
                    }
                    false => assert_eq!(found, (Some(image), Some(memory)), "{pinned}"),
                }
            }
        }
    }

    /// The temperature of the stage that makes weights, in a shipped pipeline after a change.
    fn temperature(pipeline: &str, change: (&str, &str), text: &str) -> Result<serde_json::Value, String> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let yaml = std::fs::read_to_string(repository.join(pipeline)).unwrap();
        assert!(yaml.contains(change.0), "{pipeline}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml.replacen(change.0, change.1, 1)).unwrap();
        let variable = |name: &str| match name {
            TEMPERATURE | "ROBO_INPUT_TEMPERATURE" => Some(text.to_owned()).filter(|text| !text.trim().is_empty()),
            "ROBO_BACKEND_NETUID" => Some("7".to_owned()),
            _ => None,
        };
        let bindings = Bindings { flags: &[], variable: &variable, missing: Missing::Refuse };
        let compiled = compile_in(file.path(), Some(repository), &bindings).map_err(|problems| problems.to_string())?;
        let weights = compiled.definition.stages.iter().find(|stage| stage.uses == WEIGHTS).unwrap();
        Ok(weights.with["temperature"].clone())
    }

    #[test]
    fn a_temperature_counts_where_a_pipeline_leaves_it_open_and_is_refused_elsewhere() {
        let (quickstart, subnet) = ("pipelines/quickstart.yaml", "pipelines/subnet.yaml");
        assert_eq!(temperature(quickstart, ("", ""), ""), Ok(1.0.into()));
        let open = (", with: { temperature: 1.0 }", "");
        assert_eq!(temperature(quickstart, open, "0.5"), Ok(0.5.into()));
        assert_eq!(temperature(subnet, ("", ""), "0.25"), Ok(0.25.into()));
        let refused = temperature(quickstart, ("", ""), "0.5").unwrap_err();
        assert!(refused.contains("ROBO_BACKEND_PARETO_TEMPERATURE has no effect"), "{refused}");
        for wrong in ["0", "-1", "warm", "inf"] {
            let refused = temperature(quickstart, open, wrong).unwrap_err();
            assert!(refused.contains("not a number above 0"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn episodes_for_a_pipeline_without_such_an_input_are_refused() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pipelines/secrets.yaml");
        let variable = |name: &str| (name == EPISODES).then(|| "5".to_owned());
        let told = match compile(&file, &Bindings { flags: &[], variable: &variable, missing: Missing::Refuse }) {
            Err(problems) => problems.to_string(),
            Ok(_) => String::new(),
        };
        assert!(told.contains("ROBO_BACKEND_EPISODES_PER_ENV has no effect"), "{told}");
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (name, text) in [(ACTION_TIMEOUT, "0"), (ACTION_TIMEOUT, "100ms"), (MAX_STEPS, "-1"), (MAX_STEPS, "many")] {
            let told = compiled(&[(name, text)]).unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(text), "{told}");
        }
    }
}
