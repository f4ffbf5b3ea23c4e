//! The engine against a journal in memory: order, retries, skips, cancellation, and a crash after every single write.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{Attempt, Control, Ending, Error, run};
use crate::cycle::{
    CycleId, CycleRecord, CycleStatus, FailureClass, Guard, Guarded, Journal, JournalError, MemoryJournal, Publication,
    PublishGuard, TaskFailure, TaskKey, TaskStatus,
};
use crate::plan::{Definition, Phase, Retry, Stage, Task};
use crate::stage::{self, Output};

pub(super) fn stage(id: &str, needs: &[&str], cells: &[&str]) -> Stage {
    let task = |cell: &&str| Task {
        key: TaskKey { stage: id.parse().unwrap(), cell: (*cell).into() },
        matrix: Map::from_iter([("x".to_owned(), json!(cell))]),
    };
    Stage {
        depends_on: needs.iter().map(|id| id.parse().unwrap()).collect(),
        tasks: if cells.is_empty() { vec![task(&"")] } else { cells.iter().map(task).collect() },
        retry: Retry { max_attempts: 3, backoff: 2.0, max_interval_ms: 2, ..Retry::once() },
        ..Stage::new(id.parse().unwrap(), "test/kind")
    }
}

/// first -> wide[a, b, c] -> last; finally cleanup.
pub(super) fn definition() -> Definition {
    let mut last = stage("last", &["wide"], &[]);
    last.with.insert("all".into(), json!("${{ stages.wide.name }}"));
    let mut cleanup = stage("cleanup", &[], &[]);
    cleanup.phase = Phase::Finally;
    Definition {
        version: 1,
        pipeline: "test".into(),
        inputs: Map::new(),
        environments: vec![],
        pools: Default::default(),
        concurrency: None,
        miners: Default::default(),
        stages: vec![stage("first", &[], &[]), stage("wide", &["first"], &["a", "b", "c"]), last, cleanup],
    }
}

pub(super) fn create(journal: &MemoryJournal, definition: &Definition) -> CycleId {
    let keys = definition.stages.iter().flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone())).collect();
    let record = CycleRecord::new(definition.to_json(), "11".repeat(32).parse().unwrap());
    let cycle = record.id;
    journal.create(record, keys);
    cycle
}

pub(super) fn control() -> Control {
    Control { suspend: CancellationToken::new(), observer: Arc::new(|_| ()), parallelism: 2 }
}

/// Runs attempts: counts them, fails those it is told to, and answers with the task's name and settings.
#[derive(Clone, Default)]
pub(super) struct Hands {
    pub(super) runs: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Class and how many attempts of the task fail with it.
    pub(super) failing: BTreeMap<String, (FailureClass, usize)>,
}

impl Hands {
    pub(super) fn execute(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, stage::Error>> {
        let task = attempt.task.to_string();
        let count = {
            let mut runs = self.runs.lock().unwrap();
            let count = runs.entry(task.clone()).or_default();
            *count += 1;
            *count
        };
        let failing = self.failing.get(&task).copied();
        Box::pin(async move {
            let settings = attempt.settings()?;
            if let Some((class, times)) = failing
                && count <= times
            {
                return Err(TaskFailure { class, message: "told to".into() }.into());
            }
            let publication = (task == "last").then(|| Publication {
                scores: settings.to_string(),
                weights: "{}".into(),
                digest: "0".repeat(64),
                guard: PublishGuard::default(),
            });
            Ok(Output { publication, ..json!({ "name": task, "settings": settings }).into() })
        })
    }

    pub(super) fn runs(&self, task: &str) -> usize {
        self.runs.lock().unwrap().get(task).copied().unwrap_or(0)
    }
}

pub(super) async fn run_all<J: Journal>(journal: &Arc<J>, cycle: CycleId, hands: &Hands) -> Result<Ending, Error> {
    run(journal, cycle, |_, attempt| hands.execute(attempt), control()).await
}

pub(super) async fn status(journal: &impl Journal, cycle: CycleId, task: &str) -> TaskStatus {
    let record = journal.load(cycle).await.unwrap();
    record.tasks.into_iter().find(|state| state.key.to_string() == task).unwrap().status
}

#[tokio::test]
async fn a_plan_runs_in_order_and_outputs_travel() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let hands = Hands::default();
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    let TaskStatus::Succeeded { output } = status(&*journal, cycle, "last").await else { panic!("last succeeded") };
    assert_eq!(output["settings"]["all"], json!(["wide[a]", "wide[b]", "wide[c]"]));
    assert_eq!(hands.runs("cleanup"), 1);
}

#[tokio::test]
async fn infra_failures_are_tried_again_and_config_failures_are_not() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let failing = BTreeMap::from([("wide[b]".to_owned(), (FailureClass::Infra, 2))]);
    let hands = Hands { failing, ..Hands::default() };
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    assert_eq!((hands.runs("wide[b]"), hands.runs("wide[a]")), (3, 1));

    let cycle = create(&journal, &definition());
    let failing = BTreeMap::from([("wide[b]".to_owned(), (FailureClass::Config, 1))]);
    let hands = Hands { failing, ..Hands::default() };
    let Ending::Ended(CycleStatus::Failed, Some(failure)) = run_all(&journal, cycle, &hands).await.unwrap() else {
        panic!("the cycle failed")
    };
    assert_eq!((failure.class, hands.runs("wide[b]")), (FailureClass::Config, 1));
    assert!(failure.message.contains("wide[b]"), "{failure}");
    assert!(matches!(status(&*journal, cycle, "last").await, TaskStatus::Skipped { .. }));
    assert_eq!(hands.runs("cleanup"), 1, "teardown runs after a failure");
}

#[tokio::test]
async fn attempts_end_at_max_attempts() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let failing = BTreeMap::from([("first".to_owned(), (FailureClass::Infra, 9))]);
    let hands = Hands { failing, ..Hands::default() };
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    assert!(matches!(ending, Ending::Ended(CycleStatus::Failed, _)));
    assert_eq!((hands.runs("first"), hands.runs("wide[a]")), (3, 0));
}

#[tokio::test]
async fn an_attempt_ends_at_its_timeout() {
    let journal = Arc::new(MemoryJournal::default());
    let mut definition = definition();
    definition.stages[0].timeout_ms = 1;
    let cycle = create(&journal, &definition);
    let runs = AtomicUsize::new(0);
    let hands = Hands::default();
    let execute = |_, attempt: Attempt| -> BoxFuture<'static, Result<Output, stage::Error>> {
        if attempt.task.stage.as_str() == "first" {
            runs.fetch_add(1, Ordering::Relaxed);
            return Box::pin(std::future::pending());
        }
        hands.execute(attempt)
    };
    let ending = run(&journal, cycle, execute, control()).await.unwrap();
    let Ending::Ended(CycleStatus::Failed, Some(failure)) = ending else { panic!("the cycle failed") };
    assert_eq!((failure.class, runs.into_inner()), (FailureClass::Timeout, 3));
}

#[tokio::test]
async fn a_false_condition_skips_and_a_broken_one_fails() {
    for (when, expected) in
        [("${{ 1 > 2 }}", CycleStatus::Completed), ("${{ inputs.nowhere > 1 }}", CycleStatus::Failed)]
    {
        let journal = Arc::new(MemoryJournal::default());
        let mut definition = definition();
        definition.stages[2].when = Some(when.into());
        let cycle = create(&journal, &definition);
        let hands = Hands::default();
        let Ending::Ended(ended, _) = run_all(&journal, cycle, &hands).await.unwrap() else { panic!("ended") };
        assert_eq!(ended, expected, "{when}");
    }
}

#[tokio::test]
async fn cancelling_stops_the_main_body_and_still_cleans_up() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    journal.request_cancel(cycle);
    let hands = Hands::default();
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Cancelled, None));
    assert_eq!((hands.runs("first"), hands.runs("cleanup")), (0, 1));
}

#[tokio::test]
async fn nothing_is_published_after_somebody_asked_to_stop() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let hands = Hands::default();
    let execute = |_, attempt: Attempt| -> BoxFuture<'static, Result<Output, stage::Error>> {
        if attempt.task.stage.as_str() == "last" {
            journal.request_cancel(cycle);
        }
        hands.execute(attempt)
    };
    let ending = run(&journal, cycle, execute, control()).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Cancelled, None));
    assert_eq!((hands.runs("last"), hands.runs("cleanup"), journal.publications().len()), (1, 1, 0));
}

#[tokio::test]
async fn a_cancel_counts_until_the_cycle_has_ended() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let hands = Hands::default();
    let control = control();
    let suspend = control.suspend.clone();
    let execute = |_, attempt: Attempt| -> BoxFuture<'static, Result<Output, stage::Error>> {
        if attempt.task.stage.as_str() == "cleanup" {
            suspend.cancel();
            return Box::pin(std::future::pending());
        }
        hands.execute(attempt)
    };
    // Only the teardown is left.
    assert_eq!(run(&journal, cycle, execute, control).await.unwrap(), Ending::Suspended);
    journal.request_cancel(cycle);
    assert_eq!(run_all(&journal, cycle, &hands).await.unwrap(), Ending::Ended(CycleStatus::Cancelled, None));
    assert_eq!((hands.runs("cleanup"), journal.publications().len()), (1, 0));
}

#[tokio::test]
async fn a_stage_that_cannot_write_stops_the_cycle_and_fails_nothing() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let hands = Hands::default();
    let execute = |_, attempt: Attempt| -> BoxFuture<'static, Result<Output, stage::Error>> {
        if attempt.task.cell == "b" {
            return Box::pin(async { Err(JournalError::Storage("the disk is full".into()).into()) });
        }
        hands.execute(attempt)
    };
    let ending = run(&journal, cycle, execute, control()).await;
    assert!(matches!(ending, Err(Error::Journal(JournalError::Storage(_)))), "{ending:?}");
    assert_eq!(status(&*journal, cycle, "wide[b]").await, TaskStatus::Running);
    journal.expire_lease(cycle);
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
}

#[tokio::test]
async fn a_suspended_cycle_goes_on_later() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let hands = Hands::default();
    let control = control();
    let suspend = control.suspend.clone();
    let execute = |_, attempt: Attempt| -> BoxFuture<'static, Result<Output, stage::Error>> {
        if attempt.task.cell == "b" {
            suspend.cancel();
            return Box::pin(std::future::pending());
        }
        hands.execute(attempt)
    };
    assert_eq!(run(&journal, cycle, execute, control).await.unwrap(), Ending::Suspended);
    assert_eq!(status(&*journal, cycle, "wide[b]").await, TaskStatus::Pending);
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    assert_eq!(hands.runs("first"), 1);
}

/// When a journal fails: before the write that fails, or right after it, as a crash would.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Crash {
    Before,
    After,
}

/// Makes the n-th write the last thing that happens.
pub(super) struct Crashing {
    pub(super) crash: Crash,
    pub(super) left: AtomicUsize,
}

impl Guard for Crashing {
    async fn write<T: Send>(
        &self,
        write: impl Future<Output = Result<T, JournalError>> + Send,
    ) -> Result<T, JournalError> {
        let dead = || JournalError::Storage("crashed".into());
        match self.left.load(Ordering::SeqCst) {
            0 if self.crash == Crash::Before => Err(dead()),
            0 => {
                self.left.store(usize::MAX, Ordering::SeqCst);
                write.await?;
                Err(dead())
            }
            usize::MAX => Err(dead()),
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                write.await
            }
        }
    }
}

/// The outputs and the publication of a cycle.
async fn result(journal: &MemoryJournal, cycle: CycleId) -> (Vec<Value>, Option<Publication>) {
    let tasks = journal.load(cycle).await.unwrap().tasks;
    let publication =
        journal.publications().into_iter().find_map(|(of, publication)| (of == cycle).then_some(publication));
    (tasks.into_iter().map(|task| json!(task.status)).collect(), publication)
}

#[tokio::test]
async fn a_crash_at_every_write_ends_in_the_same_state() {
    let calm = Arc::new(MemoryJournal::default());
    let cycle = create(&calm, &definition());
    run_all(&calm, cycle, &Hands::default()).await.unwrap();
    let expected = result(&calm, cycle).await;
    assert!(expected.1.is_some());

    let mut crashes = 0;
    for crash in [Crash::Before, Crash::After] {
        for writes in 0.. {
            let journal = Arc::new(MemoryJournal::default());
            let cycle = create(&journal, &definition());
            let crashing = Crashing { crash, left: AtomicUsize::new(writes) };
            let crashing = Guarded::new(Arc::clone(&journal), crashing);
            let hands = Hands::default();
            let first = run_all(&Arc::new(crashing), cycle, &hands).await;
            let recorded: Vec<TaskKey> = journal
                .load(cycle)
                .await
                .unwrap()
                .tasks
                .into_iter()
                .filter(|task| matches!(task.status, TaskStatus::Succeeded { .. }))
                .map(|task| task.key)
                .collect();
            if first.is_ok() {
                assert!(writes >= 8, "the run took its lease, started and ended its tasks wave by wave, and ended");
                break;
            }
            crashes += 1;
            journal.expire_lease(cycle);
            let again = Hands::default();
            if journal.load(cycle).await.unwrap().status == CycleStatus::Open {
                let ending = run_all(&journal, cycle, &again).await.unwrap();
                assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None), "after write {writes}");
            }
            assert_eq!(result(&journal, cycle).await, expected, "after write {writes}");
            for task in recorded {
                assert_eq!(again.runs(&task.to_string()), 0, "{task} ran again after write {writes}");
            }
        }
    }
    assert!(crashes >= 16, "only {crashes} crashes were tried");
}

#[tokio::test]
async fn a_second_owner_is_refused_and_a_newer_one_wins() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let _held = journal.acquire(cycle).await.unwrap();
    assert!(matches!(run_all(&journal, cycle, &Hands::default()).await, Err(Error::Journal(JournalError::Leased(..)))));

    journal.expire_lease(cycle);
    let stolen = Arc::clone(&journal);
    let execute = |_, _attempt: Attempt| -> BoxFuture<'static, Result<Output, stage::Error>> {
        let journal = Arc::clone(&stolen);
        Box::pin(async move {
            journal.expire_lease(cycle);
            journal.acquire(cycle).await.unwrap();
            Ok(json!({ "name": "late" }).into())
        })
    };
    let ending = run(&journal, cycle, execute, control()).await;
    assert!(matches!(ending, Err(Error::Journal(JournalError::LeaseLost(_)))));
    assert_eq!(status(&*journal, cycle, "first").await, TaskStatus::Running, "the late result was not written");
}
