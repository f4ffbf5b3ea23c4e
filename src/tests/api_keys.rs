//! Who may do what over the API: keys are made, shown, revoked and forgotten; what is done with them is written down.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use reqwest::{RequestBuilder, StatusCode, header};
use robo::{
    api::Token,
    backend::{Pipeline, Pipelines},
    config::Guarding,
    cycle::{
        Course, CycleId, CycleStatus, Entry, FailureClass, Journal, JournalError, Pin, PublishGuard, TaskEvent,
        TaskFailure,
    },
    host::Progress,
    schedule::Schedule,
    store::Store,
};
use serde_json::{Value, json};

use crate::{
    support::{
        database::{TestDatabase, Version},
        own_server::{OwnServer, Proxy},
        program::{Place, workspace},
        served::{Served, key, told, unlimited},
    },
    weights::{WHOLE, publish_at},
};

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_not_taken_for_nobody() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    assert_eq!(status(served.get("/v1/cycles")).await, StatusCode::OK, "reading is free");
    let (good, _) = key(&store, "good", None).await;
    let (ended, _) = key(&store, "ended", Some(TimeDelta::seconds(-1))).await;
    assert_eq!(status(served.get("/v1/cycles").bearer_auth(good.expose())).await, StatusCode::OK, "known at once");
    assert_eq!(status(served.get("/v1/cycles").header("x-api-key", good.expose())).await, StatusCode::OK);
    for wrong in [Token::random().expose(), ended.expose(), "robo_1", "", "\u{e9}"] {
        let answer = served.get("/v1/cycles").bearer_auth(wrong).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{wrong}");
        let challenge = answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Bearer ") && challenge.contains("invalid_token"), "{challenge}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert!(!problem.to_string().contains(good.expose()) && problem["status"] == 401, "{problem}");
    }
}

#[tokio::test]
async fn a_revoked_key_ends_within_seconds_and_its_use_was_noted() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let (token, made) = key(&store, "ci", None).await;
    assert_eq!(made.last_used_at, None);
    let ask = || status(served.get("/v1/cycles").bearer_auth(token.expose()));
    assert_eq!(ask().await, StatusCode::OK);
    // The backend notes it in its own time, within about a second.
    while store.api_keys().await.unwrap()[0].last_used_at.is_none() {
        assert_eq!(ask().await, StatusCode::OK);
    }
    let noted = store.api_keys().await.unwrap()[0].last_used_at;
    assert!(store.revoke_api_key(made.id).await.unwrap());
    assert!(!store.revoke_api_key(made.id).await.unwrap(), "once is enough");
    while ask().await != StatusCode::UNAUTHORIZED {}
    assert_eq!(store.api_keys().await.unwrap()[0].last_used_at, noted, "to the minute, and not at every request");
    // Its name is free again.
    let _ = key(&store, "ci", None).await;
}

#[test]
fn keys_are_made_listed_and_revoked_by_name() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let place = Place::with_database(database.url());
    let made = place.run(&["apikey", "create", "ci"]);
    let token = Token::parse(made.stdout.trim()).expect("standard output holds the key alone");
    assert!(made.code == 0 && made.stderr.contains("not shown again"), "{}", made.stderr);
    let again = place.run(&["apikey", "create", "ci"]);
    assert!(again.code == 2 && again.stderr.contains("hint: choose another name"), "{}", again.stderr);
    let document = place.json(&["apikey", "create", "for-a-day", "--expires", "1d", "--format", "json"]);
    assert!(
        Token::parse(document["key"].as_str().unwrap()).is_some() && document["expires_at"].is_string(),
        "{document}"
    );
    let listed = place.run(&["apikey", "ls"]);
    assert!(listed.stdout.contains(token.start()) && !listed.stdout.contains(token.expose()), "{}", listed.stdout);
    let unknown = place.run(&["apikey", "revoke", Token::random().expose()]);
    assert!(unknown.code == 2 && unknown.stderr.contains("hint: there are `ci`"), "{}", unknown.stderr);
    assert_eq!(place.run(&["apikey", "revoke", token.start()]).code, 0);
    assert_eq!(place.run(&["apikey", "revoke", "for-a-day"]).code, 0);
    assert_eq!(place.json(&["apikey", "ls", "--format", "json"])["keys"], serde_json::json!([]));
    let all = place.json(&["apikey", "ls", "--all", "--format", "json"]);
    assert!(
        all["keys"].as_array().unwrap().iter().all(|key| key["good"] == false && key.get("key").is_none()),
        "{all}"
    );
    for name in ["", "two words", "é", &"x".repeat(65)] {
        assert_eq!(place.run(&["apikey", "create", name]).code, 2, "{name}");
    }
}

#[tokio::test]
async fn the_database_has_no_key() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let (token, _) = key(&store, "ci", None).await;
    let row: String = sqlx::query_scalar("select to_jsonb(api_key)::text from api_key")
        .fetch_one(&mut database.connection().await)
        .await
        .unwrap();
    assert!(row.contains(&hex::encode(token.sha256())) && !row.contains(token.expose()), "{row}");
}

/// The quickstart pipeline, of which one cycle may be open.
fn narrow() -> (tempfile::TempDir, Arc<Pipelines>) {
    let folder = workspace(|text| {
        text.replace("\nstages:\n", "\nconcurrency: { group: gpu, limit: 1, on_limit: skip }\n\nstages:\n")
    });
    let pipeline = Pipeline::read(&folder.path().join("pipeline.yaml"), &[]).unwrap();
    (folder, Arc::new(Pipelines::new(vec![pipeline])))
}

const START: &str = "/v1/pipelines/quickstart/cycles";

#[tokio::test]
async fn a_cycle_is_started_once_however_often_it_is_asked_for() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let (_folder, pipelines) = narrow();
    let served = Served::with(&store, unlimited(), pipelines).await;
    let (token, _) = key(&store, "ci", None).await;
    let (other, _) = key(&store, "other", None).await;
    let body = json!({ "inputs": { "episodes_per_env": 3 } });
    let start = |token: &Token, name: &'static str, body: &Value| {
        served.post(token, START, body).header("idempotency-key", name)
    };
    let answer = start(&token, "nightly-7", &body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let place = answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let first: Value = answer.json().await.unwrap();
    assert_eq!(place, format!("/v1/cycles/{}", first["id"].as_str().unwrap()));
    assert_eq!(served.get(&place).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(told(start(&token, "nightly-7", &body)).await, (201, first.clone()), "said twice");
    assert_eq!(told(start(&token, "nightly-7", &json!({}))).await.0, 422, "another under the same name");
    let (refused, why) = told(start(&token, "nightly-8", &body)).await;
    assert!(refused == 409 && why["detail"].as_str().unwrap().contains(first["id"].as_str().unwrap()), "{why}");
    assert_eq!(told(start(&other, "nightly-7", &body)).await.0, 409, "names are each key's own");
    let definition: Value =
        sqlx::query_scalar("select definition from cycle").fetch_one(&mut database.connection().await).await.unwrap();
    assert!(definition.to_string().contains("\"episodes_per_env\":3"), "{definition}");
    let id: CycleId = first["id"].as_str().unwrap().parse().unwrap();
    assert!(store.idle_cycles().await.unwrap().contains(&id), "a backend takes it up at once");
    let noted = store.operations(10).await.unwrap();
    let noted: Vec<_> =
        noted.iter().map(|it| (&*it.key, &*it.action, &*it.subject, &*it.outcome, &*it.client)).collect();
    let refused = |key| (key, "start", "quickstart", "refused", "127.0.0.1");
    assert_eq!(noted, [refused("other"), refused("ci"), ("ci", "start", "quickstart", "created", "127.0.0.1")]);
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_not_written_down() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let (folder, pipelines) = narrow();
    let served = Served::with(&store, unlimited(), pipelines).await;
    let (token, _) = key(&store, "ci", None).await;
    let nobody = CycleId::generate();
    let long = json!({ "reason": "x".repeat(1001) });
    for (path, body, status, words) in [
        ("/v1/pipelines/nobody/cycles", json!({}), 404, "no pipeline of that name"),
        (START, json!({ "inputs": { "episodes_per_env": "many" } }), 422, "episodes_per_env"),
        (START, json!({ "inputs": { "nonsense": 1 } }), 422, "nonsense"),
        (START, json!({ "input": {} }), 400, "unknown field `input`"),
        (START, json!([1]), 400, "not what is asked for"),
        (&format!("/v1/cycles/{nobody}/cancel"), json!({}), 404, "no such cycle"),
        ("/v1/cycles/nonsense/retry", json!({}), 404, "no such cycle"),
        (&format!("/v1/cycles/{nobody}/release"), json!({ "reason": "well" }), 404, "no such cycle"),
        ("/v1/schedules/nobody/pause", json!({}), 404, "no backend has read a schedule"),
        ("/v1/schedules/nobody/pause", long, 400, "at most 1000 characters"),
        ("/v1/schedules/nobody/resume", json!({ "reason": "none is asked for" }), 400, "unknown field"),
    ] {
        let (found, problem) = told(served.post(&token, path, &body)).await;
        assert_eq!(found, status, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {problem}");
        let anonymous = served.client.post(format!("http://{}{path}", served.address)).body(body.to_string());
        assert_eq!(told(anonymous).await.0, 401, "{path}: and nobody else is told anything");
    }
    let read = served.get(&format!("/v1/cycles/{nobody}/cancel")).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(read.headers()[header::ALLOW], "POST");
    for name in ["", "two words", "a\tb", "\u{e9}", &"x".repeat(201)] {
        let named = served.post(&token, START, &json!({})).header("idempotency-key", name);
        assert_eq!(told(named).await.0, 400, "{name:?}");
    }
    std::fs::write(folder.path().join("pipeline.yaml"), "version: 1\nname: quickstart\nstages: {}\n").unwrap();
    let (status, problem) = told(served.post(&token, START, &json!({}))).await;
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("pipeline.yaml:3"), "{problem}");
    assert_eq!(store.operations(10).await.unwrap(), []);
    assert_eq!(store.cycles(10).await.unwrap(), []);
}

#[tokio::test]
async fn a_cycle_is_cancelled_and_tried_again() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let (_folder, pipelines) = narrow();
    let served = Served::with(&store, unlimited(), pipelines).await;
    let (token, _) = key(&store, "ci", None).await;
    let (_, started) = told(served.post(&token, START, &json!({}))).await;
    let id = started["id"].as_str().unwrap();
    let cycle: CycleId = id.parse().unwrap();
    let post =
        async |verb: &str, body: Value| told(served.post(&token, &format!("/v1/cycles/{id}/{verb}"), &body)).await;
    let lease = store.acquire(cycle).await.unwrap();
    assert_eq!(post("cancel", json!({})).await, (202, json!({ "id": id, "cancel_requested": true })));
    assert!(store.heartbeat(&lease).await.unwrap().cancel_requested);
    // Its owner hangs: what it still writes is refused, and another may end it.
    assert_eq!(post("cancel", json!({ "force": true })).await.0, 202);
    assert!(matches!(store.heartbeat(&lease).await, Err(JournalError::LeaseLost(_))));
    let lease = store.acquire(cycle).await.unwrap();
    let task = store.load(cycle).await.unwrap().tasks[0].key.clone();
    let failure = TaskFailure { class: FailureClass::BelowQuorum, message: "no such file".into() };
    for event in [TaskEvent::Started, TaskEvent::Failed { failure }] {
        let _ = store.append(&lease, &Entry::new(task.clone(), 1, event)).await.unwrap();
    }
    assert_eq!(post("retry", json!({})).await.0, 409, "while it runs");
    store.finish(&lease, CycleStatus::Failed, None).await.unwrap();
    assert_eq!(post("cancel", json!({})).await.0, 409);
    let (status, problem) = post("retry", json!({ "stage": "nobody" })).await;
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("has no stage `nobody`"), "{problem}");
    assert_eq!(post("retry", json!({ "stage": "publish" })).await.0, 409, "nothing of that stage has failed");
    let (status, again) = post("retry", json!({ "stage": task.stage, "failed": true })).await;
    assert!(status == 202 && again["tasks"][0] == task.to_string(), "{again}");
    assert!(store.idle_cycles().await.unwrap().contains(&cycle), "and a backend takes it up");
    let noted = store.operations(10).await.unwrap();
    let actions: Vec<_> = noted.iter().map(|it| it.action.as_str()).collect();
    assert_eq!(actions, ["retry", "cancel", "cancel", "start"]);
    assert!(noted.iter().all(|it| it.cycle_id == Some(cycle.as_uuid())));
}

#[tokio::test]
async fn schedules_are_paused_and_held_vectors_released() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let (token, _) = key(&store, "ci", None).await;
    let schedule: Schedule = serde_json::from_value(json!({
        "timing": { "blocks": 360 }, "overlap": "skip", "catchup": "latest", "window_ms": 3_600_000, "jitter_ms": 0,
        "pause_on_failure": null,
    }))
    .unwrap();
    store.register_schedules(("nightly", "/srv/nightly.yaml"), &[schedule], Utc::now()).await.unwrap();
    let pause = || told(served.post(&token, "/v1/schedules/nightly/pause", &json!({ "reason": "new simulator" })));
    let answer = |paused, changed| (200, json!({ "pipeline": "nightly", "paused": paused, "changed": changed }));
    assert_eq!(pause().await, answer(true, true));
    assert_eq!(store.pauses().await.unwrap()[0].reason, "new simulator");
    assert_eq!(pause().await, answer(true, false));
    let resume = || told(served.post(&token, "/v1/schedules/nightly/resume", &json!({})));
    assert_eq!(resume().await, answer(false, true));
    assert_eq!(store.pauses().await.unwrap(), []);

    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    let pin = Pin { genesis: "0x00".into(), netuid: 1, block: 7, hash: "0x07".into() };
    let held = publish_at(&store, pin, Some("ann"), (Course { scored: 5, ..WHOLE }, guard)).await;
    assert_eq!(store.latest_publication().await.unwrap(), None);
    let path = format!("/v1/cycles/{held}/release");
    assert_eq!(told(served.post(&token, &path, &json!({ "reason": " " }))).await.0, 400, "a reason is needed");
    let release = || told(served.post(&token, &path, &json!({ "reason": "looked at" })));
    let answer = |changed| (200, json!({ "id": held, "released": true, "changed": changed }));
    assert_eq!(release().await, answer(true));
    assert_eq!(release().await, answer(false));
    assert_eq!(store.latest_publication().await.unwrap().unwrap().release.unwrap().reason, "looked at");
    let place = Place::with_database(database.url());
    let log = place.run(&["apikey", "log", "--limit", "2"]);
    assert!(log.stdout.contains("release") && log.stdout.contains("looked at"), "{}", log.stdout);
    assert!(log.stdout.contains("ci") && log.stdout.contains("127.0.0.1"), "{}", log.stdout);
    let log = place.json(&["apikey", "log", "--format", "json"]);
    let actions: Vec<_> = log["operations"].as_array().unwrap().iter().map(|it| &it["action"]).collect();
    assert_eq!(actions, ["release", "resume", "pause", "pause"]);
}

#[tokio::test]
async fn without_a_database_known_keys_read_and_nothing_is_half_done() {
    let server = OwnServer::start().await;
    let store = Store::open(&server.config(), &Progress::silent()).await.unwrap();
    let (_folder, pipelines) = narrow();
    let served = Served::with(&store, Guarding { require_key: true, ..unlimited() }, pipelines).await;
    let (token, _) = key(&store, "ci", None).await;
    let live = |token: &Token| told(served.get("/v1/weights/latest").bearer_auth(token.expose()));
    let _ = publish_at(
        &store,
        Pin { genesis: "0x00".into(), netuid: 1, block: 7, hash: "0x07".into() },
        Some("ann"),
        (WHOLE, PublishGuard::default()),
    )
    .await;
    while live(&token).await.0 != 200 {}
    assert_eq!(told(served.get("/v1/weights/latest")).await.0, 401, "a key is needed");
    let answer = served.get("/v1/weights/latest").bearer_auth(token.expose()).send().await.unwrap();
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "private, no-cache", "no cache answers others with it");
    assert_eq!(told(served.get("/health")).await.0, 200, "and none for those who look after processes");
    server.freeze();
    let (written, problem) = told(served.post(&token, START, &json!({}))).await;
    assert!(written == 503 && problem["detail"].as_str().unwrap().contains("unreachable"), "{problem}");
    assert_eq!(live(&token).await.0, 200);
    assert_eq!(live(&Token::random()).await.0, 503, "nobody can say whether it is good");
    server.thaw();
    while live(&Token::random()).await.0 != 401 {}
    let counted = async |table: &'static str| -> i64 {
        sqlx::query_scalar(table).fetch_one(&mut server.connection().await).await.unwrap()
    };
    let cycles = counted("select count(*) from cycle where pipeline = 'quickstart'").await;
    assert_eq!(cycles, counted("select count(*) from operation").await, "both or neither");
}

#[tokio::test]
async fn a_write_whose_end_is_lost_is_done_once() {
    let server = OwnServer::start().await;
    let proxy = Proxy::start(&server);
    let store = Store::open(&proxy.config(), &Progress::silent()).await.unwrap();
    let (_folder, pipelines) = narrow();
    let served = Served::with(&store, unlimited(), pipelines).await;
    let (token, _) = key(&store, "ci", None).await;
    let start = || told(served.post(&token, START, &json!({})).header("idempotency-key", "once"));
    // The key is known before the connection that would ask for it is lost.
    assert_eq!(told(served.get("/v1/cycles").bearer_auth(token.expose())).await.0, 200);
    proxy.hold_commits(1);
    loop {
        assert_eq!(start().await.0, 503, "nobody knows whether it was done");
        if proxy.commits_to_hold() == 0 {
            break;
        }
    }
    assert_eq!(store.operations(10).await.unwrap(), [], "and it was not");
    proxy.cut_commits(1);
    // What was begun holds the others up until the server gives it up, a few seconds later.
    let (status, cycle) = loop {
        let answer = start().await;
        if answer.0 != 503 {
            break answer;
        }
    };
    assert_eq!((status, proxy.commits_to_cut()), (201, 0), "{cycle}");
    assert_eq!(start().await, (201, cycle.clone()));
    let noted = store.operations(10).await.unwrap();
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert_eq!(store.cycles(10).await.unwrap().len(), 1);
}
