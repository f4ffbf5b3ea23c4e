//! Three lessons from the trackers of other engines, each a promise here with a test of its name.

use robo::{
    cycle::{CycleStatus, Journal, JournalError},
    store::Store,
};

use crate::{
    database_faults::{Writing, episode},
    support::database::{TestDatabase, Version},
};

async fn begin() -> (TestDatabase, Writing) {
    let database = TestDatabase::new(Version::Default).await;
    let writing = Writing::begin(&database.config()).await;
    (database, writing)
}

async fn is_running(store: &Store, writing: &Writing) -> bool {
    store.cycle_summary(writing.cycle).await.unwrap().is_running
}

/// "Running" is derived from a live lease: no crash leaves a flag behind that says otherwise.
#[tokio::test]
async fn lesson_1_nothing_stays_running_for_ever() {
    let (database, writing) = begin().await;
    let store = database.store().await;
    database.keep_leases().await;
    assert!(is_running(&store, &writing).await);
    let mut connection = database.connection().await;
    // Its process has died: known at once on this machine.
    for (change, running) in [
        ("update cycle set holder = jsonb_set(holder, '{started}', '1')", false),
        // That of another machine counts as alive until its lease runs out, and no longer.
        ("update cycle set holder = jsonb_set(holder, '{hostname}', '\"elsewhere\"')", true),
        ("update cycle set lease_until = now() - interval '1 second'", false),
    ] {
        sqlx::query(change).execute(&mut connection).await.unwrap();
        assert_eq!(is_running(&store, &writing).await, running, "{change}");
    }
    // Whoever comes next takes it up and brings it to an end.
    let lease = store.acquire(writing.cycle).await.unwrap();
    assert!(is_running(&store, &writing).await);
    store.finish(&lease, CycleStatus::Failed, Some("nobody was left")).await.unwrap();
    assert!(!is_running(&store, &writing).await);
}

/// Every write of an owner that lost its lease is refused, heartbeats included, and so is every change of what has ended.
#[tokio::test]
async fn lesson_2_a_stale_writer_writes_nothing() {
    let (database, stale) = begin().await;
    let store = database.store().await;
    let mut connection = database.connection().await;
    sqlx::query("update cycle set lease_until = now()").execute(&mut connection).await.unwrap();
    let lease = store.acquire(stale.cycle).await.unwrap();
    assert!(lease.epoch > stale.lease.epoch);
    let lost =
        |answer: Result<(), JournalError>| assert!(matches!(answer, Err(JournalError::LeaseLost(_))), "{answer:?}");
    lost(stale.store.heartbeat(&stale.lease).await.map(drop));
    lost(stale.store.record_episode(&stale.lease, &episode(0)).await.map(drop));
    lost(stale.store.finish(&stale.lease, CycleStatus::Completed, None).await.map(drop));
    lost(stale.store.release(&stale.lease).await);
    assert!(store.scored_episodes(stale.cycle).await.unwrap().is_empty());
    store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    lost(store.heartbeat(&lease).await.map(drop));
    let undone = sqlx::query("update cycle set status = 'open', finished_at = null").execute(&mut connection).await;
    assert!(undone.unwrap_err().to_string().contains("never changes"));
}

/// The episode is the unit of commit: what one owner has recorded, the next one keeps, and only the rest is run.
#[tokio::test]
async fn lesson_12_no_partial_result_is_lost_or_run_again() {
    use robo::cycle::{Appended, EpisodeReport, InfraFault, Outcome, TaskKey};
    let (database, first) = begin().await;
    let store = database.store().await;
    for index in 0..10 {
        assert_eq!(first.store.record_episode(&first.lease, &episode(index)).await.unwrap(), Appended::Recorded);
    }
    let mut lost = episode(10);
    lost.report = EpisodeReport { outcome: Outcome::InfraFault(InfraFault::ServerLost), ..lost.report };
    let _ = first.store.record_episode(&first.lease, &lost).await.unwrap();
    let mut connection = database.connection().await;
    sqlx::query("update cycle set lease_until = now()").execute(&mut connection).await.unwrap();
    let lease = store.acquire(first.cycle).await.unwrap();
    let task = TaskKey { stage: "episodes".parse().unwrap(), cell: "m/a".into() };
    let pending = store.pending_episodes(first.cycle, &task).await.unwrap();
    assert_eq!((pending[0].key.seed_index, pending[0].attempt), (10, 1), "our fault costs a try, and is run again");
    assert_eq!((pending[1].key.seed_index, pending[1].attempt), (11, 0));
    // A finished one that is brought again, with another outcome at that, changes nothing: no second chance, no bias.
    let mut again = episode(3);
    again.attempt = 2;
    again.report.outcome = Outcome::Failure;
    assert_eq!(store.record_episode(&lease, &again).await.unwrap(), Appended::AlreadyRecorded);
    let scored = store.scored_episodes(first.cycle).await.unwrap();
    assert_eq!(scored.len(), 10);
    assert!(scored.iter().all(|episode| episode.report.outcome == Outcome::Success && episode.attempt == 1));
}
