//! The resolved definition a cycle is pinned to: everything that decides its result, and nothing else.
//!
//! Serialised into the database when the cycle starts and read back when it resumes; its digest is the cycle's
//! definition hash. Comments, key order, white space and file paths are gone by now.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::address::Rules;
use crate::cycle::{EnvironmentId, FailureClass, StageId, TaskKey};
use crate::evidence;
use crate::manifest::{self, Resources, simulation::Simulation};

use super::kinds::{Kind, Type as OutputType};

/// A pipeline with its inputs bound, its environments and matrices expanded, in the order it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Version of this form.
    pub version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// Every declared input with its bound value.
    pub inputs: Map<String, Value>,
    /// What is evaluated, sorted by id.
    pub environments: Vec<Environment>,
    /// Tasks that may run at a time in a named pool, over all cycles of the database.
    #[serde(default)]
    pub pools: BTreeMap<String, u32>,
    /// How many cycles of one kind may be open at a time.
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    /// How the miners are called.
    #[serde(default, skip_serializing_if = "Miners::is_default")]
    pub miners: Miners,
    /// Stages in topological order (ties in file order): the main body, `on_failure`, `finally`.
    pub stages: Vec<Stage>,
}

/// How many cycles of one kind may be open at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Name that such cycles share, inputs filled in.
    pub group: String,
    /// How many may be open.
    pub limit: u32,
    /// What happens to one more.
    pub on_limit: OnLimit,
}

/// What happens to a cycle when as many as may be are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// It waits until another has ended.
    #[default]
    Queue,
    /// It is not started.
    Skip,
    /// The oldest is cancelled for it.
    Replace,
}

/// How the miners of a pipeline are called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Miners {
    /// What their endpoints have to keep to.
    pub rules: Rules,
    /// How long one may take to be ready before its first episode in an environment, outside of its clock, in milliseconds.
    pub cold_start_ms: u64,
}

impl Default for Miners {
    fn default() -> Self {
        Self { rules: Rules::default(), cold_start_ms: 10_000 }
    }
}

impl Miners {
    /// Whether the pipeline says nothing of them.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Definition {
    /// The content hash: SHA-256 over the canonical JSON of the definition, in hex.
    ///
    /// Stages count by name: in which order a file lists them decides ties while running, never a result.
    pub fn hash(&self) -> String {
        let mut by_name = self.clone();
        by_name.stages.sort_by(|a, b| a.id.cmp(&b.id));
        evidence::digest(&by_name.to_json())
    }

    /// The form that is stored.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a definition has string keys only")
    }

    /// The environment of that id.
    pub fn environment(&self, id: &EnvironmentId) -> Option<&Environment> {
        self.environments.iter().find(|environment| environment.simulation.environment == *id)
    }

    /// Episodes that a stage will run, when that is known before the start: miners x tasks x episodes of each.
    pub fn planned_episodes(&self, stage: &Stage) -> Option<u64> {
        if stage.expansion.is_some() {
            return None;
        }
        let episodes = stage.with.get("episodes")?.as_u64()?;
        let miners = self.known_miners(stage.with.get("miners")?)?;
        Some(episodes.saturating_mul(miners as u64).saturating_mul(stage.tasks.len() as u64))
    }

    /// How many miners a setting stands for: a list, or a reference to a stage whose list is part of the definition.
    fn known_miners(&self, setting: &Value) -> Option<usize> {
        match setting {
            Value::Array(miners) => Some(miners.len()),
            Value::String(text) => {
                let reference = text.trim().strip_prefix("${{")?.strip_suffix("}}")?.trim();
                let id = reference.strip_prefix("stages.")?.strip_suffix(".miners")?;
                let source = self.stages.iter().find(|stage| stage.id.as_str() == id && stage.uses == "file/miners")?;
                source.with.get("miners")?.as_array().map(Vec::len)
            }
            _ => None,
        }
    }

    /// The stage of that id.
    pub fn stage(&self, id: &StageId) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.id == *id)
    }
}

/// An environment as a cycle uses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// What the simulator is told.
    pub simulation: Simulation,
    /// Where its server runs.
    pub server: Server,
    /// From the last byte of `/act` sent to the last byte of its answer, in milliseconds.
    pub action_timeout_ms: u64,
    /// The same for `/reset`.
    pub reset_timeout_ms: u64,
}

/// What is needed to start an environment server. Environments of one family share it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Protocol the server speaks: `robo/v1` or `affinetes`.
    pub protocol: String,
    /// Worker processes; none means one per core.
    pub workers: Option<u32>,
    /// Episodes in flight per worker, or calls at a time of a server of others.
    pub slots_per_worker: u32,
    /// Directory of the Python package, relative to the pipeline's root. It and the next two are empty for a server of others.
    pub context: String,
    /// Requirements lock, relative to the pipeline's root.
    pub requirements: String,
    /// SHA-256 of the lock and of the package's Python sources: what actually simulates.
    pub build_digest: String,
    /// Container image, for runtimes that use one.
    pub image: Option<String>,
    /// Episodes after which a server is replaced by a fresh one.
    #[serde(default)]
    pub recycle_after: Option<u32>,
    /// What one server may use, for runtimes that can limit it.
    #[serde(default)]
    pub resources: Resources,
}

impl Server {
    /// Whether others have made it: it plays whole episodes by itself, and nothing of ours runs in it.
    pub fn is_foreign(&self) -> bool {
        self.protocol == manifest::AFFINETES
    }
}

/// A stage with its settings still holding `${{ }}` over earlier outputs; everything known before the start is in place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its id.
    pub id: StageId,
    /// Its kind, as `episodes/run`.
    pub uses: String,
    /// Main body or `finally`.
    pub phase: Phase,
    /// Stages it waits for.
    pub depends_on: Vec<StageId>,
    /// Expression that must be true for it to run.
    pub when: Option<String>,
    /// Settings: JSON whose texts may hold `${{ }}`.
    pub with: Map<String, Value>,
    /// Outputs that the pipeline declares, for kinds that leave it to the pipeline.
    #[serde(default)]
    pub outputs: BTreeMap<String, OutputType>,
    /// Its tasks: one, or one per cell of its matrix. Empty while `expansion` waits for the outputs it is made of.
    pub tasks: Vec<Task>,
    /// The matrix, when it uses outputs of earlier stages: expanded, and written down, when those are there.
    #[serde(default)]
    pub expansion: Option<Expansion>,
    /// Most of its tasks that run at a time.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// Whether the first task that fails for good ends the others.
    #[serde(default)]
    pub fail_fast: bool,
    /// Pool whose limit its tasks share.
    #[serde(default)]
    pub pool: Option<String>,
    /// Longest that a task may wait for its turn once nothing but limits holds it up, in milliseconds.
    #[serde(default)]
    pub queue_timeout_ms: Option<u64>,
    /// Attempts.
    pub retry: Retry,
    /// Longest an attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many episodes must be scored.
    pub expect: Expect,
}

impl Stage {
    /// A stage of the main body without settings, conditions, limits and tasks: one attempt of a minute.
    pub fn new(id: StageId, uses: &str) -> Self {
        Self {
            id,
            uses: uses.to_owned(),
            phase: Phase::Main,
            depends_on: Vec::new(),
            when: None,
            with: Map::new(),
            outputs: BTreeMap::new(),
            tasks: Vec::new(),
            expansion: None,
            max_parallel: None,
            fail_fast: false,
            pool: None,
            queue_timeout_ms: None,
            retry: Retry::once(),
            timeout_ms: 60_000,
            expect: Expect::Complete,
        }
    }

    /// Names of its outputs: those of its kind and those that the pipeline declares.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        let fixed = Kind::find(&self.uses).map_or(&[][..], |kind| kind.outputs).iter().map(|output| output.name);
        fixed.chain(self.outputs.keys().map(String::as_str))
    }
}

/// When a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// As soon as what it depends on has succeeded.
    Main,
    /// When the main body has failed, after it and before `finally`.
    OnFailure,
    /// When nothing else can run any more, however that ended.
    Finally,
}

/// One task of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its key.
    pub key: TaskKey,
    /// The values its `matrix.<name>` stand for.
    pub matrix: Map<String, Value>,
}

/// A matrix that is known only once earlier stages have ended. Expanding it is a pure function of their outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expansion {
    /// Each name with its list, or with the text `${{ LIST }}`.
    pub axes: Map<String, Value>,
    /// Cells that are added.
    pub include: Vec<Map<String, Value>>,
    /// Cells that are left out: those that agree with all values of one of these.
    pub exclude: Vec<Map<String, Value>>,
}

/// When a failed task runs again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// Wait before the second attempt, in milliseconds.
    pub initial_interval_ms: u64,
    /// Factor from one wait to the next.
    pub backoff: f64,
    /// Longest wait, in milliseconds.
    pub max_interval_ms: u64,
    /// Share of the wait that is random, 0 to 1.
    pub jitter: f64,
    /// Failures that are worth another attempt.
    #[serde(default = "retryable")]
    pub on: Vec<FailureClass>,
    /// What happens after the last attempt.
    #[serde(default)]
    pub then: Then,
}

/// What happens after the last attempt of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The task has failed.
    #[default]
    Fail,
    /// The cycle waits for a person, who resumes or cancels it.
    Pause,
}

/// The classes that are tried again when a pipeline does not say: our machinery and time.
pub fn retryable() -> Vec<FailureClass> {
    vec![FailureClass::Infra, FailureClass::Timeout]
}

impl Retry {
    /// One attempt.
    pub fn once() -> Self {
        Self {
            max_attempts: 1,
            initial_interval_ms: 1,
            backoff: 1.0,
            max_interval_ms: 1,
            jitter: 0.0,
            on: retryable(),
            then: Then::Fail,
        }
    }

    /// The wait before attempt `attempt + 1`, given a random number in [0, 1).
    pub fn wait(&self, attempt: u32, random: f64) -> Duration {
        let growth = self.backoff.powi(attempt.saturating_sub(1).min(1000) as i32);
        let wait = (self.initial_interval_ms as f64 * growth).min(self.max_interval_ms as f64);
        Duration::from_secs_f64((wait * (1.0 - self.jitter * random) / 1000.0).max(0.0))
    }
}

/// How many of a task's episodes must be scored for it to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// All.
    Complete,
    /// This share of them, 0 to 1.
    Quorum(f64),
}

impl Expect {
    /// Whether `scored` of `planned` episodes are enough.
    pub fn is_met(self, scored: usize, planned: usize) -> bool {
        match self {
            Self::Complete => scored == planned,
            // A quotient is rounded as the share was when it was read, and rounding keeps order: whoever reaches the share that
            // is written has it. A product is rounded once more: 0.56 * 25 is more than 14.
            Self::Quorum(share) => planned == 0 || scored as f64 / planned as f64 >= share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expect;

    /// Shares as people write them, with up to three places, decided by whole numbers.
    #[test]
    fn a_quorum_is_met_by_exactly_as_many_as_it_says() {
        for planned in 1..=200_usize {
            for thousandths in 0..=1000_usize {
                let share: f64 = format!("{}.{:03}", thousandths / 1000, thousandths % 1000).parse().unwrap();
                let needed = (thousandths * planned).div_ceil(1000);
                assert!(Expect::Quorum(share).is_met(needed, planned), "{needed} of {planned} at {share}");
                let fewer = needed.checked_sub(1).is_none_or(|fewer| !Expect::Quorum(share).is_met(fewer, planned));
                assert!(fewer, "one less than {needed} of {planned} at {share}");
            }
        }
    }

    /// Every fraction, written with all the places that a number has.
    #[test]
    fn a_share_that_is_a_fraction_is_met_by_its_numerator() {
        for planned in 1..=200_usize {
            for scored in 1..=planned {
                let share: f64 = (scored as f64 / planned as f64).to_string().parse().unwrap();
                assert!(Expect::Quorum(share).is_met(scored, planned), "{scored} of {planned} at {share}");
                assert!(!Expect::Quorum(share).is_met(scored - 1, planned), "{} of {planned} at {share}", scored - 1);
            }
        }
        assert!(Expect::Quorum(1.0).is_met(0, 0) && Expect::Complete.is_met(3, 3) && !Expect::Complete.is_met(2, 3));
    }
}
