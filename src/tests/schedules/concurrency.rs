//! Limits on open cycles, wherever cycles come from.

use robo::{
    backend,
    cycle::{CycleId, CycleStatus, Journal, JournalError},
    store::{Admission, NewCycle, NewFork, Origin, Publishing},
};
use serde_json::json;

use super::{File, Place};

/// A cycle of a group of which two may be open.
fn limited(on_limit: &str) -> NewCycle {
    let file = File::new("");
    let mut new = backend::new_cycle(file.read().compiled());
    new.definition["concurrency"] = json!({ "group": "gpu", "limit": 2, "on_limit": on_limit });
    new
}

async fn created(place: &Place, on_limit: &str) -> CycleId {
    match place.store.admit_cycle(&limited(on_limit)).await.unwrap() {
        Admission::Created(cycle) => cycle,
        refused => panic!("{refused:?}"),
    }
}

#[tokio::test]
async fn queued_cycles_start_in_their_order_as_others_end() {
    let place = Place::new().await;
    let mut cycles = Vec::new();
    for _ in 0..4 {
        cycles.push(created(&place, "queue").await);
    }
    let first = place.store.acquire(cycles[0]).await.unwrap();
    let waits = place.store.acquire(cycles[3]).await.unwrap_err();
    assert!(matches!(waits, JournalError::Waits(_, ahead) if ahead == cycles[0]), "{waits}");
    assert_eq!(place.store.waits_for(cycles[1]).await.unwrap(), None);
    let second = place.store.acquire(cycles[1]).await.unwrap();
    assert_eq!(place.store.waits_for(cycles[2]).await.unwrap(), Some(cycles[0]));
    // Interrupted is not ended: the place is kept.
    place.store.release(&second).await.unwrap();
    assert_eq!(place.store.waits_for(cycles[2]).await.unwrap(), Some(cycles[0]));
    place.store.finish(&first, CycleStatus::Completed, None).await.unwrap();
    assert_eq!(place.store.waits_for(cycles[2]).await.unwrap(), None);
    assert_eq!(place.store.waits_for(cycles[3]).await.unwrap(), Some(cycles[1]));
    // Who is to stop does so at once, and whoever stands behind it moves up.
    place.store.request_cancel(cycles[1]).await.unwrap();
    assert_eq!(place.store.waits_for(cycles[3]).await.unwrap(), None);
}

/// Eight contenders at once for two places: never more than two hold a lease.
#[tokio::test]
async fn racing_for_the_last_place_never_overfills_the_group() {
    let place = Place::new().await;
    let mut cycles = Vec::new();
    for _ in 0..8 {
        cycles.push(created(&place, "queue").await);
    }
    let mut done = 0;
    while done < 8 {
        let tries = futures::future::join_all(cycles.iter().map(|cycle| place.store.acquire(*cycle))).await;
        let held: Vec<_> = tries.into_iter().filter_map(Result::ok).collect();
        assert!((1..=2).contains(&held.len()), "{held:?}");
        for lease in held {
            place.store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
            done += 1;
        }
    }
}

#[tokio::test]
async fn one_too_many_is_refused_or_takes_the_place_of_the_oldest() {
    let place = Place::new().await;
    let (oldest, younger) = (created(&place, "skip").await, created(&place, "skip").await);
    let refused = place.store.admit_cycle(&limited("skip")).await.unwrap();
    assert_eq!(refused, Admission::Refused { group: "gpu".into(), limit: 2, open: oldest });
    let lease = place.store.acquire(oldest).await.unwrap();
    let newest = created(&place, "replace").await;
    let asked = async |cycle| place.store.load(cycle).await.unwrap().cancel_requested;
    let asked = [asked(oldest).await, asked(younger).await, asked(newest).await];
    assert_eq!(asked, [true, false, false]);
    assert!(place.store.heartbeat(&lease).await.unwrap().cancel_requested);
    assert_eq!(place.store.waits_for(newest).await.unwrap(), Some(oldest), "until its teardown is done");
    place.store.finish(&lease, CycleStatus::Cancelled, None).await.unwrap();
    place.store.acquire(newest).await.unwrap();
}

#[tokio::test]
async fn all_of_them_at_once_are_admitted_one_by_one() {
    let place = Place::new().await;
    let new: Vec<NewCycle> = (0..8).map(|_| limited("skip")).collect();
    let tries = futures::future::join_all(new.iter().map(|new| place.store.admit_cycle(new))).await;
    let created = tries.iter().filter(|one| matches!(one, Ok(Admission::Created(_)))).count();
    assert_eq!((created, place.open().await.len()), (2, 2));
}

#[tokio::test]
async fn a_triggered_cycle_is_noted_and_obeys_the_limit() {
    let place = Place::new().await;
    let now = super::at("10:00");
    for (step, expected) in ["10:00 cycle", "10:01 cycle", "10:02 concurrency"].into_iter().enumerate() {
        let now = now + chrono::Duration::minutes(step as i64);
        let _ = place.store.trigger(&limited("skip"), now).await.unwrap();
        assert_eq!(super::words(&place.fires().await).last().unwrap(), expected);
    }
    assert_eq!(place.store.idle_cycles().await.unwrap().len(), 2, "a backend takes them up at once");
    created_by_hand_is_left_to_the_hand(&place).await;
}

async fn created_by_hand_is_left_to_the_hand(place: &Place) {
    let mut new = limited("skip");
    new.definition["concurrency"] = json!(null);
    let Admission::Created(cycle) = place.store.admit_cycle(&new).await.unwrap() else { panic!("nothing limits it") };
    assert!(!place.store.idle_cycles().await.unwrap().contains(&cycle));
    let lease = place.store.acquire(cycle).await.unwrap();
    place.store.release(&lease).await.unwrap();
    assert!(place.store.idle_cycles().await.unwrap().contains(&cycle), "given back, it is anybody's");
}

/// A fork of `parent`, or a rescore of it, that runs everything again.
fn again(parent: CycleId, origin: Origin, on_limit: &str) -> NewFork {
    let (kept, skipped) = (Vec::new(), Vec::new());
    let from = "miners".parse().unwrap();
    NewFork { cycle: limited(on_limit), parent, origin, from, kept, skipped, publishing: Publishing::Draft }
}

#[tokio::test]
async fn a_fork_obeys_the_limit_and_a_rescore_waits_for_nobody() {
    let place = Place::new().await;
    let parent = created(&place, "skip").await;
    place.end(parent, CycleStatus::Completed).await;
    let (first, second) = (created(&place, "skip").await, created(&place, "skip").await);
    let running = [place.store.acquire(first).await.unwrap(), place.store.acquire(second).await.unwrap()];

    let refused = place.store.create_fork(&again(parent, Origin::Fork, "skip")).await.unwrap();
    assert_eq!(refused, Admission::Refused { group: "gpu".into(), limit: 2, open: first });
    assert_eq!(place.open().await, [first, second], "nothing of it is left");
    let made = async |origin| match place.store.create_fork(&again(parent, origin, "queue")).await.unwrap() {
        Admission::Created(cycle) => cycle,
        refused => panic!("{refused:?}"),
    };
    let queued = made(Origin::Fork).await;
    assert!(matches!(place.store.acquire(queued).await, Err(JournalError::Waits(..))));
    let rescore = made(Origin::Rescore).await;
    place.store.acquire(rescore).await.unwrap();
    // It takes nobody's place either.
    place.store.finish(&running[0], CycleStatus::Completed, None).await.unwrap();
    place.store.acquire(queued).await.unwrap();
    let replacing = made_by_replacing(&place, parent).await;
    assert!(place.store.load(second).await.unwrap().cancel_requested, "the oldest of the group");
    assert!(!place.store.load(replacing).await.unwrap().cancel_requested);
}

async fn made_by_replacing(place: &Place, parent: CycleId) -> CycleId {
    match place.store.create_fork(&again(parent, Origin::Fork, "replace")).await.unwrap() {
        Admission::Created(cycle) => cycle,
        refused => panic!("{refused:?}"),
    }
}
