//! The wire form of a pipeline: what `pipelines/*.yaml` may hold. Compiled by `plan`, which resolves every name in it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Entries, Located, Raw};
use super::units::Span;
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
    /// What holds for every stage that does not say otherwise.
    #[serde(default)]
    pub(crate) defaults: Defaults,
    /// The stages by name.
    pub(crate) stages: Located<Entries<Located<Stage>>>,
    /// Stages that run at the end, however the others ended.
    #[serde(default)]
    pub(crate) finally: Entries<Located<Stage>>,
}

/// When a pipeline runs by itself: by the clock (`cron`) or by the chain (`every`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Minute, hour, day of the month, month, day of the week.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) cron: Option<Located<String>>,
    /// In place of `cron`: by the chain.
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

/// By the chain.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Every {
    /// A cycle is due at each block whose number is a multiple of this.
    #[schemars(range(min = 1))]
    pub(crate) blocks: Located<u64>,
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
    pub(crate) timeout: Option<Span>,
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
    #[schemars(with = "Entries<Cells>")]
    pub(crate) matrix: Entries<Raw>,
    /// Settings of its kind.
    #[serde(default)]
    pub(crate) with: Entries<Raw>,
    /// When a failed task runs again.
    #[serde(default)]
    pub(crate) retry: Option<Located<RetryWire>>,
    /// Longest an attempt may take.
    #[serde(default)]
    pub(crate) timeout: Option<Span>,
    /// How many of a task's episodes must be scored.
    #[serde(default)]
    pub(crate) expect: Option<Located<ExpectWire>>,
    /// What it is for.
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
