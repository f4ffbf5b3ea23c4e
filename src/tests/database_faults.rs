//! A database that restarts, stands still, takes no writes or takes its time, under a journal that is written to without a
//! pause: whatever was acknowledged is there, once, and the lease is still ours.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    io::Write,
    rc::Rc,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use robo::{
    config,
    cycle::{
        Appended, Course, CycleId, CycleStatus, Episode, EpisodeKey, EpisodeReport, Journal, JournalError, Lease,
        Outcome, Pin, PublishGuard, Salt, TaskKey,
    },
    host::Progress,
    store::{Admission, NewCycle, NewFork, Origin, Publishing, ReleaseAnswer, Store},
};
use serde_json::json;

use crate::{
    faults::{Result, arguments, ended, nothing_runs, until_they_play},
    support::{
        episodes::report,
        own_server::{OwnServer, Proxy},
        program::{Place, pipeline, turn, workspace},
    },
    weights::{WHOLE, publish_at},
};

/// More episodes than any fault leaves time for.
const EPISODES: u32 = 50_000;
/// Writers at a time.
const WRITERS: usize = 6;
/// Writes before the fault, and after it.
const CALM: usize = 50;

/// A cycle whose episodes are being recorded.
pub(crate) struct Writing {
    pub(crate) store: Store,
    pub(crate) cycle: CycleId,
    pub(crate) lease: Lease,
    next: Cell<u32>,
    acknowledged: RefCell<BTreeSet<u32>>,
    stop: Cell<Option<usize>>,
}

impl Writing {
    pub(crate) async fn begin(config: &config::Database) -> Self {
        let store = Store::open(config, &Progress::silent()).await.unwrap();
        let new = NewCycle {
            pipeline: "faults".into(),
            definition: json!({}),
            definition_hash: "00".repeat(32),
            root: "/".into(),
            salt: Salt::random(),
            pin: None,
            tasks: vec![task()],
        };
        let cycle = store.create_cycle(&new).await.unwrap();
        let lease = store.acquire(cycle).await.unwrap();
        let keys: Vec<EpisodeKey> = (0..EPISODES).map(key).collect();
        store.plan_episodes(&lease, &task(), &keys).await.unwrap();
        let (next, acknowledged, stop) = (Cell::new(0), RefCell::default(), Cell::new(None));
        Self { store, cycle, lease, next, acknowledged, stop }
    }

    fn count(&self) -> usize {
        self.acknowledged.borrow().len()
    }

    async fn until(&self, count: usize) {
        while self.count() < count {
            tokio::task::yield_now().await;
        }
    }

    async fn write(&self) {
        while self.stop.get().is_none_or(|stop| self.count() < stop) {
            let index = self.next.replace(self.next.get() + 1);
            let answer = self.store.record_episode(&self.lease, &episode(index)).await.unwrap();
            assert_ne!(answer, Appended::Full);
            self.acknowledged.borrow_mut().insert(index);
        }
    }

    async fn beat(&self) {
        while self.stop.get().is_none_or(|stop| self.count() < stop) {
            self.store.heartbeat(&self.lease).await.unwrap();
        }
    }

    /// Write while `fault` happens, and a little longer; then what was acknowledged is what is there.
    async fn through(&self, fault: impl Future<Output = ()>) {
        let fault = async {
            self.until(CALM).await;
            fault.await;
            self.stop.set(Some(self.count() + CALM));
        };
        let writers = futures::future::join_all((0..WRITERS).map(|_| self.write()));
        tokio::join!(fault, writers, self.beat());
        let scored = self.store.scored_episodes(self.cycle).await.unwrap();
        let stored: BTreeSet<u32> = scored.iter().map(|episode| episode.key.seed_index).collect();
        assert_eq!(stored, *self.acknowledged.borrow(), "what was acknowledged and what is there differ");
        assert_eq!(stored.len(), scored.len());
        assert!(scored.iter().all(|episode| episode.attempt == 1), "an episode was counted twice");
        self.store.heartbeat(&self.lease).await.unwrap();
    }
}

fn task() -> TaskKey {
    TaskKey { stage: "episodes".parse().unwrap(), cell: "m/a".into() }
}

fn key(seed_index: u32) -> EpisodeKey {
    EpisodeKey { environment: "m/a".parse().unwrap(), seed_index, hotkey: "one".parse().unwrap() }
}

pub(crate) fn episode(seed_index: u32) -> Episode {
    let report = EpisodeReport { total_reward: f64::from(seed_index), ..report(Outcome::Success) };
    Episode { key: key(seed_index), attempt: 1, report }
}

/// What the program would tell its operator, of everything on this thread.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Told {
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        // With one subscriber alone, what is cached of a line would depend on which thread came to it first.
        static ANOTHER: LazyLock<tracing::Dispatch> =
            LazyLock::new(|| tracing_subscriber::fmt().with_writer(std::io::sink).finish().into());
        LazyLock::force(&ANOTHER);
        let told = Self::default();
        let writer = told.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (told, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Lines that hold these words.
    fn lines(&self, words: &str) -> usize {
        self.text().lines().filter(|line| line.contains(words)).count()
    }

    /// Absences of the database as they were told: how many reasons of each, and of the one that goes on. No reason is told twice.
    fn absences(&self) -> (Vec<usize>, usize) {
        let (mut ended, mut reasons) = (Vec::new(), BTreeSet::new());
        for line in self.text().lines() {
            if line.contains("the database works again after") {
                ended.push(std::mem::take(&mut reasons).len());
            } else if let Some((_, told)) = line.split_once("the database ") {
                let reason = told.split(" error=").next().unwrap().to_owned();
                assert!(reasons.insert(reason), "told twice: {}", self.text());
            }
        }
        (ended, reasons.len())
    }

    /// Whatever was told of has come back.
    fn all_is_well(&self) -> bool {
        let (ended, reasons) = self.absences();
        !ended.is_empty() && ended.iter().all(|reasons| *reasons > 0) && reasons == 0
    }

    async fn until(&self, words: &str) {
        while !self.text().contains(words) {
            tokio::task::yield_now().await;
        }
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_restart_of_the_server_loses_nothing() {
    let server = OwnServer::start().await;
    let writing = Writing::begin(&server.config()).await;
    let (told, _guard) = Told::listen();
    let before = server.started().await;
    writing.through(server.restart()).await;
    assert_ne!(server.started().await, before, "it was not restarted");
    assert!(told.lines("; trying again") > 0 && told.all_is_well(), "{}", told.text());
}

#[tokio::test]
async fn a_server_that_stands_still_for_ten_seconds_loses_nothing() {
    let server = OwnServer::start().await;
    let writing = Writing::begin(&server.config()).await;
    let (told, _guard) = Told::listen();
    writing
        .through(async {
            server.freeze();
            let before = writing.count();
            // Not a wait for anything: these ten seconds are the fault.
            tokio::time::sleep(Duration::from_secs(10)).await;
            // What was on its way when it stopped may have arrived.
            assert!(writing.count() <= before + WRITERS, "it did not stand still");
            assert_eq!(told.lines("the database"), 1, "one line for everybody who waits: {}", told.text());
            assert_eq!(told.lines("the database has not answered for 3 s; waiting for it"), 1, "{}", told.text());
            server.thaw();
        })
        .await;
    // One absence, and at most one more reason: transactions that stood still were ended meanwhile.
    assert_eq!(told.lines("the database works again after"), 1, "{}", told.text());
    assert!(told.all_is_well() && told.lines("the database") <= 3, "{}", told.text());
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_named_and_waited_for() {
    let server = OwnServer::start().await;
    let writing = Writing::begin(&server.config()).await;
    let (told, _guard) = Told::listen();
    let mut operator = server.connection().await;
    writing
        .through(async {
            for sql in ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"] {
                sqlx::query(sql).execute(&mut operator).await.unwrap();
            }
            told.until("the database takes no writes: it is read-only; trying again").await;
            for sql in [
                "set default_transaction_read_only = off",
                "alter system reset default_transaction_read_only",
                "select pg_reload_conf()",
            ] {
                sqlx::query(sql).execute(&mut operator).await.unwrap();
            }
        })
        .await;
}

#[tokio::test]
async fn a_slow_way_to_the_server_and_lost_acknowledgements_count_nothing_twice() {
    let server = OwnServer::start().await;
    let proxy = Proxy::start(&server);
    let writing = Writing::begin(&proxy.config()).await;
    let (told, _guard) = Told::listen();
    writing
        .through(async {
            // Each commit is made, and nobody hears of it.
            proxy.cut_commits(20);
            while proxy.commits_to_cut() > 0 {
                tokio::task::yield_now().await;
            }
            proxy.delay(40);
            writing.until(writing.count() + CALM).await;
            proxy.delay(0);
        })
        .await;
    // However short it was.
    assert!(told.lines("; trying again") > 0 && told.all_is_well(), "{}", told.text());
}

/// Each is one transaction that makes a cycle: asked again because nobody heard of the commit, there is still one.
#[tokio::test]
async fn a_trigger_and_a_fork_whose_acknowledgement_is_lost_make_one_cycle_each() {
    let server = OwnServer::start().await;
    let proxy = Proxy::start(&server);
    let store = Store::open(&proxy.config(), &Progress::silent()).await.unwrap();
    let new = NewCycle {
        pipeline: "faults".into(),
        definition: json!({}),
        definition_hash: "00".repeat(32),
        root: "/".into(),
        salt: Salt::random(),
        pin: None,
        tasks: vec![task()],
    };
    proxy.cut_commits(1);
    let Admission::Created(parent) = store.trigger(&new, chrono::Utc::now()).await.unwrap() else {
        panic!("nothing limits it")
    };
    assert_eq!(proxy.commits_to_cut(), 0, "nothing was lost");
    let all = async || store.cycles(10).await.unwrap().iter().map(|cycle| cycle.id).collect::<Vec<_>>();
    assert_eq!((all().await, store.fires("faults", 10).await.unwrap().len()), (vec![parent], 1));

    let lease = store.acquire(parent).await.unwrap();
    store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    let fork = NewFork {
        cycle: new,
        parent,
        origin: Origin::Fork,
        from: task().stage,
        kept: vec![],
        skipped: vec![],
        publishing: Publishing::Draft,
    };
    proxy.cut_commits(1);
    let Admission::Created(child) = store.create_fork(&fork).await.unwrap() else { panic!("nothing limits it") };
    assert_eq!(proxy.commits_to_cut(), 0, "nothing was lost");
    assert_eq!(all().await, [child, parent]);
    assert_eq!(store.lineage(child).await.unwrap().parent.unwrap().cycle, parent);
}

/// Asked again because nobody heard of the commit, the vector is released already; that is no error for whoever released it.
#[tokio::test]
async fn a_release_whose_acknowledgement_is_lost_is_one_release() {
    let server = OwnServer::start().await;
    let proxy = Proxy::start(&server);
    let store = Store::open(&proxy.config(), &Progress::silent()).await.unwrap();
    let pin = Pin { genesis: "0x00".into(), netuid: 1, block: 7, hash: "0x07".into() };
    let guard = PublishGuard { coverage: Some(1.0), ..PublishGuard::default() };
    let cycle = publish_at(&store, pin, Some("ann"), (Course { scored: 8, ..WHOLE }, guard)).await;
    assert!(store.latest_publication().await.unwrap().is_none(), "it is held");
    proxy.cut_commits(1);
    assert_eq!(store.release_publication(cycle, "looked at").await.unwrap(), ReleaseAnswer::AlreadyReleased);
    assert_eq!(proxy.commits_to_cut(), 0, "nothing was lost");
    let latest = store.latest_publication().await.unwrap().unwrap();
    assert_eq!((latest.cycle, latest.release.unwrap().reason.as_str()), (cycle, "looked at"));
}

/// A process that is stopped inside a transaction holds its cycle's row. The server lets go of it.
#[tokio::test]
async fn a_writer_that_stands_still_in_a_transaction_keeps_nobody_from_taking_over() {
    let server = OwnServer::start().await;
    let proxy = Proxy::start(&server);
    let stopped = Writing::begin(&proxy.config()).await;
    let next = Store::open(&server.config(), &Progress::silent()).await.unwrap();
    // All of them, so that none comes between the end of the first and the next owner.
    proxy.hold_commits(usize::MAX);
    let held = Rc::new(Cell::new(false));
    let late = async {
        let answer = stopped.store.record_episode(&stopped.lease, &episode(0)).await;
        assert!(held.get(), "it was not held back");
        assert!(matches!(answer, Err(JournalError::LeaseLost(_))), "{answer:?}");
    };
    let taking_over = async {
        while proxy.commits_to_hold() == usize::MAX {
            tokio::task::yield_now().await;
        }
        held.set(true);
        // The update waits for the held transaction as `acquire` would; the server ends that. From then on the cycle is another's: a
        // lease that has only run out would be good again for a writer who asks before the next owner does.
        let mut connection = server.connection().await;
        let taken = "update cycle set lease_until = now(), epoch = epoch + 1";
        sqlx::query(taken).execute(&mut connection).await.unwrap();
        proxy.hold_commits(0);
        let lease = next.acquire(stopped.cycle).await.unwrap();
        assert!(next.scored_episodes(stopped.cycle).await.unwrap().is_empty(), "half a transaction was kept");
        assert_eq!(next.record_episode(&lease, &episode(0)).await.unwrap(), Appended::Recorded);
    };
    tokio::join!(late, taking_over);
    assert_eq!(next.scored_episodes(stopped.cycle).await.unwrap().len(), 1);
}

/// The whole program through cut connections, a restart and a read-only while: the same bytes, and it says what happened.
#[tokio::test]
async fn a_cycle_goes_through_all_of_it_and_ends_with_the_same_bytes() {
    let server = OwnServer::start().await;
    let url = server.url();
    let (steps, mut wanted) = tokio::sync::mpsc::unbounded_channel::<Step>();
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let program = tokio::task::spawn_blocking(move || {
        let _turn = turn();
        let calm = Result::undisturbed();
        let (workspace, place) = (workspace(str::to_owned), Place::with_database(&url));
        let mut running = place.start(&arguments(&pipeline(&workspace)));
        until_they_play(&mut running);
        // An idle connection that was cut is replaced without a word.
        for step in [Step::Cut, Step::Restart, Step::ReadOnly] {
            steps.send(step).unwrap();
            finished.recv().unwrap();
        }
        running.until("the database takes no writes: it is read-only; trying again");
        steps.send(Step::Writable).unwrap();
        finished.recv().unwrap();
        ended(&running.wait(), 0, &[]);
        nothing_runs(&place);
        let (result, episodes) = Result::of(&place);
        assert_eq!(&result, calm);
        assert!(episodes.iter().all(|episode| episode["attempt"] == 1), "an episode ran again: {episodes:?}");
    });
    while let Some(step) = wanted.recv().await {
        step.take(&server).await;
        done.send(()).unwrap();
    }
    program.await.unwrap();
}

/// What happens to the database.
#[derive(Debug, Clone, Copy)]
enum Step {
    Cut,
    Restart,
    ReadOnly,
    Writable,
}

impl Step {
    async fn take(self, server: &OwnServer) {
        let statements: &[&'static str] = match self {
            Self::Restart => return server.restart().await,
            Self::Cut => &["select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'robo'"],
            Self::ReadOnly => &["alter system set default_transaction_read_only = on", "select pg_reload_conf()"],
            Self::Writable => &[
                "set default_transaction_read_only = off",
                "alter system reset default_transaction_read_only",
                "select pg_reload_conf()",
            ],
        };
        let mut connection = server.connection().await;
        for statement in statements {
            sqlx::query(*statement).execute(&mut connection).await.unwrap();
        }
    }
}
