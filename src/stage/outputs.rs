//! Outputs that a pipeline declares: what a program, a query or an expression gave, checked before anything reads it.

use serde_json::{Map, Value};

use super::{config, miners, scores, vector};
use crate::cycle::{EnvironmentId, Miner, TaskFailure};
use crate::plan::Stage;
use crate::plan::kinds::Type;

/// The one output that takes a list, if the stage declares that and nothing else.
pub(super) fn of_a_list(stage: &Stage) -> Option<&str> {
    let mut declared = stage.outputs.iter();
    let (name, kind) = declared.next()?;
    (declared.next().is_none() && kind.takes_list()).then_some(name)
}

/// An object of one output.
pub(super) fn single(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

/// What the stage gave, if it is what the stage declares: every output, each of its type, and nothing else.
///
/// # Errors
/// A `config` failure that names the path.
pub(super) fn checked(stage: &Stage, given: Value) -> Result<Value, TaskFailure> {
    let Value::Object(mut given) = given else {
        return Err(config("the stage gave no object of its outputs"));
    };
    let mut outputs = Map::new();
    for (name, kind) in &stage.outputs {
        let value = given.remove(name).ok_or_else(|| config(format!("`outputs.{name}` is missing")))?;
        if !(kind.fits(&value) || kind.takes_list() && value.is_array()) {
            let (wanted, found) = (kind.word(), word(&value));
            return Err(config(format!("`outputs.{name}` is {found}, and declared as {wanted}")));
        }
        let value = typed(*kind, value).map_err(|message| config(format!("`outputs.{name}`: {message}")))?;
        outputs.insert(name.clone(), value);
    }
    match given.keys().next() {
        Some(name) => Err(config(format!("`outputs.{name}` is given and not declared"))),
        None => Ok(Value::Object(outputs)),
    }
}

/// What only a whole value shows.
fn typed(kind: Type, value: Value) -> Result<Value, String> {
    match kind {
        Type::Environment => {
            let id: Result<EnvironmentId, _> = value.as_str().unwrap_or_default().parse();
            id.map_err(|error| error.to_string())?;
        }
        Type::Miners => {
            let list: Vec<Miner> = read(&value)?;
            miners::check(&list).map_err(|failure| failure.message)?;
        }
        Type::Scores => return scores::parse(&value).and_then(|scores| json(&scores)),
        Type::Pareto => drop(read::<super::documents::Frontier>(&value)?),
        Type::Weights => drop(vector::parse(&value)?),
        _ => {}
    }
    Ok(value)
}

/// A value as a type of ours; the error names the path within it.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("`{path}`: {}", error.inner()),
    })
}

fn json(value: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number that is not whole",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::cycle::FailureClass;

    /// A stage that declares these outputs.
    pub(in crate::stage) fn stage(outputs: Value) -> Stage {
        Stage {
            outputs: serde_json::from_value(outputs).unwrap(),
            ..Stage::new("custom".parse().unwrap(), "container/run")
        }
    }

    #[test]
    fn what_is_given_is_what_is_declared() {
        let declared = stage(json!({
            "n": "integer", "x": "number", "s": "string", "b": "boolean", "o": "object", "l": "list",
        }));
        let good = json!({"n": 3, "x": 3, "s": "", "b": false, "o": {}, "l": [1]});
        assert_eq!(
            checked(&declared, good.clone()).unwrap(),
            json!({"b": false, "l": [1], "n": 3, "o": {}, "s": "", "x": 3})
        );
        let error = |name: &str, value: Value| {
            let mut bad = good.clone();
            bad[name] = value;
            let failure = checked(&declared, bad).unwrap_err();
            assert_eq!(failure.class, FailureClass::Config);
            failure.message
        };
        assert_eq!(error("n", json!(3.5)), "`outputs.n` is a number that is not whole, and declared as integer");
        assert_eq!(error("x", json!("3")), "`outputs.x` is a string, and declared as number");
        assert_eq!(error("l", json!({})), "`outputs.l` is an object, and declared as list");
        assert_eq!(error("more", json!(1)), "`outputs.more` is given and not declared");
        assert_eq!(checked(&declared, json!({"b": true})).unwrap_err().message, "`outputs.l` is missing");
        assert!(checked(&declared, json!([1])).unwrap_err().message.contains("no object"));
    }

    #[test]
    fn data_is_checked_to_the_bottom() {
        let message = |kind: &str, value: Value| {
            checked(&stage(json!({ "out": kind })), json!({ "out": value })).unwrap_err().message
        };
        let miner = |uid: u16| json!({"uid": uid, "hotkey": "a", "endpoint": "demo:noop"});
        assert!(message("miners", json!([miner(1), {"uid": 2}])).starts_with("`outputs.out`: `[1]"));
        assert!(message("miners", json!([miner(1), miner(2)])).contains("`a` stands twice"));
        assert!(message("weights", json!([{"uid": 1, "weight": -0.5}])).contains("`[0].weight`"));
        assert!(
            message("scores", json!([{"uid": 1}])).contains("`outputs.out`: `[0]`"),
            "{}",
            message("scores", json!([{"uid": 1}]))
        );
        assert!(message("environment", json!("nowhere")).contains("nowhere"));
    }

    #[test]
    fn one_list_takes_all_rows() {
        assert_eq!(of_a_list(&stage(json!({"w": "weights"}))), Some("w"));
        assert_eq!(of_a_list(&stage(json!({"w": "list", "n": "integer"}))), None);
        assert_eq!(of_a_list(&stage(json!({"n": "integer"}))), None);
    }
}
