//! What validators are given: vectors that the publish guard lets pass, from memory, with a word for how they stand.

use reqwest::StatusCode;
use robo::{
    cycle::{
        Course, CycleId, CycleStatus, Entry, Episode, EpisodeKey, InfraFault, Journal, Outcome, Pin, Publication,
        PublishGuard, Salt, TaskEvent, TaskKey,
    },
    host::Progress,
    store::{NewCycle, ReleaseAnswer, Scope, Store},
};
use serde_json::{Value, json};

use crate::support::{
    database::{TestDatabase, Version},
    episodes::report,
    own_server::OwnServer,
    program::{Place, pipeline, turn, workspace},
    served::Served,
};

pub(crate) const WHOLE: Course = Course { planned: 10, scored: 10, lost: 0 };

fn task(stage: &str) -> TaskKey {
    TaskKey { stage: stage.parse().unwrap(), cell: String::new() }
}

fn key(seed_index: u64) -> EpisodeKey {
    EpisodeKey {
        environment: "m/a".parse().unwrap(),
        seed_index: u32::try_from(seed_index).unwrap(),
        hotkey: "ann".parse().unwrap(),
    }
}

fn episode(seed_index: u64, attempt: u32, outcome: Outcome) -> Episode {
    Episode { key: key(seed_index), attempt, report: report(outcome) }
}

/// A cycle that went like this and pays one miner.
async fn publish(store: &Store, who: Option<&str>, course: Course, guard: PublishGuard) -> CycleId {
    let pin = Pin { genesis: "0x00".into(), netuid: 1, block: 7, hash: "0x07".into() };
    publish_at(store, pin, who, (course, guard)).await
}

/// The same at a block of a chain.
pub(crate) async fn publish_at(
    store: &Store,
    pin: Pin,
    who: Option<&str>,
    (course, guard): (Course, PublishGuard),
) -> CycleId {
    let new = NewCycle {
        pipeline: "test".into(),
        definition: json!({}),
        definition_hash: "00".repeat(32),
        root: "/".into(),
        salt: Salt::random(),
        pin: Some(pin.clone()),
        tasks: vec![task("episodes"), task("publish")],
    };
    let cycle = store.create_cycle(&new).await.unwrap();
    let lease = store.acquire(cycle).await.unwrap();
    let keys: Vec<EpisodeKey> = (0..course.planned).map(key).collect();
    store.plan_episodes(&lease, &task("episodes"), &keys).await.unwrap();
    // What was lost is lost with the last episodes, and played again where it is scored.
    for lost in 0..course.lost {
        let index = course.planned - 1 - lost;
        let fault = episode(index, 1, Outcome::InfraFault(InfraFault::ServerLost));
        let _ = store.record_episode(&lease, &fault).await.unwrap();
    }
    for index in 0..course.scored {
        let attempt = if index >= course.planned - course.lost { 2 } else { 1 };
        let _ = store.record_episode(&lease, &episode(index, attempt, Outcome::Success)).await.unwrap();
    }
    let weights = json!({
        "pin": pin,
        "entries": [{ "uid": 1, "hotkey": who, "weight": 1.0, "weight_u16": 65535 }],
        "weights": { "1": 1.0 }, "weights_u16": { "uids": [1], "values": [65535] },
    });
    let publication = Publication {
        scores: json!({ "environments": ["m/a"], "entries": [{
            "uid": 1, "hotkey": "ann", "environment": "m/a", "success_rate": 0.8, "interval": [0.5, 0.9], "mean_return": 2.5,
            "episodes": 10, "successes": 8, "outcomes": { "success": 8, "failure": 2 },
        }] })
        .to_string(),
        weights: weights.to_string(),
        digest: robo::evidence::digest(&weights),
        guard,
    };
    let _ = store.append(&lease, &Entry::new(task("publish"), 1, TaskEvent::Started)).await.unwrap();
    let done = Entry::new(task("publish"), 1, TaskEvent::Succeeded { output: json!({}) });
    let _ = store.append(&lease, &Entry { publication: Some(publication), ..done }).await.unwrap();
    store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    cycle
}

#[tokio::test]
async fn a_publication_belongs_to_its_subnet_and_no_other_replaces_it() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let whole = (Course { planned: 1, scored: 1, lost: 0 }, PublishGuard::default());
    let pin = |genesis: &str, netuid| Pin { genesis: genesis.into(), netuid, block: 7, hash: "0x07".into() };
    let one = publish_at(&store, pin("0x00", 1), Some("ann"), whole).await;
    let two = publish_at(&store, pin("0x00", 2), Some("bob"), whole).await;
    let other_chain = publish_at(&store, pin("0x01", 1), Some("eve"), whole).await;
    let serving = |netuid, genesis: &str| {
        let genesis = Some(genesis.to_owned());
        store.clone().serving(Scope::Subnet { netuid, genesis })
    };
    assert_eq!(latest(&store).await, one, "the first subnet stays the latest");
    assert_eq!((latest(&serving(1, "0x00")).await, latest(&serving(2, "0x00")).await), (one, two));
    assert_eq!(latest(&serving(1, "0x01")).await, other_chain);
    assert_eq!(serving(3, "0x00").latest_publication().await.unwrap(), None);
    assert_eq!(serving(2, "0x00").publication_at(7).await.unwrap().unwrap().cycle, two);
    let next = publish_at(&store, pin("0x00", 1), Some("ann"), whole).await;
    let row = serving(1, "0x00").publication(next).await.unwrap().unwrap();
    let before = store.publication(one).await.unwrap().unwrap();
    assert_eq!(row.previous_digest, Some(before.publication.digest), "each subnet has a chain of its own");
}

async fn latest(store: &Store) -> CycleId {
    store.latest_publication().await.unwrap().unwrap().cycle
}

async fn held(store: &Store) -> Option<(CycleId, String)> {
    let held = store.standing().await.unwrap().held?;
    Some((held.cycle, held.held.unwrap()))
}

#[tokio::test]
async fn a_vector_outside_of_its_limits_is_held_and_the_last_good_one_stays() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let guard =
        PublishGuard { coverage: Some(0.9), infra_faults: Some(0.25), jump: Some(1.0), ..PublishGuard::default() };
    let good = publish(&store, Some("ann"), WHOLE, guard).await;
    assert_eq!((latest(&store).await, held(&store).await), (good, None), "the first is compared with none");
    for (who, course, reason) in [
        ("ann", Course { scored: 8, ..WHOLE }, "only 8 of 10 episodes are scored"),
        ("ann", Course { lost: 4, ..WHOLE }, "4 of 14 attempts were lost to faults of ours"),
        ("bob", WHOLE, "it is 2.000 away from the last vector"),
    ] {
        let cycle = publish(&store, Some(who), course, guard).await;
        assert_eq!(latest(&store).await, good, "{reason}");
        let (newest, because) = held(&store).await.unwrap();
        assert!(newest == cycle && because.starts_with(reason), "{because}");
    }
    // What is held is no measure for what follows.
    let next = publish(&store, Some("ann"), WHOLE, guard).await;
    assert_eq!((latest(&store).await, held(&store).await), (next, None));
    let jump = publish(&store, Some("bob"), WHOLE, PublishGuard::default()).await;
    assert_eq!(latest(&store).await, jump, "nothing is held without limits");
}

#[tokio::test]
async fn a_held_vector_is_given_out_when_a_person_says_so_and_never_in_place_of_a_newer_one() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    let thin = Course { scored: 5, ..WHOLE };
    let release = async |cycle| store.release_publication(cycle, "looked at").await.unwrap();
    let first = publish(&store, Some("ann"), thin, guard).await;
    assert_eq!(store.latest_publication().await.unwrap(), None, "held, though there is no other");
    let second = publish(&store, Some("ann"), thin, guard).await;
    assert_eq!(release(first).await, ReleaseAnswer::Released);
    assert_eq!((latest(&store).await, held(&store).await.unwrap().0), (first, second));
    assert_eq!(release(first).await, ReleaseAnswer::AlreadyReleased);
    assert_eq!(release(second).await, ReleaseAnswer::Released);
    let row = store.latest_publication().await.unwrap().unwrap();
    assert_eq!((row.cycle, row.release.unwrap().reason.as_str()), (second, "looked at"));
    let third = publish(&store, Some("ann"), thin, guard).await;
    let good = publish(&store, Some("ann"), WHOLE, guard).await;
    assert_eq!(release(third).await, ReleaseAnswer::Outdated(good));
    assert_eq!((release(good).await, latest(&store).await), (ReleaseAnswer::NotHeld, good));
    assert_eq!(release(CycleId::generate()).await, ReleaseAnswer::Unpublished);
    let chain: Vec<i64> = store.publications(10).await.unwrap().iter().map(|row| row.sequence).collect();
    assert_eq!(chain, [4, 3, 2, 1], "what is held is part of the chain");
}

/// From the manifest on: the second cycle finds the miners' skills exchanged.
#[test]
fn a_guard_that_the_pipeline_names_holds_what_jumps() {
    let _turn = turn();
    let place = Place::new();
    let run = |change: &dyn Fn(String) -> String| {
        let folder = workspace(|text| {
            let others = ["button-press", "door-open", "reach"].map(|task| format!("  - metaworld/{task}-v3\n"));
            let one = others.iter().fold(text.to_owned(), |text, other| text.replace(other, ""));
            // One is better than both others, whoever it is.
            let novice = "        - { uid: 2, hotkey: demo-novice, endpoint: \"demo:novice\", first_block: 200 }\n";
            assert!(one.contains(novice), "the pipeline has changed");
            let one = one.replace(novice, "");
            let guarded = one
                .replace("uses: weights/publish, when", "uses: weights/publish, with: { guard: { jump: 0.5 } }, when");
            assert!(guarded != one && one != text, "the pipeline has changed");
            change(guarded)
        });
        let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran
    };
    let latest = || place.json(&["weights", "show", "--format", "json"]);
    run(&|text| text);
    let first = latest();
    assert_eq!(first["status"], "fresh");
    let exchanged = |text: String| {
        let text = text.replace("demo:heuristic", "demo:nobody").replace("demo:random", "demo:heuristic");
        text.replace("demo:nobody", "demo:random")
    };
    let ran = run(&exchanged);
    assert!(ran.stdout.contains("HELD BACK: it is ") && ran.stderr.contains("robo weights release "), "{ran:?}");
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    assert!(shown["held"].as_str().unwrap().ends_with("(L1 distance, at most 0.5)"), "{}", shown["held"]);
    let held = latest();
    assert_eq!((&held["cycle_uuid"], &held["status"]), (&first["cycle_uuid"], &json!("held")));
    let second = shown["id"].as_str().unwrap();
    let released = place.run(&["weights", "release", second, "--reason", "they were exchanged"]);
    assert_eq!(released.code, 0, "{}", released.stderr);
    assert_eq!(latest()["cycle_uuid"], second);
}

/// Ask until the vector that counts has this word: its tag, and what is said of it.
async fn until(served: &Served, word: &str) -> (String, Value) {
    let (tag, body) = served.until_it_says("/v1/weights/latest", |body| body["status"] == word).await;
    (tag.unwrap(), body)
}

#[tokio::test]
async fn a_first_vector_that_is_held_is_told_of() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    let cycle = publish(&store, Some("ann"), Course { scored: 5, ..WHOLE }, guard).await;
    let (status, _, body) = Served::of(&store).await.ask("/v1/weights/latest", None).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        status == StatusCode::NOT_FOUND && detail.contains(&format!("{cycle} are held back: only 5 of 10")),
        "{body}"
    );
}

/// Its last valid block and its word go by the same clock, however long its cycle took.
#[tokio::test]
async fn a_vector_is_as_old_as_its_block_and_not_as_its_publication() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let cycle = publish(&store, Some("ann"), WHOLE, PublishGuard::default()).await;
    let served = Served::of(&store).await;
    until(&served, "fresh").await;
    let mut connection = database.connection().await;
    // What has happened does not change, but for replicas.
    for sql in ["set session_replication_role = replica", "update task_event set at = at - interval '3 hours'"] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    let row = store.publication(cycle).await.unwrap().unwrap();
    assert_eq!((row.created_at - row.as_of).num_minutes(), 180, "{row:?}");
    // Whatever is made of the same block later, as a fork is, is as old.
    let later = publish(&store, Some("bob"), WHOLE, PublishGuard::default()).await;
    assert_eq!(store.publication(later).await.unwrap().unwrap().as_of, row.as_of);
    assert_eq!(until(&served, "stale").await.1["reason"], "it is older than 720 blocks");
}

#[tokio::test]
async fn the_vector_that_counts_comes_from_memory_with_a_word_for_how_it_stands() {
    let server = OwnServer::start().await;
    let store = Store::open(&server.config(), &Progress::silent()).await.unwrap();
    let served = Served::of(&store).await;
    assert_eq!(served.ask("/v1/weights/latest", None).await.0, StatusCode::NOT_FOUND);
    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    let good = publish(&store, Some("ann"), WHOLE, guard).await;
    let (fresh, body) = until(&served, "fresh").await;
    assert_eq!(
        (body["cycle_uuid"].as_str(), body["valid_until_block"].as_u64()),
        (Some(&*good.to_string()), Some(727))
    );
    assert!(fresh.starts_with('"'), "a strong tag: {fresh}");
    for known in [fresh.clone(), format!("\"else\", {fresh}"), format!("W/{fresh}"), "*".into()] {
        let (status, tag, body) = served.ask("/v1/weights/latest", Some(&known)).await;
        assert_eq!((status, tag.as_deref(), body), (StatusCode::NOT_MODIFIED, Some(&*fresh), Value::Null), "{known}");
    }
    assert_eq!(served.ask("/v1/weights/latest", Some("\"else\"")).await.0, StatusCode::OK);

    let thin = publish(&store, Some("bob"), Course { scored: 5, ..WHOLE }, guard).await;
    let (held, body) = until(&served, "held").await;
    assert_ne!(held, fresh, "another answer has another tag");
    assert_eq!(body["cycle_uuid"], json!(good), "the last good one stays");
    assert!(body["reason"].as_str().unwrap().contains("only 5 of 10 episodes"), "{body}");

    server.freeze();
    let (stale, body) = until(&served, "stale").await;
    assert_eq!((body["cycle_uuid"].clone(), body["weights"].clone()), (json!(good), json!({ "1": 1.0 })));
    assert_eq!(served.ask("/v1/weights/latest", Some(&stale)).await.0, StatusCode::NOT_MODIFIED);
    assert_eq!(served.ask("/health/live", None).await.0, StatusCode::OK, "it is the database that is away");
    server.thaw();
    assert_eq!(until(&served, "held").await.0, held, "the same answer has the same tag");

    let (place, url, thin) = (Place::new(), server.url(), thin.to_string());
    let listed = place.json(&["weights", "ls", "--format", "json", "--database-url", &url]);
    let words: Vec<&str> =
        listed["publications"].as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(words, ["held", "latest"]);
    let said = place.run(&["weights", "release", &thin, "--reason", "looked at", "--database-url", &url]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let (_, body) = until(&served, "fresh").await;
    assert_eq!((body["cycle_uuid"].as_str(), body["released"]["reason"].as_str()), (Some(&*thin), Some("looked at")));
    let again = place.run(&["weights", "release", &good.to_string(), "--reason", "no", "--database-url", &url]);
    assert!(again.code == 1 && again.stderr.contains("are not held"), "{}", again.stderr);

    let nobody = publish(&store, None, WHOLE, guard).await;
    let (_, body) = until(&served, "burn").await;
    assert_eq!((body["cycle_uuid"].clone(), body["entries"][0]["hotkey"].clone()), (json!(nobody), Value::Null));
}

#[tokio::test]
async fn vectors_and_scores_are_found_by_block_and_by_cycle() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    let good = publish(&store, Some("ann"), WHOLE, guard).await;
    let thin = publish(&store, Some("bob"), Course { scored: 5, ..WHOLE }, guard).await;
    let served = Served::of(&store).await;
    let (status, tag, body) = served.ask("/v1/weights/7", None).await;
    assert_eq!(
        (status, body["cycle_uuid"].clone(), body["status"].as_str()),
        (StatusCode::OK, json!(good), Some("published"))
    );
    assert_eq!(served.ask("/v1/weights/7", tag.as_deref()).await.0, StatusCode::NOT_MODIFIED);
    let (status, _, body) = served.ask(&format!("/v1/scores/{thin}"), None).await;
    assert_eq!((status, body["cycle_uuid"].clone()), (StatusCode::OK, json!(thin)), "how it was measured is no secret");
    for (path, status) in [
        ("/v1/weights/8".into(), StatusCode::NOT_FOUND),
        (format!("/v1/weights/{}", u64::MAX), StatusCode::NOT_FOUND),
        ("/v1/weights/-1".into(), StatusCode::BAD_REQUEST),
        (format!("/v1/scores/{}", CycleId::generate()), StatusCode::NOT_FOUND),
        ("/v1/scores/7".into(), StatusCode::NOT_FOUND),
        ("/v1/scores/01".into(), StatusCode::BAD_REQUEST),
    ] {
        let (found, _, body) = served.ask(&path, None).await;
        assert_eq!((found, body["status"].as_u64()), (status, Some(status.as_u16().into())), "{path}");
    }
}

#[tokio::test]
async fn where_the_evaluation_stands_is_told_with_every_field_that_clients_know() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let served = Served::of(&store).await;
    let (_, _, empty) = served.ask("/v1/status", None).await;
    assert_eq!((empty["total_cycles"].as_u64(), empty["last_completed_cycle"].clone()), (Some(0), Value::Null));
    assert_eq!(served.ask("/v1/environments", None).await.2, json!({ "environments": [] }));

    let mut cycles = Vec::new();
    for _ in 0..5 {
        cycles.push(publish(&store, Some("ann"), WHOLE, PublishGuard::default()).await.to_string());
    }
    let (_, status) = served.until_it_says("/v1/status", |status| status["total_cycles"] == 5).await;
    assert_eq!((status["status"].as_str(), status["is_evaluating"].as_bool()), (Some("running"), Some(false)));
    let last = &status["last_completed_cycle"];
    assert_eq!(
        (last["uuid"].as_str(), last["n_miners"].as_u64(), last["status"].as_str()),
        (Some(&*cycles[4]), Some(1), Some("completed"))
    );
    let (status_code, _, by_number) = served.ask(&format!("/v1/scores/{}/", last["id"]), None).await;
    assert_eq!((status_code, &by_number["cycle_uuid"]), (StatusCode::OK, &last["uuid"]), "by its number, with a slash");
    for (field, value) in [
        ("current_block", json!(7)),
        ("last_eval_block", json!(7)),
        ("next_eval_in_seconds", Value::Null),
        ("miners_registered", json!(1)),
        ("environments_enabled", json!(["m/a"])),
        ("environments", json!(["m/a"])),
        ("current_cycle", Value::Null),
        ("total_cycles", json!(5)),
        ("total_miners_evaluated", json!(1)),
    ] {
        assert_eq!(status.get(field), Some(&value), "{field}");
    }
    let (_, environments) = served.until_it_says("/v1/environments", |it| it["environments"][0].is_object()).await;
    let one =
        json!({ "env_id": "m/a", "env_name": "m", "task_name": "a", "n_evaluations": 10, "avg_success_rate": 0.8 });
    assert_eq!(environments, json!({ "environments": [one] }));

    // Two pages and a last one, which is not full.
    let (mut seen, mut path) = (Vec::new(), "/v1/cycles?limit=2".to_owned());
    loop {
        let (status, _, page) = served.ask(&path, None).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let ids = page["cycles"].as_array().unwrap().iter().map(|cycle| cycle["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        let Some(next) = page["next_before"].as_str() else { break };
        path = format!("/v1/cycles?limit=2&before={next}");
    }
    cycles.reverse();
    assert_eq!(seen, cycles, "newest first, each once");
    for bad in ["limit=0", "limit=101", "limit=x", "before=x", "befor=x"] {
        assert_eq!(served.ask(&format!("/v1/cycles?{bad}"), None).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    let (_, _, shown) = served.ask(&format!("/v1/cycles/{}", cycles[0]), None).await;
    assert_eq!((shown["status"].as_str(), shown["episodes_scored"].as_u64()), (Some("completed"), Some(10)));
    assert_eq!(shown["stages"][1]["statuses"], json!({ "succeeded": 1 }));
    assert_eq!(served.ask("/v1/cycles/nothing", None).await.0, StatusCode::NOT_FOUND);

    let url = format!("{}/v1/cycles/{}/scores.csv", served.url, cycles[0]);
    let table = served.client.get(url).send().await.unwrap().text().await.unwrap();
    let header = "uid,hotkey,environment,success_rate,lower,upper,mean_return,episodes,successes";
    assert_eq!(table, format!("{header}\n1,ann,m/a,0.8,0.5,0.9,2.5,10,8\n"));
}
