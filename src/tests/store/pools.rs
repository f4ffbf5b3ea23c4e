//! The journal's contract for lines that are written together, and for the pools that some of them take a place of.

use robo::cycle::{
    Appended, CycleId, CycleStatus, Entry, Journal, JournalError, Lease, PoolClaim, TaskEvent, TaskKey, TaskStatus,
};
use serde_json::json;

use super::{Subject, append, failure, is_lost, line, publication, status_of, task};

use Appended::{AlreadyRecorded, Full, Recorded};

/// The attempt begins with a place in the pool.
pub(super) fn claimed(task: TaskKey, attempt: u32, pool: &str, limit: u32) -> Entry {
    Entry { pool: Some(PoolClaim { name: pool.into(), limit }), ..line(task, attempt, TaskEvent::Started) }
}

fn ended() -> TaskEvent {
    TaskEvent::Succeeded { output: json!({ "n": 1 }) }
}

async fn all<J: Journal>(journal: &J, lease: &Lease, entries: &[Entry]) -> Vec<Appended> {
    journal.append_all(lease, entries).await.unwrap()
}

async fn words<J: Journal>(journal: &J, cycle: CycleId) -> Vec<&'static str> {
    journal.load(cycle).await.unwrap().tasks.iter().map(|task| task.status.word()).collect()
}

pub(super) async fn lines_of_many_tasks_are_one_write<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let [first, second, third] = [task("discover", ""), task("episodes", "m/a"), task("publish", "")];
    let begin = [&second, &first].map(|key| line(key.clone(), 1, TaskEvent::Started));
    assert_eq!(all(journal, &lease, &begin).await, [Recorded, Recorded]);
    let skipped = TaskEvent::Skipped { reason: "`when` is false".into() };
    let more = [
        line(first.clone(), 1, TaskEvent::Started),
        line(first.clone(), 1, ended()),
        line(second.clone(), 1, TaskEvent::Retried { failure: failure() }),
        line(third.clone(), 0, skipped.clone()),
    ];
    assert_eq!(all(journal, &lease, &more).await, [AlreadyRecorded, Recorded, Recorded, Recorded]);
    assert_eq!(all(journal, &lease, &more).await, [AlreadyRecorded; 4]);
    assert_eq!(status_of(journal, cycle, &first).await.2, TaskStatus::Succeeded { output: json!({ "n": 1 }) });
    assert_eq!(status_of(journal, cycle, &second).await, (1, 1, TaskStatus::Pending));
    assert_eq!(status_of(journal, cycle, &third).await.2.word(), skipped.word());
    subject.expire_lease(cycle).await;
    journal.acquire(cycle).await.unwrap();
    assert!(is_lost(journal.append_all(&lease, &[line(second, 2, TaskEvent::Started)]).await));
}

pub(super) async fn one_line_that_does_not_fit_takes_all_down<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let publishing = Entry { publication: Some(publication("w")), ..line(task("publish", ""), 1, ended()) };
    let _ = append(journal, &lease, line(task("publish", ""), 1, TaskEvent::Started)).await;
    let good = [line(task("discover", ""), 1, TaskEvent::Started), publishing];
    let illegal = line(task("episodes", "m/a"), 1, ended());
    let unknown = line(task("episodes", "m/z"), 1, TaskEvent::Started);
    for place in 0..=good.len() {
        let mut lines = good.to_vec();
        lines.insert(place, illegal.clone());
        assert!(matches!(journal.append_all(&lease, &lines).await, Err(JournalError::Illegal(_))), "{place}");
        lines[place] = unknown.clone();
        assert!(matches!(journal.append_all(&lease, &lines).await, Err(JournalError::Storage(_))), "{place}");
    }
    assert_eq!(words(journal, cycle).await, ["pending", "pending", "pending", "running"]);
    assert!(subject.published().await.is_empty());
    assert_eq!(all(journal, &lease, &good).await, [Recorded, Recorded]);
    journal.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    assert_eq!(subject.published().await, [(cycle, publication("w"))]);
}

pub(super) async fn a_batch_of_no_lines_is_nothing<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    assert_eq!(all(journal, &lease, &[]).await, []);
}

pub(super) async fn a_pool_takes_as_many_as_it_may_and_frees_every_way<S: Subject>(subject: &S) {
    let (journal, cycle) = (subject.journal(), subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let [a, b] = [task("episodes", "m/a"), task("episodes", "m/b")];
    let other = claimed(task("publish", ""), 1, "chain", 1);
    let lines = [claimed(a.clone(), 1, "gpu", 1), claimed(b.clone(), 1, "gpu", 1), other];
    assert_eq!(all(journal, &lease, &lines).await, [Recorded, Full, Recorded]);
    assert_eq!(words(journal, cycle).await, ["pending", "running", "pending", "running"]);
    // Whoever has begun is not asked to wait when it says so again.
    assert_eq!(append(journal, &lease, lines[0].clone()).await, AlreadyRecorded);
    let frees = [TaskEvent::Lost, TaskEvent::Retried { failure: failure() }, ended()];
    for (attempt, free) in (1..).zip(frees) {
        assert_eq!(append(journal, &lease, claimed(b.clone(), attempt, "gpu", 1)).await, Full);
        // The end of one and the begin of the other in one write: the place is free when its turn comes.
        let change = [line(a.clone(), attempt, free), claimed(b.clone(), attempt, "gpu", 1)];
        assert_eq!(all(journal, &lease, &change).await, [Recorded, Recorded]);
        assert_eq!(append(journal, &lease, line(b.clone(), attempt, TaskEvent::Lost)).await, Recorded);
        if attempt < 3 {
            assert_eq!(append(journal, &lease, claimed(a.clone(), attempt + 1, "gpu", 1)).await, Recorded);
        }
    }
    // An attempt that asks for no place takes none.
    assert_eq!(append(journal, &lease, line(b.clone(), 4, TaskEvent::Started)).await, Recorded);
    assert_eq!(append(journal, &lease, claimed(task("discover", ""), 1, "gpu", 1)).await, Recorded);
}

pub(super) async fn a_pool_counts_all_cycles_and_only_live_leases<S: Subject>(subject: &S) {
    let (journal, first, second) = (subject.journal(), subject.create().await, subject.create().await);
    let holder = journal.acquire(first).await.unwrap();
    let lines = [claimed(task("episodes", "m/a"), 1, "gpu", 2), claimed(task("episodes", "m/b"), 1, "gpu", 2)];
    assert_eq!(all(journal, &holder, &lines).await, [Recorded, Recorded]);
    let rival = journal.acquire(second).await.unwrap();
    assert_eq!(all(journal, &rival, &lines).await, [Full, Full]);
    // Room for one more, in a pool that somebody has made larger.
    let larger = [claimed(task("episodes", "m/a"), 1, "gpu", 3), claimed(task("episodes", "m/b"), 1, "gpu", 3)];
    assert_eq!(all(journal, &rival, &larger).await, [Recorded, Full]);
    // The first holder falls silent: its places are free, though its tasks still say that they run.
    subject.expire_lease(first).await;
    journal.heartbeat(&rival).await.unwrap();
    assert_eq!(append(journal, &rival, lines[1].clone()).await, Recorded);
    assert_eq!(words(journal, first).await, ["pending", "running", "running", "pending"]);
}
