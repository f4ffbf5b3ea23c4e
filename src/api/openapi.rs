//! `GET /openapi.json`: the OpenAPI 3.1 document, made from the list of operations and the types of their answers.

use std::collections::BTreeMap;

use axum::{extract::State, http::HeaderMap, response::Response};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Api,
    operation::{Answered, Operation, Schematic, Tag},
    problem::ProblemBody,
};

/// Answers that are the same wherever they come from: their status, their name, what they mean.
const PROBLEMS: [(u16, &str, &str); 4] = [
    (401, "Unauthorized", "The key is missing where one is needed, or is not good (any more)."),
    (400, "BadQuestion", "What was asked cannot be understood; the problem says what can be asked."),
    (429, "TooManyRequests", "This client asks too often."),
    (503, "Unavailable", "The database is unreachable, or too many clients want the same."),
];

pub(super) async fn show(State(api): State<Api>, request: HeaderMap) -> Response {
    api.document.to(&request)
}

/// The same for requests that send something along.
const OF_BODIES: [(u16, &str, &str); 2] =
    [(408, "TooSlow", "The body did not come in time."), (413, "TooLarge", "The body is too large.")];

/// The document of these operations.
pub(super) fn document(operations: &[Operation]) -> Value {
    let settings = |settings: &mut SchemaSettings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    };
    let mut answers = SchemaGenerator::new(SchemaSettings::draft2020_12().for_serialize().with(settings));
    let mut questions = SchemaGenerator::new(SchemaSettings::draft2020_12().with(|it| {
        settings(it);
        it.inline_subschemas = true;
    }));
    let problem = answers.subschema_for::<ProblemBody<'_>>();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let described = describe(operation, &problem, (&mut questions, &mut answers));
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described);
    }
    let responses: Map<String, Value> = PROBLEMS
        .iter()
        .chain(&OF_BODIES)
        .map(|(_, name, description)| ((*name).to_owned(), refusal(description, &problem)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "robo",
            "description": "What miners have achieved, and what they are paid for it.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": answers.take_definitions(true),
            "responses": responses,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A key of `robo apikey create`." },
                "header": { "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key." },
            },
        },
    })
}

fn describe(
    operation: &Operation,
    problem: &Schema,
    (questions, answers): (&mut SchemaGenerator, &mut SchemaGenerator),
) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    let of_body: &[_] = if operation.body.is_some() { &OF_BODIES } else { &[] };
    for (status, name, _) in PROBLEMS.iter().chain(of_body) {
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
    for answered in &operation.answers {
        responses.insert(answered.status.to_string(), answer(answered, problem, answers));
        if answered.tag == Tag::Some {
            responses.insert(
                "304".into(),
                json!({ "description": "The client has this answer already.", "headers": tags() }),
            );
        }
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.group],
        "summary": operation.summary,
        "parameters": parameters(operation, questions),
        "responses": responses,
    });
    if let Some((body, is_required)) = operation.body {
        let content = json!({ "application/json": { "schema": body(questions) } });
        described["requestBody"] = json!({ "content": content, "required": is_required });
        described["security"] = json!([{ "bearer": [] }, { "header": [] }]);
    }
    described
}

fn answer(answered: &Answered, problem: &Schema, generator: &mut SchemaGenerator) -> Value {
    let mut response = match answered.content {
        Some((kind, schematic)) => {
            json!({ "description": answered.description, "content": { kind: { "schema": schematic(generator) } } })
        }
        None if answered.status >= 400 => return refusal(answered.description, problem),
        None => json!({ "description": answered.description }),
    };
    if answered.tag == Tag::Some {
        response["headers"] = tags();
    }
    response
}

fn refusal(description: &str, problem: &Schema) -> Value {
    json!({ "description": description, "content": { "application/problem+json": { "schema": problem } } })
}

fn tags() -> Value {
    let header = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "ETag": header("What `If-None-Match` takes, to be told whether the answer is another one meanwhile."),
        "Cache-Control": header("For how long others may be given this answer."),
    })
}

fn parameters(operation: &Operation, generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut parameters = Vec::new();
    let mut add = |place: &str, name: &str, description: &str, schema: Value| {
        let is_required = place == "path";
        parameters.push(
            json!({ "name": name, "in": place, "required": is_required, "description": description, "schema": schema }),
        );
    };
    if let Some(part) = &operation.in_path {
        add("path", part.name, part.description, json!((part.schema)(generator)));
    }
    if let Some((name, description, schematic)) = operation.header {
        add("header", name, description, json!(schematic(generator)));
    }
    for (name, schema) in operation.question.map(|question| asked(question, generator)).unwrap_or_default() {
        let description = schema["description"].as_str().unwrap_or_default().to_owned();
        add("query", &name, &description, present(schema));
    }
    parameters
}

/// The fields of a question.
fn asked(question: Schematic, generator: &mut SchemaGenerator) -> Map<String, Value> {
    match question(generator).get("properties") {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    }
}

/// The schema of a field that is there: what is left out of an address is not null.
fn present(mut schema: Value) -> Value {
    if let Some(Value::Array(several)) = schema.get("anyOf")
        && let Some(other) = several.iter().find(|one| one["type"] != "null")
    {
        schema = other.clone();
    }
    if let Some(Value::Array(types)) = schema.get("type")
        && let Some(other) = types.iter().find(|one| **one != "null")
    {
        schema["type"] = other.clone();
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Value::Object(fields) = &mut schema {
        fields.remove("description");
        fields.remove("default");
    }
    schema
}
