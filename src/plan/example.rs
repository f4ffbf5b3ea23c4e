//! A small definition for the tests of this module.

use serde_json::{Value, json};

use super::Definition;
use crate::cycle::StageId;

pub(super) fn stage(id: &str) -> StageId {
    id.parse().unwrap()
}

/// `discover -> episodes -> aggregate -> weights` with `shadow` beside `weights`, and `teardown` at the end.
pub(super) fn definition() -> Definition {
    let part = |id: &str, uses: &str, phase: &str, depends_on: &[&str], with: Value| {
        json!({
            "id": id, "uses": uses, "phase": phase, "depends_on": depends_on, "when": null, "with": with,
            "tasks": [{"key": {"stage": id, "cell": ""}, "matrix": {}}],
            "retry": {
                "max_attempts": 3, "initial_interval_ms": 1, "backoff": 1.0, "max_interval_ms": 1, "jitter": 0.0
            },
            "timeout_ms": 1000, "expect": "complete",
        })
    };
    let mut stages = vec![
        part("discover", "file/miners", "main", &[], json!({"miners": []})),
        part(
            "episodes",
            "episodes/run",
            "main",
            &["discover"],
            json!({"episodes": 3, "miners": "${{ stages.discover.miners }}"}),
        ),
        part("aggregate", "scores/aggregate", "main", &["episodes"], json!({})),
        part("weights", "scores/weights", "main", &["aggregate"], json!({"temperature": 1.0})),
        part("shadow", "scores/weights", "main", &["aggregate"], json!({"temperature": 0.5})),
        part("teardown", "environments/teardown", "finally", &[], json!({})),
    ];
    stages[1]["tasks"] =
        json!([{"key": {"stage": "episodes", "cell": "environment=m/a"}, "matrix": {"environment": "m/a"}}]);
    let simulation = json!({
        "environment": "m/a", "gymnasium": {"make": "A-v0"},
        "observation": {"state": [{"slice": [0, 2]}]}, "action": {"size": 1, "low": -1.0, "high": 1.0},
        "success": {"rule": "survive"}, "determinism": "bitwise", "max_steps": 5, "stop_on_success": false,
    });
    let server = json!({
        "protocol": "robo/v1", "workers": null, "slots_per_worker": 1, "context": "c", "requirements": "r",
        "build_digest": "d", "image": null,
    });
    serde_json::from_value(json!({
        "version": 1, "pipeline": "p", "inputs": {},
        "environments": [
            {"simulation": simulation, "server": server, "action_timeout_ms": 1, "reset_timeout_ms": 1},
        ],
        "stages": stages,
    }))
    .unwrap()
}
