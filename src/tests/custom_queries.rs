//! What an operator's query can see, on both versions of the database: one cycle, some stages, and nothing else.

use std::time::Duration;

use robo::{
    cycle::{
        CycleId, Entry, Episode, EpisodeKey, EpisodeReport, Journal, Outcome, Question, Rows, RowsError, Salt, StageId,
        TaskEvent, TaskKey,
    },
    store::{NewCycle, Store},
};
use serde_json::{Value, json};

use crate::support::database::{TestDatabase, Version};

struct Setting {
    store: Store,
    database: TestDatabase,
    cycle: CycleId,
    other: CycleId,
}

impl Setting {
    /// Two cycles of the same shape. The miner of the other one is called `foreign`.
    async fn new(version: Version) -> Self {
        let database = TestDatabase::new(version).await;
        let store = database.store().await;
        let cycle = cycle(&store, "ours").await;
        let other = cycle_of_others(&store).await;
        Self { store, database, cycle, other }
    }

    fn question(&self, query: &str) -> Question {
        Question {
            cycle: self.cycle,
            stages: ["play", "aggregate", "discover"].map(|id| id.parse().unwrap()).to_vec(),
            query: query.into(),
            timeout: Duration::from_secs(30),
            max_rows: 100,
            max_bytes: 10_000,
        }
    }

    async fn rows(&self, query: &str) -> Value {
        self.ask(&self.question(query)).await.unwrap_or_else(|error| panic!("{query}: {error}")).into()
    }

    /// As a stage asks: again when it was not the question's fault.
    async fn ask(&self, question: &Question) -> Result<Vec<Value>, RowsError> {
        loop {
            match self.store.ask(question).await {
                Err(RowsError::Storage(_)) => {}
                answer => return answer,
            }
        }
    }

    async fn refusal(&self, query: &str) -> String {
        match self.ask(&self.question(query)).await {
            Err(RowsError::Refused(message)) => message,
            other => panic!("{query}: {other:?}"),
        }
    }
}

async fn cycle_of_others(store: &Store) -> CycleId {
    cycle(store, "foreign").await
}

async fn cycle(store: &Store, hotkey: &str) -> CycleId {
    let key = |stage: &str| TaskKey { stage: stage.parse::<StageId>().unwrap(), cell: String::new() };
    let tasks: Vec<TaskKey> = ["discover", "play", "aggregate", "later"].map(key).to_vec();
    let new = NewCycle {
        pipeline: "p".into(),
        definition: json!({}),
        definition_hash: "0".repeat(64),
        root: "/".into(),
        salt: Salt::random(),
        pin: None,
        tasks: tasks.clone(),
    };
    let cycle = store.create_cycle(&new).await.unwrap();
    let lease = store.acquire(cycle).await.unwrap();
    let score = json!({
        "uid": 3, "hotkey": hotkey, "environment": "e/a", "success_rate": 0.1, "interval": [0.0, 1.0],
        "mean_return": 2.5, "episodes": 2, "successes": 1, "outcomes": {"success": 1},
    });
    let outputs = [
        json!({"miners": [{"uid": 3, "hotkey": hotkey, "endpoint": "http://x"}], "count": 1}),
        json!({"scored": 2}),
        json!({"scores": {"environments": ["e/a"], "entries": [score]}}),
        json!({"miners": ["no miner"], "scores": {"entries": [5]}}),
    ];
    for (task, output) in tasks.iter().zip(outputs) {
        let _ = store.append(&lease, &Entry::new(task.clone(), 1, TaskEvent::Started)).await.unwrap();
        if task.stage.as_str() == "play" {
            play(store, &lease, task, hotkey).await;
        }
        let _ = store.append(&lease, &Entry::new(task.clone(), 1, TaskEvent::Succeeded { output })).await.unwrap();
    }
    cycle
}

async fn play(store: &Store, lease: &robo::cycle::Lease, task: &TaskKey, hotkey: &str) {
    let keys: Vec<EpisodeKey> = (0..2)
        .map(|seed_index| EpisodeKey {
            environment: "e/a".parse().unwrap(),
            seed_index,
            hotkey: hotkey.parse().unwrap(),
        })
        .collect();
    store.plan_episodes(lease, task, &keys).await.unwrap();
    for (key, outcome) in keys.into_iter().zip([Outcome::Success, Outcome::Failure]) {
        let report = EpisodeReport {
            outcome,
            detail: None,
            steps: 7,
            total_reward: 0.1,
            score: None,
            actions: None,
            trajectory_hash: None,
            latency: None,
            wall_ms: 1.5,
        };
        let _ = store.record_episode(lease, &Episode { key, attempt: 1, report }).await.unwrap();
    }
}

async fn what_is_there_is_this_cycle_and_what_came_before(setting: &Setting) {
    assert_eq!(
        setting.rows("select seed_index, hotkey, outcome, steps, return from episodes order by 1").await,
        json!([
            {"seed_index": 0, "hotkey": "ours", "outcome": "success", "steps": 7, "return": 0.1},
            {"seed_index": 1, "hotkey": "ours", "outcome": "failure", "steps": 7, "return": 0.1},
        ])
    );
    assert_eq!(
        setting
            .rows(
                "select m.uid, s.hotkey, s.success_rate, s.interval, s.outcomes from scores s join miners m using (uid)"
            )
            .await,
        json!([{"uid": 3, "hotkey": "ours", "success_rate": 0.1, "interval": [0.0, 1.0], "outcomes": {"success": 1}}])
    );
    let tasks = "select stage, status, output -> 'count' as count from tasks order by position;";
    assert_eq!(setting.rows(tasks).await[0], json!({"stage": "discover", "status": "succeeded", "count": 1}));
    assert_eq!(setting.rows(tasks).await.as_array().unwrap().len(), 3, "`later` did not come before");
    let narrow = Question { stages: vec![], ..setting.question(tasks) };
    assert!(setting.ask(&narrow).await.unwrap().is_empty(), "without stages there are no rows");
    let theirs = Question { cycle: setting.other, ..setting.question("select distinct hotkey from episodes") };
    assert_eq!(setting.ask(&theirs).await.unwrap(), [json!({"hotkey": "foreign"})]);
    // A condition that fails on rows of others is never evaluated on them.
    let cast = "select count(*) from episodes where case when hotkey = 'foreign' then hotkey::integer else 0 end = 0";
    assert_eq!(setting.rows(cast).await, json!([{"count": 2}]));
}

async fn types_are_kept(setting: &Setting) {
    let query = "
        with t as (select 9007199254740993::bigint as large)
        select large, 0.1::float8 + 0.2::float8 as sum, 12.50::numeric as exact, null::text as nothing, true as yes,
            timestamptz '2026-01-02 03:04:05.25+01' as at, '{\"a\": [1]}'::jsonb as j, array['x', null] as list,
            row_number() over () as n, jsonb_build_object('k', large) as built, to_char(1.5, '0.00') as shown
        from t";
    let expected = json!([{
        "large": 9007199254740993_i64, "sum": 0.1 + 0.2, "exact": 12.5, "nothing": null, "yes": true,
        "at": "2026-01-02T02:04:05.25+00:00", "j": {"a": [1]}, "list": ["x", null], "n": 1,
        "built": {"k": 9007199254740993_i64}, "shown": " 1.50",
    }]);
    assert_eq!(setting.rows(query).await, expected);
}

async fn nothing_else_can_be_read(setting: &Setting) {
    for query in [
        "select encode(salt, 'hex') from cycle",
        "select * from episode",
        "select * from task",
        "select * from publication",
        "select relname from pg_catalog.pg_class",
        "select table_name from information_schema.tables",
        "select * from episodes, lateral (select salt from cycle) as s",
        "select (select salt from cycle limit 1) from episodes",
        "with c as (select salt from cycle) select * from c",
        "table cycle",
        "select episodes.*, cycle from episodes, cycle",
    ] {
        let message = setting.refusal(query).await;
        assert!(message.contains("relation"), "{query}: {message}");
    }
    for query in [
        "select set_config('robo.cycle_id', '', false)",
        "select current_setting('robo.cycle_id')",
        "select query_to_xml('select salt from cycle', true, true, '')",
        "select table_to_xml('cycle', true, true, '')",
        "select database_to_xml(true, true, '')",
        "select * from ts_stat('select salt from cycle')",
        "select pg_read_file('postgresql.conf')",
        "select pg_ls_dir('.')",
        "select pg_sleep(1) is null",
        "select pg_terminate_backend(pg_backend_pid())",
        "select pg_advisory_lock(1) is null",
        "select lo_import('/etc/passwd')",
        "select nextval('cycle'::regclass)",
        "select * from pg_stat_get_activity(null)",
        "select count(*) filter (where random() > 0.5) from episodes",
        "select now()",
        "select max(pg_column_size(hotkey)) from episodes",
        "select 1 from episodes order by pg_backend_pid()",
        "select inet_server_addr() in ('127.0.0.1')",
        "select refuse_change()",
    ] {
        let message = setting.refusal(query).await;
        assert!(message.contains("function") || message.contains("trigger"), "{query}: {message}");
    }
    assert!(setting.refusal("select current_user").await.contains("session"));
    assert!(setting.refusal("select localtimestamp").await.contains("session"));
}

async fn nothing_can_be_changed(setting: &Setting) {
    for query in [
        "select 1; drop view episodes",
        "delete from episode",
        "with gone as (delete from episode returning 1) select * from gone",
        "insert into cycle default values",
        "select * into stolen from episodes",
        "drop table episode",
        "commit",
        "",
        "select * from (select 1) as q; select set_config('robo.cycle_id', '', false)",
        "select $1",
        "select 1 as a, 2 as a",
        "selec 1",
    ] {
        setting.refusal(query).await;
    }
    // Escaped or not, texts and names hide nothing.
    setting.refusal("select salt as \" :relid 0 :funcid 0\" from cycle").await;
    assert_eq!(
        setting.rows("select ':funcid 2 {SQLVALUEFUNCTION ' as \":relid 1259 \"").await[0][":relid 1259 "],
        ":funcid 2 {SQLVALUEFUNCTION "
    );
    let mut connection = setting.database.connection().await;
    let (episodes, left): (i64, bool) =
        sqlx::query_as("select (select count(*) from episode), to_regclass('pg_temp.robo_query') is not null")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((episodes, left), (4, false));
}

async fn an_answer_has_its_limits(setting: &Setting) {
    let ask = |query: &str, timeout: u64| {
        let question = Question { timeout: Duration::from_millis(timeout), ..setting.question(query) };
        async move { setting.ask(&question).await.unwrap_err() }
    };
    let error = ask("select sum(a * b) from generate_series(1, 1000000) a, generate_series(1, 1000000) b", 50).await;
    assert!(matches!(error, RowsError::Timeout(_)), "{error:?}");
    let error = ask("select n from generate_series(1, 101) as n", 30_000).await;
    assert!(matches!(error, RowsError::TooManyRows(100)), "{error:?}");
    assert_eq!(setting.rows("select n from generate_series(1, 100) as n").await.as_array().unwrap().len(), 100);
    let error = ask("select repeat('x', 10000000)", 30_000).await;
    assert!(matches!(error, RowsError::TooLarge(10_000)), "{error:?}");
    let error = ask("select 1 / (seed_index - seed_index) from episodes", 30_000).await;
    assert!(matches!(&error, RowsError::Failed(message) if message.contains("division by zero")), "{error:?}");
    // The connection is as good as new.
    assert_eq!(setting.rows("select count(*) from episodes").await, json!([{"count": 2}]));
}

async fn all(version: Version) {
    let setting = Setting::new(version).await;
    what_is_there_is_this_cycle_and_what_came_before(&setting).await;
    types_are_kept(&setting).await;
    nothing_else_can_be_read(&setting).await;
    nothing_can_be_changed(&setting).await;
    an_answer_has_its_limits(&setting).await;
}

#[tokio::test]
async fn a_query_sees_its_cycle_and_nothing_else() {
    all(Version::Default).await;
}

#[tokio::test]
async fn a_query_sees_its_cycle_and_nothing_else_on_the_newest_server() {
    all(Version::Wheel).await;
}
