//! The JSON Schema of a pipeline: the wire form, and for each stage kind what may stand under `with`.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use crate::cycle::Miner;
use crate::manifest::pipeline::{Fragment, Pipeline};

use super::kinds::{Absent, KINDS, Kind, Rule, Setting, Type};

/// What a text has in it that is made of expressions.
const EXPRESSION: &str = r"\$\{\{";

/// The schema of `pipelines/*.yaml`.
pub fn pipeline() -> Value {
    let mut schema = of_stages::<Pipeline>();
    schema["anyOf"] = json!([{ "required": ["stages"] }, { "required": ["include"] }]);
    schema
}

/// The schema of files that pipelines include.
pub fn fragment() -> Value {
    of_stages::<Fragment>()
}

fn of_stages<T: JsonSchema>() -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    // Referred to by the settings below.
    generator.subschema_for::<Miner>();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    if let Some(stage) = schema.pointer_mut("/$defs/Stage").and_then(Value::as_object_mut) {
        stage.insert("allOf".into(), KINDS.iter().map(condition).collect());
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        if let Some(uses) = stage.get_mut("properties").and_then(|properties| properties.get_mut("uses")) {
            uses["enum"] = json!(names);
        }
    }
    // In a list of miners an expression may stand for it.
    if let Some(hotkey) = schema.pointer_mut("/$defs/Hotkey").and_then(Value::as_object_mut)
        && let Some(pattern) = hotkey.remove("pattern")
    {
        hotkey.insert("anyOf".into(), json!([{ "pattern": pattern }, { "pattern": EXPRESSION }]));
    }
    schema
}

fn condition(kind: &Kind) -> Value {
    let properties: Map<String, Value> =
        kind.settings.iter().map(|setting| (setting.name.to_owned(), of_setting(setting))).collect();
    let is_required = |setting: &&Setting| setting.absent == Absent::Required && !setting.kind.is_data();
    let required: Vec<&str> = kind.settings.iter().filter(is_required).map(|setting| setting.name).collect();
    let mut with = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let mut then = json!({ "description": kind.doc });
    if !required.is_empty() {
        with["required"] = json!(required);
        then["required"] = json!(["with"]);
    }
    then["properties"] = json!({ "with": with });
    json!({ "if": { "properties": { "uses": { "const": kind.name } }, "required": ["uses"] }, "then": then })
}

fn of_setting(setting: &Setting) -> Value {
    let expression = json!({ "type": "string", "pattern": EXPRESSION });
    let mut literal = match setting.kind {
        Type::String | Type::Environment | Type::Expression => json!({ "type": "string" }),
        Type::Integer => json!({ "type": "integer" }),
        Type::Number => json!({ "type": "number" }),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Object => json!({ "type": "object" }),
        Type::List => json!({ "type": "array" }),
        Type::Miners => json!({ "type": "array", "items": { "$ref": "#/$defs/Miner" }, "minItems": 1 }),
        Type::Scores | Type::Pareto | Type::Weights => expression.clone(),
        Type::Any => json!({}),
    };
    match setting.rule {
        Rule::Free => {}
        Rule::Between(least, most) => {
            literal["minimum"] = json!(least);
            literal["maximum"] = json!(most);
        }
        Rule::Above(bound) => literal["exclusiveMinimum"] = json!(bound),
        Rule::OneOf(words) => literal["enum"] = json!(words),
    }
    let mut schema = json!({ "description": setting.doc, "anyOf": [literal, expression] });
    if let Absent::Default(default) = setting.absent {
        schema["default"] = serde_json::from_str(default).unwrap_or_default();
    }
    schema
}
