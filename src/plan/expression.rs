//! `${{ ... }}`: one small language without side effects.
//!
//! An expression sees `inputs`, `cycle`, `stages` and `matrix`, and nothing else of the world: no files, no clock, no
//! randomness. It runs on a budget. Values travel as JSON; only strings, numbers and booleans can be part of a longer text.

use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, ErrorKind, Expression, UndefinedBehavior, filters, functions};
use serde_json::Value;

use super::vocabulary::{self, FUNCTIONS, Unknown};

/// Steps an expression may take; far above what any manifest needs.
const FUEL: u64 = 200_000;

/// The most values that what an expression gives may be made of.
const MOST_VALUES: usize = 1_000_000;

/// The longest expression. The engine walks it recursively, so this also bounds the stack.
const LONGEST_EXPRESSION: usize = 1000;

/// The longest text an expression or a joined text may become.
const LONGEST_TEXT: usize = 1 << 20;

/// The most bytes in all texts of what an expression gives.
const MOST_BYTES: usize = 64 << 20;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// The expression, without its braces.
    pub expression: String,
    /// What is wrong with it.
    pub message: String,
    /// What to write in its place.
    pub help: Option<String>,
}

impl ExpressionError {
    pub(super) fn new(expression: &str, message: impl Into<String>) -> Self {
        Self { expression: expression.trim().to_owned(), message: message.into(), help: None }
    }

    pub(super) fn from_engine(expression: &str, error: &minijinja::Error) -> Self {
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let message = match error.kind() {
            ErrorKind::OutOfFuel => "the expression takes too many steps".to_owned(),
            ErrorKind::UndefinedError => "something in the expression has no value".to_owned(),
            _ => format!("the expression is wrong: {detail}"),
        };
        Self { help: habit(expression), ..Self::new(expression, message) }
    }
}

/// What people of other languages write.
fn habit(expression: &str) -> Option<String> {
    let unquoted = vocabulary::without_texts(expression);
    let hint = if unquoted.contains("&&") {
        "write `and` in place of `&&`"
    } else if unquoted.contains("||") {
        "write `or` in place of `||`"
    } else if unquoted.replace("!=", "").contains('!') {
        "write `not` in place of `!`"
    } else if unquoted.contains('?') {
        "write `a if condition else b` in place of `condition ? a : b`"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// A piece of a text with expressions in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Expression(String),
}

/// Take a text apart.
pub(super) fn parts(text: &str) -> Result<Vec<Part>, ExpressionError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let end = end_of(after).ok_or_else(|| ExpressionError::new(after, "`${{` is never closed by `}}`"))?;
        parts.push(Part::Expression(after[..end].trim().to_owned()));
        rest = &after[end + 2..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Where the `}}` is that closes an expression: not in quotes, not inside a mapping.
fn end_of(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0usize;
    for (index, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != byte),
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if text[index..].starts_with("}}") => return Some(index),
            _ => {}
        }
    }
    None
}

/// Every dotted name an expression uses: `stages.discover.miners`.
pub(crate) fn references(expression: &str) -> Result<Vec<String>, ExpressionError> {
    if expression.trim().is_empty() {
        return Err(ExpressionError::new(expression, "the expression is empty"));
    }
    let engine = engine();
    compile(&engine, expression)?;
    let sliceless = vocabulary::without_slices(expression);
    let plain =
        engine.compile_expression(&sliceless).map_err(|error| ExpressionError::from_engine(expression, &error))?;
    let mut names: Vec<String> = plain.undeclared_variables(true).into_iter().collect();
    names.retain(|name| !FUNCTIONS.contains(&name.as_str()));
    names.sort();
    Ok(names)
}

/// Whether the expressions of a text refer to nothing but these roots.
pub(super) fn needs_only(text: &str, roots: &[&str]) -> bool {
    let known = |name: &String| name.split('.').next().is_some_and(|root| roots.contains(&root));
    parts(text).unwrap_or_default().iter().all(|part| match part {
        Part::Text(_) => true,
        Part::Expression(expression) => references(expression).is_ok_and(|names| names.iter().all(known)),
    })
}

/// The value of a setting: every `${{ }}` in its texts evaluated.
///
/// A text that is exactly one expression becomes that expression's value; in a longer text the values are joined.
///
/// # Errors
/// [`ExpressionError`] for the first expression that has no value in this context.
pub fn render(value: &Value, context: &Value) -> Result<Value, ExpressionError> {
    match value {
        Value::String(text) if text.contains("${{") => render_text(text, context),
        Value::Array(items) => items.iter().map(|item| render(item, context)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| Ok((name.clone(), render(field, context)?)));
            fields.collect::<Result<_, _>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

/// Whether a condition holds. It may be written with its braces or without; its value must be true or false.
///
/// # Errors
/// [`ExpressionError`] when it has no value in this context, or another kind of value.
pub fn truth(condition: &str, context: &Value) -> Result<bool, ExpressionError> {
    let value = match parts(condition)?.as_slice() {
        [Part::Text(expression) | Part::Expression(expression)] => evaluate(expression, context)?,
        _ => return Err(ExpressionError::new(condition, "a condition is one expression")),
    };
    value.as_bool().ok_or_else(|| {
        let mut error =
            ExpressionError::new(condition, format!("a condition is true or false, this is {}", kind_of(&value)));
        error.help = Some("compare it with something: `x > 0`, `x == \"y\"`".into());
        error
    })
}

fn render_text(text: &str, context: &Value) -> Result<Value, ExpressionError> {
    let parts = parts(text)?;
    if let [Part::Expression(expression)] = parts.as_slice() {
        return evaluate(expression, context);
    }
    let mut joined = String::new();
    for part in parts {
        match part {
            Part::Text(text) => joined.push_str(&text),
            Part::Expression(expression) => match evaluate(&expression, context)? {
                Value::String(text) => joined.push_str(&text),
                value @ (Value::Number(_) | Value::Bool(_)) => joined.push_str(&value.to_string()),
                other => {
                    let message = format!("{} cannot be part of a text", kind_of(&other));
                    return Err(ExpressionError::new(&expression, message));
                }
            },
        }
        if joined.len() > LONGEST_TEXT {
            return Err(ExpressionError::new(text, "the text becomes too long"));
        }
    }
    Ok(Value::String(joined))
}

/// The value of one expression.
pub(super) fn evaluate(expression: &str, context: &Value) -> Result<Value, ExpressionError> {
    let engine = engine();
    let wrong = |error: minijinja::Error| ExpressionError::from_engine(expression, &error);
    let compiled = compile(&engine, expression)?;
    let value = compiled.eval(minijinja::Value::from(Serde(context))).map_err(wrong)?;
    json_of(expression, &value)
}

/// What an expression has come to, as JSON.
pub(super) fn json_of(expression: &str, value: &minijinja::Value) -> Result<Value, ExpressionError> {
    if has_gap(value) {
        return Err(ExpressionError::new(expression, "something in the expression has no value"));
    }
    let json = serde_json::to_value(value)
        .map_err(|error| ExpressionError::new(expression, format!("the result cannot be written as JSON: {error}")))?;
    check_size(expression, &json)?;
    // JSON has no infinities: they arrive as null.
    if value.is_number() && json.is_null() {
        return Err(ExpressionError::new(expression, "the result is not a finite number"));
    }
    Ok(json)
}

/// Whether something in a value is missing: it would become an empty value without a word.
fn has_gap(value: &minijinja::Value) -> bool {
    let below = match value.kind() {
        ValueKind::Undefined => return true,
        ValueKind::Seq | ValueKind::Iterable => value.try_iter().ok(),
        ValueKind::Map => {
            let items = value.try_iter().into_iter().flatten();
            return items.filter_map(|name| value.get_item(&name).ok()).any(|item| has_gap(&item));
        }
        _ => None,
    };
    below.is_some_and(|mut items| items.any(|item| has_gap(&item)))
}

/// `values | length`. The engine's own calls what is missing empty.
fn length(value: &minijinja::Value) -> Result<usize, minijinja::Error> {
    if value.is_undefined() { Err(ErrorKind::UndefinedError.into()) } else { filters::length(value) }
}

/// `values | map(attribute='name')`: one field of every value.
fn pick(values: minijinja::Value, options: Kwargs) -> Result<Vec<minijinja::Value>, minijinja::Error> {
    let name: String = options.get("attribute")?;
    options.assert_all_used()?;
    // The engine takes what is missing for an empty list.
    if values.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    if !matches!(values.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "`map` takes a list"));
    }
    values
        .try_iter()?
        .map(|value| match value.get_attr(&name)? {
            field if field.is_undefined() => Err(ErrorKind::UndefinedError.into()),
            field => Ok(field),
        })
        .collect()
}

/// A result has a size that a database and a page can bear.
fn check_size(expression: &str, value: &Value) -> Result<(), ExpressionError> {
    let (mut values, mut bytes) = (0usize, 0usize);
    let mut open = vec![value];
    while let Some(next) = open.pop() {
        values += 1;
        match next {
            Value::String(text) if text.len() > LONGEST_TEXT => {
                return Err(ExpressionError::new(
                    expression,
                    format!("the text becomes longer than {LONGEST_TEXT} bytes"),
                ));
            }
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                bytes += fields.keys().map(String::len).sum::<usize>();
                open.extend(fields.values());
            }
            _ => {}
        }
        if values > MOST_VALUES || bytes > MOST_BYTES {
            return Err(ExpressionError::new(expression, "the result is too large"));
        }
    }
    Ok(())
}

/// What a value is, in words.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

pub(super) fn compile<'e>(
    engine: &'e Environment<'e>,
    expression: &'e str,
) -> Result<Expression<'e, 'e>, ExpressionError> {
    if expression.len() > LONGEST_EXPRESSION {
        let start: String = expression.chars().take(60).collect();
        let message = format!("the expression is longer than {LONGEST_EXPRESSION} bytes");
        return Err(ExpressionError::new(&start, message));
    }
    let compiled =
        engine.compile_expression(expression).map_err(|error| ExpressionError::from_engine(expression, &error))?;
    let unknown = |Unknown { message, help }| ExpressionError { help, ..ExpressionError::new(expression, message) };
    vocabulary::check(expression).map_err(unknown)?;
    Ok(compiled)
}

pub(super) fn engine<'s>() -> Environment<'s> {
    let mut engine = Environment::empty();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    macro_rules! register {
        ($($name:literal: $function:expr),* $(,)?) => {
            $(
                engine.add_filter($name, $function);
                engine.add_function($name, $function);
            )*
        };
    }
    register! {
        "abs": filters::abs, "default": filters::default, "first": filters::first, "int": filters::int,
        "join": filters::join, "last": filters::last, "length": length, "map": pick,
        "max": filters::max,
        "min": filters::min, "range": functions::range, "round": filters::round, "sort": filters::sort,
        "sum": filters::sum,
    }
    engine.add_test("defined", minijinja::tests::is_defined);
    engine.add_test("none", minijinja::tests::is_none);
    engine
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> Value {
        json!({
            "inputs": {"n": 5, "name": "a", "share": 0.5},
            "cycle": {"publish": true, "environments": ["f/a", "f/b"]},
            "stages": {"discover": {"miners": [{"uid": 1}], "count": 1}},
            "matrix": {"environment": "f/a"},
        })
    }

    #[test]
    fn one_expression_keeps_its_type_and_several_are_joined() {
        let rendered = render(
            &json!({
                "whole": "${{ stages.discover.miners }}",
                "number": "${{ inputs.n * 2 }}",
                "text": "n=${{ inputs.n }} ${{ 'x' if cycle.publish else 'y' }}",
                "count": ["${{ cycle.environments | length }}", "${{ max([1, 3]) }}", 7],
                "braces": "${{ {'a': {'b': '}}'}}.a.b }}",
            }),
            &context(),
        );
        assert_eq!(
            rendered.unwrap(),
            json!({
                "whole": [{"uid": 1}], "number": 10, "text": "n=5 x", "count": [2, 3, 7], "braces": "}}",
            })
        );
    }

    #[test]
    fn what_cannot_be_evaluated_says_why() {
        let error = |text: &str| render(&json!(text), &context()).unwrap_err();
        assert!(error("${{ inputs.nope }}").message.contains("no value"));
        assert_eq!(error("${{ 9e307 * 100.0 }}").message, "the result is not a finite number");
        assert!(error("${{ 1 / 0 }}").message.contains("unable to calculate 1 / 0"));
        assert!(error("a ${{ cycle.environments }}").message.contains("a list cannot be part of a text"));
        assert!(error("${{ inputs.n ").message.contains("never closed"));
        assert!(error("${{ }}").message.contains("wrong"));
        assert_eq!(error("${{ true && false }}").help.unwrap(), "write `and` in place of `&&`");
        assert_eq!(error("${{ true || false }}").help.unwrap(), "write `or` in place of `||`");
        assert_eq!(error("${{ !true }}").help.unwrap(), "write `not` in place of `!`");
        assert!(references("nosuch(1)").unwrap().contains(&"nosuch".to_owned()));
    }

    #[test]
    fn what_may_be_missing_is_said_so() {
        let value = |text: &str| evaluate(text, &context()).unwrap();
        assert_eq!(value("stages.discover.gone | default('none')"), "none");
        assert_eq!(value("stages.discover.miners | map(attribute='uid') | sum"), 1);
        assert_eq!(value("range(3) | join('-')"), "0-1-2");
        assert_eq!(value("stages.discover.gone is defined or stages.discover.count is none"), false);
        assert_eq!(value("[2, 1] | sort"), json!([1, 2]));
        for function in FUNCTIONS.iter().filter(|name| **name != "default" && **name != "map") {
            let gap = format!("stages.discover.gone | {function}");
            assert!(evaluate(&gap, &context()).is_err(), "{gap}");
        }
        for gap in [
            "stages.discover.miners | map(attribute='gone')",
            "inputs.nope | map(attribute='a')",
            "[inputs.n, inputs.nope]",
            "{'a': [inputs.nope]}",
        ] {
            assert!(evaluate(gap, &context()).unwrap_err().message.contains("no value"), "{gap}");
        }
    }

    #[test]
    fn a_condition_is_true_or_false() {
        assert!(truth("${{ cycle.publish and inputs.n > 3 }}", &context()).unwrap());
        assert!(!truth("not cycle.publish", &context()).unwrap());
        assert!(truth("${{ inputs.n }}", &context()).unwrap_err().message.contains("a number"));
    }

    #[test]
    fn references_are_dotted_names() {
        assert_eq!(
            references("stages.a.b | length + inputs.n if cycle.publish else max([matrix.x, 1])").unwrap(),
            ["cycle.publish", "inputs.n", "matrix.x", "stages.a.b"]
        );
        assert_eq!(
            references("(stages.a.b | sort)[:inputs.n] + secrets.x[1:][matrix.x::cycle.block]").unwrap(),
            ["cycle.block", "inputs.n", "matrix.x", "secrets.x", "stages.a.b"]
        );
    }

    #[test]
    fn an_expression_has_a_budget() {
        let many = vec!["1"; 30_000].join("+");
        assert!(evaluate(&many, &context()).unwrap_err().message.contains("longer than"));
        for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("not ", "")] {
            let count = (LONGEST_EXPRESSION - 1) / (open.len() + close.len());
            let nested = format!("{}1{}", open.repeat(count), close.repeat(count));
            let _ = evaluate(&nested, &context());
        }
        assert_eq!(evaluate(&vec!["1"; 500].join("+"), &context()).unwrap(), 500);
        assert!(evaluate("'x' * 1000000000000", &context()).is_err());
    }
}
