//! The wire form of an environment family: what `environments/*.yaml` may hold.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::located::{Entries, Located, Raw};
use super::resources::Network;
use super::simulation::{
    Action, ActionChannel, ActionKind, Argument, Determinism, Dialect, Gymnasium, Observation, OutOfRange, Score,
    Success,
};
use super::units::{Memory, Span};

/// A family of environments that are made the same way.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "robo environment, version 1",
    extend("if" = { "properties": { "adapter": { "required": ["gymnasium"] } } }),
    extend("then" = { "required": ["build"] })
)]
pub(crate) struct Environment {
    /// Version of the manifest language: 1.
    #[schemars(extend("const" = 1))]
    pub(crate) version: Located<u32>,
    /// Name of the family: the first half of its environments' ids.
    #[schemars(with = "String", regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))]
    pub(crate) family: Located<String>,
    /// What it is.
    #[serde(default)]
    #[expect(dead_code, reason = "for whoever reads the manifest")]
    pub(crate) description: Option<String>,
    /// Container image, for runtimes that use one.
    #[serde(default)]
    pub(crate) image: Option<String>,
    /// What `--eval-image` and `--eval-mem-limit` do not replace.
    #[serde(default)]
    pub(crate) pinned: Vec<Pinnable>,
    /// What the simulator's Python environment is made of. Not with `protocol: affinetes`.
    #[serde(default)]
    pub(crate) build: Option<Build>,
    /// The environment server.
    #[serde(default)]
    pub(crate) server: Server,
    /// What a server may use, for runtimes that can limit it.
    #[serde(default)]
    pub(crate) resources: Resources,
    /// How a standard environment is made, seen, acted in and judged.
    pub(crate) adapter: Adapter,
    /// The length of an episode.
    pub(crate) episode: Episode,
    /// The environments of the family by the second half of their ids.
    pub(crate) tasks: Located<Entries<Task>>,
}

/// What an operator's flags replace unless a manifest pins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pinnable {
    /// `image`.
    Image,
    /// `resources.memory`.
    Memory,
}

/// What the simulator's Python environment is made of.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Build {
    /// Directory of the Python package, relative to this file.
    pub(crate) context: Located<String>,
    /// Lock file of requirements with hashes, relative to the context.
    pub(crate) requirements: Located<String>,
}

/// The environment server.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Protocol it speaks.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// Worker processes: a number, or `auto` for one per core.
    #[serde(default)]
    #[schemars(with = "Option<WorkersSchema>")]
    pub(crate) workers: Option<Raw>,
    /// Episodes in flight per worker; with `protocol: affinetes`, calls at a time of one server.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 4096))]
    pub(crate) slots_per_worker: Option<Located<u32>>,
    /// Episodes after which a server is replaced by a fresh one.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) recycle_after: Option<Located<u32>>,
}

/// Protocol of an environment server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub(crate) enum Protocol {
    /// docs/protocols.md.
    #[default]
    #[serde(rename = "robo/v1")]
    RoboV1,
    /// Images that others have made for affinetes, which play whole episodes by themselves.
    #[serde(rename = "affinetes")]
    Affinetes,
}

#[derive(JsonSchema)]
#[schemars(untagged, rename = "Workers")]
#[expect(dead_code, reason = "describes what the later pass reads from the document itself")]
enum WorkersSchema {
    Number(#[schemars(range(min = 1, max = 1024))] u32),
    Auto(Auto),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what the later pass reads from the document itself")]
enum Auto {
    Auto,
}

/// What a server may use.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resources {
    /// Memory: `8g`.
    #[serde(default)]
    pub(crate) memory: Option<Memory>,
    /// Cores.
    #[serde(default)]
    #[schemars(with = "Option<f64>", range(min = 0.01, max = 1024.0))]
    pub(crate) cpus: Option<Located<f64>>,
    /// Graphics cards.
    #[serde(default)]
    pub(crate) gpus: Option<u32>,
    /// Processes and threads.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 16))]
    pub(crate) pids: Option<Located<u32>>,
    /// What it may reach.
    #[serde(default)]
    pub(crate) network: Network,
}

/// How a standard environment is made, seen, acted in and judged, or how a server of others is asked for its episodes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["gymnasium", "observation", "action", "success"], "not": { "required": ["affinetes"] } },
    {
        "required": ["affinetes"],
        "not": { "anyOf": [
            { "required": ["gymnasium"] }, { "required": ["observation"] }, { "required": ["action"] },
            { "required": ["success"] }, { "required": ["dialect"] },
        ] },
    },
]))]
pub(crate) struct Adapter {
    /// How it is made.
    #[serde(default)]
    pub(crate) gymnasium: Option<Gymnasium>,
    /// How a server that speaks `protocol: affinetes` is asked; in place of all that our own simulators need.
    #[serde(default)]
    pub(crate) affinetes: Option<Affinetes>,
    /// How observations and actions are written to a miner and read from it.
    #[serde(default)]
    pub(crate) dialect: Option<Dialect>,
    /// What a miner may see.
    #[serde(default)]
    pub(crate) observation: Option<Observation>,
    /// What a miner may do.
    #[serde(default)]
    pub(crate) action: Option<Action>,
    /// When an episode counts as a success.
    #[serde(default)]
    pub(crate) success: Option<Success>,
    /// What an episode is worth between nothing and all, next to success.
    #[serde(default)]
    pub(crate) score: Option<Score>,
    /// What the same seed and actions promise.
    #[serde(default)]
    pub(crate) determinism: Option<Determinism>,
}

/// How a server of others is asked for an episode.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Affinetes {
    /// What the server calls the environment; `${{ task.name }}` stands for the task. Default: its id here.
    #[serde(default)]
    pub(crate) env_id: Option<String>,
    /// Whether the miner is shown images.
    #[serde(default)]
    pub(crate) use_images: bool,
    /// Keyword arguments of `evaluate` beside those of the protocol.
    #[serde(default)]
    pub(crate) kwargs: BTreeMap<String, Value>,
    /// How `evaluate` is called.
    #[serde(default)]
    pub(crate) call: AffinetesCall,
    /// Longest that a whole episode may take. Default: what the slowest miner that is still in time needs, and a minute.
    #[serde(default)]
    pub(crate) timeout: Option<Span>,
}

/// How `evaluate` is called.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AffinetesCall {
    /// Arguments of the protocol that `evaluate` takes, `base_url` and one of `task_id` and `seed` among them. Default: all.
    #[serde(default)]
    pub(crate) send: Option<Vec<Argument>>,
}

/// The length of an episode and the patience with miners.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Episode {
    /// Steps after which it ends.
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    pub(crate) max_steps: Located<u32>,
    /// Whether it ends at the first success. Only with `when: any`.
    #[serde(default)]
    pub(crate) stop_on_success: bool,
    /// Time a miner has to answer `/act`.
    #[serde(default)]
    pub(crate) action_timeout: Option<Span>,
    /// Time a miner has to answer `/reset`.
    #[serde(default)]
    pub(crate) reset_timeout: Option<Span>,
}

/// One environment: what differs from the family.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// The registered id, or the `env_id`, in place of the family's.
    #[serde(default)]
    pub(crate) make: Option<String>,
    /// Keyword arguments, merged over those of the family.
    #[serde(default)]
    pub(crate) kwargs: BTreeMap<String, Value>,
    /// What a miner may see, in place of what the family says.
    #[serde(default)]
    pub(crate) observation: Option<Observation>,
    /// Settings of the action that differ.
    #[serde(default)]
    pub(crate) action: Option<ActionOverride>,
    /// When an episode counts as a success, in place of what the family says.
    #[serde(default)]
    pub(crate) success: Option<Success>,
    /// What an episode is worth, in place of what the family says.
    #[serde(default)]
    pub(crate) score: Option<Score>,
    /// Settings of the episode that differ.
    #[serde(default)]
    pub(crate) episode: EpisodeOverride,
}

/// Settings of the episode that differ from the family's.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EpisodeOverride {
    /// Steps after which it ends.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_steps: Option<u32>,
    /// Whether it ends at the first success.
    #[serde(default)]
    pub(crate) stop_on_success: Option<bool>,
    /// Time a miner has to answer `/act`.
    #[serde(default)]
    pub(crate) action_timeout: Option<Span>,
    /// Time a miner has to answer `/reset`.
    #[serde(default)]
    pub(crate) reset_timeout: Option<Span>,
}

/// Settings of the action that differ from the family's.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionOverride {
    /// Numbers in an action; 1 for a discrete one.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) size: Option<u32>,
    /// Smallest value.
    #[serde(default)]
    pub(crate) low: Option<f64>,
    /// Largest value.
    #[serde(default)]
    pub(crate) high: Option<f64>,
    /// What happens to a value outside.
    #[serde(default)]
    pub(crate) out_of_range: Option<OutOfRange>,
    /// What the numbers mean to the simulator.
    #[serde(default)]
    pub(crate) kind: Option<ActionKind>,
    /// What a miner answers with `dialect: canonical`.
    #[serde(default)]
    pub(crate) channels: Option<Vec<ActionChannel>>,
}

impl ActionOverride {
    /// The family's action with these settings in it.
    pub(crate) fn over(&self, action: &Action) -> Action {
        Action {
            size: self.size.unwrap_or(action.size),
            low: self.low.unwrap_or(action.low),
            high: self.high.unwrap_or(action.high),
            out_of_range: self.out_of_range.unwrap_or(action.out_of_range),
            kind: self.kind.unwrap_or(action.kind),
            channels: self.channels.as_ref().unwrap_or(&action.channels).clone(),
        }
    }
}
