//! The verbs about cycles on the real program and a real database: what is kept, what runs again, why, and what ages out.
//! Numbers in names are those of the lessons that other engines' users have taught.

mod secrecy;

use std::{fs, path::PathBuf, sync::OnceLock};

use nix::sys::signal::Signal;
use robo::{
    cycle::{
        CycleStatus, Entry, Episode, EpisodeKey, EpisodeReport, FailureClass, InfraFault, Journal, Outcome,
        Publication, PublishGuard, TaskEvent, TaskFailure, TaskKey,
    },
    store::{NewCycle, Store},
};
use serde_json::{Value, json};
use sqlx::Connection;
use tempfile::TempDir;

use crate::support::database::{TestDatabase, Version};
use crate::support::episodes::report;
use crate::support::program::{Place, Ran, Running, pipeline, turn, workspace};

/// A database with the program at hand.
struct Bench {
    place: Place,
    database: TestDatabase,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let database = runtime.block_on(TestDatabase::new(Version::Default));
        Self { place: Place::new(), database, runtime }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.place.run(&[arguments, &["--database-url", self.database.url()]].concat())
    }

    fn start(&self, arguments: &[&str]) -> Running {
        self.place.start(&[arguments, &["--database-url", self.database.url()]].concat())
    }

    fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ok(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", ran.stdout))
    }

    /// Make a fork or a rescore; its id.
    fn made(&self, arguments: &[&str]) -> String {
        created(&self.ok(arguments))
    }

    fn ask<T>(&self, sql: &'static str, cycle: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        self.runtime.block_on(async {
            let mut connection = self.database.connection().await;
            let answer = sqlx::query_scalar(sql).bind(cycle).fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            answer
        })
    }
}

/// `cycle 0190...: fork of ...`
fn created(ran: &Ran) -> String {
    let line = ran.stderr.lines().find(|line| line.starts_with("cycle ")).unwrap_or_else(|| panic!("{}", ran.stderr));
    line["cycle ".len()..][..36].to_owned()
}

/// One real cycle that all tests read and none changes.
struct Base {
    bench: Bench,
    folder: TempDir,
    cycle: String,
}

impl Base {
    fn get() -> &'static Self {
        static BASE: OnceLock<Base> = OnceLock::new();
        BASE.get_or_init(|| {
            let _turn = turn();
            let bench = Bench::new();
            let folder =
                workspace(|text| text.replace("  - metaworld/door-open-v3\n  - metaworld/drawer-open-v3\n", ""));
            // Its seeds are always the same, and so is who wins.
            let salt = "5a17".to_owned() + &"0".repeat(60);
            let ran = bench.ok(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=1", "--salt", &salt]);
            let cycle = created(&ran);
            Self { bench, folder, cycle }
        })
    }

    /// The pipeline of the cycle with its text changed, in the same folder.
    fn changed(&self, name: &str, change: impl Fn(&str) -> String) -> PathBuf {
        let text = fs::read_to_string(pipeline(&self.folder)).unwrap();
        let path = self.folder.path().join(name);
        fs::write(&path, change(&text)).unwrap();
        path
    }

    fn show(&self, cycle: &str) -> Value {
        self.bench.json(&["cycle", "show", cycle])
    }
}

fn task<'a>(shown: &'a Value, name: &str) -> &'a Value {
    shown["tasks"].as_array().unwrap().iter().find(|task| task["task"] == name).unwrap()
}

/// What of its episodes is still there.
const EPISODES: &str = "select count(*) from episode where cycle_id = $1::uuid";

/// Everything of a cycle that a fork could have spoilt.
const EVERYTHING: &str = "
    select md5(coalesce(string_agg(line, '|' order by line), '')) from (
        select row_to_json(cycle)::text line from cycle where cycle_id = $1::uuid
        union all select row_to_json(task)::text from task where cycle_id = $1::uuid
        union all select row_to_json(task_event)::text from task_event where cycle_id = $1::uuid
        union all select row_to_json(episode)::text from episode where cycle_id = $1::uuid
        union all select row_to_json(publication)::text from publication where cycle_id = $1::uuid) lines";

#[test]
fn lesson_05_an_edited_file_forks_with_lineage_and_changes_no_cycle() {
    let base = Base::get();
    let before: String = base.bench.ask(EVERYTHING, &base.cycle);
    let softer = base.changed("softer.yaml", |text| {
        text.replace("temperature: 1.0", "temperature: 4.0, all_zero: burn, burn_uid: 0")
    });
    let file = softer.to_str().unwrap();
    let fork = base.bench.made(&["cycle", "fork", &base.cycle, "--from", "weights", "--with", file]);

    let shown = base.show(&fork);
    assert_eq!(shown["status"], "completed");
    let lineage = &shown["lineage"];
    assert_eq!((&lineage["parent"], &lineage["from_stage"]), (&json!(base.cycle), &json!("weights")), "{lineage}");
    assert_eq!(lineage["kept"], json!(["aggregate", "discover", "episodes", "pareto", "provision"]));
    assert_eq!((&lineage["publishes"], &shown["published"]), (&json!(false), &json!(false)));
    // The episodes are the parent's, times and all, and the weights are not.
    let parent = base.show(&base.cycle);
    let episodes = |cycle: &str| base.bench.json(&["cycle", "show", cycle, "--episodes"])["episodes"].clone();
    assert_eq!(episodes(&fork), episodes(&base.cycle));
    assert_eq!(shown["salt"], parent["salt"]);
    assert_eq!(shown["scores_document"]["entries"], parent["scores_document"]["entries"]);
    assert_ne!(shown["weights_digest"], parent["weights_digest"]);
    assert_eq!(task(&shown, "teardown")["status"], "succeeded");
    assert_eq!(base.bench.ask::<String>(EVERYTHING, &base.cycle), before, "the parent has changed");
    // Nobody who polls has been given its weights.
    assert_eq!(base.bench.run(&["weights", "show", &fork]).code, 1);

    // What lies upstream must be the same; the refusal says what is not.
    let more = ["cycle", "fork", &base.cycle, "--from", "weights", "--with", file, "-i", "episodes_per_env=2"];
    let refused = base.bench.run(&more);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("episodes: with.episodes 1 -> 2"), "{}", refused.stderr);
    let refused = base.bench.run(&["cycle", "fork", &base.cycle, "--from", "wieghts"]);
    assert!(refused.code == 2 && refused.stderr.contains("discover, provision"), "{}", refused.stderr);
    let refused = base.bench.run(&["cycle", "fork", &base.cycle, "--from", "weights", "-i", "episodes_per_env=2"]);
    assert!(refused.code == 2 && refused.stderr.contains("--with FILE"), "{}", refused.stderr);
}

#[test]
fn lesson_06_explain_names_what_changed_and_comments_and_order_never_count() {
    let base = Base::get();
    let again = base.changed("again.yaml", |text| {
        let text = text.replace("temperature: 1.0", "temperature: 0.5");
        let (from, to) =
            ("uses: scores/weights, with: { temperature: 0.5 }", "with: { temperature: 0.5 }, uses: scores/weights");
        text.replace(from, to)
    });
    let file = again.to_str().unwrap();
    let fork = base.bench.made(&["cycle", "fork", &base.cycle, "--from", "pareto", "--with", file]);
    let explain = |stage: &str| base.bench.json(&["cycle", "explain", &fork, stage]);

    let weights = explain("weights");
    assert_eq!((&weights["what"], &weights["against"]), (&json!("ran"), &json!(base.cycle)), "{weights}");
    let expected = json!([{ "stage": "weights", "component": "with.temperature", "before": 1.0, "after": 0.5 }]);
    assert_eq!(weights["changes"], expected);
    let publish = explain("publish");
    assert_eq!(publish["changes"], expected, "a change upstream is told where it happened: {publish}");
    let episodes = explain("episodes");
    assert_eq!((&episodes["what"], &episodes["changes"]), (&json!("reused"), &json!([])), "{episodes}");
    assert!(episodes["components"]["build/metaworld"].is_string(), "{episodes}");
    assert!(explain("pareto")["why"].as_str().unwrap().contains("begins with it"));
    let told = base.bench.ok(&["cycle", "explain", &fork, "weights"]).stdout;
    assert!(told.contains("weights: with.temperature 1.0 -> 0.5"), "{told}");

    // The same pipeline in other words, from another folder, with files of another date: nothing would run again.
    let elsewhere = workspace(|_| {
        let text = fs::read_to_string(pipeline(&base.folder)).unwrap();
        format!("# Another comment.\n{}", text.replace("retry: {", "retry:  {"))
    });
    let against = ["plan", &pipeline(&elsewhere), "-i", "episodes_per_env=1", "--against", &base.cycle];
    let plan = base.bench.json(&against);
    let stages = plan["stages"].as_array().unwrap();
    let again: Vec<_> = stages.iter().filter(|stage| stage["what"] != "reused").map(|stage| &stage["stage"]).collect();
    assert_eq!(again, ["teardown"], "{plan}");
    assert_eq!(plan["episodes"], 0);
}

#[test]
fn a_plan_against_a_cycle_says_what_runs_again_why_and_about_how_long() {
    let base = Base::get();
    let changed = base.changed("shadow.yaml", |text| {
        let shadow = "  shadow: { depends_on: [aggregate], uses: scores/pareto }\n  publish:";
        text.replacen("  publish:", shadow, 1)
    });
    let file = changed.to_str().unwrap();
    let plan = base.bench.json(&["plan", file, "-i", "episodes_per_env=10", "--against", &base.cycle]);
    let row = |stage: &str| plan["stages"].as_array().unwrap().iter().find(|row| row["stage"] == stage).unwrap();
    assert_eq!((&row("discover")["what"], &row("shadow")["what"]), (&json!("reused"), &json!("new")), "{plan}");
    let episodes = row("episodes");
    assert_eq!((&episodes["what"], &episodes["episodes"]), (&json!("runs again"), &json!(80)), "{episodes}");
    let change = json!([{ "stage": "episodes", "component": "with.episodes", "before": 1, "after": 10 }]);
    assert_eq!((&episodes["changes"], &row("publish")["changes"]), (&change, &change));
    assert!(episodes["seconds"].as_f64().unwrap() > 0.0, "there is a finished cycle to learn from: {episodes}");
    assert!(plan["seconds"].as_f64().unwrap() >= episodes["seconds"].as_f64().unwrap());
    let fewer = base.bench.json(&["plan", file, "-i", "episodes_per_env=5", "--against", &base.cycle]);
    assert!(fewer["seconds"].as_f64() < plan["seconds"].as_f64(), "half the episodes take less time");
    let gone = base.bench.json(&["plan", &pipeline(&base.folder), "--against", &base.cycle]);
    assert!(gone["stages"].as_array().unwrap().iter().all(|row| row["what"] != "gone"), "{gone}");
    let table = base.bench.ok(&["plan", file, "--against", &base.cycle]).stdout;
    assert!(table.contains("episodes: with.episodes 1 -> 5") && table.contains("episodes to run"), "{table}");
}

#[test]
fn a_rescore_gives_the_same_bytes_publishes_nothing_and_finds_meddling() {
    let base = Base::get();
    let ran = base.bench.ok(&["cycle", "rescore", &base.cycle[..13], "--check"]);
    assert!(ran.stderr.contains("identical: weights sha256:"), "{}", ran.stderr);
    let rescore = created(&ran);
    let (shown, parent) = (base.show(&rescore), base.show(&base.cycle));
    assert_eq!(shown["weights_document"], parent["weights_document"]);
    assert_eq!(shown["scores_document"], parent["scores_document"]);
    assert_eq!((&shown["published"], &shown["lineage"]["origin"]), (&json!(false), &json!("rescore")));
    assert_eq!(task(&shown, "teardown")["status"], "skipped");
    assert_eq!(shown["lineage"]["kept"], json!(["discover", "episodes", "provision"]));

    // A row that was taken away and put back with another outcome: updates are refused by the database.
    let fork = base.bench.made(&["cycle", "fork", &base.cycle, "--from", "publish"]);
    let changed: i64 = base.bench.ask(
        "with taken as (delete from episode where cycle_id = $1::uuid and hotkey in ('demo-random', 'demo-heuristic')
                        returning *),
              put as (insert into episode
                          (cycle_id, environment, seed_index, hotkey, stage, cell, attempt, outcome, steps, return, wall_ms)
                      select cycle_id, environment, seed_index + 1, hotkey, stage, cell, attempt,
                             case hotkey when 'demo-random' then 'success' else 'failure' end, steps, return, wall_ms
                      from taken returning 1)
         select count(*) from put",
        &fork,
    );
    assert_eq!(changed, 4);
    let meddled = base.bench.run(&["cycle", "rescore", &fork, "--check"]);
    assert_eq!(meddled.code, 6, "{}{}", meddled.stdout, meddled.stderr);
    assert!(meddled.stderr.contains("error: the weights are"), "{}", meddled.stderr);

    // With another rule there is nothing to be identical to.
    let softer = base.changed("rule.yaml", |text| text.replace("rule: epsilon", "rule: first_commit"));
    let with = ["cycle", "rescore", &base.cycle, "--with", softer.to_str().unwrap()];
    assert_eq!(base.bench.run(&[&with[..], &["--check"]].concat()).code, 2);
    let other = base.show(&base.bench.made(&with));
    assert_eq!(other["scores_document"]["rule"], "first_commit");
    // Asked for, it is published.
    let published = base.bench.made(&[&with[..], &["--publish"]].concat());
    assert_eq!(base.show(&published)["published"], true);
    assert_eq!(base.bench.json(&["weights", "show", &published])["cycle_uuid"], json!(published));
}

#[test]
fn diff_graph_and_logs_show_where_a_cycle_stands() {
    let base = Base::get();
    let softer = base
        .changed("diff.yaml", |text| text.replace("temperature: 1.0", "temperature: 2.0, all_zero: burn, burn_uid: 0"));
    let file = softer.to_str().unwrap();
    let fork = base.bench.made(&["cycle", "rescore", &base.cycle, "--with", file]);
    let diff = base.bench.json(&["cycle", "diff", &base.cycle, &fork]);
    let changed: Vec<&Value> =
        diff["stages"].as_array().unwrap().iter().filter(|stage| stage["what"] != "same").collect();
    let names: Vec<&Value> = changed.iter().map(|stage| &stage["stage"]).collect();
    assert_eq!(names, ["weights", "publish"], "{diff}");
    let same = |list: &str| diff[list].as_array().unwrap().iter().all(|pair| pair["a"] == pair["b"]);
    assert!(same("scores") && !same("weights"), "{diff}");
    let told = base.bench.ok(&["cycle", "diff", &base.cycle, &fork]).stdout;
    assert!(told.contains("with.temperature 1.0 -> 2.0") && told.contains("Success rates: 0 differ"), "{told}");
    let none = base.bench.json(&["cycle", "diff", &fork, &fork]);
    assert_eq!(none["weights_digest"]["a"], none["weights_digest"]["b"]);
    assert!(none["stages"].as_array().unwrap().iter().all(|stage| stage["what"] == "same"));

    let mermaid = base.bench.ok(&["cycle", "graph", &fork]).stdout;
    assert!(mermaid.contains("s_episodes[\"episodes<br/>episodes/run<br/>2 succeeded\"]"), "{mermaid}");
    assert!(mermaid.contains("class s_teardown skipped"), "{mermaid}");
    let dot = base.bench.ok(&["cycle", "graph", &fork, "--format", "dot"]).stdout;
    assert!(dot.contains("weights [label=\"weights\\nscores/weights\\nsucceeded\""), "{dot}");
    assert!(dot.trim_end().ends_with('}') && dot.matches('}').count() == 1, "{dot}");

    let logs = base.bench.ok(&["cycle", "logs", &base.cycle, "--stage", "weights"]).stdout;
    let said: Vec<&str> = logs.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(said, ["#1 started", "#1 succeeded"], "{logs}");
    let nowhere = base.bench.run(&["cycle", "logs", &base.cycle, "--stage", "wieghts"]);
    assert!(nowhere.code == 2 && nowhere.stderr.contains("its stages are: discover"), "{}", nowhere.stderr);
    let events = base.bench.json(&["cycle", "logs", &fork, "--stage", "episodes"])["events"].clone();
    let epochs: Vec<&Value> = events.as_array().unwrap().iter().map(|event| &event["epoch"]).collect();
    assert_eq!(epochs, [0, 0, 0, 0], "what came with the fork was written before anybody held it: {events}");
}

#[test]
fn a_hanging_owner_loses_the_cycle_to_a_forced_cancel_and_writes_nothing_more() {
    let base = Base::get();
    let _turn = turn();
    let bench = Bench::new();
    let file = pipeline(&base.folder);
    let mut owner = bench.start(&["run-pipeline", &file, "-i", "episodes_per_env=40"]);
    owner.until("cycle ");
    let cycle = owner.said.lines().find(|line| line.starts_with("cycle ")).unwrap()["cycle ".len()..][..36].to_owned();
    let mut watch = bench.start(&["cycle", "watch", &cycle]);
    let logs = bench.start(&["cycle", "logs", &cycle, "--follow", "--format", "json"]);
    watch.until("provision");
    owner.until(" episodes  ");
    owner.signal(Signal::SIGSTOP);
    let refused = bench.run(&["cycle", "cancel", &cycle, "--grace", "0s"]);
    assert_eq!(refused.code, 2, "grace without force means nothing: {}", refused.stderr);
    let cancelled = bench.ok(&["cycle", "cancel", &cycle, "--force", "--grace", "0s"]);
    assert!(cancelled.stderr.contains("taken from an owner"), "{}", cancelled.stderr);
    let shown = bench.json(&["cycle", "show", &cycle]);
    assert_eq!(shown["status"], "cancelled");
    assert_eq!(task(&shown, "teardown")["status"], "succeeded");
    let before: String = bench.ask(EVERYTHING, &cycle);

    let watched = watch.wait();
    assert_eq!(watched.code, 4, "{}", watched.stderr);
    let followed = logs.wait();
    assert_eq!(followed.code, 0, "{}", followed.stderr);
    let last: Value = serde_json::from_str(followed.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["stage"], &last["event"]["kind"]), (&json!("teardown"), &json!("succeeded")));

    owner.signal(Signal::SIGCONT);
    let ended = owner.wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("is owned by another process, or has ended"), "{}", ended.stderr);
    assert_eq!(bench.ask::<String>(EVERYTHING, &cycle), before, "it wrote after it had lost the cycle");
}

/// A cycle with the definition of the base and more episodes than go in one batch, ended by hand.
async fn old_cycle(store: &Store, base: &Value) -> String {
    let definition = base["definition"].clone();
    let tasks: Vec<TaskKey> = base["definition"]["stages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|stage| stage["tasks"].as_array().unwrap().clone())
        .map(|task| serde_json::from_value(task["key"].clone()).unwrap())
        .collect();
    let cycle = store
        .create_cycle(&NewCycle {
            pipeline: "quickstart".into(),
            definition,
            definition_hash: base["definition_hash"].as_str().unwrap().into(),
            root: "/".into(),
            salt: "5a".repeat(32).parse().unwrap(),
            pin: None,
            tasks: tasks.clone(),
        })
        .await
        .unwrap();
    let lease = store.acquire(cycle).await.unwrap();
    let played = tasks.iter().find(|task| task.stage.as_str() == "episodes").unwrap();
    let key = |seed_index| EpisodeKey {
        environment: "metaworld/reach-v3".parse().unwrap(),
        seed_index,
        hotkey: "somebody".parse().unwrap(),
    };
    store.plan_episodes(&lease, played, &(0..5001).map(key).collect::<Vec<_>>()).await.unwrap();
    let _ = store.record_episode(&lease, &Episode { key: key(0), attempt: 1, report: lost() }).await.unwrap();
    let publish = tasks.iter().find(|task| task.stage.as_str() == "publish").unwrap();
    let _ = store.append(&lease, &Entry::new(publish.clone(), 1, TaskEvent::Started)).await.unwrap();
    let publication = Publication {
        scores: base["scores_document"].to_string(),
        weights: base["weights_document"].to_string(),
        digest: "d".into(),
        guard: PublishGuard::default(),
    };
    let done = Entry::new(publish.clone(), 1, TaskEvent::Succeeded { output: json!({ "digest": "d" }) });
    let _ = store.append(&lease, &Entry { publication: Some(publication), ..done }).await.unwrap();
    store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    cycle.to_string()
}

#[test]
fn lesson_11_detail_ages_out_and_results_stay() {
    let base = Base::get();
    let model = base.show(&base.cycle);
    let bench = Bench::new();
    let (old, open) = bench.runtime.block_on(async {
        let store = bench.database.store().await;
        let old = old_cycle(&store, &model).await;
        let open = store
            .create_cycle(&NewCycle {
                pipeline: "quickstart".into(),
                definition: model["definition"].clone(),
                definition_hash: "h".into(),
                root: "/".into(),
                salt: "5a".repeat(32).parse().unwrap(),
                pin: None,
                tasks: vec![],
            })
            .await
            .unwrap();
        store.close().await;
        (old, open.to_string())
    });

    // A month is the default, and nothing here is that old.
    assert_eq!(bench.json(&["gc"])["cycles"], 0);
    let dry = bench.json(&["gc", "--older-than", "1ms", "--dry-run"]);
    let rows =
        |report: &Value| ["cycles", "episodes", "attempts", "events"].map(|field| report[field].as_u64().unwrap());
    assert_eq!(rows(&dry), [1, 5001, 1, 2], "{dry}");
    assert_eq!(bench.ask::<i64>(EPISODES, &old), 5001, "a dry run deletes nothing");
    let gone = bench.json(&["gc", "--older-than", "1ms"]);
    assert_eq!(rows(&gone), rows(&dry), "what was announced is what went");
    assert!(gone["bytes"].as_u64().unwrap() > 100_000, "{gone}");
    assert_eq!(rows(&bench.json(&["gc", "--older-than", "1ms"])), [0, 0, 0, 0], "it goes once");

    let shown = bench.json(&["cycle", "show", &old]);
    assert_eq!(bench.ask::<i64>(EPISODES, &old), 0);
    assert_eq!(
        (&shown["episodes_planned"], &shown["episodes_scored"]),
        (&json!(5001), &json!(0)),
        "how many there were"
    );
    assert_eq!((&shown["outcomes"], &shown["weights_document"]), (&json!([]), &model["weights_document"]));
    assert!(shown["salt"].is_string() && shown["lineage"]["aged_out_at"].is_string(), "{shown}");
    assert!(bench.ok(&["cycle", "show", &old]).stdout.contains("have aged out on"));
    assert_eq!(bench.json(&["weights", "show"])["cycle_uuid"], json!(old));
    for verb in [&["cycle", "rescore", &old][..], &["cycle", "fork", &old, "--from", "weights"]] {
        let refused = bench.run(verb);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains("have aged out"), "{}", refused.stderr);
    }
    assert_eq!(bench.json(&["cycle", "show", &open])["lineage"]["aged_out_at"], Value::Null);
    let off = bench.run(&["gc", "--older-than", "off"]);
    assert_eq!(off.code, 2, "{}", off.stderr);
    // The backend does the same by itself, when it starts: a cycle that ended since goes without a command.
    let later = bench.runtime.block_on(async {
        let store = bench.database.store().await;
        let later = old_cycle(&store, &model).await;
        store.close().await;
        later
    });
    let backend =
        bench.start(&["backend", "--role", "worker", "--host", "127.0.0.1", "--port", "0", "--retention", "1ms"]);
    while bench.ask::<i64>(EPISODES, &later) != 0 {}
    backend.signal(Signal::SIGTERM);
    assert_eq!(backend.wait().code, 0);
}

/// A cycle with the outputs of the base whose weights failed, whose publication was skipped, and with an episode beside
/// whose tries are used up.
async fn failed_cycle(store: &Store, base: &Value, root: &str) -> String {
    let rows = base["tasks"].as_array().unwrap();
    let keys: Vec<TaskKey> = base["definition"]["stages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|stage| stage["tasks"].as_array().unwrap().clone())
        .map(|task| serde_json::from_value(task["key"].clone()).unwrap())
        .collect();
    let new = NewCycle {
        pipeline: "quickstart".into(),
        definition: base["definition"].clone(),
        definition_hash: base["definition_hash"].as_str().unwrap().into(),
        root: root.into(),
        // Its own: cycles of other tests complete with that of the base.
        salt: robo::cycle::Salt::random(),
        pin: None,
        tasks: keys.clone(),
    };
    let cycle = store.create_cycle(&new).await.unwrap();
    let lease = store.acquire(cycle).await.unwrap();
    for key in keys {
        let row = rows.iter().find(|row| row["task"] == key.to_string()).unwrap();
        let failure = TaskFailure { class: FailureClass::Config, message: "a bad day".into() };
        let end = match key.stage.as_str() {
            "weights" => TaskEvent::Failed { failure },
            "publish" => TaskEvent::Skipped { reason: "`weights` did not succeed".into() },
            _ => TaskEvent::Succeeded { output: row["output"].clone() },
        };
        let attempt = u32::from(key.stage.as_str() != "publish");
        if attempt == 1 {
            let _ = store.append(&lease, &Entry::new(key.clone(), 1, TaskEvent::Started)).await.unwrap();
        }
        let _ = store.append(&lease, &Entry::new(key, attempt, end)).await.unwrap();
    }
    store.finish(&lease, CycleStatus::Failed, Some("weights: a bad day")).await.unwrap();
    cycle.to_string()
}

#[test]
fn lesson_03_a_retry_runs_again_what_failed_and_nothing_that_succeeded() {
    let base = Base::get();
    let (model, bench) = (base.show(&base.cycle), &base.bench);
    let root = base.folder.path().to_str().unwrap();
    let cycle = bench.runtime.block_on(async {
        let store = bench.database.store().await;
        let cycle = failed_cycle(&store, &model, root).await;
        store.close().await;
        cycle
    });
    let watched = bench.run(&["cycle", "watch", &cycle]);
    assert_eq!(watched.code, 1, "{}", watched.stderr);
    assert!(watched.stderr.contains("weights: a bad day"), "{}", watched.stderr);
    let resumed = bench.run(&["cycle", "resume", &cycle]);
    assert!(resumed.code == 1 && resumed.stderr.contains("cycle retry"), "{}", resumed.stderr);
    let nothing = bench.run(&["cycle", "retry", &cycle, "--stage", "pareto"]);
    assert!(nothing.code == 1 && nothing.stderr.contains("nothing that was asked for"), "{}", nothing.stderr);

    let nowhere = bench.run(&["cycle", "retry", &cycle, "--stage", "wieghts"]);
    assert!(nowhere.code == 2 && nowhere.stderr.contains("has no stage `wieghts`"), "{}", nowhere.stderr);

    let retried = bench.ok(&["cycle", "retry", &cycle, "--failed"]);
    assert!(retried.stderr.contains("runs again: weights, publish"), "{}", retried.stderr);
    let shown = base.show(&cycle);
    assert_eq!(shown["status"], "completed");
    let attempts = |name: &str| task(&shown, name)["attempts"].as_u64().unwrap();
    assert_eq!(
        ["pareto", "weights", "publish", "teardown"].map(attempts),
        [1, 2, 1, 2],
        "what goes on is cleaned up after"
    );
    let completed = bench.run(&["cycle", "retry", &cycle]);
    assert!(completed.code == 1 && completed.stderr.contains("cycle fork"), "{}", completed.stderr);
    let explained = bench.ok(&["cycle", "explain", &cycle, "weights"]).stdout;
    assert!(explained.contains("failed: a bad day") && explained.contains("reopened"), "{explained}");
}

#[test]
fn an_episode_whose_tries_are_used_up_gets_as_many_again() {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        let store = bench.database.store().await;
        let task = TaskKey { stage: "episodes".parse().unwrap(), cell: String::new() };
        let new = NewCycle {
            pipeline: "p".into(),
            definition: json!({}),
            definition_hash: "h".into(),
            root: "/".into(),
            salt: "5a".repeat(32).parse().unwrap(),
            pin: None,
            tasks: vec![task.clone()],
        };
        let cycle = store.create_cycle(&new).await.unwrap();
        let lease = store.acquire(cycle).await.unwrap();
        let _ = store.append(&lease, &Entry::new(task.clone(), 1, TaskEvent::Started)).await.unwrap();
        let key =
            EpisodeKey { environment: "m/a".parse().unwrap(), seed_index: 0, hotkey: "somebody".parse().unwrap() };
        store.plan_episodes(&lease, &task, std::slice::from_ref(&key)).await.unwrap();
        for attempt in 1..=5 {
            let _ = store.record_episode(&lease, &Episode { key: key.clone(), attempt, report: lost() }).await.unwrap();
        }
        let counted = async || {
            let pending = store.pending_episodes(cycle, &task).await.unwrap();
            pending.into_iter().map(|episode| (episode.attempt, episode.counted)).collect::<Vec<_>>()
        };
        assert_eq!(counted().await, [(5, 5)]);
        let failure = TaskFailure { class: FailureClass::BelowQuorum, message: "too few".into() };
        let _ = store.append(&lease, &Entry::new(task.clone(), 1, TaskEvent::Failed { failure })).await.unwrap();
        store.finish(&lease, CycleStatus::Failed, None).await.unwrap();
        store.reopen(cycle, std::slice::from_ref(&task)).await.unwrap();
        assert_eq!(counted().await, [(5, 0)], "no attempt is forgotten, and none counts");
        store.close().await;
    });
}

/// The report of an episode that was lost to a fault of ours.
fn lost() -> EpisodeReport {
    report(Outcome::InfraFault(InfraFault::ServerLost))
}
