//! The parts of the journal's contract that the engine's batches, pools and pauses stand on.

use robo::cycle::{
    Appended, CycleId, CycleStatus, Entry, Journal, JournalError, Lease, PoolClaim, TaskEvent, TaskKey, TaskStatus,
};
use serde_json::json;

use super::{Subject, append, failure, is_lost, line, new_cycle, refusals, status_of, task};

pub(super) async fn a_batch_is_written_whole_or_not_at_all<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let starts = ["m/a", "m/b"].map(|cell| line(task("episodes", cell), 1, TaskEvent::Started));
    let illegal = line(task("publish", ""), 1, TaskEvent::Lost);
    let batch = [starts[0].clone(), starts[1].clone(), illegal];
    assert!(matches!(journal.append_all(&lease, &batch).await, Err(JournalError::Illegal(_))));
    assert_eq!(status_of(journal, cycle, &starts[0].task).await, (0, 0, TaskStatus::Pending));
    assert_eq!(journal.append_all(&lease, &starts[..1]).await.unwrap(), [Appended::Recorded]);
    // Answers come in the order of the lines, also when some of them stood there before.
    let answers = journal.append_all(&lease, &starts).await.unwrap();
    assert_eq!(answers, [Appended::AlreadyRecorded, Appended::Recorded]);
}

fn claiming(cell: &str, limit: u32) -> Entry {
    let claim = PoolClaim { name: "gpu".into(), limit };
    Entry { pool: Some(claim), ..line(task("episodes", cell), 1, TaskEvent::Started) }
}

pub(super) async fn a_full_pool_leaves_the_others_in<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let free = line(task("discover", ""), 1, TaskEvent::Started);
    let batch = [claiming("m/a", 1), claiming("m/b", 1), free];
    let answers = journal.append_all(&lease, &batch).await.unwrap();
    assert_eq!(answers, [Appended::Recorded, Appended::Full, Appended::Recorded]);
    assert_eq!(status_of(journal, cycle, &task("episodes", "m/b")).await, (0, 0, TaskStatus::Pending));
    // Claiming again what one has is no second claim.
    assert_eq!(append(journal, &lease, claiming("m/a", 1)).await, Appended::AlreadyRecorded);
    assert_eq!(append(journal, &lease, claiming("m/b", 1)).await, Appended::Full);
    let _ = append(journal, &lease, line(task("episodes", "m/a"), 1, TaskEvent::Lost)).await;
    assert_eq!(append(journal, &lease, claiming("m/b", 1)).await, Appended::Recorded);
}

pub(super) async fn a_place_in_a_pool_lasts_as_long_as_the_lease<S: Subject>(subject: &S) {
    let (journal, first, second) = (subject.journal(), subject.create().await, subject.create().await);
    let held = journal.acquire(first).await.unwrap();
    assert_eq!(append(journal, &held, claiming("m/a", 1)).await, Appended::Recorded);
    let other = journal.acquire(second).await.unwrap();
    assert_eq!(append(journal, &other, claiming("m/a", 1)).await, Appended::Full);
    subject.expire_lease(first).await;
    journal.heartbeat(&other).await.unwrap();
    assert_eq!(append(journal, &other, claiming("m/a", 1)).await, Appended::Recorded);
}

pub(super) async fn tasks_that_become_known_come_after_the_others_and_once<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let late = ["y", "x"].map(|cell| task("late", cell));
    journal.expand(&lease, &late).await.unwrap();
    let _ = append(journal, &lease, line(late[0].clone(), 1, TaskEvent::Started)).await;
    journal.expand(&lease, &late).await.unwrap();
    let keys: Vec<_> = journal.load(cycle).await.unwrap().tasks.into_iter().map(|state| state.key).collect();
    assert_eq!(keys, [new_cycle().tasks, late.to_vec()].concat());
    assert_eq!(status_of(journal, cycle, &late[0]).await, (1, 0, TaskStatus::Running));
    let old = Lease { epoch: lease.epoch - 1, ..lease };
    assert!(is_lost(journal.expand(&old, &late).await));
}

pub(super) async fn a_paused_task_waits_for_a_person<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let (lease, key) = (journal.acquire(cycle).await.unwrap(), task("discover", ""));
    let paused = TaskEvent::Paused { failure: failure() };
    for event in [TaskEvent::Started, paused] {
        assert_eq!(append(journal, &lease, line(key.clone(), 1, event)).await, Appended::Recorded);
    }
    assert_eq!(status_of(journal, cycle, &key).await, (1, 1, TaskStatus::Paused { failure: failure() }));
    assert!(!journal.load(cycle).await.unwrap().paused, "somebody runs it");
    journal.pause(&lease).await.unwrap();
    journal.pause(&lease).await.unwrap();
    assert!(is_lost(journal.heartbeat(&lease).await));
    assert!(journal.load(cycle).await.unwrap().paused);
    journal.reopen(cycle, std::slice::from_ref(&key)).await.unwrap();
    let record = journal.load(cycle).await.unwrap();
    assert_eq!((record.status, record.paused), (CycleStatus::Open, false));
    assert_eq!(status_of(journal, cycle, &key).await, (1, 0, TaskStatus::Pending));
    let lease = journal.acquire(cycle).await.unwrap();
    journal.pause(&lease).await.unwrap();
    let lease = journal.acquire(cycle).await.unwrap();
    assert!(!journal.load(cycle).await.unwrap().paused, "who takes the lease takes the mark away");
    assert_eq!(append(journal, &lease, line(key, 2, TaskEvent::Started)).await, Appended::Recorded);
}

pub(super) async fn what_has_not_succeeded_can_be_reopened_and_nothing_else<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let [good, failed, skipped, pending] = &new_cycle().tasks[..] else { panic!("four tasks") };
    for key in [good, failed] {
        let _ = append(journal, &lease, line(key.clone(), 1, TaskEvent::Started)).await;
    }
    let _ = append(journal, &lease, line(good.clone(), 1, TaskEvent::Succeeded { output: json!(1) })).await;
    let lines = [
        line(failed.clone(), 1, TaskEvent::Failed { failure: failure() }),
        line(skipped.clone(), 0, TaskEvent::Skipped { reason: "x".into() }),
    ];
    for entry in &lines {
        assert_eq!(append(journal, &lease, entry.clone()).await, Appended::Recorded);
    }
    let wanted = [failed, skipped, pending].map(TaskKey::clone);
    assert!(matches!(journal.reopen(cycle, &wanted).await, Err(JournalError::Leased(..))));
    journal.release(&lease).await.unwrap();
    let too_many = [wanted.to_vec(), vec![good.clone()]].concat();
    assert!(matches!(journal.reopen(cycle, &too_many).await, Err(JournalError::Illegal(_))));
    assert_eq!(status_of(journal, cycle, failed).await, (1, 1, TaskStatus::Failed { failure: failure() }));
    journal.reopen(cycle, &wanted).await.unwrap();
    assert_eq!(status_of(journal, cycle, failed).await, (1, 0, TaskStatus::Pending));
    assert_eq!(status_of(journal, cycle, skipped).await, (0, 0, TaskStatus::Pending));
    assert_eq!(status_of(journal, cycle, good).await.2, TaskStatus::Succeeded { output: json!(1) });
    // What happened before may happen again, at the same attempt.
    let lease = journal.acquire(cycle).await.unwrap();
    assert_eq!(append(journal, &lease, lines[1].clone()).await, Appended::Recorded);
    assert_eq!(append(journal, &lease, lines[1].clone()).await, Appended::AlreadyRecorded);
    assert_eq!(append(journal, &lease, line(failed.clone(), 2, TaskEvent::Started)).await, Appended::Recorded);
}

pub(super) async fn cleanup_can_be_reopened_though_it_has_succeeded<S: Subject>(subject: &S) {
    let (journal, cycle, key) = (subject.journal(), subject.create().await, task("publish", ""));
    let first = journal.acquire(cycle).await.unwrap();
    for event in [TaskEvent::Started, TaskEvent::Succeeded { output: json!(1) }] {
        assert_eq!(append(journal, &first, line(key.clone(), 1, event)).await, Appended::Recorded);
    }
    journal.finish(&first, CycleStatus::Failed, Some("a bad day")).await.unwrap();
    journal.reopen(cycle, std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(status_of(journal, cycle, &key).await, (1, 0, TaskStatus::Pending));
    let second = journal.acquire(cycle).await.unwrap();
    for event in [TaskEvent::Started, TaskEvent::Succeeded { output: json!(2) }] {
        assert_eq!(append(journal, &second, line(key.clone(), 2, event)).await, Appended::Recorded);
    }
    assert_eq!(status_of(journal, cycle, &key).await, (2, 0, TaskStatus::Succeeded { output: json!(2) }));
}

pub(super) async fn reopening_opens_the_cycle_under_a_new_epoch<S: Subject>(subject: &S) {
    let (journal, cycle, key) = (subject.journal(), subject.create().await, task("discover", ""));
    assert!(matches!(journal.reopen(CycleId::generate(), &[]).await, Err(JournalError::Unknown(_))));
    let first = journal.acquire(cycle).await.unwrap();
    subject.request_cancel(cycle).await;
    let _ = append(journal, &first, line(key.clone(), 0, TaskEvent::Cancelled)).await;
    journal.finish(&first, CycleStatus::Cancelled, Some("asked to")).await.unwrap();
    journal.reopen(cycle, std::slice::from_ref(&key)).await.unwrap();
    let record = journal.load(cycle).await.unwrap();
    assert_eq!((record.status, record.cancel_requested), (CycleStatus::Open, false));
    assert_eq!(refusals(journal, &first).await, [true; 6]);
    let second = journal.acquire(cycle).await.unwrap();
    assert!(second.epoch > first.epoch + 1);
    journal.finish(&second, CycleStatus::Completed, None).await.unwrap();
    assert!(matches!(journal.reopen(cycle, &[key]).await, Err(JournalError::Completed(found)) if found == cycle));
}
