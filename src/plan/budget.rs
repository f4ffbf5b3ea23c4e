//! How long one miner may keep a stage waiting: derived from what the stage plays, and bounded so that a miner at the limit cannot run
//! the stage out of time. Pure.

use std::time::Duration;

use super::{Environment, Stage};

/// The share of a stage's time-out that one miner may take. The rest is for what is not the miner's: starts, simulation, retries.
const SHARE: f64 = 0.75;

/// The wall time for which a miner may have calls open in one environment: what `episodes` would take if each answer came at its
/// deadline, and at most an equal part for every task of the stage of three quarters of the stage's time-out. A miner plays its tasks
/// one after the other, unless it announces more.
pub fn wall_budget(stage: &Stage, environment: &Environment, episodes: u64) -> Duration {
    let steps = u64::from(environment.simulation.max_steps);
    let episode = steps.saturating_mul(environment.action_timeout_ms).saturating_add(environment.reset_timeout_ms);
    let needed = Duration::from_millis(episode.saturating_mul(episodes));
    let tasks = stage.tasks.len().max(1) as f64;
    needed.min(Duration::from_millis(stage.timeout_ms).mul_f64(SHARE / tasks))
}

/// When miners may be out of budget on a third-party server, since the start of a task: the rest of the stage's time-out is for
/// the other miners.
pub fn closing_time(stage: &Stage) -> Duration {
    Duration::from_millis(stage.timeout_ms).mul_f64(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cycle::TaskKey, plan::Task};

    fn stage(timeout_s: u64) -> Stage {
        Stage { timeout_ms: timeout_s * 1000, ..Stage::new("episodes".parse().unwrap(), "episodes/run") }
    }

    fn environment() -> Environment {
        serde_json::from_value(serde_json::json!({
            "simulation": {
                "environment": "m/a", "determinism": "none", "max_steps": 100, "stop_on_success": false,
                "affinetes": { "env_id": "m/a", "use_images": false, "timeout_ms": 1000 },
            },
            "server": {
                "protocol": "affinetes", "workers": null, "slots_per_worker": 1, "context": "", "requirements": "",
                "build_digest": "",
            },
            "action_timeout_ms": 100,
            "reset_timeout_ms": 5000,
        }))
        .unwrap()
    }

    #[test]
    fn a_budget_is_what_answers_at_their_deadlines_take_and_leaves_the_stage_time() {
        let budget = |timeout_s, episodes| wall_budget(&stage(timeout_s), &environment(), episodes).as_secs();
        assert_eq!(budget(3600, 10), 10 * (100 / 10 + 5));
        assert_eq!(budget(60, 10), 45, "three quarters of the time-out");
        assert_eq!(budget(60, u64::MAX), 45);
        let one = stage(60);
        let task =
            || Task { key: TaskKey { stage: one.id.clone(), cell: String::new() }, matrix: serde_json::Map::default() };
        let two = Stage { tasks: vec![task(), task()], ..stage(60) };
        assert_eq!(wall_budget(&two, &environment(), 10).as_secs_f64(), 22.5, "in each of two environments");
    }
}
