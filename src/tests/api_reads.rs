//! What can be read of miners, cycles and episodes over HTTP, and what only operators may.

use reqwest::StatusCode;
use robo::{
    cycle::CycleStatus,
    schedule::Due,
    store::{NewCycle, Round},
};
use serde_json::{Value, json};

use crate::support::{
    database::{TestDatabase, Version},
    served::Served,
    story::{ADDRESS, Story, told},
};

/// The body of an answer that there is.
async fn read(served: &Served, path: &str) -> Value {
    let (status, _, body) = served.ask(path, None).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

/// Nothing of where a miner answers is in what everybody may read.
fn assert_public(body: &Value) {
    let text = body.to_string();
    assert!(!text.contains("203.0.113.7") && !text.contains("sealed:"), "{text}");
}

#[tokio::test]
async fn everybody_whom_the_last_discovery_saw_is_listed_without_where_they_answer() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    assert_eq!(read(&served, "/v1/miners").await, json!({ "discovered_in": null, "miners": [] }));
    let cycle = told(&store, "test").await;
    // A cycle that looks for nobody, or has not come so far, hides nobody.
    let later = Story::begin(&store, "other").await;
    let (_, body) = served.until_it_says("/v1/miners", |body| body["discovered_in"] == json!(later.cycle)).await;
    assert_public(&body);
    let (_, published) = served.until_it_says("/v1/weights/latest", |_| true).await;
    let miners = body["miners"].as_array().unwrap();
    let words: Vec<_> = miners
        .iter()
        .map(|it| (it["hotkey"].as_str().unwrap(), it["uid"].as_u64(), it["status"].as_str().unwrap()))
        .collect();
    assert_eq!(
        words,
        [
            ("ann", Some(1), "active"),
            ("bob", Some(2), "active"),
            ("cid", Some(3), "malformed"),
            ("dan", None, "unregistered")
        ]
    );
    assert_eq!(published["cycle_uuid"], json!(cycle));
    assert_eq!(
        miners[1],
        json!({
            "uid": 2, "hotkey": "bob", "endpoint": null, "status": "active", "last_evaluated": published["created_at"],
            "last_evaluated_block": 70, "avg_success_rate": 0.5, "environments_evaluated": ["m/a", "m/b"],
        })
    );
    assert_eq!((&miners[2]["last_evaluated"], &miners[2]["avg_success_rate"]), (&Value::Null, &Value::Null));

    let open = Served::showing_endpoints(&store).await;
    let miners = read(&open, "/v1/miners").await["miners"].clone();
    assert_eq!(
        (&miners[0]["endpoint"], &miners[1]["endpoint"]),
        (&json!(ADDRESS), &Value::Null),
        "sealed is no address"
    );
}

#[tokio::test]
async fn a_miner_reads_why_it_got_what_it_got() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let cycle = told(&store, "test").await;
    let served = Served::of(&store).await;
    let bob = read(&served, "/v1/miners/bob").await;
    assert_public(&bob);
    assert_eq!(
        bob["commitment"],
        json!({ "status": "active", "detail": null, "first_block": 6, "registered_at_block": 4, "model": "u/bob@2" })
    );
    let found: Vec<_> = bob["reachability"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["environment"].as_str().unwrap(), it["status"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [("m/a", "active"), ("m/b", "active")]);
    assert_eq!(bob["flags"], json!([]));
    assert_eq!((&bob["evaluated_in"], &bob["avg_success_rate"]), (&json!(cycle), &json!(0.5)));
    assert_eq!(
        (&bob["scores"][0]["interval"], &bob["scores"][0]["outcomes"]["miner_fault(action_timeout)"]),
        (&json!([0.25, 0.75]), &json!(1))
    );
    // Ann is better everywhere: a spread of 0.25 over 4 episodes is a margin of 0.2, as wide as one gets.
    let frontier = &bob["frontier"];
    assert_eq!(
        (&frontier["is_on_it"], &frontier["dominated_by"]),
        (&json!(false), &json!([{ "uid": 1, "hotkey": "ann" }]))
    );
    let distance = &frontier["environments"][0];
    assert_eq!(
        (&distance["best_of_dominators"], &distance["epsilon"], &distance["lead"]),
        (&json!(1.0), &json!(0.2), &Value::Null)
    );
    assert!((distance["gap"].as_f64().unwrap() - 0.3).abs() < 1e-12, "{distance}");
    let episodes = &bob["episodes"];
    assert_eq!(
        episodes["outcomes"],
        json!([{ "outcome": "success", "reason": null, "count": 4 }, { "outcome": "failure", "reason": null, "count": 3 },
               { "outcome": "miner_fault", "reason": "action_timeout", "count": 1 }])
    );
    // Of 1, 2, 3, 4 in two environments.
    assert_eq!(
        episodes["latency"],
        json!({ "episodes": 8, "p50_ms": 2.0, "p95_ms": 40.0, "p99_ms": 400.0, "max_ms": 400.0 })
    );
    assert_eq!(read(&served, "/v1/miners/ann").await["frontier"]["is_on_it"], true);

    let cid = read(&served, "/v1/miners/cid").await;
    assert_public(&cid);
    assert_eq!(
        (&cid["commitment"]["status"], &cid["frontier"], &cid["episodes"]),
        (&json!("malformed"), &Value::Null, &Value::Null)
    );
    for nobody in ["nobody", "a%20b", "%3Cb%3E"] {
        assert_eq!(served.ask(&format!("/v1/miners/{nobody}"), None).await.0, StatusCode::NOT_FOUND, "{nobody}");
    }
}

#[tokio::test]
async fn a_cycle_is_read_to_its_tasks_and_its_failures_in_words_are_not_for_everybody() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let cycle = told(&store, "test").await;
    let body = read(&served, &format!("/v1/cycles/{cycle}")).await;
    assert_public(&body);
    assert_eq!(
        (&body["status"], &body["episodes_scored"], &body["reason"]),
        (&json!("completed"), &json!(16), &Value::Null)
    );
    let stages = body["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["discover", "episodes", "publish"]);
    let tasks = stages[1]["task_list"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[1]["cell"], &tasks[1]["status"]), (2, &json!("m/b"), &json!("succeeded")));
    assert!(tasks[1]["duration_seconds"].as_f64().unwrap() <= body["duration_seconds"].as_f64().unwrap());
    assert_eq!((&stages[0]["attempts"], &stages[0]["tasks"]), (&json!(2), &json!(1)));

    let failed = Story::begin(&store, "other").await;
    failed.end(CycleStatus::Failed).await;
    let body = read(&served, &format!("/v1/cycles/{}", failed.cycle)).await;
    assert_public(&body);
    assert_eq!(
        (&body["status"], &body["salt"]),
        (&json!("failed"), &Value::Null),
        "it may still be retried under its salt"
    );

    let ids = async |question: &str| -> Vec<Value> {
        let page = read(&served, &format!("/v1/cycles?{question}")).await;
        page["cycles"].as_array().unwrap().iter().map(|cycle| cycle["id"].clone()).collect()
    };
    let (first, second) = (json!(cycle), json!(failed.cycle));
    assert_eq!(ids("limit=100").await, vec![second.clone(), first.clone()]);
    assert_eq!(ids("status=completed").await, vec![first.clone()]);
    assert_eq!(ids("status=failed&pipeline=other").await, vec![second.clone()]);
    assert_eq!(ids("pipeline=nothing%00").await, Vec::<Value>::new());
    assert_eq!(ids(&format!("pipeline=test&before={}", failed.cycle)).await, vec![first.clone()]);
    assert_eq!(ids("status=open").await, Vec::<Value>::new());
    let (status, _, problem) = served.ask("/v1/cycles?status=running", None).await;
    assert_eq!(
        (status, &problem["type"], &problem["instance"]),
        (StatusCode::BAD_REQUEST, &json!("urn:robo:problem:bad-question"), &json!("/v1/cycles"))
    );
    assert!(problem["detail"].as_str().unwrap().contains("one of open, completed, failed and cancelled"), "{problem}");
    for path in ["/v1/weights/latest?x=1", "/v1/miners?hotkey=ann", "/health?full", "/openapi.json?format=yaml"] {
        assert_eq!(served.ask(path, None).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn episodes_come_page_by_page_with_their_seeds_only_once_these_are_no_secret() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let story = Story::begin(&store, "test").await;
    story.play().await;
    let path = format!("/v1/cycles/{}/episodes", story.cycle);
    let body = read(&served, &path).await;
    assert_public(&body);
    assert!(body["episodes"].as_array().unwrap().iter().all(|episode| episode["seed"].is_null()), "{body}");
    story.publish().await;

    let (mut seen, mut next) = (Vec::new(), Value::Null);
    loop {
        let after = next.as_str().map(|next| format!("&after={next}")).unwrap_or_default();
        let page = read(&served, &format!("{path}?limit=7{after}")).await;
        let key = |it: &Value| {
            (
                it["environment"].as_str().unwrap().to_owned(),
                it["seed_index"].as_u64(),
                it["hotkey"].as_str().unwrap().to_owned(),
            )
        };
        seen.extend(page["episodes"].as_array().unwrap().iter().map(key));
        next = page["next_after"].clone();
        if next.is_null() {
            break;
        }
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert!(seen.len() == 16 && seen == sorted, "each once and in order: {seen:?}");

    let count = async |question: &str| {
        read(&served, &format!("{path}?limit=100&{question}")).await["episodes"].as_array().unwrap().len()
    };
    assert_eq!(count("hotkey=bob").await, 8);
    assert_eq!(count("hotkey=bob&environment=m/a&outcome=failure").await, 1);
    assert_eq!((count("outcome=miner_fault").await, count("outcome=pending").await), (1, 0));
    let page = read(&served, &format!("{path}?limit=1&hotkey=ann&environment=m/b")).await;
    let episode = &page["episodes"][0];
    let salt: robo::cycle::Salt =
        read(&served, &format!("/v1/cycles/{}", story.cycle)).await["salt"].as_str().unwrap().parse().unwrap();
    assert_eq!(episode["seed"], json!(salt.seed(&"m/b".parse().unwrap(), 0)));
    assert_eq!(episode["latency"], json!({ "p50_ms": 1.0, "p95_ms": 10.0, "max_ms": 100.0 }));
    for wrong in ["after=m/a", "limit=0", "environment=m", "outcome=won", "hotkey=", "seed=1", "limit=1&limit=2"] {
        assert_eq!(served.ask(&format!("{path}?{wrong}"), None).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn schedules_show_when_they_are_due_and_what_became_of_the_last_time() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    assert_eq!(read(&served, "/v1/schedules").await, json!({ "schedules": [] }));
    assert_eq!(read(&served, "/v1/pipelines").await, json!({ "pipelines": [] }));
    let schedule: robo::schedule::Schedule = serde_json::from_value(json!({
        "timing": { "cron": { "cron": "* * * * *", "timezone": "UTC" } }, "overlap": "skip", "catchup": "latest",
        "window_ms": 3_600_000, "jitter_ms": 0, "pause_on_failure": null,
    }))
    .unwrap();
    let past = chrono::Utc::now() - chrono::TimeDelta::minutes(10);
    store.register_schedules(("hourly", "/secret/place.yaml"), std::slice::from_ref(&schedule), past).await.unwrap();
    let new = NewCycle {
        pipeline: "hourly".into(),
        definition: json!({}),
        definition_hash: "00".repeat(32),
        root: "/".into(),
        salt: robo::cycle::Salt::random(),
        pin: None,
        tasks: vec![],
    };
    let clock = robo::schedule::Clock { now: chrono::Utc::now(), block: None };
    let fired = store.run_schedule(&Round { schedule: &schedule, clock, new: &new }).await.unwrap();
    assert!(matches!(fired.last().unwrap().due, Due::Time(_)));
    let body = read(&served, "/v1/schedules").await;
    assert!(!body.to_string().contains("/secret/place.yaml"), "{body}");
    let shown = &body["schedules"][0];
    assert_eq!(
        (&shown["pipeline"], &shown["timing"], &shown["overlap"], &shown["paused_at"]),
        (&json!("hourly"), &json!("* * * * * UTC"), &json!("skip"), &Value::Null)
    );
    assert!(shown["next_due_at"].is_string() && shown["last"]["cycle_id"].is_u64(), "{shown}");
    store.pause_schedules("hourly", "by hand", chrono::Utc::now()).await.unwrap();
    let shown = read(&served, "/v1/schedules").await["schedules"][0].clone();
    assert!(
        shown["paused_at"].is_string() && shown["next_due_at"].is_null() && shown["paused_because"].is_null(),
        "{shown}"
    );
}
