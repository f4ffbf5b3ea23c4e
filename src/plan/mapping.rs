//! One expression for every element of a list: the same language and budget as anywhere else, with two more names.

use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde_json::{Value, json};

use super::expression::{self, ExpressionError};

/// The most elements that are evaluated; each has the budget of an expression.
const MOST_ELEMENTS: usize = 100_000;

/// The text of an expression, which may be written with its braces or without.
pub(super) fn bare(text: &str) -> &str {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
    inner.filter(|inner| !inner.contains("${{")).map_or(trimmed, str::trim)
}

/// Whether a name belongs to the element, as `item.uid` and `index` do.
pub(super) fn is_of_element(name: &str) -> bool {
    name == "index" || name == "item" || name.starts_with("item.")
}

/// Why a list could not be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Neither a list nor a mapping.
    #[error("`items` is {0}, and not a list or a mapping")]
    Items(&'static str),
    /// More than is evaluated.
    #[error("`items` has {0} elements, and at most {MOST_ELEMENTS} are evaluated")]
    TooMany(usize),
    /// The values have become too large.
    #[error("the values take more than {0} bytes as JSON")]
    TooLarge(usize),
    /// An element has no value.
    #[error("`{setting}` of element {index}")]
    Element {
        /// Which of the two expressions.
        setting: &'static str,
        /// Which element.
        index: usize,
        /// Why.
        source: ExpressionError,
    },
}

/// What is done with every element.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// What it becomes.
    pub value: String,
    /// Condition on those that are kept.
    pub condition: Option<String>,
    /// Most bytes all values may have as JSON.
    pub max_bytes: usize,
}

impl Mapping {
    /// The values of all elements that are kept, in order. `context` holds what every expression knows.
    ///
    /// # Errors
    /// [`MappingError`] for the first element that has no value.
    pub fn apply(&self, items: Value, context: &Value) -> Result<Vec<Value>, MappingError> {
        let items = elements(items)?;
        let engine = expression::engine();
        // Converted once: outputs of earlier stages may be large.
        let base = minijinja::Value::from(Serde(context));
        let mut values = Vec::new();
        let mut bytes = 0;
        for (index, item) in items.iter().enumerate() {
            let scope = || context! { item => minijinja::Value::from(Serde(item)), index, ..base.clone() };
            if let Some(condition) = &self.condition {
                let wrong = |source| MappingError::Element { setting: "where", index, source };
                let holds = evaluate(&engine, condition, scope()).map_err(wrong)?;
                let kind = expression::kind_of(&holds);
                let problem =
                    || ExpressionError::new(condition, format!("a condition is true or false, this is {kind}"));
                if !holds.as_bool().ok_or_else(|| wrong(problem()))? {
                    continue;
                }
            }
            let wrong = |source| MappingError::Element { setting: "value", index, source };
            let value = evaluate(&engine, &self.value, scope()).map_err(wrong)?;
            bytes += value.to_string().len() + 1;
            if bytes > self.max_bytes {
                return Err(MappingError::TooLarge(self.max_bytes));
            }
            values.push(value);
        }
        Ok(values)
    }
}

fn evaluate(engine: &Environment<'_>, text: &str, scope: minijinja::Value) -> Result<Value, ExpressionError> {
    let compiled = expression::compile(engine, text)?;
    let value = compiled.eval(scope).map_err(|error| ExpressionError::from_engine(text, &error))?;
    expression::json_of(text, &value)
}

/// A mapping is a list of its entries, in its order.
fn elements(items: Value) -> Result<Vec<Value>, MappingError> {
    let elements = match items {
        Value::Array(items) => items,
        Value::Object(fields) => fields.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect(),
        other => return Err(MappingError::Items(expression::kind_of(&other))),
    };
    if elements.len() > MOST_ELEMENTS { Err(MappingError::TooMany(elements.len())) } else { Ok(elements) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &str, condition: Option<&str>, items: Value) -> Result<Vec<Value>, MappingError> {
        let context = json!({ "inputs": { "floor": 2 }, "stages": { "pareto": { "best": 8.0 } } });
        let mapping = Mapping { value: value.into(), condition: condition.map(str::to_owned), max_bytes: 200 };
        mapping.apply(items, &context)
    }

    #[test]
    fn elements_meet_inputs_and_outputs() {
        let items = json!([{"uid": 1, "points": 4}, {"uid": 2, "points": 1}, {"uid": 3, "points": 8}]);
        let value = "{'uid': item.uid, 'at': index, 'share': item.points / stages.pareto.best}";
        assert_eq!(
            map(value, Some("item.points >= inputs.floor"), items).unwrap(),
            [json!({"uid": 1, "at": 0, "share": 0.5}), json!({"uid": 3, "at": 2, "share": 1.0})]
        );
        let points = json!({"7": 1.5, "12": 0});
        assert_eq!(map("[item.key | int, item.value]", None, points).unwrap(), [json!([7, 1.5]), json!([12, 0])]);
    }

    #[test]
    fn what_cannot_be_evaluated_is_named() {
        let text = |result: Result<Vec<Value>, MappingError>| {
            let error = result.unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        };
        let second = text(map("item.a", None, json!([{"a": 1}, {}])));
        assert!(second.starts_with("`value` of element 1: ") && second.contains("no value"), "{second}");
        let condition = text(map("1", Some("item"), json!([3])));
        assert!(
            condition.contains("`where` of element 0: a condition is true or false, this is a number"),
            "{condition}"
        );
        assert!(text(map("1", None, json!(3))).contains("a number, and not a list"));
        assert!(text(map("'x' * 50", None, json!([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))).contains("more than 200 bytes"));
        assert!(text(map("1", None, Value::Array(vec![Value::Null; 100_001]))).contains("100001 elements"));
        assert!(text(map("1 / item", None, json!([0]))).contains("element 0"));
    }

    #[test]
    fn braces_may_be_left_out() {
        assert_eq!(bare(" ${{ item.a }} "), "item.a");
        assert_eq!(bare("item.a"), "item.a");
        assert!(is_of_element("item.a.b") && is_of_element("index") && !is_of_element("items"));
    }
}
