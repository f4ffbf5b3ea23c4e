//! What users of other engines suffer from, and what operators were promised here: the engine against a journal in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Map, json};

use super::tests::{Crash, Crashing, Hands, control, create, definition, run_all, stage, status};
use super::{Attempt, Control, Ending, run};
use crate::cycle::{
    Appended, CycleId, CycleStatus, Entry, FailureClass, Guarded, Journal, MemoryJournal, PoolClaim, TaskEvent,
    TaskKey, TaskStatus,
};
use crate::plan::{Definition, Expansion, Phase, Then};
use crate::stage::{Error, Output};

type Work = BoxFuture<'static, Result<Output, Error>>;

fn failing(task: &str, class: FailureClass, times: usize) -> Hands {
    Hands { failing: BTreeMap::from([(task.to_owned(), (class, times))]), ..Hands::default() }
}

fn key(stage: &str, cell: &str) -> TaskKey {
    TaskKey { stage: stage.parse().unwrap(), cell: cell.into() }
}

async fn unsuccessful(journal: &MemoryJournal, cycle: CycleId) -> Vec<TaskKey> {
    let tasks = journal.load(cycle).await.unwrap().tasks;
    tasks.into_iter().filter(|state| state.status.lacks_success()).map(|state| state.key).collect()
}

#[tokio::test]
async fn lesson_1_no_task_stays_running_after_its_process_has_died() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let began = tokio::sync::Notify::new();
    let execute = |_, _: Attempt| -> Work {
        began.notify_one();
        Box::pin(std::future::pending())
    };
    // Dropped in the middle of an attempt: nothing is said, as after a SIGKILL.
    tokio::select! {
        _ = run(&journal, cycle, execute, control()) => panic!("nothing ends here"),
        () = began.notified() => {}
    }
    assert_eq!(status(&*journal, cycle, "first").await, TaskStatus::Running);
    journal.expire_lease(cycle);
    let hands = Hands::default();
    assert_eq!(run_all(&journal, cycle, &hands).await.unwrap(), Ending::Ended(CycleStatus::Completed, None));
    let words: Vec<_> = journal.entries(cycle).iter().take(4).map(|entry| entry.event.word()).collect();
    assert_eq!(words, ["started", "lost", "started", "succeeded"]);
}

#[tokio::test]
async fn lesson_3_a_retry_touches_only_what_has_not_succeeded() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let first = failing("wide[b]", FailureClass::Config, 1);
    assert!(matches!(run_all(&journal, cycle, &first).await.unwrap(), Ending::Ended(CycleStatus::Failed, Some(_))));
    let open = unsuccessful(&journal, cycle).await;
    assert_eq!(open, [key("wide", "b"), key("last", "")]);
    journal.reopen(cycle, &open).await.unwrap();
    let again = Hands::default();
    assert_eq!(run_all(&journal, cycle, &again).await.unwrap(), Ending::Ended(CycleStatus::Completed, None));
    let runs = ["first", "wide[a]", "wide[b]", "wide[c]", "last", "cleanup"].map(|task| again.runs(task));
    assert_eq!(runs, [0, 0, 1, 0, 1, 0]);
    let TaskStatus::Succeeded { output } = status(&*journal, cycle, "last").await else { panic!("last succeeded") };
    assert_eq!(output["settings"]["all"], json!(["wide[a]", "wide[b]", "wide[c]"]), "the fan-in is complete");
}

/// first -> late[x, y, ...] -> last, the cells being what `first` says.
fn late(list: &str) -> Definition {
    let mut definition = definition();
    let axes = Map::from_iter([("x".to_owned(), json!(list))]);
    definition.stages[1].expansion = Some(Expansion { axes, include: vec![], exclude: vec![] });
    definition.stages[1].tasks.clear();
    definition
}

#[tokio::test]
async fn lesson_3_a_fan_out_is_written_down_before_it_starts() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &late("${{ ['a', 'b', stages.first.name] }}"));
    let hands = Hands::default();
    let counts = std::sync::Mutex::new(vec![]);
    let execute = |_, attempt: Attempt| -> Work {
        if attempt.task.stage.as_str() == "wide" {
            counts.lock().unwrap().push(journal.load(cycle).now_or_never().unwrap().unwrap().tasks.len());
        }
        hands.execute(attempt)
    };
    let ending = run(&journal, cycle, execute, control()).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    assert_eq!(*counts.lock().unwrap(), [6, 6, 6]);
    assert_eq!(hands.runs("wide[first]"), 1);
}

#[tokio::test]
async fn a_matrix_without_cells_is_done_and_one_without_a_value_fails() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &late("${{ [] }}"));
    // There is no list of names to hand on: what `last` asks for does not exist, and says so.
    let ending = run_all(&journal, cycle, &Hands::default()).await.unwrap();
    let Ending::Ended(CycleStatus::Failed, Some(failure)) = ending else { panic!("{ending:?}") };
    assert!(failure.message.starts_with("last: `with`"), "{failure}");

    let cycle = create(&journal, &late("${{ stages.first.name }}"));
    let ending = run_all(&journal, cycle, &Hands::default()).await.unwrap();
    let Ending::Ended(CycleStatus::Failed, Some(failure)) = ending else { panic!("{ending:?}") };
    assert_eq!(failure.class, FailureClass::Config);
    assert!(failure.message.starts_with("wide: `matrix"), "{failure}");
    assert!(matches!(status(&*journal, cycle, "last").await, TaskStatus::Skipped { .. }));
}

fn pooled() -> Definition {
    let mut definition = definition();
    definition.pools.insert("gpu".into(), 1);
    definition.stages[1].pool = Some("gpu".into());
    definition
}

/// A cycle that is held by somebody who has the one place in the pool.
async fn rival(journal: &MemoryJournal) -> CycleId {
    let other = create(journal, &pooled());
    let lease = journal.acquire(other).await.unwrap();
    let claim = Some(PoolClaim { name: "gpu".into(), limit: 1 });
    let entry = Entry { pool: claim, ..Entry::new(key("wide", "a"), 1, TaskEvent::Started) };
    assert_eq!(journal.append(&lease, &entry).await.unwrap(), Appended::Recorded);
    other
}

#[tokio::test]
async fn lesson_4_slots_cannot_leak() {
    let journal = Arc::new(MemoryJournal::default());
    let other = rival(&journal).await;
    let cycle = create(&journal, &pooled());
    let (seen, hands) = (Arc::clone(&journal), Hands::default());
    let control = Control {
        // The holder dies with its place once it has been in the way.
        observer: Arc::new(move |entry| {
            if entry.task.stage.as_str() == "first" && entry.event.word() == "succeeded" {
                let tasks = seen.load(cycle).now_or_never().unwrap().unwrap().tasks;
                let wide = tasks.iter().filter(|state| state.key.stage.as_str() == "wide");
                assert!(wide.map(|state| &state.status).all(|status| *status == TaskStatus::Pending));
                seen.expire_lease(other);
            }
        }),
        ..control()
    };
    let ending = run(&journal, cycle, |_, attempt| hands.execute(attempt), control).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    assert_eq!(["wide[a]", "wide[b]", "wide[c]"].map(|task| hands.runs(task)), [1, 1, 1]);
    // Never two at a time: every start but the first follows an end.
    let wide = journal.entries(cycle).into_iter().filter(|entry| entry.task.stage.as_str() == "wide");
    let words: Vec<_> = wide.map(|entry| entry.event.word()).collect();
    assert_eq!(words, ["started", "succeeded"].repeat(3));
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_fails_with_a_timeout() {
    let journal = Arc::new(MemoryJournal::default());
    rival(&journal).await;
    let mut definition = pooled();
    definition.stages[1].queue_timeout_ms = Some(1);
    let cycle = create(&journal, &definition);
    let hands = Hands::default();
    let ending = run_all(&journal, cycle, &hands).await.unwrap();
    let Ending::Ended(CycleStatus::Failed, Some(failure)) = ending else { panic!("{ending:?}") };
    assert!(failure.class == FailureClass::Timeout && failure.message.starts_with("wide[a]: waited"), "{failure}");
    assert_eq!((hands.runs("wide[a]"), hands.runs("cleanup")), (0, 1));
}

#[tokio::test]
async fn lesson_9_cleanup_runs_however_the_main_body_ends() {
    let timeout = |definition: &mut Definition| definition.stages[0].timeout_ms = 1;
    let pause = |definition: &mut Definition| definition.stages[0].retry.then = Then::Pause;
    let nothing = |_: &mut Definition| {};
    let broken = || failing("first", FailureClass::Config, 9);
    type Change<'a> = &'a dyn Fn(&mut Definition);
    let cases: [(&str, Hands, Change<'_>, CycleStatus); 5] = [
        ("success", Hands::default(), &nothing, CycleStatus::Completed),
        ("failure", broken(), &nothing, CycleStatus::Failed),
        ("cancel", Hands::default(), &nothing, CycleStatus::Cancelled),
        ("timeout", Hands::default(), &timeout, CycleStatus::Failed),
        ("pause, then cancel", broken(), &pause, CycleStatus::Cancelled),
    ];
    for (name, hands, change, expected) in cases {
        let journal = Arc::new(MemoryJournal::default());
        let mut definition = definition();
        change(&mut definition);
        let cycle = create(&journal, &definition);
        let execute = |_, attempt: Attempt| -> Work {
            match (name, attempt.task.stage.as_str()) {
                ("timeout", "first") => Box::pin(std::future::pending()),
                // Seen at the latest when the weights are to go out.
                ("cancel", "last") => {
                    journal.request_cancel(cycle);
                    hands.execute(attempt)
                }
                _ => hands.execute(attempt),
            }
        };
        let mut ending = run(&journal, cycle, execute, control()).await.unwrap();
        if let Ending::Paused(_) = ending {
            journal.request_cancel(cycle);
            ending = run_all(&journal, cycle, &hands).await.unwrap();
        }
        assert!(matches!(&ending, Ending::Ended(status, _) if *status == expected), "{name}: {ending:?}");
        assert_eq!(hands.runs("cleanup"), 1, "{name}");
    }
}

#[tokio::test]
async fn a_cleanup_that_fails_takes_nothing_back() {
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, &definition());
    let ending = run_all(&journal, cycle, &failing("cleanup", FailureClass::Config, 1)).await.unwrap();
    let Ending::Ended(CycleStatus::Completed, Some(failure)) = ending else { panic!("{ending:?}") };
    assert!(failure.message.starts_with("cleanup: "), "{failure}");
    assert_eq!(journal.reason(cycle), Some(failure.message));
    assert_eq!(journal.publications().len(), 1);
}

#[tokio::test]
async fn on_failure_runs_after_a_failure_and_reads_it() {
    for fails in [0, 1] {
        let journal = Arc::new(MemoryJournal::default());
        let mut definition = definition();
        let mut alarm = stage("alarm", &[], &[]);
        alarm.phase = Phase::OnFailure;
        alarm.with.insert("text".into(), json!("${{ cycle.failure }}"));
        definition.stages.push(alarm);
        let cycle = create(&journal, &definition);
        let hands = failing("wide[b]", FailureClass::Config, fails);
        run_all(&journal, cycle, &hands).await.unwrap();
        assert_eq!((hands.runs("alarm"), hands.runs("cleanup")), (fails, 1));
        match status(&*journal, cycle, "alarm").await {
            TaskStatus::Succeeded { output } => assert_eq!(output["settings"]["text"], "wide[b]: told to"),
            TaskStatus::Skipped { reason } => assert_eq!((fails, reason.as_str()), (0, "the main body did not fail")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_task_that_pauses_waits_for_a_person_and_holds_up_nobody_else() {
    let journal = Arc::new(MemoryJournal::default());
    let mut definition = definition();
    definition.stages[1].retry.then = Then::Pause;
    let cycle = create(&journal, &definition);
    let hands = failing("wide[b]", FailureClass::Infra, 3);
    let Ending::Paused(failure) = run_all(&journal, cycle, &hands).await.unwrap() else { panic!("it pauses") };
    assert_eq!(failure.message, "wide[b]: told to");
    assert_eq!(["wide[a]", "wide[b]", "wide[c]", "cleanup"].map(|task| hands.runs(task)), [1, 3, 1, 0]);
    assert!(journal.load(cycle).await.unwrap().paused);
    // Taken up without having been asked to: it waits on.
    assert!(matches!(run_all(&journal, cycle, &hands).await.unwrap(), Ending::Paused(_)));
    journal.reopen(cycle, &[key("wide", "b")]).await.unwrap();
    assert_eq!(run_all(&journal, cycle, &hands).await.unwrap(), Ending::Ended(CycleStatus::Completed, None));
    assert_eq!((hands.runs("wide[b]"), hands.runs("wide[a]")), (4, 1));
}

#[tokio::test]
async fn the_first_failure_stops_a_stage_that_fails_fast() {
    let journal = Arc::new(MemoryJournal::default());
    let mut definition = definition();
    definition.stages[1].fail_fast = true;
    let cycle = create(&journal, &definition);
    let hands = failing("wide[b]", FailureClass::Config, 1);
    let execute = |_, attempt: Attempt| -> Work {
        if attempt.task.cell == "a" { Box::pin(std::future::pending()) } else { hands.execute(attempt) }
    };
    let ending = run(&journal, cycle, execute, control()).await.unwrap();
    assert!(matches!(ending, Ending::Ended(CycleStatus::Failed, Some(_))), "{ending:?}");
    for cell in ["wide[a]", "wide[c]"] {
        assert_eq!(status(&*journal, cycle, cell).await, TaskStatus::Cancelled, "{cell}");
    }
    assert_eq!(hands.runs("wide[c]"), 0);
}

#[tokio::test]
async fn only_the_classes_that_the_stage_names_are_tried_again() {
    let journal = Arc::new(MemoryJournal::default());
    let mut definition = definition();
    definition.stages[0].retry.on = vec![FailureClass::BelowQuorum];
    for (class, runs) in [(FailureClass::BelowQuorum, 3), (FailureClass::Infra, 1)] {
        let cycle = create(&journal, &definition);
        let hands = failing("first", class, 9);
        run_all(&journal, cycle, &hands).await.unwrap();
        assert_eq!(hands.runs("first"), runs, "{class:?}");
    }
}

/// Transactions that a cycle takes.
async fn transactions(definition: &Definition, parallelism: usize) -> usize {
    const PLENTY: usize = 1_000_000;
    let journal = Arc::new(MemoryJournal::default());
    let cycle = create(&journal, definition);
    let counting = Crashing { crash: Crash::Before, left: AtomicUsize::new(PLENTY) };
    let counting = Arc::new(Guarded::new(journal, counting));
    let execute = |_, attempt: Attempt| async move { Ok(json!({ "name": attempt.task.to_string() }).into()) };
    let control = Control { parallelism, ..control() };
    let ending = run(&counting, cycle, execute, control).await.unwrap();
    assert_eq!(ending, Ending::Ended(CycleStatus::Completed, None));
    PLENTY - counting.guard().left.load(Ordering::SeqCst)
}

#[tokio::test]
async fn ends_and_starts_share_transactions() {
    let mut chain = definition();
    let names: Vec<String> = (0..40).map(|index| format!("s{index}")).collect();
    let needs = |index: usize| index.checked_sub(1).map(|before| names[before].as_str());
    let link = |(index, name): (usize, &String)| stage(name, &needs(index).into_iter().collect::<Vec<_>>(), &[]);
    chain.stages = names.iter().enumerate().map(link).collect();
    // The lease, the first start, an end with the next start for each, and the end of the cycle.
    assert_eq!(transactions(&chain, 4).await, 1 + 1 + 40 + 1);

    let mut wide = definition();
    let cells: Vec<String> = (0..10_000).map(|cell| cell.to_string()).collect();
    wide.stages = vec![stage("wide", &[], &cells.iter().map(String::as_str).collect::<Vec<_>>())];
    let written = transactions(&wide, 200).await;
    // The runtime lets some sixty attempts have their turn before it comes back to us.
    assert!(written <= 2 * 10_000 / 100, "{written} transactions");
}
