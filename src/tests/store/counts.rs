//! How many episodes a cycle has come to: counted when it ends, each time, and said from then on, whatever becomes of the episodes.

use std::time::Duration;

use robo::{
    cycle::{CycleId, CycleStatus, EpisodeKey, Journal, Outcome, Pin, PublishGuard, TaskEvent},
    store::Store,
};
use sqlx::Executor;

use super::{TestDatabase, Version, append, episode, episode_key, failure, line, new_cycle, task};
use crate::weights::{WHOLE, publish_at};

/// What is kept of each end, in their order: planned and scored.
async fn kept(database: &TestDatabase) -> Vec<(i64, i64)> {
    let kept = sqlx::query_as("select planned, scored from episode_count order by cycle_id, epoch");
    kept.fetch_all(&mut database.connection().await).await.unwrap()
}

/// Scored and planned, as lists say it.
async fn listed(store: &Store, cycle: CycleId) -> (u64, u64) {
    store.cycle_summary(cycle).await.unwrap().episodes
}

async fn whole(store: &Store) -> CycleId {
    let pin = Pin { genesis: "0x00".into(), netuid: 1, block: 7, hash: "0x07".into() };
    publish_at(store, pin, Some("ann"), (WHOLE, PublishGuard::default())).await
}

#[tokio::test]
async fn a_cycle_that_is_opened_again_is_counted_again() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let cycle = store.create_cycle(&new_cycle()).await.unwrap();
    let (played, keys) = (task("episodes", "m/a"), [0, 1, 2].map(|seed| episode_key("m/a", seed, "one")));
    let play = async |key: &EpisodeKey, end: CycleStatus| {
        let lease = store.acquire(cycle).await.unwrap();
        let attempt = store.load(cycle).await.unwrap().tasks.iter().find(|it| it.key == played).unwrap().attempt + 1;
        let _ = append(&store, &lease, line(played.clone(), attempt, TaskEvent::Started)).await;
        store.plan_episodes(&lease, &played, &keys).await.unwrap();
        let _ = store.record_episode(&lease, &episode(key, 1, Outcome::Success)).await.unwrap();
        let _ = append(&store, &lease, line(played.clone(), attempt, TaskEvent::Failed { failure: failure() })).await;
        store.finish(&lease, end, None).await.unwrap();
    };
    play(&keys[0], CycleStatus::Failed).await;
    assert_eq!((listed(&store, cycle).await, kept(&database).await), ((1, 3), vec![(3, 1)]));
    store.reopen(cycle, std::slice::from_ref(&played)).await.unwrap();
    assert_eq!(listed(&store, cycle).await, (1, 3));
    play(&keys[1], CycleStatus::Cancelled).await;
    assert_eq!((listed(&store, cycle).await, kept(&database).await), ((2, 3), vec![(3, 1), (3, 2)]));
    let gone = store.collect_garbage(Duration::ZERO, &|_| ()).await.unwrap();
    assert_eq!((gone.episodes, listed(&store, cycle).await), (3, (2, 3)), "how many there were is still said");
}

/// The step that began to keep them takes over what has ended before; what an older program ends after that is counted before it ages
/// out. What is half gone cannot be counted any more.
#[tokio::test]
async fn what_an_older_version_has_ended_is_counted_while_it_is_there() {
    let database = TestDatabase::new(Version::Default).await;
    let store = database.store().await;
    let (before, fading) = (whole(&store).await, whole(&store).await);
    let open = store.create_cycle(&new_cycle()).await.unwrap();
    let lease = store.acquire(open).await.unwrap();
    store.plan_episodes(&lease, &task("episodes", "m/a"), &[episode_key("m/a", 0, "one")]).await.unwrap();
    let mut connection = database.connection().await;
    let fade = sqlx::query("insert into aged_out (cycle_id) values ($1)").bind(fading.as_uuid());
    fade.execute(&mut connection).await.unwrap();
    connection.execute("drop table episode_count").await.unwrap();
    connection.execute("delete from _sqlx_migrations where version = 18").await.unwrap();

    store.migrate().await.unwrap();
    assert_eq!(kept(&database).await, [(10, 10)], "of the one that has ended with all its episodes");
    let after = whole(&store).await;
    let forget = sqlx::query("delete from episode_count where cycle_id = $1").bind(after.as_uuid());
    assert_eq!(forget.execute(&mut connection).await.unwrap().rows_affected(), 1);
    assert_eq!(listed(&store, after).await, (10, 10), "it can be counted anew");

    assert_eq!(store.collect_garbage(Duration::ZERO, &|_| ()).await.unwrap().episodes, 30);
    for (cycle, said) in [(before, (10, 10)), (after, (10, 10)), (fading, (0, 0)), (open, (0, 1))] {
        assert_eq!(listed(&store, cycle).await, said);
    }
}
