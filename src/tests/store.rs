//! The journal's contract, run over the journal in memory and over Postgres in two versions.

use robo::{
    cycle::{
        Appended, CycleId, CycleRecord, CycleStatus, Entry, Episode, EpisodeKey, EpisodeReport, FailureClass,
        InfraFault, Journal, JournalError, LatencySummary, Lease, MemoryJournal, MinerFault, Outcome, Publication,
        PublishGuard, Salt, Sighting, TaskEvent, TaskFailure, TaskKey, TaskStatus,
    },
    store::{NewCycle, Store},
};
use serde_json::json;
use sqlx::Executor;

use super::support::database::{TestDatabase, Version};

mod batches;
mod counts;
mod on_postgres;
mod pools;
mod sightings;
mod standings;
mod wide;

use batches::{
    a_batch_is_written_whole_or_not_at_all, a_full_pool_leaves_the_others_in, a_paused_task_waits_for_a_person,
    a_place_in_a_pool_lasts_as_long_as_the_lease, cleanup_can_be_reopened_though_it_has_succeeded,
    reopening_opens_the_cycle_under_a_new_epoch, tasks_that_become_known_come_after_the_others_and_once,
    what_has_not_succeeded_can_be_reopened_and_nothing_else,
};
use pools::{
    a_batch_of_no_lines_is_nothing, a_pool_counts_all_cycles_and_only_live_leases,
    a_pool_takes_as_many_as_it_may_and_frees_every_way, lines_of_many_tasks_are_one_write,
    one_line_that_does_not_fit_takes_all_down,
};
use sightings::what_is_seen_of_a_miner_is_kept_once_and_fenced;
use standings::{
    a_discovery_is_kept_with_its_line_or_not_at_all, a_discovery_takes_nothing_back_that_a_later_block_has_shown,
};

/// A journal under test, with what a test must do beside the contract.
trait Subject {
    type Journal: Journal + Clone;
    fn journal(&self) -> &Self::Journal;
    async fn create(&self) -> CycleId;
    async fn expire_lease(&self, cycle: CycleId);
    async fn request_cancel(&self, cycle: CycleId);
    async fn published(&self) -> Vec<(CycleId, Publication)>;
    async fn sightings(&self, cycle: CycleId) -> Vec<Sighting>;
}

struct OnMemory(MemoryJournal);

impl Subject for OnMemory {
    type Journal = MemoryJournal;

    fn journal(&self) -> &MemoryJournal {
        &self.0
    }

    async fn create(&self) -> CycleId {
        let new = new_cycle();
        let record = CycleRecord { root: new.root, pin: new.pin, ..CycleRecord::new(new.definition, new.salt) };
        let id = record.id;
        self.0.create(record, new.tasks);
        id
    }

    async fn expire_lease(&self, cycle: CycleId) {
        self.0.expire_lease(cycle);
    }

    async fn request_cancel(&self, cycle: CycleId) {
        self.0.request_cancel(cycle);
    }

    async fn published(&self) -> Vec<(CycleId, Publication)> {
        self.0.publications()
    }

    async fn sightings(&self, cycle: CycleId) -> Vec<Sighting> {
        self.0.sightings(cycle)
    }
}

struct OnPostgres {
    store: Store,
    database: TestDatabase,
}

impl OnPostgres {
    async fn new(version: Version) -> Self {
        let database = TestDatabase::new(version).await;
        Self { store: database.store().await, database }
    }

    async fn execute(&self, sql: &'static str) -> Result<u64, sqlx::Error> {
        Ok(self.database.connection().await.execute(sql).await?.rows_affected())
    }
}

impl Subject for OnPostgres {
    type Journal = Store;

    fn journal(&self) -> &Store {
        &self.store
    }

    async fn create(&self) -> CycleId {
        self.store.create_cycle(&new_cycle()).await.unwrap()
    }

    async fn expire_lease(&self, _cycle: CycleId) {
        self.execute("update cycle set lease_until = now() where lease_until is not null").await.unwrap();
    }

    async fn request_cancel(&self, cycle: CycleId) {
        self.store.request_cancel(cycle).await.unwrap();
    }

    async fn published(&self) -> Vec<(CycleId, Publication)> {
        let latest = self.store.latest_publication().await.unwrap();
        latest.into_iter().map(|row| (row.cycle, row.publication)).collect()
    }

    async fn sightings(&self, cycle: CycleId) -> Vec<Sighting> {
        self.store.sightings(cycle).await.unwrap()
    }
}

macro_rules! contract {
    ($($property:ident)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $property() { super::$property(&OnMemory(MemoryJournal::new())).await; })*
        }
        mod postgres_default {
            use super::*;
            $(#[tokio::test] async fn $property() { super::$property(&OnPostgres::new(Version::Default).await).await; })*
        }
        mod postgres_wheel {
            use super::*;
            $(#[tokio::test] async fn $property() { super::$property(&OnPostgres::new(Version::Wheel).await).await; })*
        }
    };
}

contract! {
    a_cycle_is_read_back_as_it_was_created
    what_is_not_there_is_unknown
    a_live_lease_keeps_everybody_else_out
    a_lost_lease_cannot_write
    a_lease_that_ran_out_is_good_until_somebody_takes_it
    a_heartbeat_brings_the_wish_to_stop
    a_line_written_twice_is_written_once
    attempts_are_counted_and_lost_ones_are_no_failures
    an_illegal_line_leaves_no_trace
    a_late_word_about_an_earlier_attempt_is_refused
    outputs_come_back_exactly
    nothing_is_written_after_the_end
    leaving_twice_is_leaving_once
    a_publication_comes_with_the_end_of_its_cycle_or_not_at_all
    a_cycle_that_was_asked_to_stop_publishes_nothing
    pending_episodes_come_in_order_and_only_of_their_task
    the_first_scored_outcome_is_final
    our_own_faults_are_counted_and_run_again
    reports_come_back_exactly_and_in_order
    what_was_never_planned_is_not_recorded
    episodes_are_fenced_too
    a_batch_is_written_whole_or_not_at_all
    tasks_that_become_known_come_after_the_others_and_once
    a_paused_task_waits_for_a_person
    what_has_not_succeeded_can_be_reopened_and_nothing_else
    cleanup_can_be_reopened_though_it_has_succeeded
    reopening_opens_the_cycle_under_a_new_epoch
    lines_of_many_tasks_are_one_write
    one_line_that_does_not_fit_takes_all_down
    a_batch_of_no_lines_is_nothing
    a_pool_takes_as_many_as_it_may_and_frees_every_way
    a_pool_counts_all_cycles_and_only_live_leases
    a_full_pool_leaves_the_others_in
    a_place_in_a_pool_lasts_as_long_as_the_lease
    what_is_seen_of_a_miner_is_kept_once_and_fenced
    a_discovery_is_kept_with_its_line_or_not_at_all
    a_discovery_takes_nothing_back_that_a_later_block_has_shown
}

fn new_cycle() -> NewCycle {
    NewCycle {
        pipeline: "test".into(),
        definition: json!({
            "pipeline": "test", "z": 1e15, "a": [0.1 + 0.2, -0.0, 1e-7], "text": "a\u{0}b",
            "stages": [{ "id": "publish", "phase": "finally" }],
        }),
        definition_hash: "00".repeat(32),
        root: "/somewhere".into(),
        salt: "5a".repeat(32).parse::<Salt>().unwrap(),
        pin: Some(standings::pin(7)),
        tasks: vec![task("discover", ""), task("episodes", "m/a"), task("episodes", "m/b"), task("publish", "")],
    }
}

fn task(stage: &str, cell: &str) -> TaskKey {
    TaskKey { stage: stage.parse().unwrap(), cell: cell.into() }
}

fn line(task: TaskKey, attempt: u32, event: TaskEvent) -> Entry {
    Entry::new(task, attempt, event)
}

fn episode_key(environment: &str, seed_index: u32, hotkey: &str) -> EpisodeKey {
    EpisodeKey { environment: environment.parse().unwrap(), seed_index, hotkey: hotkey.parse().unwrap() }
}

fn episode(key: &EpisodeKey, attempt: u32, outcome: Outcome) -> Episode {
    let report = EpisodeReport {
        outcome,
        detail: None,
        steps: 500,
        total_reward: 1.5,
        score: Some(0.75),
        actions: None,
        trajectory_hash: Some("ab".repeat(32)),
        latency: None,
        wall_ms: 12.25,
    };
    Episode { key: key.clone(), attempt, report }
}

fn publication(weights: &str) -> Publication {
    Publication {
        scores: "{}".into(),
        weights: weights.into(),
        digest: format!("digest of {weights}"),
        guard: PublishGuard::default(),
    }
}

fn failure() -> TaskFailure {
    TaskFailure { class: FailureClass::Infra, message: "the server\u{0} went away".into() }
}

fn is_lost<T: std::fmt::Debug>(result: Result<T, JournalError>) -> bool {
    matches!(result, Err(JournalError::LeaseLost(_)))
}

async fn append<J: Journal>(journal: &J, lease: &Lease, entry: Entry) -> Appended {
    journal.append(lease, &entry).await.unwrap()
}

async fn status_of<J: Journal>(journal: &J, cycle: CycleId, key: &TaskKey) -> (u32, u32, TaskStatus) {
    let record = journal.load(cycle).await.unwrap();
    let found = record.tasks.into_iter().find(|state| state.key == *key).unwrap();
    (found.attempt, found.failed_attempts, found.status)
}

/// Every write of the contract under `lease`, each with whether it was refused for the lease.
async fn refusals<J: Journal>(journal: &J, lease: &Lease) -> Vec<bool> {
    let key = episode_key("m/a", 0, "one");
    vec![
        is_lost(journal.heartbeat(lease).await),
        is_lost(journal.append(lease, &line(task("discover", ""), 1, TaskEvent::Started)).await),
        is_lost(journal.plan_episodes(lease, &task("episodes", "m/a"), std::slice::from_ref(&key)).await),
        is_lost(journal.record_episode(lease, &episode(&key, 1, Outcome::Success)).await),
        is_lost(journal.finish(lease, CycleStatus::Completed, None).await),
        is_lost(journal.release(lease).await),
    ]
}

async fn a_cycle_is_read_back_as_it_was_created<S: Subject>(subject: &S) {
    let id = subject.create().await;
    let (record, new) = (subject.journal().load(id).await.unwrap(), new_cycle());
    assert_eq!(record.definition.to_string(), new.definition.to_string());
    assert_eq!((record.root, record.salt, record.pin), (new.root, new.salt, new.pin));
    assert_eq!((record.status, record.cancel_requested), (CycleStatus::Open, false));
    assert_eq!(record.tasks.iter().map(|state| state.key.clone()).collect::<Vec<_>>(), new.tasks);
    assert!(record.tasks.iter().all(|state| state.status == TaskStatus::Pending && state.attempt == 0));
}

async fn what_is_not_there_is_unknown<S: Subject>(subject: &S) {
    let (journal, id) = (subject.journal(), CycleId::generate());
    assert!(matches!(journal.load(id).await, Err(JournalError::Unknown(found)) if found == id));
    assert!(matches!(journal.acquire(id).await, Err(JournalError::Unknown(_))));
    let lease = Lease { cycle: id, owner: uuid::Uuid::new_v4(), epoch: 1 };
    assert!(matches!(journal.heartbeat(&lease).await, Err(JournalError::Unknown(_))));
    let cycle = subject.create().await;
    let lease = journal.acquire(cycle).await.unwrap();
    let entry = line(task("nowhere", ""), 1, TaskEvent::Started);
    assert!(matches!(journal.append(&lease, &entry).await, Err(JournalError::Storage(_))));
}

async fn a_live_lease_keeps_everybody_else_out<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let first = journal.acquire(cycle).await.unwrap();
    assert!(matches!(journal.acquire(cycle).await, Err(JournalError::Leased(found, _)) if found == cycle));
    journal.release(&first).await.unwrap();
    let second = journal.acquire(cycle).await.unwrap();
    assert!(second.epoch > first.epoch && second.owner != first.owner);
}

async fn a_lost_lease_cannot_write<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let first = journal.acquire(cycle).await.unwrap();
    subject.expire_lease(cycle).await;
    let second = journal.acquire(cycle).await.unwrap();
    assert_eq!(refusals(journal, &first).await, [true; 6]);
    // The right owner with the wrong epoch, and the other way round.
    assert_eq!(refusals(journal, &Lease { epoch: first.epoch, ..second }).await, [true; 6]);
    assert_eq!(refusals(journal, &Lease { owner: first.owner, ..second }).await, [true; 6]);
    assert!(journal.heartbeat(&second).await.is_ok());
    assert_eq!(journal.load(cycle).await.unwrap().tasks[0].status, TaskStatus::Pending);
}

async fn a_lease_that_ran_out_is_good_until_somebody_takes_it<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    subject.expire_lease(cycle).await;
    let entry = line(task("discover", ""), 1, TaskEvent::Started);
    assert_eq!(append(journal, &lease, entry).await, Appended::Recorded);
    journal.heartbeat(&lease).await.unwrap();
    assert!(matches!(journal.acquire(cycle).await, Err(JournalError::Leased(..))));
}

async fn a_heartbeat_brings_the_wish_to_stop<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    assert!(!journal.heartbeat(&lease).await.unwrap().cancel_requested);
    subject.request_cancel(cycle).await;
    assert!(journal.heartbeat(&lease).await.unwrap().cancel_requested);
    assert!(journal.load(cycle).await.unwrap().cancel_requested);
}

async fn a_line_written_twice_is_written_once<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = task("discover", "");
    for expected in [Appended::Recorded, Appended::AlreadyRecorded] {
        assert_eq!(append(journal, &lease, line(key.clone(), 1, TaskEvent::Started)).await, expected);
    }
    let ended = TaskEvent::Succeeded { output: json!({ "miners": 3 }) };
    for expected in [Appended::Recorded, Appended::AlreadyRecorded] {
        assert_eq!(append(journal, &lease, line(key.clone(), 1, ended.clone())).await, expected);
    }
    // The line before the last, again, after the end of the task.
    assert_eq!(append(journal, &lease, line(key.clone(), 1, TaskEvent::Started)).await, Appended::AlreadyRecorded);
    let expected = (1, 0, TaskStatus::Succeeded { output: json!({ "miners": 3 }) });
    assert_eq!(status_of(journal, cycle, &key).await, expected);
}

async fn attempts_are_counted_and_lost_ones_are_no_failures<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = task("episodes", "m/a");
    let retried = TaskEvent::Retried { failure: failure() };
    for (attempt, event) in [(1, TaskEvent::Started), (1, TaskEvent::Lost), (2, TaskEvent::Started), (2, retried)] {
        assert_eq!(append(journal, &lease, line(key.clone(), attempt, event)).await, Appended::Recorded);
    }
    assert_eq!(status_of(journal, cycle, &key).await, (2, 1, TaskStatus::Pending));
    let _ = append(journal, &lease, line(key.clone(), 3, TaskEvent::Started)).await;
    let _ = append(journal, &lease, line(key.clone(), 3, TaskEvent::Failed { failure: failure() })).await;
    assert_eq!(status_of(journal, cycle, &key).await, (3, 2, TaskStatus::Failed { failure: failure() }));
    let skipped = TaskEvent::Skipped { reason: "`when` is false".into() };
    let _ = append(journal, &lease, line(task("publish", ""), 0, skipped)).await;
    let expected = (0, 0, TaskStatus::Skipped { reason: "`when` is false".into() });
    assert_eq!(status_of(journal, cycle, &task("publish", "")).await, expected);
}

async fn an_illegal_line_leaves_no_trace<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = task("publish", "");
    let early = line(key.clone(), 1, TaskEvent::Succeeded { output: json!(null) });
    assert!(matches!(journal.append(&lease, &early).await, Err(JournalError::Illegal(_))));
    assert_eq!(status_of(journal, cycle, &key).await, (0, 0, TaskStatus::Pending));
    // Had the refused line been kept, this would be `AlreadyRecorded`.
    let _ = append(journal, &lease, line(key.clone(), 1, TaskEvent::Started)).await;
    assert_eq!(append(journal, &lease, early).await, Appended::Recorded);
    let after = line(key, 1, TaskEvent::Failed { failure: failure() });
    assert!(matches!(journal.append(&lease, &after).await, Err(JournalError::Illegal(_))));
}

async fn a_late_word_about_an_earlier_attempt_is_refused<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = task("discover", "");
    for (attempt, event) in [(1, TaskEvent::Started), (1, TaskEvent::Lost), (2, TaskEvent::Started)] {
        let _ = append(journal, &lease, line(key.clone(), attempt, event)).await;
    }
    let late = line(key.clone(), 1, TaskEvent::Succeeded { output: json!(1) });
    assert!(matches!(journal.append(&lease, &late).await, Err(JournalError::Illegal(_))));
    assert_eq!(status_of(journal, cycle, &key).await, (2, 0, TaskStatus::Running));
}

async fn outputs_come_back_exactly<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let output = json!({ "z": [1e15, 0.1 + 0.2, 1.0 / 3.0, 5e-324, -0.0, 1], "a": "nul \u{0}, quote \", é" });
    let _ = append(journal, &lease, line(task("discover", ""), 1, TaskEvent::Started)).await;
    let ended = TaskEvent::Succeeded { output: output.clone() };
    let _ = append(journal, &lease, line(task("discover", ""), 1, ended)).await;
    let (_, _, status) = status_of(journal, cycle, &task("discover", "")).await;
    let TaskStatus::Succeeded { output: found } = status else { panic!("{status:?}") };
    assert_eq!(found.to_string(), output.to_string());
}

async fn nothing_is_written_after_the_end<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    journal.finish(&lease, CycleStatus::Failed, Some("too few")).await.unwrap();
    // The same farewell again is harmless, another one is not.
    assert_eq!(refusals(journal, &lease).await, [true; 6]);
    assert!(is_lost(journal.acquire(cycle).await));
    assert_eq!(journal.load(cycle).await.unwrap().status, CycleStatus::Failed);
}

async fn leaving_twice_is_leaving_once<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let first = journal.acquire(cycle).await.unwrap();
    journal.release(&first).await.unwrap();
    journal.release(&first).await.unwrap();
    assert!(is_lost(journal.heartbeat(&first).await));
    let second = journal.acquire(cycle).await.unwrap();
    assert!(is_lost(journal.release(&first).await));
    journal.finish(&second, CycleStatus::Completed, None).await.unwrap();
    journal.finish(&second, CycleStatus::Completed, None).await.unwrap();
    assert!(is_lost(journal.finish(&first, CycleStatus::Completed, None).await));
}

async fn a_publication_comes_with_the_end_of_its_cycle_or_not_at_all<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = task("publish", "");
    let ended = TaskEvent::Succeeded { output: json!({}) };
    let with = |event: &TaskEvent, document: &str| Entry {
        publication: Some(publication(document)),
        ..line(key.clone(), 1, event.clone())
    };
    assert!(matches!(journal.append(&lease, &with(&ended, "early")).await, Err(JournalError::Illegal(_))));
    assert!(subject.published().await.is_empty());
    let _ = append(journal, &lease, line(key.clone(), 1, TaskEvent::Started)).await;
    let old = Lease { epoch: lease.epoch - 1, ..lease };
    assert!(is_lost(journal.append(&old, &with(&ended, "stale")).await));
    assert!(subject.published().await.is_empty());
    assert_eq!(append(journal, &lease, with(&ended, "right")).await, Appended::Recorded);
    assert_eq!(append(journal, &lease, with(&ended, "again")).await, Appended::AlreadyRecorded);
    assert!(subject.published().await.is_empty(), "the cycle has not ended");
    // A second publication of one cycle takes its line down with it.
    let other = task("discover", "");
    let _ = append(journal, &lease, line(other.clone(), 1, TaskEvent::Started)).await;
    let second = Entry { task: other.clone(), ..with(&ended, "second") };
    assert!(matches!(journal.append(&lease, &second).await, Err(JournalError::Storage(_))));
    assert_eq!(status_of(journal, cycle, &other).await, (1, 0, TaskStatus::Running));
    assert!(is_lost(journal.finish(&old, CycleStatus::Completed, None).await));
    assert!(subject.published().await.is_empty());
    for _ in ["the first time", "once more, as after a lost answer"] {
        assert_eq!(journal.finish(&lease, CycleStatus::Completed, None).await.unwrap(), CycleStatus::Completed);
        assert_eq!(subject.published().await, [(cycle, publication("right"))]);
    }
}

async fn a_cycle_that_was_asked_to_stop_publishes_nothing<S: Subject>(subject: &S) {
    let journal = subject.journal();
    for (asked, status, expected) in [
        (true, CycleStatus::Completed, CycleStatus::Cancelled),
        (true, CycleStatus::Failed, CycleStatus::Failed),
        (false, CycleStatus::Failed, CycleStatus::Failed),
        (false, CycleStatus::Cancelled, CycleStatus::Cancelled),
    ] {
        let cycle = subject.create().await;
        let lease = journal.acquire(cycle).await.unwrap();
        let _ = append(journal, &lease, line(task("publish", ""), 1, TaskEvent::Started)).await;
        let ended = line(task("publish", ""), 1, TaskEvent::Succeeded { output: json!({}) });
        let _ = append(journal, &lease, Entry { publication: Some(publication("w")), ..ended }).await;
        if asked {
            subject.request_cancel(cycle).await;
        }
        assert_eq!(journal.finish(&lease, status, None).await.unwrap(), expected);
        assert_eq!(journal.load(cycle).await.unwrap().status, expected);
        assert!(subject.published().await.is_empty(), "{expected:?}");
    }
}

async fn pending_episodes_come_in_order_and_only_of_their_task<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let (a, b) = (task("episodes", "m/a"), task("episodes", "m/b"));
    // Orders that a locale would mix up: capitals and punctuation among small letters.
    let hotkeys = ["b", "B", "a-1", "a1", "a_1", "Z"];
    let keys = |environment: &str| -> Vec<EpisodeKey> {
        (0..250).rev().flat_map(|k| hotkeys.map(|hotkey| episode_key(environment, k, hotkey))).collect()
    };
    journal.plan_episodes(&lease, &a, &keys("m/a")).await.unwrap();
    journal.plan_episodes(&lease, &b, &keys("m/b")).await.unwrap();
    let pending = journal.pending_episodes(cycle, &a).await.unwrap();
    let mut expected = keys("m/a");
    expected.sort_by(|x, y| (x.seed_index, &x.hotkey).cmp(&(y.seed_index, &y.hotkey)));
    assert_eq!(pending.iter().map(|episode| episode.key.clone()).collect::<Vec<_>>(), expected);
    assert!(pending.iter().all(|episode| episode.attempt == 0));
    let ended = episode(&expected[3], 1, Outcome::Failure);
    assert_eq!(journal.record_episode(&lease, &ended).await.unwrap(), Appended::Recorded);
    // Planned again after a crash: what stands there stays as it is.
    journal.plan_episodes(&lease, &a, &keys("m/a")).await.unwrap();
    expected.remove(3);
    let pending = journal.pending_episodes(cycle, &a).await.unwrap();
    assert_eq!(pending.into_iter().map(|episode| episode.key).collect::<Vec<_>>(), expected);
    assert_eq!(journal.pending_episodes(cycle, &b).await.unwrap().len(), 1500);
    let scored = async |environment: &str| journal.tally(cycle, &environment.parse().unwrap()).await.unwrap().scored;
    assert_eq!([scored("m/a").await, scored("m/b").await, scored("m/c").await], [1, 0, 0]);
}

async fn the_first_scored_outcome_is_final<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = episode_key("m/a", 0, "one");
    journal.plan_episodes(&lease, &task("episodes", "m/a"), std::slice::from_ref(&key)).await.unwrap();
    let first = episode(&key, 1, Outcome::MinerFault(MinerFault::ActionTimeout));
    assert_eq!(journal.record_episode(&lease, &first).await.unwrap(), Appended::Recorded);
    let others = [Outcome::Success, Outcome::Failure, Outcome::InfraFault(InfraFault::ServerLost)];
    for other in others.map(|outcome| episode(&key, 2, outcome)).iter().chain([&first]) {
        assert_eq!(journal.record_episode(&lease, other).await.unwrap(), Appended::AlreadyRecorded);
    }
    assert_eq!(journal.scored_episodes(cycle).await.unwrap(), [first]);
}

async fn our_own_faults_are_counted_and_run_again<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let (key, of) = (episode_key("m/a", 0, "one"), task("episodes", "m/a"));
    journal.plan_episodes(&lease, &of, std::slice::from_ref(&key)).await.unwrap();
    for attempt in 1..=3 {
        let fault = episode(&key, attempt, Outcome::InfraFault(InfraFault::SimulatorTimeout));
        assert_eq!(journal.record_episode(&lease, &fault).await.unwrap(), Appended::Recorded);
        assert_eq!(journal.record_episode(&lease, &fault).await.unwrap(), Appended::AlreadyRecorded);
        let pending = journal.pending_episodes(cycle, &of).await.unwrap();
        assert_eq!(pending.iter().map(|episode| episode.attempt).collect::<Vec<_>>(), [attempt]);
        assert!(journal.scored_episodes(cycle).await.unwrap().is_empty());
    }
    let ended = episode(&key, 4, Outcome::Success);
    assert_eq!(journal.record_episode(&lease, &ended).await.unwrap(), Appended::Recorded);
    assert!(journal.pending_episodes(cycle, &of).await.unwrap().is_empty());
    assert_eq!(journal.scored_episodes(cycle).await.unwrap(), [ended]);
    let tally = journal.tally(cycle, &key.environment).await.unwrap();
    assert_eq!((tally.scored, tally.successes), (1, 1));
}

async fn reports_come_back_exactly_and_in_order<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let numbers = [0.1 + 0.2, 1.0 / 3.0, -0.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, -1e-300, 123_456_789.123_456_79];
    let mut episodes = Vec::new();
    for (k, number) in (0_u32..).zip(numbers) {
        let key = episode_key(if k % 2 == 0 { "m/b" } else { "m/a" }, k / 2, "one");
        let of = task("episodes", key.environment.as_str());
        journal.plan_episodes(&lease, &of, std::slice::from_ref(&key)).await.unwrap();
        let mut full = episode(&key, 1, Outcome::MinerFault(MinerFault::MalformedResponse));
        full.report.detail = Some("expected `action`, got \"é\"".into());
        full.report.total_reward = number;
        full.report.wall_ms = number;
        full.report.latency = Some(LatencySummary { p50_ms: number, p95_ms: -number, max_ms: 1.0 / 3.0 });
        assert_eq!(journal.record_episode(&lease, &full).await.unwrap(), Appended::Recorded);
        episodes.push(full);
    }
    episodes.sort_by(|a, b| a.key.cmp(&b.key));
    let found = journal.scored_episodes(cycle).await.unwrap();
    // Texts tell -0.0 from 0.0.
    assert_eq!(format!("{found:?}"), format!("{episodes:?}"));
}

async fn what_was_never_planned_is_not_recorded<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let stranger = episode(&episode_key("m/a", 0, "one"), 1, Outcome::Success);
    assert!(matches!(journal.record_episode(&lease, &stranger).await, Err(JournalError::Storage(_))));
    assert!(journal.scored_episodes(cycle).await.unwrap().is_empty());
    let nowhere = journal.plan_episodes(&lease, &task("nowhere", ""), &[stranger.key]).await;
    assert!(matches!(nowhere, Err(JournalError::Storage(_))));
}

async fn episodes_are_fenced_too<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let first = journal.acquire(cycle).await.unwrap();
    let key = episode_key("m/a", 0, "one");
    journal.plan_episodes(&first, &task("episodes", "m/a"), std::slice::from_ref(&key)).await.unwrap();
    subject.expire_lease(cycle).await;
    let second = journal.acquire(cycle).await.unwrap();
    // A zombie brings its result after its cycle has gone to somebody else.
    assert!(is_lost(journal.record_episode(&first, &episode(&key, 1, Outcome::Success)).await));
    let kept = episode(&key, 1, Outcome::Failure);
    assert_eq!(journal.record_episode(&second, &kept).await.unwrap(), Appended::Recorded);
    assert_eq!(journal.scored_episodes(cycle).await.unwrap(), [kept]);
}
