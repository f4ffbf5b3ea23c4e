//! From the result of `evaluate` to a report. Pure.
//!
//! What a server does not tell stays untold: there is no trajectory hash, no distribution of latencies and no list of actions, and
//! where it leaves out steps or return, the report's detail says so.

use serde_json::Value;

use super::blame;
use crate::{
    cycle::{Condition, EpisodeReport, InfraFault, Outcome, plain_text},
    manifest::simulation::{Argument, ScoreSource, Simulation},
};

/// An episode that did not come to its end.
pub(super) fn broken(simulation: &Simulation, outcome: Outcome, detail: &str, wall_ms: f64) -> EpisodeReport {
    EpisodeReport {
        outcome,
        detail: Some(plain_text(detail)),
        steps: 0,
        total_reward: 0.0,
        // Walking away must not pay.
        score: simulation.score.filter(|_| outcome.is_scored()).map(|_| 0.0),
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms,
    }
}

/// What a result comes to, and the condition behind a fault that is undecided ([`blame::outcome`]).
pub(super) fn report(
    simulation: &Simulation,
    seed: u32,
    result: &Value,
    wall_ms: f64,
) -> (EpisodeReport, Option<Condition>) {
    judge(simulation, seed, result, wall_ms).unwrap_or_else(|problem| {
        let problem = format!("the server's result is not of the protocol: {problem}");
        (broken(simulation, Outcome::InfraFault(InfraFault::SimulatorError), &problem, wall_ms), None)
    })
}

fn judge(
    simulation: &Simulation,
    seed: u32,
    result: &Value,
    wall_ms: f64,
) -> Result<(EpisodeReport, Option<Condition>), String> {
    if !result.is_object() {
        return Err("it is no object".to_owned());
    }
    let extra = Extra(&result["extra"]);
    extra.is_ours(simulation, seed)?;
    if let Some(error) = error(&result["error"]) {
        let (outcome, undecided) = blame::outcome(&error);
        let mut report = broken(simulation, outcome, error.lines().next().unwrap_or_default(), wall_ms);
        report.steps = extra.steps().or_else(|| blame::step(&error)).unwrap_or(0);
        report.total_reward = extra.total_reward()?.unwrap_or(0.0);
        return Ok((report, undecided));
    }
    let success = success(&result["success"])?;
    let total_reward = extra.total_reward()?;
    let score = match simulation.score {
        None => None,
        Some(rule) => Some(rule.worth(match rule.from {
            ScoreSource::Score => finite("score", &result["score"])?.ok_or("`score` is missing")?,
            ScoreSource::Return => total_reward.ok_or("`extra.total_reward` is missing")?,
        })),
    };
    let report = EpisodeReport {
        outcome: if success { Outcome::Success } else { Outcome::Failure },
        detail: extra.remark(),
        steps: extra.steps().unwrap_or(0),
        total_reward: total_reward.unwrap_or(0.0),
        score,
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms,
    };
    Ok((report, None))
}

/// The text of an error, if there is one.
fn error(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(text.clone()),
        // Something went wrong, in words that nobody knows.
        other => Some(other.to_string()),
    }
}

fn success(value: &Value) -> Result<bool, String> {
    match (value.as_bool(), value.as_f64()) {
        (Some(success), _) => Ok(success),
        (None, Some(0.0)) => Ok(false),
        (None, Some(1.0)) => Ok(true),
        _ => Err(format!("`success` is {value}")),
    }
}

/// A number that may be left out, but not be anything else.
fn finite(name: &str, value: &Value) -> Result<Option<f64>, String> {
    match value.as_f64() {
        _ if value.is_null() => Ok(None),
        Some(number) if number.is_finite() => Ok(Some(number)),
        _ => Err(format!("`{name}` is {value}")),
    }
}

/// What a server says beside score and success, as far as it does.
struct Extra<'a>(&'a Value);

impl Extra<'_> {
    /// Answers that were mixed up are nobody's.
    fn is_ours(&self, simulation: &Simulation, seed: u32) -> Result<(), String> {
        let Some(call) = simulation.affinetes() else { return Ok(()) };
        // What the server was not told it may call as it likes.
        let is_other = |seen: Option<i64>| seen.is_some_and(|told| told != i64::from(seed));
        if call.sends(Argument::Seed) && is_other(self.0["seed"].as_i64()) {
            return Err(format!("it is about seed {}, not {seed}", self.0["seed"]));
        }
        if call.sends(Argument::EnvId) && self.0["env_id"].as_str().is_some_and(|told| told != call.env_id) {
            return Err(format!("it is about {}, not `{}`", self.0["env_id"], call.env_id));
        }
        Ok(())
    }

    fn steps(&self) -> Option<u32> {
        let told = ["timesteps", "timesteps_completed"].into_iter().find_map(|name| self.0[name].as_u64());
        told.and_then(|steps| u32::try_from(steps).ok())
    }

    fn total_reward(&self) -> Result<Option<f64>, String> {
        finite("extra.total_reward", &self.0["total_reward"])
    }

    /// What an operator should know who reads the numbers.
    fn remark(&self) -> Option<String> {
        let mut remarks = Vec::new();
        let absent: Vec<&str> = [("steps", self.steps().is_none()), ("return", self.0["total_reward"].is_null())]
            .into_iter()
            .filter_map(|(name, is_absent)| is_absent.then_some(name))
            .collect();
        if !absent.is_empty() {
            remarks.push(format!("the server tells no {}", absent.join(" and no ")));
        }
        let clock = |name: &str| self.0[name].as_f64().filter(|seconds| seconds.is_finite());
        if let (Some(mean), Some(most)) = (clock("mean_action_time"), clock("max_action_time")) {
            let (mean, most) = (mean * 1000.0, most * 1000.0);
            remarks
                .push(format!("by the server's clock an answer took {mean:.1} ms on average and {most:.1} ms at most"));
        }
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{cycle::MinerFault, manifest::simulation::Simulator};

    fn simulation(score: Value) -> Simulation {
        serde_json::from_value(json!({
            "environment": "m/a", "determinism": "none", "max_steps": 5, "stop_on_success": false, "score": score,
            "affinetes": { "env_id": "theirs/a", "use_images": false, "timeout_ms": 1000 },
        }))
        .unwrap()
    }

    fn by_score() -> Simulation {
        simulation(json!({ "from": "score", "min": 0.0, "max": 1.0 }))
    }

    fn of(result: &Value) -> EpisodeReport {
        report(&by_score(), 7, result, 12.0).0
    }

    #[test]
    fn a_result_becomes_a_report_with_what_it_tells() {
        let told = of(&json!({
            "task_name": "robotics:theirs/a", "score": 0.25, "success": false, "time_taken": 1.5,
            "extra": {
                "task_id": 7, "seed": 7, "env_id": "theirs/a", "timesteps": 41, "total_reward": -3.5,
                "mean_action_time": 0.021, "max_action_time": 0.04, "model": "m", "base_url": "x",
            },
        }));
        assert_eq!((told.outcome, told.steps, told.total_reward), (Outcome::Failure, 41, -3.5));
        assert_eq!((told.score, told.wall_ms), (Some(0.25), 12.0));
        assert_eq!((told.latency, told.trajectory_hash, told.actions), (None, None, None));
        assert!(told.detail.unwrap().contains("21.0 ms on average and 40.0 ms at most"));
        let little = of(&json!({ "score": 1, "success": true, "time_taken": 1.5, "extra": {} }));
        assert_eq!((little.outcome, little.score, little.steps), (Outcome::Success, Some(1.0), 0));
        assert_eq!(little.detail.as_deref(), Some("the server tells no steps and no return"));
    }

    #[test]
    fn a_server_may_name_what_it_was_not_told_as_it_likes() {
        let mut simulation = by_score();
        let Simulator::Affinetes(call) = &mut simulation.simulator else { panic!("{simulation:?}") };
        call.send = Some(vec![Argument::TaskId, Argument::BaseUrl]);
        let own = json!({ "score": 1.0, "success": true, "extra": { "seed": 99, "env_id": "its own" } });
        assert_eq!(report(&simulation, 7, &own, 1.0).0.outcome, Outcome::Success);
        assert_eq!(of(&own).outcome, Outcome::InfraFault(InfraFault::SimulatorError));
    }

    #[test]
    fn a_return_can_be_the_score_and_none_need_be() {
        let result = json!({ "success": true, "extra": { "timesteps": 1, "total_reward": 5.0 } });
        let half = simulation(json!({ "from": "return", "min": 0.0, "max": 10.0 }));
        assert_eq!(report(&half, 7, &result, 1.0).0.score, Some(0.5));
        assert_eq!(report(&simulation(Value::Null), 7, &result, 1.0).0.score, None);
        assert_eq!(of(&result).outcome, Outcome::InfraFault(InfraFault::SimulatorError), "no score where one is due");
    }

    #[test]
    fn a_miners_fault_is_worth_nothing_and_ours_is_not_scored() {
        let fault = of(&json!({
            "score": 0.9, "success": true, "error": "Miner action timeout at step 3",
            "extra": { "seed": 7, "timesteps_completed": 3 },
        }));
        assert_eq!(fault.outcome, Outcome::MinerFault(MinerFault::ActionTimeout));
        assert_eq!((fault.score, fault.steps), (Some(0.0), 3));
        let ours = of(&json!({ "score": 0, "success": false, "error": "TypeError: x\nTraceback", "extra": {} }));
        assert_eq!((ours.outcome, ours.score), (Outcome::InfraFault(InfraFault::SimulatorError), None));
        assert_eq!(ours.detail.as_deref(), Some("TypeError: x"));
    }

    #[test]
    fn answers_that_are_malformed_or_about_something_else_are_never_scored() {
        for result in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "score": 1.0 }),
            json!({ "score": null, "success": true }),
            json!({ "score": "1.0", "success": true }),
            json!({ "score": 1.0, "success": "yes" }),
            json!({ "score": 1.0, "success": 0.5 }),
            json!({ "score": 1.0, "success": true, "extra": { "seed": 8 } }),
            json!({ "score": 1.0, "success": true, "extra": { "env_id": "theirs/b" } }),
            json!({ "score": 1.0, "success": true, "extra": { "total_reward": "much" } }),
            json!({ "score": 1.0, "success": true, "error": { "code": 3 } }),
        ] {
            assert_eq!(of(&result).outcome, Outcome::InfraFault(InfraFault::SimulatorError), "{result}");
        }
    }

    proptest! {
        #[test]
        fn a_score_is_always_between_nothing_and_all(score in any::<f64>(), success in any::<bool>()) {
            let told = of(&json!({ "score": score, "success": success, "extra": {} }));
            prop_assert_eq!(told.outcome.is_scored(), score.is_finite());
            prop_assert!(told.score.is_none_or(|score| (0.0..=1.0).contains(&score)));
        }

        #[test]
        fn a_failed_episode_is_never_a_success(error in "\\PC+", success in any::<bool>()) {
            prop_assume!(!error.trim().is_empty());
            let told = of(&json!({ "score": 1.0, "success": success, "error": error }));
            prop_assert!(!matches!(told.outcome, Outcome::Success | Outcome::Failure));
        }
    }
}
