//! Cycles whose stages do nothing, run by the real engine on the real journal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use robo::{
    cycle::{CycleStatus, TaskKey},
    engine::{self, Control, Ending},
    plan::{Definition, Stage, Task},
    stage::Output,
    store::{NewCycle, Store},
};
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

/// As many tasks in flight as a machine that only waits for others can have.
const PARALLELISM: usize = 256;

/// Stages that each wait for the one before.
pub(crate) fn chain(length: usize) -> Definition {
    let id = |place: usize| format!("stage_{place}");
    let stages = (0..length).map(|place| match place.checked_sub(1) {
        None => stage(&id(place), &[], 0),
        Some(before) => stage(&id(place), &[id(before).as_str()], 0),
    });
    definition(stages.collect())
}

/// One stage of many tasks.
pub(crate) fn fan_out(width: usize) -> Definition {
    definition(vec![stage("wide", &[], width)])
}

/// Run the cycle from its creation to its end, and say how long that took.
pub(crate) async fn run(store: &Store, definition: &Definition) -> Duration {
    let journal = Arc::new(store.clone());
    let control = Control { suspend: CancellationToken::new(), observer: Arc::new(|_| ()), parallelism: PARALLELISM };
    let new = new_cycle(definition);
    let started = Instant::now();
    let cycle = store.create_cycle(&new).await.expect("the cycle is created");
    let execute = |_, _| async { Ok(Output::from(json!({}))) };
    let ending = engine::run(&journal, cycle, execute, control).await.expect("the cycle runs");
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    started.elapsed()
}

/// A cycle of that definition, not yet created.
pub(crate) fn new_cycle(definition: &Definition) -> NewCycle {
    NewCycle {
        pipeline: definition.pipeline.clone(),
        definition: definition.to_json(),
        definition_hash: definition.hash(),
        root: "/".into(),
        salt: "5a".repeat(32).parse().expect("it is a salt"),
        pin: None,
        tasks: definition.stages.iter().flat_map(|stage| &stage.tasks).map(|task| task.key.clone()).collect(),
    }
}

pub(crate) fn definition(stages: Vec<Stage>) -> Definition {
    Definition {
        version: 1,
        pipeline: "bench".into(),
        inputs: Map::new(),
        environments: vec![],
        pools: Default::default(),
        concurrency: None,
        miners: Default::default(),
        stages,
    }
}

/// A stage of no-ops: one task, or as many as it is `wide`.
pub(crate) fn stage(id: &str, needs: &[&str], wide: usize) -> Stage {
    let id: robo::cycle::StageId = id.parse().expect("it is a stage's name");
    let task = |cell: String| Task { key: TaskKey { stage: id.clone(), cell }, matrix: Map::new() };
    let tasks =
        if wide == 0 { vec![task(String::new())] } else { (0..wide).map(|k| task(format!("cell-{k}"))).collect() };
    let depends_on = needs.iter().map(|id| id.parse().expect("it is a stage's name")).collect();
    Stage { depends_on, tasks, ..Stage::new(id, "bench/no-op") }
}
