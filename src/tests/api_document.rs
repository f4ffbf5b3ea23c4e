//! The OpenAPI document and the answers keep to each other: every address is in it, and what real answers hold is what it says.

use std::{collections::BTreeSet, fs, path::Path};

use reqwest::StatusCode;
use robo::cycle::CycleId;
use serde_json::{Value, json};

use crate::support::{
    database::{TestDatabase, Version},
    served::Served,
    story::{Story, told},
};

/// What the document says of an answer of this status.
fn described<'a>(document: &'a Value, path: &str, status: StatusCode) -> &'a Value {
    let answer = &document["paths"][path]["get"]["responses"][status.as_str()];
    match answer["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => answer,
    }
}

/// Ask, and hold the answer against the document.
async fn hold(served: &Served, document: &Value, (path, address): (&str, &str), expected: StatusCode) {
    let answer = served.client.get(format!("{}{address}", served.url)).send().await.unwrap();
    let status = answer.status();
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = answer.text().await.unwrap();
    assert_eq!(status, expected, "{address}: {body}");
    let described = described(document, path, status);
    let kind = kind.split(';').next().unwrap();
    let content = described["content"].as_object().unwrap_or_else(|| panic!("{path} says nothing of {status}"));
    assert!(content.contains_key(kind), "{address} answers {kind}, and not {content:?}");
    if !kind.ends_with("json") {
        return;
    }
    let schema = json!({ "allOf": [content[kind]["schema"]], "components": document["components"] });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value: Value = serde_json::from_str(&body).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{address}: {}\n{value:#}", errors.join("\n"));
}

async fn document(served: &Served) -> Value {
    let (status, tag, document) = served.ask("/openapi.json", None).await;
    assert_eq!((status, document["openapi"].as_str()), (StatusCode::OK, Some("3.1.0")));
    assert_eq!(served.ask("/openapi.json", tag.as_deref()).await.0, StatusCode::NOT_MODIFIED);
    document
}

#[tokio::test]
async fn real_answers_are_what_the_document_says() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let cycle = told(&store, "test").await;
    let running = Story::begin(&store, "test").await.cycle;
    let nobody = CycleId::generate();
    let served = Served::of(&store).await;
    let document = document(&served).await;
    let answers = [
        ("/health", "/health".to_owned()),
        ("/health/live", "/health/live".into()),
        ("/health/ready", "/health/ready".into()),
        ("/metrics", "/metrics".into()),
        ("/openapi.json", "/openapi.json".into()),
        ("/", "/".into()),
        ("/page.css", "/page.css".into()),
        ("/page.js", "/page.js".into()),
        ("/docs", "/docs".into()),
        ("/docs/swagger-ui-bundle.js", "/docs/swagger-ui-bundle.js".into()),
        ("/docs/swagger-ui.css", "/docs/swagger-ui.css".into()),
        ("/docs/start.js", "/docs/start.js".into()),
        ("/v1/weights/latest", "/v1/weights/latest".into()),
        ("/v1/weights/{block}", "/v1/weights/70".into()),
        ("/v1/scores/latest", "/v1/scores/latest".into()),
        ("/v1/scores/{cycle}", format!("/v1/scores/{cycle}")),
        ("/v1/status", "/v1/status".into()),
        ("/v1/environments", "/v1/environments".into()),
        ("/v1/miners", "/v1/miners".into()),
        ("/v1/miners/{hotkey}", "/v1/miners/bob".into()),
        ("/v1/miners/{hotkey}", "/v1/miners/dan".into()),
        ("/v1/cycles", "/v1/cycles?limit=1".into()),
        ("/v1/cycles/{cycle}", format!("/v1/cycles/{cycle}")),
        ("/v1/cycles/{cycle}", format!("/v1/cycles/{running}")),
        ("/v1/cycles/{cycle}/episodes", format!("/v1/cycles/{cycle}/episodes?limit=3")),
        ("/v1/cycles/{cycle}/scores.csv", format!("/v1/cycles/{cycle}/scores.csv")),
        ("/v1/cycles/{cycle}/events", format!("/v1/cycles/{cycle}/events")),
        ("/v1/pipelines", "/v1/pipelines".into()),
        ("/v1/schedules", "/v1/schedules".into()),
    ];
    for (path, address) in &answers {
        hold(&served, &document, (path, address), StatusCode::OK).await;
    }
    let held: BTreeSet<&str> = answers.iter().map(|(path, _)| *path).collect();
    let listed: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let unheld: Vec<_> = listed.difference(&held).filter(|path| document["paths"][**path]["get"].is_object()).collect();
    assert!(unheld.is_empty(), "these are in the document and not held against it: {unheld:?}");
    for (path, address, status) in [
        ("/v1/weights/{block}", "/v1/weights/71".to_owned(), StatusCode::NOT_FOUND),
        ("/v1/weights/{block}", "/v1/weights/x".into(), StatusCode::BAD_REQUEST),
        ("/v1/weights/{block}", "/v1/weights/%FF".into(), StatusCode::BAD_REQUEST),
        ("/v1/miners/{hotkey}", "/v1/miners/%FF".into(), StatusCode::BAD_REQUEST),
        ("/v1/scores/{cycle}", format!("/v1/scores/{nobody}"), StatusCode::NOT_FOUND),
        ("/v1/miners/{hotkey}", "/v1/miners/nobody".into(), StatusCode::NOT_FOUND),
        ("/v1/cycles", "/v1/cycles?limit=0".into(), StatusCode::BAD_REQUEST),
        ("/v1/cycles/{cycle}", format!("/v1/cycles/{nobody}"), StatusCode::NOT_FOUND),
        ("/v1/cycles/{cycle}/scores.csv", format!("/v1/cycles/{running}/scores.csv"), StatusCode::NOT_FOUND),
        ("/v1/cycles/{cycle}/events", format!("/v1/cycles/{nobody}/events"), StatusCode::NOT_FOUND),
        ("/v1/status", "/v1/status?verbose=1".into(), StatusCode::BAD_REQUEST),
    ] {
        hold(&served, &document, (path, &address), status).await;
    }
}

#[tokio::test]
async fn the_document_describes_every_operation_and_nothing_twice() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::of(&database.store().await).await;
    let document = document(&served).await;
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what} has the id of another");
            assert!(!operation["summary"].as_str().unwrap().is_empty() && operation["tags"][0] != "", "{what}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.contains_key("503") && answers.keys().any(|status| status.starts_with('2')), "{what}");
            let names: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|it| it["in"] == "path")
                .map(|it| it["name"].as_str().unwrap())
                .collect();
            let in_path: BTreeSet<&str> = path.split('{').skip(1).map(|part| part.split('}').next().unwrap()).collect();
            assert_eq!(names, in_path, "{what}");
        }
    }
    // References lead somewhere.
    let text = document.to_string();
    for (at, _) in text.match_indices("\"#/") {
        let reference = text[at + 2..].split('"').next().unwrap();
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

/// Routes are made from the list of operations, from which the document is made, too. So none may be made elsewhere.
#[test]
fn no_address_is_answered_that_is_not_in_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let product = text.split("#[cfg(test)]").next().unwrap();
        for making in [".route(", ".route_service(", ".nest(", ".nest_service("] {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.extend(product.matches(making).map(|making| format!("{name}: {making}")));
        }
    }
    assert_eq!(found, ["operation.rs: .route("], "an address belongs into the list in src/api/operations.rs");
}

/// What the operator's guide and the existing client read, body by body: every field with its type.
#[tokio::test]
async fn bodies_have_every_field_that_existing_clients_read() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    told(&store, "test").await;
    let served = Served::of(&store).await;
    let (integer, number, string, boolean, list, object) =
        ("integer", "number", "string", "boolean", "array", "object");
    let tables: [(&str, &[(&str, &str)]); 7] = [
        ("/health", &[("/status", string), ("/database", string), ("/version", string)]),
        (
            "/v1/status",
            &[
                ("/status", string),
                ("/current_block", integer),
                ("/last_eval_block", integer),
                ("/miners_registered", integer),
                ("/environments_enabled", list),
                ("/environments", list),
                ("/total_cycles", integer),
                ("/total_miners_evaluated", integer),
                ("/is_evaluating", boolean),
                ("/last_completed_cycle/id", integer),
                ("/last_completed_cycle/block_number", integer),
                ("/last_completed_cycle/started_at", string),
                ("/last_completed_cycle/completed_at", string),
                ("/last_completed_cycle/status", string),
                ("/last_completed_cycle/n_miners", integer),
                ("/last_completed_cycle/n_environments", integer),
                ("/last_completed_cycle/duration_seconds", number),
                ("/current_cycle", "null"),
                ("/next_eval_in_seconds", "null"),
            ],
        ),
        (
            "/v1/weights/latest",
            &[
                ("/block", integer),
                ("/weights/1", number),
                ("/created_at", string),
                ("/cycle_id", integer),
                ("/block_number", integer),
                ("/timestamp", string),
                ("/weights_u16/uids", list),
                ("/weights_u16/values", list),
                ("/metadata/n_miners_evaluated", integer),
                ("/metadata/n_environments", integer),
                ("/metadata/evaluation_duration_seconds", number),
                ("/valid_until_block", integer),
                ("/status", string),
                ("/reason", "null"),
                ("/digest", string),
                ("/entries/0/hotkey", string),
            ],
        ),
        (
            "/v1/scores/latest",
            &[
                ("/cycle_id", integer),
                ("/block", integer),
                ("/scores/1/m~1a", number),
                ("/pareto_frontier", list),
                ("/created_at", string),
                ("/cycle/id", integer),
                ("/cycle/n_miners", integer),
                ("/miner_summary/2/m~1b", number),
                ("/entries/0/uid", integer),
                ("/entries/0/hotkey", string),
                ("/entries/0/env_id", string),
                ("/entries/0/success_rate", number),
                ("/entries/0/mean_reward", number),
                ("/entries/0/episodes_completed", integer),
                ("/entries/0/episodes_failed", integer),
            ],
        ),
        (
            "/v1/miners",
            &[
                ("/miners/0/uid", integer),
                ("/miners/0/hotkey", string),
                ("/miners/0/endpoint", "null"),
                ("/miners/0/last_evaluated", string),
                ("/miners/0/status", string),
                ("/miners/0/last_evaluated_block", integer),
                ("/miners/0/avg_success_rate", number),
                ("/miners/0/environments_evaluated", list),
            ],
        ),
        (
            "/v1/environments",
            &[
                ("/environments/0/env_id", string),
                ("/environments/0/env_name", string),
                ("/environments/0/task_name", string),
                ("/environments/0/n_evaluations", integer),
                ("/environments/0/avg_success_rate", number),
            ],
        ),
        ("/openapi.json", &[("/paths", object)]),
    ];
    for (path, fields) in tables {
        let (status, _, body) = served.ask(path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        for (field, kind) in fields {
            let value = body.pointer(field).unwrap_or_else(|| panic!("{path} has no {field}: {body:#}"));
            let is_it = match *kind {
                "integer" => value.is_u64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                _ => value.is_null(),
            };
            assert!(is_it, "{path}{field} is {value} and no {kind}");
        }
    }
}
