//! Schedules and limits on open cycles against a real database, over a clock of the test's own; then real backends.

mod backends;
mod concurrency;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Duration, Utc};
use futures::future::BoxFuture;
use rand::{RngExt, SeedableRng};
use robo::{
    backend::{BlockSource, FinalizedHead, NoBlock, Pipeline, Pipelines, Schedules},
    cycle::{CycleId, CycleStatus, Journal},
    schedule::Due,
    store::{Fired, Outcome, Store},
};
use tempfile::TempDir;

use crate::support::{
    database::{TestDatabase, Version},
    replay_node::{Fault, ReplayNode},
};

/// A pipeline of one stage that needs nothing, in a root of its own.
struct File(TempDir);

impl File {
    fn new(schedule: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("environments")).unwrap();
        let file = Self(folder);
        file.write("scheduled", schedule);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("pipeline.yaml")
    }

    fn write(&self, name: &str, schedule: &str) {
        let stages = "stages:\n  miners: { uses: file/miners, with: { miners: [{ uid: 1, hotkey: a, endpoint: 'demo:random' }] } }";
        fs::write(self.path(), format!("version: 1\nname: {name}\nschedule: [{schedule}]\n{stages}\n")).unwrap();
    }

    fn read(&self) -> Pipeline {
        Pipeline::read(&self.path(), &[]).unwrap()
    }

    fn schedules(&self, store: &Arc<Store>) -> Schedules {
        Schedules::new(Arc::clone(store), Pipelines::new(vec![self.read()]), Arc::new(Chain::default()))
    }
}

struct Place {
    database: TestDatabase,
    store: Arc<Store>,
}

impl Place {
    async fn new() -> Self {
        let database = TestDatabase::new(Version::Default).await;
        let store = Arc::new(database.store().await);
        Self { database, store }
    }

    /// The open cycles, oldest first.
    async fn open(&self) -> Vec<CycleId> {
        let cycles = self.store.cycles(1000).await.unwrap();
        let mut open: Vec<CycleId> =
            cycles.iter().filter(|cycle| cycle.status == CycleStatus::Open).map(|cycle| cycle.id).collect();
        open.reverse();
        open
    }

    async fn end(&self, cycle: CycleId, status: CycleStatus) {
        let lease = self.store.acquire(cycle).await.unwrap();
        self.store.finish(&lease, status, None).await.unwrap();
    }

    /// Every due time that has a row, in order, with its outcome.
    async fn fires(&self) -> Vec<Fired> {
        let mut fires = self.store.fires("scheduled", 100_000).await.unwrap();
        fires.reverse();
        fires
    }
}

fn at(time: &str) -> DateTime<Utc> {
    format!("2026-10-24T{time}:00Z").parse().unwrap()
}

fn words(fired: &[Fired]) -> Vec<String> {
    let word = |fired: &Fired| {
        let due = match fired.due {
            Due::Time(time) => time.format("%H:%M").to_string(),
            Due::Block(block) => block.to_string(),
        };
        match &fired.outcome {
            Outcome::Cycle(_) => format!("{due} cycle"),
            Outcome::Skipped(reason) => format!("{due} {reason}"),
        }
    };
    fired.iter().map(word).collect()
}

/// Lesson 8: two backends with clocks that differ look at the same schedules at irregular times, over the night in which
/// the clocks are changed. One of them is away for hours.
#[tokio::test]
async fn lesson_8_due_times_are_neither_missed_nor_doubled_by_racing_backends() {
    let place = Place::new().await;
    let other = Arc::new(place.database.store().await);
    let file = File::new(
        "{ cron: '*/10 * * * *', timezone: Europe/Berlin, overlap: queue, catchup: all, jitter: 5m },
         { cron: '30 2 * * *', timezone: Europe/Berlin, overlap: queue }",
    );
    let (mut one, mut two) = (file.schedules(&place.store), file.schedules(&other));
    let start = at("18:00");
    one.round(start).await;
    two.round(start).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(8);
    let mut now = start;
    while now < start + Duration::hours(12) {
        now += Duration::seconds(random.random_range(1..1000));
        let late = now - Duration::seconds(7);
        if now < start + Duration::hours(8) {
            tokio::join!(one.round(now), two.round(late));
        } else {
            one.round(now).await;
        }
        for cycle in place.open().await {
            place.end(cycle, CycleStatus::Completed).await;
        }
    }
    let mut cycles = BTreeMap::new();
    for fired in place.fires().await {
        let Outcome::Cycle(cycle) = &fired.outcome else { panic!("nothing stood in the way: {fired:?}") };
        assert!(cycles.insert(*cycle, fired.due).is_none(), "a cycle for two due times");
    }
    assert_eq!(cycles.len(), place.store.cycles(1000).await.unwrap().len(), "a cycle without a due time");
    // Twelve hours of which one comes twice and counts once; the last one may still have its jitter before it. And 02:30.
    let due: Vec<Due> = cycles.into_values().collect();
    let night = due.iter().filter(|due| **due == Due::Time("2026-10-25T00:30:00Z".parse().unwrap())).count();
    assert_eq!(night, 2, "one of each schedule");
    assert!((66..=68).contains(&due.len()), "{}", due.len());
    let repeated = "2026-10-25T01:00:00Z".parse().unwrap()..="2026-10-25T01:59:59Z".parse::<DateTime<Utc>>().unwrap();
    let again = due
        .iter()
        .filter(|due| matches!(due, Due::Time(time) if *time >= *repeated.start() && *time <= *repeated.end()));
    assert_eq!(again.count(), 0, "the hour that came again");
}

#[tokio::test]
async fn many_backends_at_the_same_moment_make_one_cycle() {
    let place = Place::new().await;
    let file = File::new("{ cron: '0 * * * *' }");
    let mut backends = Vec::new();
    for _ in 0..4 {
        let mut backend = file.schedules(&Arc::new(place.database.store().await));
        backend.round(at("09:30")).await;
        backends.push(backend);
    }
    let rounds = backends.iter_mut().map(|backend| backend.round(at("10:00")));
    let fired: Vec<Fired> = futures::future::join_all(rounds).await.into_iter().flatten().collect();
    assert_eq!(words(&fired), ["10:00 cycle"], "told by the one that did it");
    assert_eq!(place.open().await.len(), 1);
}

#[tokio::test]
async fn every_due_time_that_is_left_out_is_a_row_with_its_reason() {
    let place = Place::new().await;
    let file = File::new("{ cron: '0 * * * *', window: 150m }");
    let mut backend = file.schedules(&place.store);
    assert!(backend.round(at("00:30")).await.is_empty(), "before anybody knew it, nothing was due");
    assert_eq!(words(&backend.round(at("01:00")).await), ["01:00 cycle"]);
    assert_eq!(words(&backend.round(at("02:00")).await), ["02:00 overlap"]);
    place.end(place.open().await[0], CycleStatus::Completed).await;
    // No backend for hours: a new one finds what the old one left.
    let mut backend = file.schedules(&place.store);
    assert_eq!(
        words(&backend.round(at("06:20")).await),
        ["03:00 outside_window", "04:00 superseded", "05:00 superseded", "06:00 cycle"]
    );
    place.end(place.open().await[0], CycleStatus::Completed).await;
    assert!(place.store.pause_schedules("scheduled", "new simulator", at("06:30")).await.unwrap());
    assert!(!place.store.pause_schedules("scheduled", "again", at("06:31")).await.unwrap());
    assert_eq!(words(&backend.round(at("07:00")).await), ["07:00 paused"]);
    assert!(place.store.resume_schedules("scheduled", at("07:30")).await.unwrap());
    assert_eq!(words(&backend.round(at("08:00")).await), ["08:00 cycle"]);
    assert_eq!(place.fires().await.len(), 8);
    let row = &place.store.schedules().await.unwrap()[0];
    assert_eq!(
        (words(row.last.as_slice()), row.decided_until),
        (vec!["08:00 cycle".into()], Some(Due::Time(at("08:00"))))
    );
}

#[tokio::test]
async fn queued_and_replacing_cycles_wait_for_those_before_them() {
    let place = Place::new().await;
    let file = File::new("{ cron: '0 * * * *', overlap: queue }");
    let mut backend = file.schedules(&place.store);
    backend.round(at("00:30")).await;
    backend.round(at("01:00")).await;
    backend.round(at("02:00")).await;
    let [first, second] = place.open().await[..] else { panic!("two are open") };
    assert_eq!(place.store.idle_cycles().await.unwrap(), [first]);
    let refused = place.store.acquire(second).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("when cycle `{first}` has ended")), "{refused}");

    file.write("scheduled", "{ cron: '0 * * * *', overlap: replace }");
    assert_eq!(words(&backend.round(at("03:00")).await), ["03:00 cycle"]);
    let open = place.open().await;
    let third = open[2];
    assert!(
        place.store.load(first).await.unwrap().cancel_requested
            && place.store.load(second).await.unwrap().cancel_requested
    );
    // What is to stop waits for nobody, and the new one waits only for what runs.
    let lease = place.store.acquire(second).await.unwrap();
    assert_eq!(place.store.waits_for(third).await.unwrap(), Some(second));
    place.store.finish(&lease, CycleStatus::Cancelled, None).await.unwrap();
    assert_eq!(place.store.idle_cycles().await.unwrap(), [first, third]);
}

#[tokio::test]
async fn failures_in_a_row_pause_the_pipeline_until_somebody_resumes_it() {
    let place = Place::new().await;
    let file = File::new("{ cron: '0 * * * *', pause_on_failure: 2 }");
    let mut backend = file.schedules(&place.store);
    backend.round(at("00:30")).await;
    let ends =
        [CycleStatus::Failed, CycleStatus::Completed, CycleStatus::Failed, CycleStatus::Cancelled, CycleStatus::Failed];
    for (hour, status) in ends.into_iter().enumerate() {
        let fired = backend.round(at("01:00") + Duration::hours(hour as i64)).await;
        assert!(words(&fired)[0].ends_with("cycle"), "{fired:?}");
        place.end(place.open().await[0], status).await;
    }
    assert_eq!(words(&backend.round(at("06:00")).await), ["06:00 paused"]);
    assert_eq!(place.store.pauses().await.unwrap()[0].reason, "its last 2 cycles failed");
    // The failures stay what they were and are forgiven: only cycles that end after the pause count.
    assert!(place.store.resume_schedules("scheduled", Utc::now() + Duration::hours(1)).await.unwrap());
    let words = words(&backend.round(Utc::now() + Duration::hours(30)).await);
    assert!(words.last().unwrap().ends_with("cycle"), "{words:?}");
}

/// A chain whose block the test sets.
#[derive(Default)]
struct Chain(AtomicU64);

impl BlockSource for Chain {
    fn latest(&self) -> BoxFuture<'_, Result<u64, NoBlock>> {
        let block = self.0.load(Ordering::SeqCst);
        Box::pin(async move { if block == 0 { Err(NoBlock("the chain does not answer".into())) } else { Ok(block) } })
    }
}

#[tokio::test]
async fn blocks_are_waited_for_and_none_is_left_out_without_a_word() {
    let place = Place::new().await;
    let file = File::new("{ every: { blocks: 360 }, catchup: latest }");
    let chain = Arc::new(Chain::default());
    let mut backend = Schedules::new(
        Arc::clone(&place.store),
        Pipelines::new(vec![file.read()]),
        Arc::clone(&chain) as Arc<dyn BlockSource>,
    );
    let mut round = async |block: u64| {
        chain.0.store(block, Ordering::SeqCst);
        let fired = backend.round(at("10:00")).await;
        for cycle in place.open().await {
            place.end(cycle, CycleStatus::Completed).await;
        }
        words(&fired)
    };
    assert!(round(0).await.is_empty());
    assert!(round(1000).await.is_empty(), "what lies behind the first block was never due");
    assert_eq!(round(1082).await, ["1080 cycle"]);
    assert!(round(0).await.is_empty());
    assert_eq!(round(1900).await, ["1440 superseded", "1800 cycle"], "what came while the chain was away is told");
    assert!(round(1899).await.is_empty());
    let row = &place.store.schedules().await.unwrap()[0];
    assert_eq!(row.decided_until, Some(Due::Block(1800)));
}

#[tokio::test]
async fn blocks_come_from_the_finalized_head_of_a_real_node() {
    let (place, node) = (Place::new().await, ReplayNode::start(Fault::None).await);
    let file = File::new("{ every: { blocks: 360 }, catchup: latest }");
    let head = FinalizedHead::of(node.url.parse().unwrap()).every(std::time::Duration::from_millis(10));
    let mut backend = Schedules::new(Arc::clone(&place.store), Pipelines::new(vec![file.read()]), Arc::new(head));
    // Until the first answer nothing is known; from then on what lies behind was never due.
    while place.store.schedules().await.unwrap().first().is_none_or(|row| row.decided_until.is_none()) {
        assert!(backend.round(at("10:00")).await.is_empty());
        tokio::task::yield_now().await;
    }
    node.finalize(725);
    let mut fired = Vec::new();
    while fired.is_empty() {
        fired = backend.round(at("10:00")).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(words(&fired), ["360 superseded", "720 cycle"]);
}

#[tokio::test]
async fn an_edit_counts_from_the_next_cycle_on_and_a_broken_one_not_at_all() {
    let place = Place::new().await;
    let file = File::new("{ cron: '0 * * * *' }, { cron: '30 * * * *' }");
    let mut backend = file.schedules(&place.store);
    backend.round(at("00:10")).await;
    fs::write(file.path(), "version: 1\nname: [").unwrap();
    assert_eq!(words(&backend.round(at("00:30")).await), ["00:30 cycle"], "the last good version stays");
    place.end(place.open().await[0], CycleStatus::Completed).await;
    // One entry moves up, the other goes and comes back: it is not due for the time in between.
    file.write("scheduled", "{ cron: '30 * * * *' }");
    assert_eq!(words(&backend.round(at("01:30")).await), ["01:30 cycle"]);
    place.end(place.open().await[0], CycleStatus::Completed).await;
    file.write("scheduled", "{ cron: '30 * * * *' }, { cron: '0 * * * *', catchup: all, timezone: UTC }");
    assert_eq!(words(&backend.round(at("02:15")).await), Vec::<String>::new());
    assert_eq!(words(&backend.round(at("02:30")).await), ["02:30 cycle"]);
    assert_eq!(words(&backend.round(at("03:00")).await), ["03:00 overlap"]);
    // Under another name it is another pipeline; the old one is due no more.
    file.write("renamed", "{ cron: '30 * * * *' }");
    backend.round(at("03:10")).await;
    let names: Vec<String> = place.store.schedules().await.unwrap().into_iter().map(|row| row.pipeline).collect();
    assert_eq!(names, ["renamed"]);
}
