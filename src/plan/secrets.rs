//! Secrets: words that a pipeline names and never holds.
//!
//! A definition keeps `${{ secrets.NAME }}` as it is written, so a value is neither stored nor hashed. An attempt gets the
//! values of those its stage names; what it leaves behind is masked for all of the pipeline's secrets before anybody reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

use base64::{
    Engine,
    engine::GeneralPurpose,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value};

use super::Definition;
use super::expression::{self, Part};

/// What stands in place of a secret.
const MASK: &str = "***";

/// The shortest secret: hiding a shorter one would hide half of every text.
const SHORTEST: usize = 4;

/// Lines of a secret that are hidden by themselves are at least this long.
const SHORTEST_LINE: usize = 8;

/// The variable that holds a secret.
pub fn secret_variable(name: &str) -> String {
    format!("ROBO_SECRET_{name}")
}

/// Where secrets come from: none when there is no such one.
pub type SecretSource<'a> = &'a dyn Fn(&str) -> io::Result<Option<String>>;

/// A secret cannot be used. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(String);

/// The secrets of one pipeline. It shows nothing of them, not even to a debugger's print.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, Result<String, SecretError>>,
    /// Every form in which a value might show, the longest first.
    hidden: Vec<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Look up every secret that a definition names. One that is not there is an error only for who uses it.
    pub fn of(definition: &Definition, source: SecretSource<'_>) -> Self {
        let mut names = BTreeSet::new();
        definition.stages.iter().for_each(|stage| collect(&stage.with, &mut names));
        let values: BTreeMap<_, _> = names.into_iter().map(|name| (name.clone(), look_up(&name, source))).collect();
        let forms: BTreeSet<String> = values.values().flatten().flat_map(|value| forms(value)).collect();
        let mut hidden: Vec<String> = forms.into_iter().collect();
        // A secret that is part of another must not leave the rest of the other behind.
        hidden.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self { values, hidden }
    }

    /// The values that these settings name, as `secrets` in their expressions. None when they name no secret.
    ///
    /// # Errors
    /// [`SecretError`] for the first that is not there.
    pub fn named_in(&self, with: &Map<String, Value>) -> Result<Option<Value>, SecretError> {
        let mut names = BTreeSet::new();
        collect(with, &mut names);
        if names.is_empty() {
            return Ok(None);
        }
        let value = |name: String| match self.values.get(&name) {
            Some(Ok(value)) => Ok((name, Value::from(value.as_str()))),
            Some(Err(error)) => Err(error.clone()),
            None => Err(missing(&name)),
        };
        names.into_iter().map(value).collect::<Result<Map<_, _>, _>>().map(|values| Some(Value::Object(values)))
    }

    /// The text without any secret.
    pub fn mask(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, form| match text.contains(form.as_str()) {
            true => text.replace(form.as_str(), MASK),
            false => text,
        })
    }

    /// The value without any secret, in its texts, names and numbers.
    pub fn mask_value(&self, value: Value) -> Value {
        if self.hidden.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.mask(&text)),
            Value::Number(number) if self.shows_in(&number.to_string()) => Value::from(MASK),
            Value::Array(items) => items.into_iter().map(|item| self.mask_value(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, field)| (self.mask(&name), self.mask_value(field)));
                Value::Object(fields.collect())
            }
            other => other,
        }
    }

    /// Whether a secret stands in the text.
    pub fn shows_in(&self, text: &str) -> bool {
        self.hidden.iter().any(|form| text.contains(form.as_str()))
    }
}

fn look_up(name: &str, source: SecretSource<'_>) -> Result<String, SecretError> {
    match source(name) {
        Ok(Some(value)) if value.chars().count() < SHORTEST => Err(SecretError(format!(
            "the secret `{name}` is shorter than {SHORTEST} characters and could not be hidden"
        ))),
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(missing(name)),
        Err(error) => Err(SecretError(format!("the secret `{name}` cannot be read: {error}"))),
    }
}

fn missing(name: &str) -> SecretError {
    SecretError(format!("there is no secret `{name}`: {}", remedies(name)))
}

/// How a secret gets its value.
pub(super) fn remedies(name: &str) -> String {
    let variable = secret_variable(name);
    format!(
        "set the environment variable {variable}, or write it into the file `{name}` of the directory that ROBO_SECRETS_DIR names"
    )
}

/// The forms in which a value may show: as it is, within JSON, within an address, in base64, and each longer line of it.
fn forms(value: &str) -> Vec<String> {
    let json = Value::from(value).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let mut forms = vec![value.to_owned(), json, percent_encoded(value)];
    let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
    forms.extend(lines.map(str::to_owned));
    forms.extend([STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().flat_map(|alphabet| base64(value, alphabet)));
    forms
}

/// The value in base64: by itself, and what shows of it in the base64 of a longer text, which depends on where it begins there.
fn base64(value: &str, alphabet: &GeneralPurpose) -> Vec<String> {
    let within = |before: usize| {
        let bytes = [&vec![0; before][..], value.as_bytes()].concat();
        // The first letters belong in part to what stands before it, the last one to what comes after.
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        alphabet.encode(&bytes).get(own).unwrap_or_default().to_owned()
    };
    let parts = (0..3).map(within).filter(|part| part.len() >= SHORTEST_LINE);
    std::iter::once(alphabet.encode(value)).chain(parts).collect()
}

fn percent_encoded(value: &str) -> String {
    let encode = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}

/// Names of the secrets in the texts of some settings.
fn collect(with: &Map<String, Value>, names: &mut BTreeSet<String>) {
    with.values().for_each(|value| collect_in(value, names));
}

fn collect_in(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.contains("${{") && text.contains("secrets") => {
            for part in expression::parts(text).unwrap_or_default() {
                let Part::Expression(expression) = part else { continue };
                let references = expression::references(&expression).unwrap_or_default();
                let secrets = references.iter().filter_map(|name| name.strip_prefix("secrets."));
                names.extend(secrets.map(|name| name.split('.').next().unwrap_or(name).to_owned()));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_in(item, names)),
        Value::Object(fields) => collect(fields, names),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let with: Map<String, Value> =
            values.iter().map(|(name, _)| ((*name).to_owned(), json!(format!("${{{{ secrets.{name} }}}}")))).collect();
        let definition = json!({
            "version": 1, "pipeline": "p", "inputs": {}, "environments": [],
            "stages": [{
                "id": "s", "uses": "k", "phase": "main", "depends_on": [], "when": null, "with": with, "tasks": [],
                "retry": {"max_attempts": 1, "initial_interval_ms": 1, "backoff": 1.0, "max_interval_ms": 1, "jitter": 0.0},
                "timeout_ms": 1, "expect": "complete",
            }],
        });
        let source =
            |name: &str| Ok(values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()));
        Secrets::of(&serde_json::from_value(definition).unwrap(), &source)
    }

    #[test]
    fn nothing_shows_a_secret() {
        let all = secrets(&[
            ("A", "hunter2"),
            ("B", "hunter2 and \"more\""),
            ("N", "123456"),
            ("K", "-----\nabcdefghij\n-----"),
        ]);
        assert_eq!(format!("{all:?}"), "Secrets");
        assert_eq!(all.mask("x hunter2 y hunter2 and \"more\""), "x *** y ***");
        assert_eq!(all.mask(r#"{"b": "hunter2 and \"more\""}"#), r#"{"b": "***"}"#);
        assert_eq!(all.mask("?key=hunter2%20and%20%22more%22"), "?key=***");
        assert_eq!(all.mask("one line: abcdefghij"), "one line: ***");
        let value = json!({"hunter2": ["a hunter2", 123456, 12345, null, true], "deep": {"x": "hunter2"}});
        assert_eq!(all.mask_value(value), json!({"***": ["a ***", "***", 12345, null, true], "deep": {"x": "***"}}));
    }

    #[test]
    fn base64_hides_nothing_from_us() {
        let secret = "Swordfish?>4711";
        let all = secrets(&[("A", secret)]);
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            assert_eq!(all.mask(&format!("x {} y", alphabet.encode(secret))), "x *** y");
            for before in ["a", "ab", "abc", "somebody:"] {
                let masked = all.mask(&alphabet.encode(format!("{before}{secret}{before}")));
                // What is left holds at most parts of the first and the last letter.
                let around = alphabet.encode(format!("{before}{before}")).len() + MASK.len() + 3;
                assert!(masked.contains(MASK) && masked.len() <= around, "{masked}");
            }
        }
        // What is short in base64 by itself is hidden alone, not within other words.
        assert_eq!(secrets(&[("A", "abcd")]).mask("YWJjZA and YWJj"), "*** and YWJj");
    }

    #[test]
    fn a_secret_that_is_not_there_says_where_it_is_looked_for() {
        let with = json!({"x": ["${{ secrets.TOKEN ~ 'a' }}"]});
        let error = secrets(&[]).named_in(with.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains("ROBO_SECRET_TOKEN") && error.contains("ROBO_SECRETS_DIR"), "{error}");
        let short = secrets(&[("TOKEN", "abc")]);
        let error = short.named_in(with.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains("shorter than 4") && !error.contains("abc"), "{error}");
        let there = secrets(&[("TOKEN", "abcd")]);
        assert_eq!(there.named_in(with.as_object().unwrap()).unwrap(), Some(json!({"TOKEN": "abcd"})));
        assert_eq!(there.named_in(&Map::new()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_masked_text_holds_the_secret(secret in "[ -~]{4,20}", before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            prop_assume!(!MASK.contains(&secret) && !secret.contains('*'));
            let masked = secrets(&[("S", &secret)]).mask(&format!("{before}{secret}{after}"));
            prop_assert!(!masked.contains(&secret), "{}", masked);
        }
    }
}
