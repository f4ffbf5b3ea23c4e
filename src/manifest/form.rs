//! The serialised form of a [`Simulation`]: flat, with the keys of whoever simulates. `eval-env` reads it, and definitions hold
//! it, also those of cycles that began before there was a second simulator.

use serde::{Deserialize, Serialize};

use super::simulation::{
    Action, Adapter, Affinetes, Determinism, Dialect, Gymnasium, Observation, Score, Simulation, Simulator, Success,
};
use crate::cycle::EnvironmentId;

/// A simulation, flat.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    environment: EnvironmentId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gymnasium: Option<Gymnasium>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    affinetes: Option<Affinetes>,
    #[serde(default, skip_serializing_if = "Dialect::is_native")]
    dialect: Dialect,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observation: Option<Observation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    success: Option<Success>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<Score>,
    determinism: Determinism,
    max_steps: u32,
    stop_on_success: bool,
}

impl TryFrom<Form> for Simulation {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        let simulator = match (form.affinetes, form.gymnasium, form.observation, form.action, form.success) {
            (Some(call), None, None, None, None) if form.dialect.is_native() => Simulator::Affinetes(call),
            (None, Some(gymnasium), Some(observation), Some(action), Some(success)) => {
                let dialect = form.dialect;
                Simulator::Gymnasium(Box::new(Adapter { gymnasium, dialect, observation, action, success }))
            }
            _ => return Err("it needs either `affinetes`, or `gymnasium`, `observation`, `action` and `success`"),
        };
        Ok(Self {
            environment: form.environment,
            simulator,
            score: form.score,
            determinism: form.determinism,
            max_steps: form.max_steps,
            stop_on_success: form.stop_on_success,
        })
    }
}

impl From<Simulation> for Form {
    fn from(simulation: Simulation) -> Self {
        let (adapter, affinetes) = match simulation.simulator {
            Simulator::Gymnasium(adapter) => (Some(*adapter), None),
            Simulator::Affinetes(call) => (None, Some(call)),
        };
        let dialect = adapter.as_ref().map(|adapter| adapter.dialect).unwrap_or_default();
        let (gymnasium, observation, action, success) = match adapter {
            Some(adapter) => {
                (Some(adapter.gymnasium), Some(adapter.observation), Some(adapter.action), Some(adapter.success))
            }
            None => (None, None, None, None),
        };
        Self {
            environment: simulation.environment,
            gymnasium,
            affinetes,
            dialect,
            observation,
            action,
            success,
            score: simulation.score,
            determinism: simulation.determinism,
            max_steps: simulation.max_steps,
            stop_on_success: simulation.stop_on_success,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<Simulation, serde_json::Error> {
        serde_json::from_value(value.clone())
    }

    #[test]
    fn each_simulator_has_its_own_keys_and_no_others() {
        let common = json!({ "environment": "m/a", "determinism": "none", "max_steps": 5, "stop_on_success": false });
        let with = |more: Value| {
            let mut value = common.clone();
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            value
        };
        let ours = json!({
            "gymnasium": { "make": "A-v0", "kwargs": {}, "imports": [], "hook": null },
            "observation": { "state": [], "cameras": {} },
            "action": { "size": 1, "low": -1.0, "high": 1.0, "out_of_range": "refuse", "kind": "direct" },
            "success": { "rule": "survive", "when": "last" },
        });
        let theirs = json!({ "affinetes": { "env_id": "m/a", "use_images": false, "kwargs": {}, "timeout_ms": 1000 } });
        for form in [with(ours.clone()), with(theirs.clone())] {
            let simulation = read(&form).unwrap();
            assert_eq!(simulation.adapter().is_some(), simulation.affinetes().is_none());
            assert_eq!(serde_json::to_value(simulation).unwrap(), form);
        }
        let mut canonical = with(ours.clone());
        canonical["dialect"] = json!("canonical");
        canonical["observation"]["state"] = json!([
            { "path": [], "slice": [3, 4], "channel": "gripper", "scale": -1.0, "offset": 1.0 },
            { "path": [], "slice": null, "pose": "orientation", "channel": "ee_quat" },
        ]);
        canonical["action"]["channels"] = json!([{ "channel": "ee_twist", "size": 6, "slice": [0, 1], "scale": 2.0 }]);
        assert_eq!(serde_json::to_value(read(&canonical).unwrap()).unwrap(), canonical);
        let mut both = with(ours);
        both.as_object_mut().unwrap().extend(theirs.as_object().unwrap().clone());
        let mut half = both.clone();
        half.as_object_mut().unwrap().remove("gymnasium");
        for wrong in [common.clone(), both, half] {
            assert!(read(&wrong).unwrap_err().to_string().contains("either `affinetes`"), "{wrong}");
        }
    }
}
