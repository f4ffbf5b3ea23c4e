//! The built-in pipeline of `robo chaos`: every kind of transition that needs no simulator, so that a cycle takes a moment.
//!
//! Its scores are written down where a real pipeline measures them. Beside them stand a matrix that only becomes known while the cycle
//! runs, whose tasks take turns in a pool, a program that fails once and is tried again, and a query.

use serde_json::{Value, json};

use crate::plan::Definition;

/// The definition, as `plan` would have made it.
pub(super) fn definition() -> Result<Definition, serde_json::Error> {
    let stages = [
        stage("discover", "file/miners", &[], json!({ "miners": miners() })),
        stage("pareto", "scores/pareto", &["discover"], pareto("epsilon")),
        stage("shadow", "scores/pareto", &["discover"], pareto("first_commit")),
        stage("weights", "scores/weights", &["pareto"], weights("pareto")),
        stage("shadow_weights", "scores/weights", &["shadow"], weights("shadow")),
        skipped(stage("never", "scores/weights", &["pareto"], weights("pareto"))),
        stage("publish", "weights/publish", &["weights"], publish()),
        giving(stage("each", "expr/map", &[], map("[3, 1, 2]", "item * 2")), "doubled", "list"),
        giving(in_turns(late(stage("late", "expr/map", &["each"], map("[matrix.x]", "item + 1")))), "more", "list"),
        giving(stage("flaky", "container/run", &[], program(FAILS_ONCE)), "done", "boolean"),
        giving(stage("asked", "sql/query", &["late"], query()), "sum", "integer"),
        last(stage("teardown", "environments/teardown", &[], json!({}))),
    ];
    serde_json::from_value(json!({
        "version": 1, "pipeline": "toy", "inputs": {}, "environments": [], "pools": { "narrow": 1 },
        "stages": stages,
    }))
}

fn stage(id: &str, uses: &str, depends_on: &[&str], with: Value) -> Value {
    json!({
        "id": id, "uses": uses, "phase": "main", "depends_on": depends_on, "when": null, "with": with,
        "tasks": [{ "key": { "stage": id, "cell": "" }, "matrix": {} }],
        "retry": {
            "max_attempts": 3, "initial_interval_ms": 10, "backoff": 2.0, "max_interval_ms": 1000, "jitter": 0.0,
        },
        "timeout_ms": 600_000, "expect": "complete",
    })
}

fn giving(mut stage: Value, output: &str, kind: &str) -> Value {
    stage["outputs"] = json!({ output: kind });
    stage
}

/// With a task for every number that `each` has made: three rows of the journal that nobody knew before.
fn late(mut stage: Value) -> Value {
    stage["expansion"] = json!({ "axes": { "x": "${{ stages.each.doubled }}" }, "include": [], "exclude": [] });
    stage["tasks"] = json!([]);
    stage
}

fn in_turns(mut stage: Value) -> Value {
    stage["pool"] = json!("narrow");
    stage
}

fn map(items: &str, value: &str) -> Value {
    json!({ "items": format!("${{{{ {items} }}}}"), "value": value, "max_bytes": 1000 })
}

/// The first of two tries asks for another one. What it remembers that by is gone after the second, and is the cycle's own.
const FAILS_ONCE: &str = "d=\"/tmp/robo-chaos-$CYCLE\"
if mkdir \"$d\" 2>/dev/null; then exit 75; fi
rmdir \"$d\" && echo '{\"done\": true}'";

fn program(script: &str) -> Value {
    json!({
        "runtime": "process", "command": ["sh", "-c", script], "input": null, "env": { "CYCLE": "${{ cycle.id }}" },
        "pure": false, "max_bytes": 1000,
    })
}

fn query() -> Value {
    let sum = "select sum((output -> 'more' ->> 0)::int)::int as sum from tasks where stage = 'late'";
    json!({ "query": sum, "max_rows": 1, "max_bytes": 1000 })
}

fn skipped(mut stage: Value) -> Value {
    stage["when"] = json!("1 > 2");
    stage
}

fn last(mut stage: Value) -> Value {
    stage["phase"] = json!("finally");
    stage
}

fn pareto(rule: &str) -> Value {
    json!({ "scores": scores(), "rule": rule, "subset_weighting": "size" })
}

fn weights(from: &str) -> Value {
    json!({ "pareto": format!("${{{{ stages.{from}.pareto }}}}"), "temperature": 1.0, "all_zero": "uniform" })
}

fn publish() -> Value {
    json!({
        "scores": scores(), "pareto": "${{ stages.pareto.pareto }}", "weights": "${{ stages.weights.weights }}",
    })
}

const MINERS: [(u16, &str); 3] = [(1, "alice"), (2, "bob"), (3, "carol")];

fn miners() -> Value {
    let miner = |(uid, hotkey)| json!({ "uid": uid, "hotkey": hotkey, "endpoint": "demo:noop" });
    MINERS.map(miner).into_iter().collect()
}

/// Successes of a hundred episodes: alice and bob are each best somewhere, carol nowhere.
fn scores() -> Value {
    const SUCCESSES: [(&str, [u32; 3]); 2] = [("toy/left", [90, 30, 25]), ("toy/right", [35, 85, 20])];
    let mut entries = Vec::new();
    for (index, (uid, hotkey)) in MINERS.into_iter().enumerate() {
        for (environment, successes) in SUCCESSES {
            let won = successes[index];
            let rate = f64::from(won) / 100.0;
            entries.push(json!({
                "uid": uid, "hotkey": hotkey, "environment": environment, "success_rate": rate,
                "interval": [rate - 0.05, rate + 0.05], "mean_return": rate, "episodes": 100, "successes": won,
                "outcomes": { "success": won, "failure": 100 - won },
            }));
        }
    }
    json!({ "environments": SUCCESSES.map(|(name, _)| name), "entries": entries })
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_definition() {
        let definition = super::definition().unwrap();
        assert_eq!(definition.stages.len(), 12);
        // What is stored is read back as the same.
        assert_eq!(serde_json::from_value::<crate::plan::Definition>(definition.to_json()).unwrap(), definition);
    }
}
