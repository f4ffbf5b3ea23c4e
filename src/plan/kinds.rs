//! The catalogue of stage kinds: what settings each takes and what outputs it gives.
//!
//! It decides what a manifest may say; `stage/` decides what happens. The schema and docs/pipelines.md follow it.

mod chain;
mod codeless;

use serde_json::{Map, Value};

/// What kind of value a setting or an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ValueType")]
pub enum Type {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A mapping.
    Object,
    /// A list.
    List,
    /// The id of one of the pipeline's environments.
    Environment,
    /// Miners: uid, hotkey, endpoint.
    Miners,
    /// Success rates per miner and environment.
    Scores,
    /// The frontier and the points of every miner.
    Pareto,
    /// The normalised vector.
    Weights,
    /// An expression that the stage evaluates itself, once per element. It is checked like any other.
    #[serde(skip)]
    Expression,
    /// Anything.
    Any,
}

impl Type {
    /// The word for it in messages and documentation.
    pub fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::List => "list",
            Self::Environment => "environment",
            Self::Miners => "miners",
            Self::Scores => "scores",
            Self::Pareto => "pareto",
            Self::Weights => "weights",
            Self::Expression => "expression",
            Self::Any => "any",
        }
    }

    /// Whether a value is of this type, as far as a single value shows it.
    pub fn fits(self, value: &Value) -> bool {
        match self {
            Self::String | Self::Environment | Self::Expression => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Object | Self::Scores | Self::Pareto | Self::Weights => value.is_object(),
            Self::List | Self::Miners => value.is_array(),
            Self::Any => true,
        }
    }

    /// Whether a list of rows can be such a value.
    pub fn takes_list(self) -> bool {
        matches!(self, Self::List | Self::Miners | Self::Scores | Self::Weights)
    }

    /// Whether it flows from stage to stage. A setting of such a type that is left out is bound to the one stage
    /// upstream that gives it.
    pub fn is_data(self) -> bool {
        matches!(self, Self::Miners | Self::Scores | Self::Pareto | Self::Weights)
    }

    /// Whether a reference of type `given` can stand where this type is asked for.
    pub(super) fn accepts(self, given: Self) -> bool {
        self == given
            || self == Self::Any
            || given == Self::Any
            || (self == Self::Number && given == Self::Integer)
            // Which text it is, is checked when the value is known.
            || (self == Self::Environment && given == Self::String)
            || (self == Self::String && given == Self::Environment)
    }
}

/// What a value must be besides its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Nothing more.
    Free,
    /// From the first to the second, both included.
    Between(i64, i64),
    /// Above this.
    Above(f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// What happens when a setting is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// An error, or for data the one output upstream.
    Required,
    /// Nothing.
    Optional,
    /// This JSON value.
    Default(&'static str),
}

/// A setting of a stage kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Its name under `with`.
    pub name: &'static str,
    /// What kind of value.
    pub kind: Type,
    /// What the value must be besides.
    pub rule: Rule,
    /// What happens without it.
    pub absent: Absent,
    /// What it is for.
    pub doc: &'static str,
}

/// An output of a stage kind: `stages.<id>.<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// What kind of value.
    pub kind: Type,
    /// What it is.
    pub doc: &'static str,
}

/// Whether running a stage again gives the same output and changes nothing in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purity {
    /// Yes: the output is a function of the settings, the outputs of the stages before it and the cycle's episodes.
    Pure,
    /// No: it starts, plays, publishes or sends something.
    Effects,
    /// As its setting `pure` says.
    Declared,
}

/// A stage kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kind {
    /// Its name, as in `uses`.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What can stand under `with`.
    pub settings: &'static [Setting],
    /// What later stages can read.
    pub outputs: &'static [Output],
    /// Whether the stage itself says in `outputs` what later stages can read.
    pub declares_outputs: bool,
    /// Whether running it again gives the same.
    pub purity: Purity,
}

impl Kind {
    /// Whether it evaluates what it is given, so that parts of that come out.
    pub(crate) fn takes_apart(&self) -> bool {
        matches!(self.name, "expr/map" | "sql/query")
    }

    /// Whether a stage of this kind with these settings gives the same output whenever it is run again.
    pub fn is_pure(&self, with: &Map<String, Value>) -> bool {
        match self.purity {
            Purity::Pure => true,
            Purity::Effects => false,
            Purity::Declared => with.get("pure").and_then(Value::as_bool).unwrap_or(false),
        }
    }

    /// The kind of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&'static Output> {
        self.outputs.iter().find(|output| output.name == name)
    }

    /// The setting of that name.
    pub fn setting(&self, name: &str) -> Option<&'static Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }
}

const fn setting(name: &'static str, kind: Type, rule: Rule, absent: Absent, doc: &'static str) -> Setting {
    Setting { name, kind, rule, absent, doc }
}

const fn output(name: &'static str, kind: Type, doc: &'static str) -> Output {
    Output { name, kind, doc }
}

const ENVIRONMENT: Setting = setting(
    "environment",
    Type::Environment,
    Rule::Free,
    Absent::Default(r#""${{ matrix.environment }}""#),
    "the environment of this task",
);
const MINERS: Setting = setting("miners", Type::Miners, Rule::Free, Absent::Required, "the miners");
const SCORES: Setting = setting("scores", Type::Scores, Rule::Free, Absent::Required, "the scores");
const PARETO: Setting = setting("pareto", Type::Pareto, Rule::Free, Absent::Required, "the frontier and points");

/// The kind that pins its cycle to a block.
pub const DISCOVERY: &str = "chain/miners";

/// The kind of stage that turns scores into weights.
pub const WEIGHTS: &str = "scores/weights";

/// The kinds that find miners.
pub const FINDERS: [&str; 2] = [DISCOVERY, "file/miners"];

/// Every stage kind, in the order of a typical pipeline.
pub static KINDS: &[Kind] = &[
    chain::MINERS,
    Kind {
        name: "file/miners",
        doc: "takes the miners from a YAML file or from the pipeline itself",
        settings: &[
            setting(
                "path",
                Type::String,
                Rule::Free,
                Absent::Optional,
                "YAML list of miners, relative to the pipeline's root; this or `miners`",
            ),
            setting(
                "miners",
                Type::Miners,
                Rule::Free,
                Absent::Optional,
                "list of `{uid, hotkey, endpoint, first_block?}`; this or `path`",
            ),
        ],
        outputs: &[output("miners", Type::Miners, "the miners by uid"), output("count", Type::Integer, "how many")],
        declares_outputs: false,
        purity: Purity::Pure,
    },
    Kind {
        name: "environments/provision",
        doc: "prepares the simulator of an environment and checks that it can be opened",
        settings: &[ENVIRONMENT],
        outputs: &[
            output("environment", Type::Environment, "the environment"),
            output("python", Type::String, "version of the Python that simulates"),
            output("packages", Type::Object, "versions of the packages that decide results"),
            output("server", Type::Object, "`protocol`, `version` and `digest` of the server, as far as it says"),
        ],
        declares_outputs: false,
        purity: Purity::Effects,
    },
    Kind {
        name: "episodes/run",
        doc: "runs the same seeded episodes of an environment for every miner",
        settings: &[
            MINERS,
            setting("episodes", Type::Integer, Rule::Between(1, 1_000_000), Absent::Required, "episodes per miner"),
            ENVIRONMENT,
            setting(
                "per_miner",
                Type::Integer,
                Rule::Between(1, 4096),
                Absent::Default("16"),
                "most episodes a miner is given at a time in all environments together; it gets one unless its `/health` announces more",
            ),
            setting(
                "budget_seconds",
                Type::Integer,
                Rule::Between(1, 1_000_000),
                Absent::Optional,
                "how long one miner may keep an environment waiting, dialling included; the rest of its episodes is `budget_exhausted`. When left out: what all answers at their deadlines take, and at most an equal part for each task of three quarters of the stage's `timeout`, which also bounds a larger value",
            ),
            setting(
                "attempts",
                Type::Integer,
                Rule::Between(1, 100),
                Absent::Default("5"),
                "tries of an episode after faults of our own",
            ),
            setting(
                "keep_actions",
                Type::String,
                Rule::OneOf(&["nothing", "failures", "sample", "all"]),
                Absent::Optional,
                "which episodes keep what their miners answered, for `robo episode replay`; `nothing` when left out",
            ),
            setting(
                "keep_share",
                Type::Number,
                Rule::Above(0.0),
                Absent::Optional,
                "share of the episodes that `keep_actions: sample` keeps; 0.01 when left out",
            ),
        ],
        outputs: &[
            output("environment", Type::Environment, "the environment"),
            output("planned", Type::Integer, "episodes planned"),
            output("scored", Type::Integer, "episodes that count"),
        ],
        declares_outputs: false,
        purity: Purity::Effects,
    },
    Kind {
        name: "scores/aggregate",
        doc: "turns the episodes of the stages before it into success rates with Wilson intervals",
        settings: &[
            MINERS,
            setting(
                "measure",
                Type::String,
                Rule::OneOf(&["success", "score"]),
                Absent::Optional,
                "what of an episode makes a rate: `success` (when left out), or the `score` that every environment's manifest then has to declare",
            ),
        ],
        outputs: &[output("scores", Type::Scores, "success rates per miner and environment")],
        declares_outputs: false,
        purity: Purity::Pure,
    },
    Kind {
        name: "scores/pareto",
        doc: "finds the epsilon-Pareto frontier and the winner, and gives points for every subset of environments won",
        settings: &[
            SCORES,
            setting(
                "rule",
                Type::String,
                Rule::OneOf(&["epsilon", "first_commit"]),
                Absent::Default(r#""epsilon""#),
                "when one miner beats another",
            ),
            setting(
                "ties",
                Type::String,
                Rule::OneOf(&["both_earlier", "lower_uid"]),
                Absent::Default(r#""both_earlier""#),
                "under `first_commit`, which of two miners with the same first block is the earlier one",
            ),
            setting(
                "subset_weighting",
                Type::String,
                Rule::OneOf(&["size", "exponential", "equal"]),
                Absent::Default(r#""size""#),
                "what a subset is worth",
            ),
        ],
        outputs: &[output("pareto", Type::Pareto, "the frontier and the points")],
        declares_outputs: false,
        purity: Purity::Pure,
    },
    Kind {
        name: "scores/weights",
        doc: "turns points into the normalised vector",
        settings: &[
            PARETO,
            setting(
                "temperature",
                Type::Number,
                Rule::Above(0.0),
                Absent::Default("1.0"),
                "of the softmax: lower favours the best more",
            ),
            setting(
                "all_zero",
                Type::String,
                Rule::OneOf(&["uniform", "burn"]),
                Absent::Optional,
                "who is paid when nobody has points, or all rates are 0: `uniform` pays by the points, `burn` pays `burn_uid`, and is the default where that is given",
            ),
            setting(
                "burn_uid",
                Type::Integer,
                Rule::Between(0, 65_535),
                Absent::Optional,
                "who gets what nobody has earned",
            ),
        ],
        outputs: &[output("weights", Type::Weights, "the vector")],
        declares_outputs: false,
        purity: Purity::Pure,
    },
    codeless::CONTAINER_RUN,
    codeless::SQL_QUERY,
    codeless::EXPR_MAP,
    Kind {
        name: "weights/publish",
        doc: "makes the vector the latest one, in one transaction with the end of the cycle",
        settings: &[
            SCORES,
            PARETO,
            setting("weights", Type::Weights, Rule::Free, Absent::Required, "the vector"),
            setting(
                "guard",
                Type::Object,
                Rule::Free,
                Absent::Optional,
                "limits outside of which the vector is held: least `coverage`, most `infra_faults`, largest `jump`, most `unreachable`, and the least `answered` for a burn of everything. Where strangers play, the last two are 0.5 when left out",
            ),
        ],
        outputs: &[output("digest", Type::String, "SHA-256 of the published document")],
        declares_outputs: false,
        purity: Purity::Effects,
    },
    codeless::WEBHOOK_SEND,
    Kind {
        name: "environments/teardown",
        doc: "stops every environment server of the cycle",
        settings: &[],
        outputs: &[],
        declares_outputs: false,
        purity: Purity::Effects,
    },
];

/// The catalogue as Markdown, for docs/pipelines.md.
pub fn reference() -> String {
    KINDS.iter().map(of_kind).collect::<Vec<_>>().join("\n")
}

fn of_kind(kind: &Kind) -> String {
    let purity = match kind.purity {
        Purity::Pure => " Pure.",
        Purity::Effects => "",
        Purity::Declared => " Pure if its setting `pure` says so.",
    };
    let mut text = format!("### `{}`\n\n{}.{purity}\n", kind.name, capital(kind.doc));
    if !kind.settings.is_empty() {
        text.push_str("\n| setting | type | default | meaning |\n|---|---|---|---|\n");
    }
    for setting in kind.settings {
        let values = match setting.rule {
            Rule::Free => String::new(),
            Rule::Between(least, most) => format!(", {least} to {most}"),
            Rule::Above(bound) => format!(", above {bound}"),
            Rule::OneOf(words) => format!(": `{}`", words.join("`, `")),
        };
        let absent = match setting.absent {
            Absent::Required if setting.kind.is_data() => "from the stage before".to_owned(),
            Absent::Required => "required".to_owned(),
            Absent::Optional => "-".to_owned(),
            Absent::Default(json) => format!("`{}`", json.trim_matches('"')),
        };
        let cells =
            ["| `", setting.name, "` | ", setting.kind.word(), &values, " | ", &absent, " | ", setting.doc, " |\n"];
        text.push_str(&cells.concat());
    }
    if !kind.outputs.is_empty() {
        text.push_str("\n| output | type | meaning |\n|---|---|---|\n");
    }
    for output in kind.outputs {
        text.push_str(&["| `", output.name, "` | ", output.kind.word(), " | ", output.doc, " |\n"].concat());
    }
    if kind.declares_outputs {
        text.push_str("\nIts outputs are those that the stage declares under `outputs`.\n");
    }
    text
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_pure_only_if_it_says_so() {
        let is_pure = |name: &str, with: Value| Kind::find(name).unwrap().is_pure(with.as_object().unwrap());
        let given = serde_json::json!({ "pure": true });
        assert!(is_pure("container/run", given.clone()) && !is_pure("container/run", serde_json::json!({})));
        assert!(is_pure("expr/map", serde_json::json!({})) && !is_pure("webhook/send", given));
    }

    #[test]
    fn names_are_unique_and_defaults_are_json() {
        for kind in KINDS {
            assert_eq!(KINDS.iter().filter(|other| other.name == kind.name).count(), 1);
            for setting in kind.settings {
                assert_eq!(kind.settings.iter().filter(|other| other.name == setting.name).count(), 1);
                if let Absent::Default(json) = setting.absent {
                    assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
                }
            }
        }
    }
}
