//! Reads a miner's JSON strictly: no duplicate keys, bounded depth, numbers that are numbers. Pure; never sees a socket.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::cycle::MinerFault;

use super::Fault;

/// The action in `{"action": [number...]}`. Other keys are ignored.
///
/// # Errors
/// `invalid_action` when the JSON is fine but `action` is not a list of numbers, `malformed_response` otherwise.
pub(super) fn action(body: &[u8]) -> Result<Vec<f64>, Fault> {
    let object = match serde_json::from_slice::<Object>(body) {
        Ok(object) => object,
        Err(error) => return Err(explain(body, &error)),
    };
    match object.action {
        Some(Value::Numbers(numbers)) => Ok(numbers),
        Some(Value::Other) => {
            Err(Fault::new(MinerFault::InvalidAction, "`action` in the answer to /act is not a list of numbers"))
        }
        None => Err(malformed("the answer to /act has no `action`")),
    }
}

/// Whether the body is a JSON object, as the answer to `/reset` is.
pub(super) fn acknowledgement(body: &[u8]) -> Result<(), Fault> {
    match serde_json::from_slice::<Object>(body) {
        Ok(_) => Ok(()),
        Err(error) => Err(malformed(format!("the answer to /reset is not a JSON object: {error}"))),
    }
}

fn malformed(detail: impl AsRef<str>) -> Fault {
    Fault::new(MinerFault::MalformedResponse, detail)
}

/// Some JSON libraries write `NaN` and `Infinity`, and numbers may be too large for a float. The text is then not JSON
/// or not ours to read, but what the miner got wrong is its action.
fn explain(body: &[u8], error: &serde_json::Error) -> Fault {
    let readable = serde_json::from_slice::<Object>(&without_non_finite(body));
    if readable.is_ok_and(|object| object.action.is_some()) {
        return Fault::new(MinerFault::InvalidAction, "a number in the answer to /act is not finite");
    }
    malformed(format!("the answer to /act is not the JSON it should be: {error}"))
}

/// The text with every bare word and number that is no finite float replaced by `null`.
fn without_non_finite(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => string_length(rest),
            _ if is_bare(byte) => rest.iter().take_while(|byte| is_bare(**byte)).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at(length);
        text.extend_from_slice(if is_non_finite(token) { b"null" } else { token });
        rest = after;
    }
    text
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

fn is_non_finite(token: &[u8]) -> bool {
    is_bare(token[0])
        && std::str::from_utf8(token).is_ok_and(|token| token.parse::<f64>().is_ok_and(|n| !n.is_finite()))
}

/// Length of the JSON string that `text` starts with, quotes included; all of it when it never ends.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    text.len()
}

/// What the answer's object holds of what we look for.
struct Object {
    action: Option<Value>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                let mut action = None;
                unique_entries(map, |key, value| {
                    if key == "action" {
                        action = Some(value);
                    }
                })?;
                Ok(Object { action })
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Any JSON value, reduced to whether it is a list of numbers; all of it is read and checked.
enum Value {
    Numbers(Vec<f64>),
    Other,
}

/// An element of a list.
enum Element {
    Number(f64),
    Other,
}

fn unique_entries<'de, A: MapAccess<'de>>(mut map: A, mut see: impl FnMut(&str, Value)) -> Result<(), A::Error> {
    let mut keys = HashSet::new();
    while let Some(key) = map.next_key::<String>()? {
        let value = map.next_value()?;
        see(&key, value);
        if let Some(twice) = keys.replace(key) {
            return Err(serde::de::Error::custom(format_args!("the key `{twice}` comes twice")));
        }
    }
    Ok(())
}

fn elements<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Value, A::Error> {
    let mut numbers = Some(Vec::new());
    while let Some(element) = list.next_element()? {
        match element {
            Element::Number(number) => numbers.iter_mut().for_each(|numbers| numbers.push(number)),
            Element::Other => numbers = None,
        }
    }
    Ok(numbers.map_or(Value::Other, Value::Numbers))
}

/// Implements `Deserialize` for a type that tells numbers or lists of numbers from everything else.
macro_rules! any_json {
    ($name:ident, number: $number:expr, list: $list:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Any;
                impl<'de> Visitor<'de> for Any {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("any JSON")
                    }

                    fn visit_f64<E>(self, number: f64) -> Result<$name, E> {
                        Ok($number(number))
                    }

                    fn visit_i64<E>(self, number: i64) -> Result<$name, E> {
                        Ok($number(number as f64))
                    }

                    fn visit_u64<E>(self, number: u64) -> Result<$name, E> {
                        Ok($number(number as f64))
                    }

                    fn visit_bool<E>(self, _: bool) -> Result<$name, E> {
                        Ok($name::Other)
                    }

                    fn visit_str<E>(self, _: &str) -> Result<$name, E> {
                        Ok($name::Other)
                    }

                    fn visit_unit<E>(self) -> Result<$name, E> {
                        Ok($name::Other)
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<$name, A::Error> {
                        elements(list).map($list)
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        unique_entries(map, |_, _| ()).map(|()| $name::Other)
                    }
                }
                deserializer.deserialize_any(Any)
            }
        }
    };
}

any_json!(Value, number: |_| Value::Other, list: |list| list);
any_json!(Element, number: Element::Number, list: |_| Element::Other);

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: impl AsRef<[u8]>) -> MinerFault {
        action(body.as_ref()).unwrap_err().reason
    }

    #[test]
    fn numbers_of_any_spelling_are_read() {
        assert_eq!(action(br#"{"action": [1, -0.5, 2e-1]}"#).unwrap(), [1.0, -0.5, 0.2]);
        assert_eq!(action(br#" {"info": {"a": [1, "x"]}, "action": []} "#).unwrap(), [0.0; 0]);
    }

    #[test]
    fn a_wrong_action_is_an_invalid_action() {
        for action in [
            "[NaN]",
            "[Infinity]",
            "[-Infinity, 1]",
            "[1e309]",
            "[-1e999999]",
            "[null]",
            r#"["1"]"#,
            "[true]",
            "[[1]]",
            "[{}]",
            "null",
            "1",
            r#""left""#,
            "{}",
            "NaN",
        ] {
            assert_eq!(reason(format!(r#"{{"action": {action}}}"#)), MinerFault::InvalidAction, "{action}");
        }
    }

    #[test]
    fn wrong_json_is_a_malformed_response() {
        let deep = format!(r#"{{"action": [], "x": {}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        let deeper = format!(r#"{{"action": {}"#, "[".repeat(60_000));
        for body in [
            "",
            "hello",
            "[1, 2]",
            "{}",
            r#"{"actions": [1]}"#,
            r#"{"action": [1]"#,
            r#"{"action": [1]} {"action": [2]}"#,
            r#"{"action": [1], "action": [2]}"#,
            r#"{"action": [1], "x": {"a": 1, "a": 2}}"#,
            r#"{"action": [nil]}"#,
            r#"{"action": [01]}"#,
            r#"{"actions": [NaN]}"#,
            "{\"action\": [1], \"x\": \"\u{1}\"}",
            &deep,
            &deeper,
        ] {
            assert_eq!(reason(body), MinerFault::MalformedResponse, "{}", &body[..body.len().min(60)]);
        }
        assert_eq!(reason(b"{\"action\": [1], \"x\": \"\xff\"}"), MinerFault::MalformedResponse);
    }

    #[test]
    fn the_answer_to_reset_is_any_object() {
        assert!(acknowledgement(b"{}").is_ok());
        assert!(acknowledgement(br#"{"status": "ok", "n": [1, {"a": null}]}"#).is_ok());
        for body in ["", "null", "[]", "ok", r#"{"a": 1, "a": 1}"#] {
            assert_eq!(acknowledgement(body.as_bytes()).unwrap_err().reason, MinerFault::MalformedResponse, "{body}");
        }
    }
}
