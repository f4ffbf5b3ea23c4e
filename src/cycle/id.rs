//! The names of things, each a type with one door: what parses is valid, and no bare string crosses a module boundary.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not the id it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidId {
    text: String,
    expected: &'static str,
}

impl InvalidId {
    fn new(text: &str, expected: &'static str) -> Self {
        let text = text.chars().take(80).collect();
        Self { text, expected }
    }
}

/// One run of a pipeline. Time-ordered (uuid v7), so ids sort as cycles were created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CycleId(Uuid);

impl CycleId {
    /// A new id, later than every id made before it.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as the database stores it.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for CycleId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for CycleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CycleId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidId::new(text, "a cycle id"))
    }
}

/// The number of a cycle in its database: 1, 2, ..., for people and clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "i64", into = "i64")]
#[schemars(extend("type" = "integer", "minimum" = 1))]
pub struct CycleNumber(i64);

impl CycleNumber {
    /// The number as the database stores it.
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for CycleNumber {
    type Error = InvalidId;

    fn try_from(number: i64) -> Result<Self, InvalidId> {
        if number > 0 { Ok(Self(number)) } else { Err(InvalidId::new(&number.to_string(), NUMBER)) }
    }
}

impl From<CycleNumber> for i64 {
    fn from(number: CycleNumber) -> Self {
        number.0
    }
}

impl fmt::Display for CycleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CycleNumber {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // UUIDs of this century begin with 0, so their starts are never numbers.
        let is_number = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.map(Self).ok_or_else(|| InvalidId::new(text, NUMBER))
    }
}

const NUMBER: &str = "the number of a cycle (1, 2, ...)";

/// A cycle as a person or a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum CycleName {
    /// By its number.
    Number(CycleNumber),
    /// By its UUID.
    Id(CycleId),
}

impl FromStr for CycleName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = text.parse().map(Self::Number);
        number
            .or_else(|_| text.parse().map(Self::Id))
            .map_err(|_: InvalidId| InvalidId::new(text, "the number or the UUID of a cycle"))
    }
}

impl TryFrom<String> for CycleName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl JsonSchema for CycleName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CycleName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let uuid = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
        schemars::json_schema!({ "type": "string", "pattern": format!("^([1-9][0-9]{{0,17}}|{uuid})$") })
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(extend("pattern" = $pattern))]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId::new(text, $expected)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_id!(
    /// A stage of a pipeline: a lower-case word that expressions can name.
    StageId, "a stage name (a-z, 0-9 and _, starting with a letter, at most 63 characters)", r"^[a-z][a-z0-9_]{0,62}$",
    |text| is_word(text, 63, b"_")
);

text_id!(
    /// Who a miner is: its hotkey on the chain, or any unique name in a list an operator wrote.
    Hotkey, "a hotkey (1 to 64 letters, digits, `-`, `_` or `.`)", r"^[A-Za-z0-9._-]{1,64}$",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
);

text_id!(
    /// One thing to be good at: `family/task`, as `metaworld/pick-place-v3`.
    EnvironmentId, "an environment id (`family/task`, each of a-z, 0-9, `-` and `_`)",
    r"^[a-z][a-z0-9_-]{0,62}/[a-z][a-z0-9_-]{0,62}$",
    |text| text.split_once('/').is_some_and(|(family, task)| is_word(family, 63, b"_-") && is_word(task, 63, b"_-"))
);

impl EnvironmentId {
    /// The part before the slash.
    pub fn family(&self) -> &str {
        self.0.split_once('/').map_or("", |(family, _)| family)
    }

    /// The part after the slash.
    pub fn task(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, task)| task)
    }
}

fn is_word(text: &str, longest: usize, also: &[u8]) -> bool {
    text.len() <= longest
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(&b))
}

/// One instance of a stage in a cycle: `discover`, or `episodes[metaworld/push-v3]` for a cell of its matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// The stage this task belongs to.
    pub stage: StageId,
    /// The cell of the stage's matrix; empty when the stage has none.
    #[serde(default)]
    pub cell: String,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cell.is_empty() { write!(f, "{}", self.stage) } else { write!(f, "{}[{}]", self.stage, self.cell) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_has_a_number_and_a_uuid() {
        let id = CycleId::generate();
        assert_eq!(id.to_string().parse(), Ok(CycleName::Id(id)));
        assert_eq!("42".parse(), Ok(CycleName::Number(CycleNumber(42))));
        assert_eq!(serde_json::to_string(&CycleNumber(42)).unwrap(), "42");
        for bad in ["", "0", "042", "-1", "+1", "1.0", "99999999999999999999", "01900000"] {
            assert!(bad.parse::<CycleName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn environment_ids_have_two_parts() {
        let id: EnvironmentId = "metaworld/pick-place-v3".parse().unwrap();
        assert_eq!((id.family(), id.task()), ("metaworld", "pick-place-v3"));
        for bad in ["", "metaworld", "metaworld/", "/x", "a/b/c", "Meta/x", "a/../b", "a/b c"] {
            assert!(bad.parse::<EnvironmentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hotkey_is_never_markup_or_empty() {
        assert!("5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX".parse::<Hotkey>().is_ok());
        for bad in ["", "<b>", "a b", "x/../y"] {
            assert!(bad.parse::<Hotkey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_task_shows_its_cell() {
        let stage: StageId = "episodes".parse().unwrap();
        assert_eq!(TaskKey { stage: stage.clone(), cell: String::new() }.to_string(), "episodes");
        assert_eq!(TaskKey { stage, cell: "metaworld/push-v3".into() }.to_string(), "episodes[metaworld/push-v3]");
    }
}
