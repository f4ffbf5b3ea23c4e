//! Reads a miner's JSON strictly: no duplicate keys, bounded depth, numbers that are numbers. Pure; never sees a socket.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::cycle::MinerFault;
use crate::manifest::simulation::ActionChannel;

use super::Fault;

/// The action in `{"action": [number...]}`. Other keys are ignored.
///
/// # Errors
/// `invalid_action` when the JSON is fine but `action` is not a list of numbers, `malformed_response` otherwise.
pub(super) fn action(body: &[u8]) -> Result<Vec<f64>, Fault> {
    match answered(body)? {
        Value::Numbers(numbers) => Ok(numbers),
        _ => Err(invalid("`action` in the answer to /act is not a list of numbers")),
    }
}

/// The action in `{"action": {"continuous": {CHANNEL: [number...]}}}`, the channels joined in their order. Other keys are
/// ignored. A channel that the miner leaves out is all zeros, as in the subnet's reference, but an action has at least one.
///
/// # Errors
/// `invalid_action` when the JSON is fine but the action is not, `malformed_response` otherwise.
pub(super) fn channels(body: &[u8], channels: &[ActionChannel]) -> Result<Vec<f64>, Fault> {
    let Value::Object(action) = answered(body)? else {
        return Err(invalid("`action` in the answer to /act is not an object"));
    };
    let continuous = action.into_iter().find(|(key, _)| key == "continuous").map(|(_, value)| value);
    let Some(Value::Object(continuous)) = continuous else {
        return Err(invalid("`action.continuous` in the answer to /act is not an object"));
    };
    let (mut numbers, mut is_empty) = (Vec::new(), true);
    for channel in channels {
        let name = &channel.channel;
        let own = match continuous.iter().find(|(key, _)| key == name).map(|(_, value)| value) {
            None => zeros(channel),
            Some(Value::Number(number)) => vec![*number],
            Some(Value::Numbers(numbers)) => numbers.clone(),
            Some(_) => return Err(invalid(format!("channel `{name}` of the action is not a list of numbers"))),
        };
        is_empty &= !continuous.iter().any(|(key, _)| key == name);
        if own.len() != channel.size as usize {
            return Err(invalid(format!(
                "channel `{name}` of the action has {} numbers, not {}",
                own.len(),
                channel.size
            )));
        }
        numbers.extend(channel.apply(&own));
    }
    if is_empty {
        let names: Vec<String> = channels.iter().map(|channel| format!("`{}`", channel.channel)).collect();
        return Err(invalid(format!("`action.continuous` has none of the channels {}", names.join(", "))));
    }
    Ok(numbers)
}

fn zeros(channel: &ActionChannel) -> Vec<f64> {
    vec![0.0; channel.size as usize]
}

/// The value of `action`, whatever it is.
fn answered(body: &[u8]) -> Result<Value, Fault> {
    let object = serde_json::from_slice::<Object>(body).map_err(|error| explain(body, &error))?;
    object.action.ok_or_else(|| malformed("the answer to /act has no `action`"))
}

fn invalid(detail: impl AsRef<str>) -> Fault {
    Fault::new(MinerFault::InvalidAction, detail)
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
                let Value::Object(entries) = entries(map)? else { return Ok(Object { action: None }) };
                Ok(Object { action: entries.into_iter().find(|(key, _)| key == "action").map(|(_, value)| value) })
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Any JSON value, reduced to the numbers, lists of numbers and objects in it; all of it is read and checked.
enum Value {
    Number(f64),
    Numbers(Vec<f64>),
    Object(Vec<(String, Self)>),
    Other,
}

/// An element of a list.
enum Element {
    Number(f64),
    Other,
}

fn entries<'de, A: MapAccess<'de>>(mut map: A) -> Result<Value, A::Error> {
    let mut keys = HashSet::new();
    let mut entries = Vec::new();
    while let Some(key) = map.next_key::<String>()? {
        if !keys.insert(key.clone()) {
            return Err(serde::de::Error::custom(format_args!("the key `{key}` comes twice")));
        }
        entries.push((key, map.next_value()?));
    }
    Ok(Value::Object(entries))
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
    ($name:ident, number: $number:expr, list: $list:expr, map: $map:expr) => {
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
                        entries(map).map($map)
                    }
                }
                deserializer.deserialize_any(Any)
            }
        }
    };
}

any_json!(Value, number: Value::Number, list: |list| list, map: |map| map);
any_json!(Element, number: Element::Number, list: |_| Element::Other, map: |_| Element::Other);

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

    fn arm() -> Vec<ActionChannel> {
        serde_json::from_str(
            r#"[{"channel": "ee_twist", "size": 6, "slice": [0, 3]},
                {"channel": "gripper", "size": 1, "scale": 2.0, "offset": -1.0}]"#,
        )
        .unwrap()
    }

    #[test]
    fn canonical_channels_are_joined_and_scaled() {
        let read = |action: &str| channels(format!(r#"{{"action": {action}, "x": 1}}"#).as_bytes(), &arm());
        let whole = r#"{"continuous": {"gripper": [1], "ee_twist": [0.5, -1, 0, 9, 9, 9], "x": [7]}, "discrete": {}}"#;
        assert_eq!(read(whole).unwrap(), [0.5, -1.0, 0.0, 1.0]);
        // A channel that is left out is all zeros, and one number may stand without its list.
        assert_eq!(read(r#"{"continuous": {"ee_twist": [1, 0, 0, 0, 0, 0]}}"#).unwrap(), [1.0, 0.0, 0.0, -1.0]);
        assert_eq!(read(r#"{"continuous": {"gripper": 0.5}}"#).unwrap(), [0.0; 4]);
    }

    #[test]
    fn canonical_actions_that_are_none_say_why() {
        for (action, words) in [
            ("[0, 0, 0, 0]", "is not an object"),
            ("null", "is not an object"),
            ("{}", "`action.continuous`"),
            (r#"{"continuous": [1]}"#, "`action.continuous`"),
            (r#"{"continuous": {}}"#, "none of the channels `ee_twist`, `gripper`"),
            (r#"{"continuous": {"twist": [1]}}"#, "none of the channels"),
            (r#"{"continuous": {"ee_twist": [1, 2, 3]}}"#, "`ee_twist` of the action has 3 numbers, not 6"),
            (r#"{"continuous": {"gripper": []}}"#, "has 0 numbers, not 1"),
            (r#"{"continuous": {"gripper": {"a": 1}}}"#, "`gripper` of the action is not a list"),
            (r#"{"continuous": {"gripper": [NaN]}}"#, "not finite"),
        ] {
            let fault = channels(format!(r#"{{"action": {action}}}"#).as_bytes(), &arm()).unwrap_err();
            assert_eq!(fault.reason, MinerFault::InvalidAction, "{action}: {fault}");
            assert!(fault.detail.contains(words), "{action}: {fault}");
        }
        for body in ["{}", r#"{"action": {"continuous": {"gripper": [1], "gripper": [1]}}}"#, "["] {
            let fault = channels(body.as_bytes(), &arm()).unwrap_err();
            assert_eq!(fault.reason, MinerFault::MalformedResponse, "{body}: {fault}");
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
