//! `robo chaos`: the kill matrix on real processes, and that it finds what is not the same.

use serde_json::Value;
use sqlx::Executor;

use crate::support::{
    database::{TestDatabase, Version},
    program::{Place, Ran, pipeline, repository, turn, workspace},
};

/// `robo chaos` in a database of its own.
async fn chaos(database: &TestDatabase, arguments: Vec<String>) -> Ran {
    let url = database.url().to_owned();
    let run = move || {
        let place = Place::with_database(&url);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        place.run(&[&["chaos"], &arguments[..]].concat())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn said(ran: &Ran, code: i32) -> Value {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

#[tokio::test]
async fn killed_at_every_persisted_transition_a_cycle_ends_with_the_same_bytes() {
    let database = TestDatabase::new(Version::Default).await;
    let ran = chaos(&database, words("--format json")).await;
    let found = said(&ran, 0);
    let writes = found["journal_writes"].as_u64().unwrap();
    // The lease, start and end of thirteen tasks, the skipped one, a try that is repeated, a matrix that becomes known, the end:
    // an end and the starts that follow it are one transaction. Tasks that end at the same moment share one, too, so a run may
    // have a few transitions less than another and outlive the last points.
    assert!((10..=32).contains(&writes), "{found}");
    for count in ["points", "identical"] {
        assert_eq!(found[count].as_u64(), Some(2 * writes), "{count}: {found}");
    }
    assert_eq!(found["killed"], found["resumed"], "{found}");
    assert!(found["killed"].as_u64() >= Some(2 * writes - 10), "{found}");
    let mut connection = database.connection().await;
    // What the pipeline is there to meet it has met, in each cycle.
    let met: Vec<(String, i64)> = sqlx::query_as(
        "select what, count(distinct cycle_id) from (
             select cycle_id, 'expanded' as what from task where stage = 'late' group by cycle_id having count(*) = 3
             union all select cycle_id, kind from task_event where stage = 'flaky' and kind = 'retried'
             union all select cycle_id, 'asked' from task where stage = 'asked' and (output ->> 'sum')::int = 15
         ) met group by what order by what",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let cycles = 2 * writes as i64 + 1;
    for (what, count) in &met {
        // Killed at the wrong moment, the program has been tried again before anybody wrote that down.
        assert!(*count == cycles || (what == "retried" && *count > cycles / 2), "{met:?} of {cycles}");
    }
    assert_eq!(met.len(), 3, "{met:?}");
    let (cycles, open): (i64, i64) =
        sqlx::query_as("select count(*), count(*) filter (where status <> 'completed') from cycle")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((cycles, open), (2 * writes as i64 + 1, 0));
    // Each end has its count, wherever its process died: one never comes without the other.
    let counted: i64 = sqlx::query_scalar("select count(*) from cycle join episode_count using (cycle_id, epoch)")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(counted, cycles);
    // Now the database holds results, which chaos must not mix with its own.
    let ran = chaos(&database, vec![]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("name an empty database"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_result_that_differs_is_found_and_named() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    // The fourth cycle's vector is not what it should be.
    let mut connection = database.connection().await;
    for sql in [
        "create function spoil() returns trigger language plpgsql as
         'begin new.weights := new.weights || '' ''; return new; end'",
        "create trigger spoil before insert on publication for each row when (new.sequence = 4) execute function spoil()",
    ] {
        connection.execute(sql).await.unwrap();
    }
    store.close().await;
    let ran = chaos(&database, words("--points 5 --seed 7 --format json")).await;
    let found = said(&ran, 6);
    assert_eq!((&found["points"], &found["identical"]), (&5.into(), &4.into()), "{found}");
    assert_eq!(found["different"][0]["in"], serde_json::json!(["the published weights"]));
    assert!(ran.stderr.contains("1 of 5 resumed cycles differ"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--seed 7"), "the run can be repeated: {}", ran.stderr);
}

#[tokio::test]
async fn a_pipeline_that_never_completes_is_told_from_one_that_differs() {
    let database = TestDatabase::new(Version::Default).await;
    let folder = workspace(|text| text.replace("endpoint: \"demo:random\"", "endpoint: \"demo:random\", uid_: 1"));
    let ran = chaos(&database, vec![pipeline(&folder)]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let mut connection = database.connection().await;
    let store = database.store().await;
    connection
        .execute(
            "create function refuse_end() returns trigger language plpgsql as
             'begin raise exception ''no''; end';
             create trigger refuse_end before update on cycle for each row when (new.status = 'completed')
             execute function refuse_end()",
        )
        .await
        .unwrap();
    store.close().await;
    let ran = chaos(&database, words("--points 1")).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("does not complete even when nothing disturbs it"), "{}", ran.stderr);
}

/// A page that names what proves it must not outlive a test.
#[test]
fn every_test_that_the_page_on_faults_names_exists() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let page = read("docs/faults.md");
    let mut named = 0;
    for name in page.split('`').filter(|text| text.contains("::") && !text.contains(char::is_whitespace)) {
        let (area, test) = name.rsplit_once("::").unwrap();
        let source = read(&format!("src/tests/{}.rs", area.replace("::", "/")));
        assert!(source.contains(&format!("fn {test}()")), "docs/faults.md names `{name}`, which is not there");
        named += 1;
    }
    assert!(named > 20, "{named}");
}

/// Real episodes: simulators, miners and their servers die with the process, at points that a printed seed chooses.
#[test]
fn killed_at_random_points_a_real_pipeline_ends_with_the_same_bytes() {
    let _turn = turn();
    let folder = workspace(str::to_owned);
    let mut arguments = vec![pipeline(&folder)];
    let seed = rand::random::<u32>();
    arguments.extend(words(&format!("-i episodes_per_env=1 --points 2 --moments 3 --seed {seed} --format json")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let database = TestDatabase::new(Version::Default).await;
        said(&chaos(&database, arguments).await, 0)
    });
    assert_eq!((&found["points"], &found["identical"]), (&5.into(), &5.into()), "--seed {seed}: {found}");
    // 16 episodes, each a write of its own, and the tasks around them.
    assert!(found["journal_writes"].as_u64() > Some(20), "{found}");
}
