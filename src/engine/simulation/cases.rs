//! Random definitions: small ones, with every word that the engine obeys.

use std::collections::BTreeMap;

use rand::{RngExt, rngs::StdRng};
use serde_json::{Map, Value, json};

use crate::cycle::{FailureClass, TaskKey};
use crate::plan::{Definition, Expansion, Expect, Phase, Retry, Stage, Task, Then};

/// A definition and how hard its world is.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) definition: Definition,
    pub(super) parallelism: usize,
    /// Share of attempts that fail.
    pub(super) failures: f64,
    /// Share of steps at which something happens to the owner.
    pub(super) mischief: f64,
}

const CLASSES: [FailureClass; 4] =
    [FailureClass::Infra, FailureClass::Timeout, FailureClass::Config, FailureClass::BelowQuorum];

impl Case {
    pub(super) fn random(random: &mut StdRng) -> Self {
        let pools = BTreeMap::from([("one".to_owned(), 1), ("two".to_owned(), 2)]);
        let mut stages: Vec<Stage> = Vec::new();
        for index in 0..random.random_range(2..5) {
            let stage = main_stage(random, index, &stages);
            stages.push(stage);
        }
        for (name, phase) in [("alarm", Phase::OnFailure), ("teardown", Phase::Finally), ("farewell", Phase::Finally)] {
            if phase == Phase::Finally || random.random_bool(0.5) {
                let tasks = random.random_range(1..3);
                let mut stage = stage(random, name, tasks);
                stage.phase = phase;
                stages.push(stage);
            }
        }
        let definition = Definition {
            version: 1,
            pipeline: "simulated".into(),
            inputs: Map::new(),
            environments: vec![],
            pools,
            concurrency: None,
            miners: Default::default(),
            stages,
        };
        Self {
            definition,
            parallelism: random.random_range(1..5),
            failures: random.random_range(0.0..0.35),
            mischief: if random.random_bool(0.7) { 0.06 } else { 0.0 },
        }
    }
}

/// What a task that succeeds leaves behind: the same whenever and wherever it runs.
pub(super) fn output(task: &TaskKey) -> Value {
    let items: Vec<usize> = (0..cells_of(task)).collect();
    json!({ "name": task.to_string(), "items": items })
}

/// How many cells a late matrix over this task's output has.
pub(super) fn cells_of(task: &TaskKey) -> usize {
    task.to_string().bytes().map(usize::from).sum::<usize>() % 4
}

fn main_stage(random: &mut StdRng, index: usize, before: &[Stage]) -> Stage {
    let tasks = random.random_range(1..4);
    // The number decides how many cells a matrix over its output has.
    let name = format!("s{index}_{}", random.random_range(0..9));
    let mut stage = stage(random, &name, tasks);
    for earlier in before {
        if random.random_bool(0.4) {
            stage.depends_on.push(earlier.id.clone());
        }
    }
    let single = stage
        .depends_on
        .iter()
        .find(|id| before.iter().any(|it| it.id == **id && it.expansion.is_none() && it.tasks[0].key.cell.is_empty()));
    if let Some(source) = single.filter(|_| random.random_bool(0.5)).cloned() {
        // A number is no list: now and then a matrix has no value.
        let field = if random.random_bool(0.1) { "name" } else { "items" };
        let axes = Map::from_iter([("x".to_owned(), json!(format!("${{{{ stages.{source}.{field} }}}}")))]);
        stage.expansion = Some(Expansion { axes, include: vec![], exclude: vec![] });
        stage.tasks.clear();
    }
    stage
}

fn stage(random: &mut StdRng, name: &str, tasks: usize) -> Stage {
    let task = |cell: String| Task { key: TaskKey { stage: name.parse().unwrap(), cell }, matrix: Map::new() };
    let tasks =
        if tasks == 1 { vec![task(String::new())] } else { (0..tasks).map(|it| task(it.to_string())).collect() };
    let pool = [None, None, None, Some("one".to_owned()), Some("two".to_owned())];
    let when = [None, None, None, None, None, Some("${{ 1 > 2 }}".to_owned())];
    Stage {
        id: name.parse().unwrap(),
        uses: "simulated/kind".into(),
        phase: Phase::Main,
        depends_on: vec![],
        when: when[random.random_range(0..when.len())].clone().filter(|_| name.starts_with('s')),
        with: Map::new(),
        tasks,
        outputs: BTreeMap::new(),
        expansion: None,
        max_parallel: random.random_bool(0.3).then_some(1),
        fail_fast: random.random_bool(0.3),
        pool: pool[random.random_range(0..pool.len())].clone(),
        queue_timeout_ms: random.random_bool(0.15).then_some(900),
        retry: Retry {
            max_attempts: random.random_range(1..4),
            initial_interval_ms: 100,
            backoff: 2.0,
            max_interval_ms: 1000,
            jitter: 0.2,
            on: CLASSES.into_iter().filter(|_| random.random_bool(0.6)).collect(),
            then: if random.random_bool(0.2) { Then::Pause } else { Then::Fail },
        },
        timeout_ms: 60_000,
        expect: if random.random_bool(0.3) { Expect::Quorum(0.6) } else { Expect::Complete },
    }
}
