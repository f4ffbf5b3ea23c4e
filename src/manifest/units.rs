//! Quantities that need a unit: durations (`30m`) and sizes of memory (`8g`).

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A duration as written: whole numbers, each with a unit: `100ms`, `5s`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

const DURATION_PATTERN: &str = r"^([0-9]+(ms|s|m|h|d))+$";
const LONGEST_DAYS: u64 = 366;
const LONGEST_MS: u64 = LONGEST_DAYS * 86_400_000;

impl Span {
    pub(crate) fn milliseconds(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not a duration: write whole numbers with units, as `100ms`, `5s`, `30m` or `1h30m`")
        };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(no_unit(text));
        }
        let mut milliseconds = 0u64;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = match &rest[digits..digits + letters] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            milliseconds =
                number.checked_mul(unit).and_then(|part| milliseconds.checked_add(part)).ok_or_else(wrong)?;
            rest = &rest[digits + letters..];
        }
        match milliseconds {
            0 => Err(format!("`{text}` is not a duration: it must be longer than nothing")),
            1..=LONGEST_MS => Ok(Self(Duration::from_millis(milliseconds))),
            _ => Err(format!("`{text}` is longer than {LONGEST_DAYS} days")),
        }
    }
}

/// A duration that was typed, in the words of manifests.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    Span::parse(text.trim()).map(|span| span.0)
}

fn no_unit(number: impl fmt::Display) -> String {
    format!("a duration needs a unit: `{number}s` or `{number}m`, not `{number}`")
}

/// Bytes of memory as written: `512m`, `8g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) u64);

const MEMORY_PATTERN: &str = r"^[1-9][0-9]*[kmgt]$";

impl Memory {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size: write a whole number with a unit, as `512m` or `8g`");
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let shift = match unit {
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self).ok_or_else(wrong)
    }
}

/// A size of memory that was typed, in the words of manifests.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    Memory::parse(&text.trim().to_lowercase()).map(|memory| memory.0)
}

macro_rules! from_text {
    ($type:ident, $pattern:expr, $expecting:literal, $bare:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$type, E> {
                        let message: fn(i64) -> String = $bare;
                        Err(E::custom(message(number)))
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

from_text!(Span, DURATION_PATTERN, "a duration such as `30m`", |number| no_unit(number));
from_text!(Memory, MEMORY_PATTERN, "a size such as `8g`", |number| {
    format!("a size needs a unit: `{number}m` or `{number}g`, not `{number}`")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, milliseconds) in [("100ms", 100), ("5s", 5000), ("30m", 1_800_000), ("1h30m", 5_400_000)] {
            assert_eq!(Span::parse(text).unwrap().milliseconds(), milliseconds, "{text}");
        }
        assert!(Span::parse("30").unwrap_err().contains("`30s` or `30m`"));
        for bad in ["", "m", "0s", "1.5h", "-1s", "5 s", "999999999999d", "18446744073709551615h", "5é"] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_needs_a_unit() {
        assert_eq!(Memory::parse("8g").unwrap(), Memory(8 << 30));
        for bad in ["", "8", "0g", "8gb", "é", "99999999999t"] {
            assert!(Memory::parse(bad).is_err(), "{bad}");
        }
    }
}
