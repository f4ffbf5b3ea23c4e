//! Cycles with thousands of tasks, lists of cycles, and more work than connections.

use std::time::Duration;

use robo::{
    cycle::{Appended, CycleId, Entry, Journal, TaskEvent, TaskKey},
    store::NewCycle,
};
use serde_json::json;
use sqlx::{Connection, Executor};

use super::{OnPostgres, Subject, Version, append, episode_key, failure, line, new_cycle, task};
use crate::support::program::Place;

const WIDE: usize = 10_000;

fn wide_cycle() -> NewCycle {
    let wide = (0..WIDE).map(|k| task("wide", &format!("cell-{k}")));
    let tasks = [task("first", "")].into_iter().chain(wide).chain(["a", "b"].map(|cell| task("last", cell)));
    NewCycle { tasks: tasks.collect(), ..new_cycle() }
}

/// All of the fan-out begins; all but the last three of it end, ten of them badly.
async fn half_way(subject: &OnPostgres) -> CycleId {
    let (store, new) = (&subject.store, wide_cycle());
    let cycle = store.create_cycle(&new).await.unwrap();
    let lease = store.acquire(cycle).await.unwrap();
    let wide: Vec<&TaskKey> = new.tasks.iter().filter(|task| task.stage.as_str() == "wide").collect();
    let begin: Vec<Entry> = wide.iter().map(|key| line((*key).clone(), 1, TaskEvent::Started)).collect();
    let end = wide.iter().take(WIDE - 3).enumerate().map(|(k, key)| {
        let event = match k % 1000 {
            500 => TaskEvent::Failed { failure: failure() },
            _ => TaskEvent::Succeeded { output: json!({ "k": k }) },
        };
        line((*key).clone(), 1, event)
    });
    for lines in [begin, end.collect()] {
        let answers = store.append_all(&lease, &lines).await.unwrap();
        assert!(answers.len() == lines.len() && answers.iter().all(|answer| *answer == Appended::Recorded));
    }
    let _ = append(store, &lease, line(task("last", "a"), 0, TaskEvent::Skipped { reason: "no".into() })).await;
    cycle
}

#[tokio::test]
async fn lesson_10_a_fan_out_of_thousands_is_one_line() {
    let subject = OnPostgres::new(Version::Default).await;
    let cycle = half_way(&subject).await;
    let rows = subject.store.stage_rows(cycle).await.unwrap();
    let counts: Vec<_> = rows.iter().map(|row| (row.stage.as_str(), json!(row.statuses), row.attempts)).collect();
    let wide = json!({ "failed": 10, "running": 3, "succeeded": WIDE - 13 });
    let last = json!({ "pending": 1, "skipped": 1 });
    assert_eq!(counts, [("first", json!({ "pending": 1 }), 0), ("wide", wide, WIDE as u64), ("last", last, 0)]);
    assert!(rows[1].started_at.is_some() && rows[1].finished_at.is_none(), "three of it still run");
    assert_eq!((rows[1].why.as_deref(), rows[2].why.as_deref()), (Some(&*failure().message), Some("no")));

    let place = Place::new();
    let show = ["cycle", "show", &cycle.to_string(), "--database-url", subject.database.url()];
    let text = place.run(&show).stdout;
    assert!(text.contains("wide[10000 tasks]") && text.contains("10 failed, 3 running, 9987 succeeded"), "{text}");
    assert!(text.contains("last[a]") && !text.contains("cell-1"), "{text}");
    assert!(text.lines().count() < 20, "{text}");
    // Programs get the sums, and every task of it if they want to know.
    let document = place.json(&[&show[..], &["--format", "json"]].concat());
    assert_eq!(document["stages"][1]["statuses"]["succeeded"], WIDE - 13);
    assert_eq!(document["tasks"].as_array().map(Vec::len), Some(WIDE + 3));
}

#[tokio::test]
async fn lesson_10_thousands_of_tasks_are_taken_up_in_the_order_of_the_plan() {
    let subject = OnPostgres::new(Version::Default).await;
    let cycle = half_way(&subject).await;
    let found: Vec<TaskKey> = subject.store.load(cycle).await.unwrap().tasks.into_iter().map(|task| task.key).collect();
    assert_eq!(found, wide_cycle().tasks);
}

#[tokio::test]
async fn lesson_10_outcomes_of_hundreds_of_miners_are_summed_up() {
    let subject = OnPostgres::new(Version::Default).await;
    let (store, cycle) = (&subject.store, subject.create().await);
    let lease = store.acquire(cycle).await.unwrap();
    let keys: Vec<_> =
        (0..256).flat_map(|miner| (0..5).map(move |k| episode_key("m/a", k, &format!("miner-{miner}")))).collect();
    store.plan_episodes(&lease, &task("episodes", "m/a"), &keys).await.unwrap();
    let text = Place::new().run(&["cycle", "show", "--database-url", subject.database.url()]).stdout;
    assert!(text.contains("to run") && text.contains("1280") && !text.contains("miner-7"), "{text}");
}

#[tokio::test]
async fn lesson_10_cycles_come_in_pages_that_nothing_shifts() {
    let subject = OnPostgres::new(Version::Default).await;
    let mut cycles = Vec::new();
    for _ in 0..5 {
        cycles.insert(0, subject.create().await);
    }
    let place = Place::new();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let mut arguments = vec!["cycle", "ls", "--limit", "2", "--format", "json"];
        arguments.extend(["--database-url", subject.database.url()]);
        arguments.extend(before.iter().flat_map(|before: &String| ["--before", before.as_str()]));
        let page = place.json(&arguments)["cycles"].as_array().unwrap().clone();
        let ids: Vec<String> = page.iter().filter_map(|row| row["id"].as_str()).map(str::to_owned).collect();
        let Some(last) = ids.last().cloned() else { break };
        seen.extend(ids);
        before = Some(last);
        // One that begins while somebody turns pages.
        subject.create().await;
    }
    assert_eq!(seen, cycles.iter().map(CycleId::to_string).collect::<Vec<_>>());
}

/// Many more callers than connections, all of which are held up: nobody is told that the database is away.
#[tokio::test]
async fn more_callers_than_connections_only_wait() {
    let subject = OnPostgres::new(Version::Default).await;
    let cycle = subject.create().await;
    let mut holder = subject.database.connection().await;
    let mut lock = holder.begin().await.unwrap();
    lock.execute("lock table cycle in access exclusive mode").await.unwrap();
    let callers = futures::future::join_all((0..64).map(|_| subject.store.load(cycle)));
    let release = async {
        // Released once every connection is seen to be held up, and not a moment before.
        let mut look = subject.database.connection().await;
        loop {
            let held_up: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where wait_event_type = 'Lock' and application_name = current_setting('application_name')",
            )
            .fetch_one(&mut look)
            .await
            .unwrap();
            if held_up == 8 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lock.commit().await.unwrap();
    };
    let (answers, ()) = tokio::join!(callers, release);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}
