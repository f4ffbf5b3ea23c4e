//! What simulates is told about an environment: how to make it, see it, act in it and judge it.
//!
//! The serialised form is the one `eval-env` reads (docs/protocols.md).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cycle::EnvironmentId;

use super::form::Form;

/// One environment, complete: a family's adapter with the task's own settings merged in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Simulation {
    /// Its id.
    pub environment: EnvironmentId,
    /// Who simulates it, and how.
    pub simulator: Simulator,
    /// What an episode is worth between nothing and all, next to success.
    pub score: Option<Score>,
    /// What a repeated episode promises.
    pub determinism: Determinism,
    /// Steps after which an episode ends.
    pub max_steps: u32,
    /// Whether an episode ends at the first success. Only with `when: any`.
    pub stop_on_success: bool,
}

/// Who simulates.
#[derive(Debug, Clone, PartialEq)]
pub enum Simulator {
    /// Workers of ours, which step a Gymnasium environment (`protocol: robo/v1`).
    Gymnasium(Box<Adapter>),
    /// A server of others, which plays whole episodes by itself (`protocol: affinetes`).
    Affinetes(Affinetes),
}

/// How our workers make an environment, show it, act in it and judge it.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// How it is made.
    pub gymnasium: Gymnasium,
    /// How observations and actions are written to a miner and read from it.
    pub dialect: Dialect,
    /// What a miner may see of it.
    pub observation: Observation,
    /// What a miner may do in it.
    pub action: Action,
    /// When an episode counts as a success.
    pub success: Success,
}

impl Simulation {
    /// What our workers are told; none when others simulate.
    pub fn adapter(&self) -> Option<&Adapter> {
        match &self.simulator {
            Simulator::Gymnasium(adapter) => Some(adapter),
            Simulator::Affinetes(_) => None,
        }
    }

    /// How a server of others is asked; none when our workers simulate.
    pub fn affinetes(&self) -> Option<&Affinetes> {
        match &self.simulator {
            Simulator::Gymnasium(_) => None,
            Simulator::Affinetes(call) => Some(call),
        }
    }
}

/// What a call of `evaluate` says beside seed, miner and limits (docs/protocols.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affinetes {
    /// What the server calls the environment.
    pub env_id: String,
    /// Whether the miner is shown images.
    pub use_images: bool,
    /// Keyword arguments that this server takes and others do not.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Arguments of the protocol that its `evaluate` takes, sorted; all of them where none are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Vec<Argument>>,
    /// Longest that a call may take, in milliseconds.
    pub timeout_ms: u64,
}

/// An argument of `evaluate` that robo knows the value of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    /// The episode's seed.
    TaskId,
    /// The episode's seed again: some servers choose their scene by the one, some by the other.
    Seed,
    /// The miner's hotkey.
    Model,
    /// The miner's endpoint.
    BaseUrl,
    /// What the server calls the environment.
    EnvId,
    /// Most steps of the episode.
    MaxTimesteps,
    /// Seconds that a miner has for an action.
    ActionTimeout,
    /// Whether the miner is shown images.
    UseImages,
    /// Seconds that the episode may take.
    Timeout,
}

impl Argument {
    /// All of them, sorted.
    pub const ALL: [Self; 9] = [
        Self::TaskId,
        Self::Seed,
        Self::Model,
        Self::BaseUrl,
        Self::EnvId,
        Self::MaxTimesteps,
        Self::ActionTimeout,
        Self::UseImages,
        Self::Timeout,
    ];

    /// Its name in the call.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaskId => "task_id",
            Self::Seed => "seed",
            Self::Model => "model",
            Self::BaseUrl => "base_url",
            Self::EnvId => "env_id",
            Self::MaxTimesteps => "max_timesteps",
            Self::ActionTimeout => "action_timeout",
            Self::UseImages => "use_images",
            Self::Timeout => "timeout",
        }
    }
}

impl Affinetes {
    /// Whether a call has this argument.
    pub fn sends(&self, argument: Argument) -> bool {
        self.send.as_ref().is_none_or(|sent| sent.contains(&argument))
    }
}

/// `gymnasium.make(make, **kwargs)` after importing `imports`, or what `hook` does instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gymnasium {
    /// The registered id.
    pub make: String,
    /// Keyword arguments. `${{ task.name }}` in a text stands for the task's name.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Python modules that register environments when imported.
    #[serde(default)]
    pub imports: Vec<String>,
    /// A module of `robo_eval_env.hooks` for a family that cannot be made, seeded or rendered the standard way.
    #[serde(default)]
    pub hook: Option<String>,
}

/// What a miner sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Parts of the simulator's observation, flattened and joined in this order.
    pub state: Vec<StatePart>,
    /// Images by the name the miner reads them under.
    #[serde(default)]
    pub cameras: BTreeMap<String, Camera>,
    /// How many numbers the `state` has, checked when the environment is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// How images are drawn; pixels are part of the exam. None is [`Render::default`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render: Option<Render>,
    /// How images may travel to a miner, the best first. A miner gets the first one that its `/health` says it accepts, and
    /// lists when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<ImageEncoding>,
}

/// The bodies of `/act` and of its answer (docs/protocols.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// One list of numbers each way.
    #[default]
    Native,
    /// Named channels each way, as the newer miners of the subnet speak.
    Canonical,
}

impl Dialect {
    /// Whether nothing needs to be said of it.
    pub(super) fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

/// How images are drawn. The default is cheap: at the sizes that policies look at, the rest costs more than it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Render {
    /// Pixels along a side of the map that shadows are made of; 0 for no shadows.
    #[serde(default)]
    #[schemars(range(max = 8192))]
    pub shadows: u32,
    /// Samples of a pixel that edges are smoothed with; 0 for none.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub msaa: u32,
    /// Whether surfaces mirror what is around them.
    #[serde(default)]
    pub reflections: bool,
    /// Cells along the longest side of a mesh that its corners are merged in; 0 leaves meshes as they are.
    #[serde(default = "mesh_cells")]
    #[schemars(range(max = 4096))]
    pub mesh_cells: u32,
}

impl Default for Render {
    fn default() -> Self {
        Self { shadows: 0, msaa: 0, reflections: false, mesh_cells: mesh_cells() }
    }
}

fn mesh_cells() -> u32 {
    24
}

/// How images travel to a miner. All of them carry the same pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageEncoding {
    /// Lists of rows of pixels of three numbers.
    #[default]
    List,
    /// The raw bytes, in Base64.
    Base64,
    /// A PNG file, in Base64.
    Png,
}

impl Observation {
    /// The numbers of a state by channel, for `dialect: canonical`. None when the state has another number of numbers than
    /// the parts together.
    pub fn channels(&self, numbers: &[f64]) -> Option<BTreeMap<String, Vec<f64>>> {
        let mut rest = numbers;
        let mut channels = BTreeMap::new();
        for part in &self.state {
            let (own, others) = rest.split_at_checked(part.size()?)?;
            rest = others;
            let (scale, offset) = (part.scale.unwrap_or(1.0), part.offset.unwrap_or(0.0));
            let scaled = own.iter().map(|number| number * scale + offset).collect();
            channels.insert(part.channel.clone()?, scaled);
        }
        rest.is_empty().then_some(channels)
    }

    /// How images travel to a miner that accepts these encodings, next to lists.
    pub fn encoding(&self, accepted: &[ImageEncoding]) -> ImageEncoding {
        let is_fine = |encoding: &&ImageEncoding| **encoding == ImageEncoding::List || accepted.contains(encoding);
        self.encodings.iter().find(is_fine).copied().unwrap_or_default()
    }
}

/// A part of the observation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatePart {
    /// Keys into a dictionary observation.
    #[serde(default)]
    pub path: Vec<String>,
    /// `[start, end)` of the flattened part.
    #[serde(default)]
    pub slice: Option<[u32; 2]>,
    /// A measurement of the end effector, in place of a part of the observation. The family's hook takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pose: Option<Pose>,
    /// Channel of the proprioception that holds the part, with `dialect: canonical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// What each number of the channel is multiplied by. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// What is added to each number of the channel after that. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
}

impl StatePart {
    /// How many numbers it has, where the manifest says so.
    pub fn size(&self) -> Option<usize> {
        match (self.pose, self.slice) {
            (Some(pose), _) => Some(pose.size()),
            (None, Some([start, end])) => Some(end.saturating_sub(start) as usize),
            (None, None) => None,
        }
    }
}

/// A measurement of the end effector, in the simulator's world frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pose {
    /// x, y and z in metres.
    Position,
    /// Quaternion: x, y, z, w.
    Orientation,
    /// Metres per second.
    LinearVelocity,
    /// Radians per second.
    AngularVelocity,
}

impl Pose {
    /// How many numbers it has.
    pub const fn size(self) -> usize {
        if matches!(self, Self::Orientation) { 4 } else { 3 }
    }
}

/// A camera image: RGB, 8 bits, upright, `height` x `width` x 3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// The camera's name in the simulator.
    pub camera: String,
    /// Pixels.
    #[schemars(range(min = 1, max = 1024))]
    pub width: u32,
    /// Pixels.
    #[schemars(range(min = 1, max = 1024))]
    pub height: u32,
}

/// What a miner may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Numbers in an action; 1 for a discrete one.
    #[schemars(range(min = 1, max = 1024))]
    pub size: u32,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// What happens to a value outside.
    #[serde(default)]
    pub out_of_range: OutOfRange,
    /// What the numbers mean to the simulator.
    #[serde(default)]
    pub kind: ActionKind,
    /// What a miner answers with `dialect: canonical`: together, in this order, the numbers of the action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<ActionChannel>,
}

/// A channel of a canonical action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionChannel {
    /// Its name below `continuous`.
    pub channel: String,
    /// Numbers that the miner answers in it.
    #[schemars(range(min = 1, max = 1024))]
    pub size: u32,
    /// `[start, end)` of them that the simulator takes. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<[u32; 2]>,
    /// What each number is multiplied by. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// What is added to each number after that. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
}

impl ActionChannel {
    /// Numbers that the simulator takes.
    pub fn taken(&self) -> [u32; 2] {
        self.slice.unwrap_or([0, self.size])
    }

    /// What the simulator takes of the numbers of the channel.
    pub fn apply<'a>(&'a self, numbers: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let [start, end] = self.taken().map(|place| place as usize);
        let (scale, offset) = (self.scale.unwrap_or(1.0), self.offset.unwrap_or(0.0));
        numbers.iter().take(end).skip(start).map(move |number| number * scale + offset)
    }
}

/// What happens to an action outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutOfRange {
    /// `miner_fault(invalid_action)`.
    #[default]
    Refuse,
    /// The nearest value inside.
    Clip,
}

/// What an action's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Passed on as they are.
    #[default]
    Direct,
    /// Mapped linearly from `[low, high]` to the bounds of the simulator's action space.
    Scaled,
    /// One whole number, the index of a discrete action.
    Discrete,
}

/// When an episode is a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Success {
    /// What is looked at.
    pub rule: SuccessRule,
    /// At which steps.
    #[serde(default)]
    pub when: SuccessWhen,
}

/// What decides success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuccessRule {
    /// `info[key] > 0.5`.
    Info(String),
    /// The sum of rewards so far reaches this.
    ReturnAtLeast(f64),
    /// The reward of one step reaches this.
    RewardAtLeast(f64),
    /// The episode reaches its last step without being terminated.
    Survive,
    /// An expression over the summary of the episode that has ended is true.
    Expression(String),
}

/// What an episode is worth: 0 at `min` and below, 1 at `max` and above, linear between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// What is measured.
    pub from: ScoreSource,
    /// Worth nothing.
    pub min: f64,
    /// Worth all.
    pub max: f64,
}

/// What of an episode is measured for its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScoreSource {
    /// The sum of its rewards.
    Return,
    /// The `score` that a server of others reports (`protocol: affinetes`).
    Score,
}

/// At which steps success is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuccessWhen {
    /// Any step: once reached, it stays.
    #[default]
    Any,
    /// The last step only.
    Last,
}

/// What the same seed and actions promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Determinism {
    /// The same bits: equal trajectory hashes.
    #[default]
    Bitwise,
    /// Nothing: trajectory hashes are recorded but never compared.
    None,
}
