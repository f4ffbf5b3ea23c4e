//! `/metrics`: every metric is there and no other, its values are right, and no counter ever goes back.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use reqwest::{Client, StatusCode};
use robo::{
    cycle::{
        Course, CycleStatus, Entry, Episode, EpisodeKey, InfraFault, Journal, MinerFault, Outcome, Pin, PublishGuard,
        Salt, TaskEvent, TaskKey,
    },
    host::Progress,
    store::{Counters, NewCycle, Store, Tally},
};
use serde_json::json;

use crate::{
    deploy,
    support::{
        database::{TestDatabase, Version},
        episodes::report,
        own_server::OwnServer,
        program::{Place, Running, pipeline, repository, turn, workspace},
        served::Served,
    },
    weights::{WHOLE, publish_at},
};

/// A page of metrics.
pub(crate) struct Page(pub(crate) String);

impl Page {
    pub(crate) async fn of(url: &str) -> Self {
        crate::install_tls();
        let client = Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{url}/metrics")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
        Self(answer.text().await.unwrap())
    }

    /// The names of its metrics.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let typed = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        typed.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    /// The value of this name with these labels, as they are written.
    pub(crate) fn value(&self, sample: &str) -> Option<f64> {
        let rest = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(rest.parse().unwrap())
    }

    #[track_caller]
    fn holds(&self, values: &[(&str, f64)]) {
        for (sample, value) in values {
            assert_eq!(self.value(sample), Some(*value), "{sample} of\n{}", self.0);
        }
    }
}

/// The names that the page about metrics lists, which are those of the program.
pub(crate) fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `robo_"));
    rows.map(|row| format!("robo_{}", row.split('`').next().unwrap())).collect()
}

fn key(seed_index: u32) -> EpisodeKey {
    EpisodeKey { environment: "m/a".parse().unwrap(), seed_index, hotkey: "ann".parse().unwrap() }
}

fn task() -> TaskKey {
    TaskKey { stage: "episodes".parse().unwrap(), cell: String::new() }
}

fn pin() -> Pin {
    Pin { genesis: "0x00".into(), netuid: 1, block: 7, hash: "0x07".into() }
}

/// How many of these are counted.
fn count(tally: &Tally, what: &str, label: &str) -> i64 {
    tally.counts.iter().filter(|it| it.what == what && it.label == label).map(|it| it.count).sum()
}

fn ended(tally: &Tally, status: &str) -> i64 {
    tally.ended.iter().filter(|it| it.status == status).map(|it| it.count).sum()
}

#[tokio::test]
async fn counters_never_go_back_whatever_becomes_of_a_cycle() {
    let database = TestDatabase::new(Version::Default).await;
    let (store, counters) = (database.store().await, Counters::default());
    let look = async |who: &Counters| store.gauges(who).await.unwrap();
    assert_eq!(look(&counters).await.tally, Tally::default());
    publish_at(&store, pin(), Some("ann"), (Course { lost: 2, ..WHOLE }, PublishGuard::default())).await;
    let tally = look(&counters).await.tally;
    assert_eq!((count(&tally, "episode", "success"), count(&tally, "episode", "infra_fault")), (10, 2));
    assert_eq!((ended(&tally, "completed"), tally.durations.iter().map(|it| it.count).sum::<i64>()), (1, 1));

    let new = NewCycle {
        pipeline: "test".into(),
        definition: json!({ "stages": [{ "id": "episodes", "uses": "episodes/run", "depends_on": [], "phase": "main" }] }),
        definition_hash: "00".repeat(32),
        root: "/".into(),
        salt: Salt::random(),
        pin: None,
        tasks: vec![task()],
    };
    let cycle = store.create_cycle(&new).await.unwrap();
    let ready = look(&counters).await;
    assert_eq!((ready.tasks.ready, ready.tasks.running, ready.leases), (1, 0, (0, 0)));
    let lease = store.acquire(cycle).await.unwrap();
    database.keep_leases().await;
    let started = Entry::new(task(), 1, TaskEvent::Started);
    let _ = store.append(&lease, &started).await.unwrap();
    store.plan_episodes(&lease, &task(), &[key(0), key(1)]).await.unwrap();
    let fault = Outcome::MinerFault(MinerFault::ActionTimeout);
    let _ = store.record_episode(&lease, &Episode { key: key(0), attempt: 1, report: report(fault) }).await.unwrap();
    let running = look(&counters).await;
    assert_eq!((running.tasks.running, running.episodes_pending, running.leases), (1, 1, (1, 1)));
    let failure = robo::cycle::TaskFailure { class: robo::cycle::FailureClass::Infra, message: "no".into() };
    let _ = store.append(&lease, &Entry::new(task(), 1, TaskEvent::Failed { failure })).await.unwrap();
    store.finish(&lease, CycleStatus::Failed, Some("no")).await.unwrap();
    let failed = look(&counters).await.tally;
    let of = |tally: &Tally| {
        let attempts = count(tally, "stage", "episodes/run");
        (ended(tally, "failed"), ended(tally, "cancelled"), count(tally, "episode", "miner_fault"), attempts)
    };
    assert_eq!(of(&failed), (1, 0, 1, 1));

    // Nobody has looked in between: that it had failed is written down when it is opened again.
    store.reopen(cycle, &[task()]).await.unwrap();
    assert_eq!(of(&look(&counters).await.tally), (1, 0, 1, 1));
    let lease = store.acquire(cycle).await.unwrap();
    let lost = Outcome::InfraFault(InfraFault::ServerLost);
    let _ = store.record_episode(&lease, &Episode { key: key(1), attempt: 1, report: report(lost) }).await.unwrap();
    store.finish(&lease, CycleStatus::Cancelled, None).await.unwrap();
    let last = look(&counters).await.tally;
    assert_eq!((of(&last), count(&last, "episode", "infra_fault")), ((1, 1, 1, 1), 3));
    // Another backend, and one that has counted nothing yet, say the same.
    let sums = |tally: &Tally| {
        let words = ["success", "miner_fault", "infra_fault"].map(|outcome| count(tally, "episode", outcome));
        (tally.ended.clone(), words, count(tally, "latency", ""))
    };
    assert_eq!(sums(&look(&Counters::default()).await.tally), sums(&last));
    let gone = store.collect_garbage(Duration::ZERO, &|_| ()).await.unwrap();
    assert_eq!((gone.episodes, gone.attempts), (12, 3));
    for counters in [counters, Counters::default()] {
        assert_eq!(sums(&look(&counters).await.tally), sums(&last), "episodes that are deleted stay counted");
    }
}

#[tokio::test]
async fn what_ages_out_before_anybody_has_looked_is_counted_all_the_same() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    publish_at(&store, pin(), Some("ann"), (WHOLE, PublishGuard::default())).await;
    store.collect_garbage(Duration::ZERO, &|_| ()).await.unwrap();
    assert_eq!(count(&store.gauges(&Counters::default()).await.unwrap().tally, "episode", "success"), 10);
}

#[tokio::test]
async fn while_the_database_is_away_the_page_says_what_it_said_last() {
    let server = OwnServer::start().await;
    let store = Store::open(&server.config(), &Progress::silent()).await.unwrap();
    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    publish_at(&store, pin(), Some("ann"), (WHOLE, guard)).await;
    publish_at(&store, pin(), Some("ann"), (Course { scored: 5, ..WHOLE }, guard)).await;
    let served = Served::of(&store).await;
    let before = up(&served).await;
    let known = [
        ("robo_eval_cycles_total{pipeline=\"test\",status=\"completed\"}", 2.0),
        ("robo_episodes_total{outcome=\"success\",reason=\"\"}", 15.0),
        ("robo_miner_scores{uid=\"1\",hotkey=\"ann\",environment=\"m/a\"}", 0.8),
        ("robo_miners_active", 1.0),
        ("robo_publish_guard_held", 1.0),
    ];
    before.holds(&known);
    let failures = before.value("robo_database_failures_total").unwrap();
    let age = before.value("robo_weights_age_seconds").unwrap();

    server.freeze();
    let away = loop {
        let page = Page::of(&served.url).await;
        if page.value("robo_database_up") == Some(0.0) {
            break page;
        }
    };
    server.thaw();
    away.holds(&known);
    away.holds(&[("robo_database_failures_total", failures + 1.0)]);
    assert!(away.value("robo_weights_age_seconds").unwrap() > age, "it goes on growing");
    assert!(away.value("robo_database_snapshot_age_seconds").unwrap() > 0.0);
    up(&served).await;
}

/// The page once it is known that the database answers.
async fn up(served: &Served) -> Page {
    loop {
        let page = Page::of(&served.url).await;
        if page.value("robo_database_up") == Some(1.0) {
            return page;
        }
    }
}

#[tokio::test]
async fn addresses_are_counted_by_their_template() {
    let database = TestDatabase::new(Version::Default).await;
    let served = Served::of(&database.store().await).await;
    for path in ["/v1/cycles/one", "/v1/cycles/two", "/nothing/here", "/nothing/there", "/health"] {
        served.ask(path, None).await;
    }
    let page = Page::of(&served.url).await;
    page.holds(&[
        ("robo_http_requests_total{route=\"/v1/cycles/{cycle}\",status=\"404\"}", 2.0),
        ("robo_http_requests_total{route=\"unmatched\",status=\"404\"}", 2.0),
        ("robo_http_requests_total{route=\"/health\",status=\"200\"}", 1.0),
        ("robo_http_request_duration_seconds_count{route=\"/health\"}", 1.0),
    ]);
    assert!(!page.0.contains("/nothing"), "{}", page.0);
}

/// A backend and where it listens.
pub(crate) fn backend(place: &Place, arguments: &[&str]) -> (Running, String) {
    let common = ["backend", "--host", "127.0.0.1", "--port", "0", "--network", "ws://127.0.0.1:9"];
    let mut running = place.start(&[&common[..], arguments].concat());
    running.until("listening on");
    let address = running.said.split("listening on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (running, address)
}

/// The pages of a backend that has run a real cycle and of one whose Docker host is not there.
pub(crate) fn real_pages() -> (Page, Page) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = Place::new();
    let folder = workspace(|text| {
        let others = ["button-press", "door-open", "reach"].map(|task| format!("  - metaworld/{task}-v3\n"));
        let one = others.iter().fold(text.to_owned(), |text, other| text.replace(other, ""));
        one.replace("inputs:\n", "schedule: [{ cron: '0 0 1 1 *' }]\ninputs:\n")
    });
    let (running, url) = backend(&place, &["--pipeline", &pipeline(&folder)]);
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().is_empty() {}
    place.json(&["schedule", "trigger", "quickstart", "--format", "json"]);
    let page = loop {
        let page = runtime.block_on(Page::of(&url));
        if page.value("robo_eval_cycles_total{pipeline=\"quickstart\",status=\"completed\"}").is_some() {
            break page;
        }
    };
    let nowhere = ["--role", "api", "--runtime", "docker", "--docker-host", "unix:///nowhere.sock"];
    let (other, url) = backend(&place, &nowhere);
    let docker = loop {
        let page = runtime.block_on(Page::of(&url));
        if page.names().is_superset(&["robo_docker_host_up".to_owned(), "robo_leases_held".to_owned()].into()) {
            break page;
        }
    };
    for running in [running, other] {
        running.signal(Signal::SIGTERM);
        let ran = running.wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    (page, docker)
}

/// What promtool says of a page: nothing.
fn promtool_takes(page: &str) {
    let mut check = Command::new(deploy::tool("promtool"));
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&[said.stdout, said.stderr].concat()));
}

#[test]
fn after_a_real_cycle_every_metric_is_there_and_no_other() {
    let _turn = turn();
    let (page, docker) = real_pages();
    let shown: BTreeSet<String> = page.names().union(&docker.names()).cloned().collect();
    assert_eq!(shown, documented());
    for page in [&page, &docker] {
        promtool_takes(&page.0);
    }
    for (file, named) in deploy::metrics_named() {
        assert!(!named.is_empty() && named.is_subset(&shown), "{file} names {:?}", named.difference(&shown));
    }
    docker.holds(&[("robo_docker_host_up{host=\"unix:///nowhere.sock\"}", 0.0), ("robo_leases_held", 0.0)]);
    page.holds(&[
        ("robo_eval_cycles_total{pipeline=\"quickstart\",status=\"completed\"}", 1.0),
        ("robo_eval_duration_seconds_count", 1.0),
        ("robo_eval_duration_seconds_bucket{le=\"+Inf\"}", 1.0),
        ("robo_stage_duration_seconds_count{kind=\"episodes/run\"}", 1.0),
        ("robo_stage_duration_seconds_count{kind=\"weights/publish\"}", 1.0),
        ("robo_miner_latency_seconds_count", 20.0),
        ("robo_miners_active", 4.0),
        ("robo_miner_scores{uid=\"1\",hotkey=\"demo-heuristic\",environment=\"metaworld/drawer-open-v3\"}", 1.0),
        ("robo_miner_scores_omitted", 0.0),
        ("robo_tasks{state=\"running\"}", 0.0),
        ("robo_tasks{state=\"waiting\"}", 0.0),
        ("robo_episodes_pending", 0.0),
        ("robo_leases", 0.0),
        ("robo_publish_guard_held", 0.0),
        ("robo_schedules_paused", 0.0),
        ("robo_database_up", 1.0),
        ("robo_build_info{version=\"0.1.0\"}", 1.0),
    ]);
    let played: f64 = page
        .0
        .lines()
        .filter(|line| line.starts_with("robo_episodes_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!(played >= 20.0, "{played}");
    let interval = page.value("robo_schedule_interval_seconds{pipeline=\"quickstart\"}").unwrap();
    assert!((31_536_000.0..=31_622_400.0).contains(&interval), "a year: {interval}");
    let open = page.value("robo_database_pool_size").unwrap();
    let by_state = ["idle", "in_use"].map(|state| format!("robo_database_pool_connections{{state=\"{state}\"}}"));
    assert!(open >= 1.0 && by_state.iter().map(|it| page.value(it).unwrap()).sum::<f64>() == open, "{}", page.0);
}
