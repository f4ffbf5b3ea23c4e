//! The wire form of a pipeline: what `pipelines/*.yaml` may hold. Compiled by `plan`, which resolves every name in it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Entries, Located, Raw};
use super::units::Span;
use crate::plan::{OnLimit, OutputType, Then};
use crate::schedule::{Catchup, Overlap};

/// A pipeline: one graph of stages, its inputs and its schedule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "robo pipeline, version 1")]
pub(crate) struct Pipeline {
    /// Version of the manifest language: 1.
    #[schemars(extend("const" = 1))]
    pub(crate) version: Located<u32>,
    /// Name of the pipeline.
    #[schemars(with = "String", regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))]
    pub(crate) name: Located<String>,
    /// What it is for.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the manifest")]
    pub(crate) description: Option<String>,
    /// When it runs by itself.
    #[serde(default)]
    pub(crate) schedule: Vec<Located<Schedule>>,
    /// Values an operator may set at the start: `-i name=value`.
    #[serde(default)]
    pub(crate) inputs: Entries<Input>,
    /// What is evaluated: environment ids or globs over them.
    #[serde(default)]
    pub(crate) environments: Vec<Located<String>>,
    /// Files that hold more of this pipeline, relative to this one.
    #[serde(default)]
    #[expect(dead_code, reason = "read before everything else, by the pass that takes the files in")]
    pub(crate) include: Vec<Located<String>>,
    /// How many tasks may run in a named pool at a time, over all cycles of the database.
    #[serde(default)]
    #[schemars(with = "Entries<Limit>")]
    pub(crate) pools: Entries<Located<u32>>,
    /// How many cycles of one kind may be open at a time.
    #[serde(default)]
    pub(crate) concurrency: Option<Located<ConcurrencyWire>>,
    /// How the miners are called.
    #[serde(default)]
    pub(crate) miners: MinersWire,
    /// What holds for every stage that does not say otherwise.
    #[serde(default)]
    pub(crate) defaults: Defaults,
    /// The stages by name.
    #[serde(default)]
    #[schemars(with = "Entries<Located<Stage>>")]
    pub(crate) stages: Option<Located<Entries<Located<Stage>>>>,
    /// Stages that run when a stage has failed, before those of `finally`.
    #[serde(default)]
    pub(crate) on_failure: Entries<Located<Stage>>,
    /// Stages that run at the end, however the others ended.
    #[serde(default)]
    pub(crate) finally: Entries<Located<Stage>>,
}

/// A part of a pipeline in a file of its own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "part of a robo pipeline, version 1")]
pub(crate) struct Fragment {
    /// Version of the manifest language: 1.
    #[serde(default)]
    #[schemars(extend("const" = 1))]
    pub(crate) version: Option<Located<u32>>,
    /// What it is for.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the manifest")]
    pub(crate) description: Option<String>,
    /// Files that hold more of the pipeline, relative to this one.
    #[serde(default)]
    #[expect(dead_code, reason = "read before everything else, by the pass that takes the files in")]
    pub(crate) include: Vec<Located<String>>,
    /// More inputs.
    #[serde(default)]
    pub(crate) inputs: Entries<Input>,
    /// What holds for every stage that does not say otherwise.
    #[serde(default)]
    pub(crate) defaults: Defaults,
    /// More pools.
    #[serde(default)]
    #[schemars(with = "Entries<Limit>")]
    pub(crate) pools: Entries<Located<u32>>,
    /// More stages.
    #[serde(default)]
    pub(crate) stages: Entries<Located<Stage>>,
    /// More stages that run when a stage has failed.
    #[serde(default)]
    pub(crate) on_failure: Entries<Located<Stage>>,
    /// More stages that run at the end.
    #[serde(default)]
    pub(crate) finally: Entries<Located<Stage>>,
}

/// How many cycles of one kind may be open at a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConcurrencyWire {
    /// Name that such cycles share; it may hold `${{ inputs.NAME }}`.
    #[schemars(with = "String")]
    pub(crate) group: Located<String>,
    /// How many of them may be open.
    #[serde(default)]
    #[schemars(with = "Option<Limit>")]
    pub(crate) limit: Option<Located<u32>>,
    /// What happens to one more.
    #[serde(default)]
    pub(crate) on_limit: OnLimit,
}

/// How the miners are called.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MinersWire {
    /// Whether endpoints may lead to this machine and to private networks: for local work.
    #[serde(default)]
    pub(crate) allow_private_endpoints: bool,
    /// Ports that endpoints may not have, in place of those that belong to well-known other services.
    #[serde(default)]
    #[schemars(with = "Option<Vec<u16>>")]
    pub(crate) forbidden_ports: Option<Vec<Located<u16>>>,
    /// Miners that have to wake up.
    #[serde(default)]
    pub(crate) cold_start: Option<ColdStartWire>,
}

/// Miners that have to wake up.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColdStartWire {
    /// How long one may take to be ready before its first episode in an environment, outside of its clock.
    #[schemars(with = "Span")]
    pub(crate) budget: Located<Span>,
}

/// When a pipeline runs by itself: by the clock (`cron`, `every.time`) or by the chain (`every.blocks`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Minute, hour, day of the month, month, day of the week.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) cron: Option<Located<String>>,
    /// In place of `cron`: again and again.
    #[serde(default)]
    pub(crate) every: Option<Every>,
    /// IANA time zone of `cron`, as `Europe/Berlin`.
    #[serde(default)]
    pub(crate) timezone: Option<Located<String>>,
    /// What happens when a cycle is due and another one of the pipeline is open.
    #[serde(default)]
    pub(crate) overlap: Overlap,
    /// What happens to due times that were missed.
    #[serde(default)]
    pub(crate) catchup: Catchup,
    /// How far back a missed one is made up for.
    #[serde(default)]
    pub(crate) window: Option<Located<Span>>,
    /// Longest that a cycle starts after it is due.
    #[serde(default)]
    pub(crate) jitter: Option<Located<Span>>,
    /// Failed cycles in a row after which the pipeline is paused.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) pause_on_failure: Option<Located<u32>>,
}

/// Again and again: one of the two.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Every {
    /// A cycle is due at each block whose number is a multiple of this.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) blocks: Option<Located<u64>>,
    /// A cycle is due at each moment whose distance from the beginning of 1970 (UTC) is a multiple of this; whole seconds, up to
    /// 30 days.
    #[serde(default)]
    #[schemars(with = "Option<Span>")]
    pub(crate) time: Option<Located<Span>>,
}

/// A value an operator may set at the start.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    /// What kind of value.
    #[serde(rename = "type")]
    pub(crate) kind: InputType,
    /// Smallest value of a number.
    #[serde(default)]
    pub(crate) minimum: Option<Located<f64>>,
    /// Largest value of a number.
    #[serde(default)]
    pub(crate) maximum: Option<Located<f64>>,
    /// The values there are.
    #[serde(default, rename = "enum")]
    pub(crate) allowed: Option<Vec<Raw>>,
    /// The value when none is set. Without one the input must be set.
    #[serde(default)]
    pub(crate) default: Option<Raw>,
    /// What it is for.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the manifest")]
    pub(crate) description: Option<String>,
}

/// What kind of value an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputType {
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A text.
    String,
    /// `true` or `false`.
    Boolean,
}

/// What holds for every stage that does not say otherwise.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {
    /// When a failed task runs again.
    #[serde(default)]
    pub(crate) retry: Option<Located<RetryWire>>,
    /// Longest an attempt may take.
    #[serde(default)]
    pub(crate) timeout: Option<Located<Span>>,
    /// Longest a task may wait for its turn once nothing but limits holds it up.
    #[serde(default)]
    pub(crate) queue_timeout: Option<Located<Span>>,
    /// Pool whose limit its tasks share.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) pool: Option<Located<String>>,
    /// How many of a task's episodes must be scored.
    #[serde(default)]
    pub(crate) expect: Option<Located<ExpectWire>>,
}

/// A node of the graph.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    /// Its kind, as `episodes/run`.
    pub(crate) uses: Located<String>,
    /// Stages it waits for.
    #[serde(default)]
    pub(crate) depends_on: Vec<Located<String>>,
    /// It runs only if this is true: `${{ EXPRESSION }}`.
    #[serde(default)]
    #[schemars(with = "Option<Condition>")]
    pub(crate) when: Option<Raw>,
    /// One task for every combination of these lists; each list written out, or an expression.
    #[serde(default)]
    #[schemars(with = "Matrix")]
    pub(crate) matrix: Entries<Raw>,
    /// Settings of its kind.
    #[serde(default)]
    pub(crate) with: Entries<Raw>,
    /// What it gives to later stages, for kinds that leave this to the pipeline.
    #[serde(default)]
    pub(crate) outputs: Entries<OutputWire>,
    /// When a failed task runs again.
    #[serde(default)]
    pub(crate) retry: Option<Located<RetryWire>>,
    /// Longest an attempt may take.
    #[serde(default)]
    pub(crate) timeout: Option<Located<Span>>,
    /// Longest a task may wait for its turn once nothing but limits holds it up.
    #[serde(default)]
    pub(crate) queue_timeout: Option<Located<Span>>,
    /// Pool whose limit its tasks share.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) pool: Option<Located<String>>,
    /// How many of a task's episodes must be scored.
    #[serde(default)]
    pub(crate) expect: Option<Located<ExpectWire>>,
    /// What it is for.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the manifest")]
    pub(crate) description: Option<String>,
}

/// A value that a stage gives to later ones.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputWire {
    /// What kind of value.
    #[serde(rename = "type")]
    pub(crate) kind: OutputType,
    /// What it is.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the manifest")]
    pub(crate) description: Option<String>,
}

/// When a failed task runs again. What is left out comes from `defaults`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryWire {
    /// Attempts in all, the first included.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub(crate) max_attempts: Option<u32>,
    /// Wait before the second attempt.
    #[serde(default)]
    pub(crate) initial_interval: Option<Span>,
    /// Factor from one wait to the next.
    #[serde(default)]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub(crate) backoff: Option<f64>,
    /// Longest wait.
    #[serde(default)]
    pub(crate) max_interval: Option<Span>,
    /// Share of the wait that is random.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) jitter: Option<f64>,
    /// Failures that are worth another attempt.
    #[serde(default)]
    #[schemars(with = "Option<Vec<RetryOn>>")]
    pub(crate) on: Option<Vec<Located<RetryOn>>>,
    /// What happens after the last attempt.
    #[serde(default)]
    pub(crate) then: Option<Then>,
}

/// A class of failures that may be tried again. What the operator wrote wrongly stays wrong, so `config` is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RetryOn {
    /// Our machinery.
    Infra,
    /// It took too long.
    Timeout,
    /// Too few episodes could be scored.
    BelowQuorum,
}

/// How many of a task's episodes must be scored.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpectWire {
    /// All.
    Complete,
    /// This share of them.
    Quorum(#[schemars(range(min = 0.0, max = 1.0))] f64),
}

/// A condition, for the schema only.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Condition")]
#[expect(dead_code, reason = "describes what the later pass reads from the document itself")]
enum Condition {
    /// Always or never.
    Fixed(bool),
    /// `${{ EXPRESSION }}`.
    Expression(String),
}

/// A limit, for the schema only.
#[derive(JsonSchema)]
#[schemars(rename = "Limit")]
#[expect(dead_code, reason = "describes what a later pass checks")]
struct Limit(#[schemars(range(min = 1))] u32);

/// A matrix, for the schema only.
#[derive(JsonSchema)]
#[schemars(rename = "Matrix")]
#[expect(dead_code, reason = "describes what the later pass reads from the document itself")]
struct Matrix {
    /// Cells that are added; each has a value for every name.
    include: Option<Vec<BTreeMap<String, Cell>>>,
    /// Cells that are left out: those that agree with all values of one of these.
    exclude: Option<Vec<BTreeMap<String, Cell>>>,
    /// Most of its tasks that run at a time.
    max_parallel: Option<Limit>,
    /// Whether the first task that fails for good ends the others.
    fail_fast: Option<bool>,
    #[schemars(flatten)]
    lists: BTreeMap<String, Cells>,
}

/// The values of a matrix, for the schema only.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Cells")]
#[expect(dead_code, reason = "describes what the later pass reads from the document itself")]
enum Cells {
    /// Written out.
    List(Vec<Cell>),
    /// `${{ EXPRESSION }}`.
    Expression(String),
}

#[derive(JsonSchema)]
#[schemars(untagged, rename = "Cell")]
#[expect(dead_code, reason = "describes what the later pass reads from the document itself")]
enum Cell {
    Text(String),
    Number(f64),
    Boolean(bool),
}
