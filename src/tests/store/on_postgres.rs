//! What only the store does: its triggers, its finding of cycles, its stubbornness, its upgrades.

use std::collections::BTreeMap;

use robo::{
    cycle::{
        Appended, CycleStatus, Entry, EpisodeKey, InfraFault, Journal, JournalError, Lease, MemoryJournal, Outcome,
        TaskEvent, TaskStatus,
    },
    host::Progress,
    store::{CancelAnswer, Error, Store},
};
use serde_json::json;
use sqlx::Executor;

use super::pools::claimed;
use super::{
    OnMemory, OnPostgres, Subject, TestDatabase, Version, append, episode, episode_key, failure, line, new_cycle,
    publication, task,
};

/// Two thousand arbitrary lines in batches, most of them nonsense: both journals must answer alike and end alike.
#[tokio::test]
async fn both_journals_answer_alike() {
    use rand::{Rng, RngExt, SeedableRng, seq::SliceRandom};
    let (memory, postgres) = (OnMemory(MemoryJournal::new()), OnPostgres::new(Version::Default).await);
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut answers = BTreeMap::new();
    for _ in 0..10 {
        let (in_memory, in_postgres) = (memory.create().await, postgres.create().await);
        let here = memory.0.acquire(in_memory).await.unwrap();
        let there = postgres.store.acquire(in_postgres).await.unwrap();
        let mut before = vec![];
        for _ in 0..80 {
            let mut states = memory.0.load(in_memory).await.unwrap().tasks;
            states.shuffle(&mut random);
            states.truncate(random.random_range(0..=states.len()));
            let again = random.random_bool(0.15);
            let batch = states.iter().map(|state| {
                let runs = state.status == TaskStatus::Running;
                let event = match random.next_u32() % 80 {
                    0 => TaskEvent::Succeeded { output: json!([1]) },
                    1 => TaskEvent::Failed { failure: failure() },
                    2 => TaskEvent::Skipped { reason: "no".into() },
                    3 => TaskEvent::Cancelled,
                    4 => TaskEvent::Paused { failure: failure() },
                    5..8 => TaskEvent::Started,
                    8..22 if runs => TaskEvent::Retried { failure: failure() },
                    _ if runs => TaskEvent::Lost,
                    _ => TaskEvent::Started,
                };
                // Mostly the attempt that fits, so that whole batches do.
                let fits = state.attempt + u32::from(event == TaskEvent::Started);
                let attempt = if random.random_bool(0.95) { fits } else { random.random_range(0..4) };
                let limit = random.random_range(1..4);
                match event {
                    TaskEvent::Started if random.random_bool(0.7) => claimed(state.key.clone(), attempt, "gpu", limit),
                    event => line(state.key.clone(), attempt, event),
                }
            });
            // As after a lost acknowledgement, now and then.
            let batch: Vec<Entry> = if again { before } else { batch.collect() };
            before = batch.clone();
            let mine = words(memory.0.append_all(&here, &batch).await);
            assert_eq!(mine, words(postgres.store.append_all(&there, &batch).await), "{batch:?}");
            for word in mine {
                *answers.entry(word).or_insert(0) += 1;
            }
            let (mine, theirs) =
                (memory.0.load(in_memory).await.unwrap(), postgres.store.load(in_postgres).await.unwrap());
            assert_eq!(mine.tasks, theirs.tasks, "{batch:?}");
        }
    }
    // The lines were worth comparing only if they met every answer, and often enough.
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), ["already", "full", "illegal", "recorded"]);
    assert!(answers.values().all(|count| *count > 15), "{answers:?}");
}

fn words(result: Result<Vec<Appended>, JournalError>) -> Vec<&'static str> {
    match result {
        Ok(answers) => answers.into_iter().map(|answer| word(Ok(answer))).collect(),
        Err(error) => vec![word(Err(error))],
    }
}

/// Sixteen tasks of four cycles ask at once, and again whenever one of them has ended.
#[tokio::test]
async fn lesson_4_a_pool_is_never_fuller_than_its_limit() {
    let subject = OnPostgres::new(Version::Default).await;
    let store = &subject.store;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let cycle = subject.create().await;
        let lease = store.acquire(cycle).await.unwrap();
        waiting.extend(new_cycle().tasks.into_iter().map(|task| (lease, task)));
    }
    while !waiting.is_empty() {
        let begins = waiting.iter().map(|(lease, task)| {
            let (store, entry) = (store.clone(), claimed(task.clone(), 1, "gpu", 3));
            async move { store.append(lease, &entry).await.unwrap() }
        });
        let answers = futures::future::join_all(begins).await;
        let admitted = answers.iter().filter(|answer| **answer == Appended::Recorded).count();
        assert_eq!(admitted, waiting.len().min(3), "{answers:?}");
        let mut answers = answers.into_iter();
        let mut running = Vec::new();
        waiting.retain(|pair| {
            let runs = answers.next() == Some(Appended::Recorded);
            if runs {
                running.push(pair.clone());
            }
            !runs
        });
        for (lease, task) in running {
            let ended = TaskEvent::Succeeded { output: json!({}) };
            assert_eq!(append(store, &lease, line(task, 1, ended)).await, Appended::Recorded);
        }
    }
}

/// Of a holder that has died, nobody waits for the lease to run out.
#[tokio::test]
async fn lesson_4_a_dead_holder_takes_no_place() {
    let subject = OnPostgres::new(Version::Default).await;
    let (store, first, second) = (&subject.store, subject.create().await, subject.create().await);
    let dead = store.acquire(first).await.unwrap();
    assert_eq!(append(store, &dead, claimed(task("publish", ""), 1, "gpu", 1)).await, Appended::Recorded);
    let lease = store.acquire(second).await.unwrap();
    assert_eq!(append(store, &lease, claimed(task("publish", ""), 1, "gpu", 1)).await, Appended::Full);
    let mut connection = subject.database.connection().await;
    sqlx::query("update cycle set holder = jsonb_set(holder, '{started}', '1') where cycle_id = $1")
        .bind(first.as_uuid())
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(append(store, &lease, claimed(task("publish", ""), 1, "gpu", 1)).await, Appended::Recorded);
}

fn word(result: Result<Appended, JournalError>) -> &'static str {
    match result {
        Ok(Appended::Recorded) => "recorded",
        Ok(Appended::AlreadyRecorded) => "already",
        Ok(Appended::Full) => "full",
        Err(JournalError::Illegal(_)) => "illegal",
        Err(_) => "other",
    }
}

#[tokio::test]
async fn what_has_ended_cannot_be_changed_by_hand_either() {
    let subject = OnPostgres::new(Version::Default).await;
    let (journal, cycle) = (&subject.store, subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let key = episode_key("m/a", 0, "one");
    journal.plan_episodes(&lease, &task("episodes", "m/a"), std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(journal.record_episode(&lease, &episode(&key, 1, Outcome::Success)).await.unwrap(), Appended::Recorded);
    let _ = append(journal, &lease, line(task("publish", ""), 1, TaskEvent::Started)).await;
    let ended = line(task("publish", ""), 1, TaskEvent::Succeeded { output: json!({}) });
    let _ = append(journal, &lease, Entry { publication: Some(publication("w")), ..ended }).await;
    journal.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    for sql in [
        "update cycle set status = 'open', finished_at = null",
        "update cycle set salt = '\\x00'",
        "update task set status = 'pending' where status = 'succeeded'",
        "update task_event set payload = '{}'",
        "update episode set outcome = 'failure'",
        "update publication set weights = '{}'",
    ] {
        let error = subject.execute(sql).await.unwrap_err();
        assert!(error.to_string().contains("never changes"), "{sql}: {error}");
    }
}

/// The way back to `pending` that `reopen` takes is narrow: whatever else somebody changes on it is refused.
#[tokio::test]
async fn only_what_has_not_succeeded_goes_back_and_only_as_reopen_does_it() {
    let subject = OnPostgres::new(Version::Default).await;
    let (journal, cycle) = (&subject.store, subject.create().await);
    let lease = journal.acquire(cycle).await.unwrap();
    let _ = append(journal, &lease, line(task("discover", ""), 0, TaskEvent::Cancelled)).await;
    journal.finish(&lease, CycleStatus::Cancelled, None).await.unwrap();
    let reopen_task = "update task set status = 'pending', finished_at = null where stage = 'discover'";
    let refused = [
        reopen_task,
        "update cycle set status = 'open', finished_at = null",
        "update cycle set status = 'open', finished_at = null, epoch = epoch + 1, salt = '\\x00'",
        "update cycle set status = 'completed', epoch = epoch + 1",
    ];
    for sql in refused {
        let error = subject.execute(sql).await.unwrap_err();
        assert!(error.to_string().contains("never changes"), "{sql}: {error}");
    }
    subject.execute("update cycle set status = 'open', finished_at = null, epoch = epoch + 1").await.unwrap();
    for sql in [
        "update task set status = 'pending', finished_at = null, attempt = 5 where stage = 'discover'",
        "update task set status = 'running', finished_at = null where stage = 'discover'",
    ] {
        assert!(subject.execute(sql).await.is_err(), "{sql}");
    }
    subject.execute(reopen_task).await.unwrap();
}

#[tokio::test]
async fn only_one_of_many_gets_the_lease_and_no_writer_is_lost() {
    let subject = OnPostgres::new(Version::Default).await;
    let (store, cycle) = (&subject.store, subject.create().await);
    let rivals = futures::future::join_all((0..16).map(|_| store.acquire(cycle))).await;
    let leases: Vec<Lease> = rivals.into_iter().filter_map(Result::ok).collect();
    let [lease] = leases[..] else { panic!("{leases:?}") };
    let keys: Vec<EpisodeKey> = (0..200).map(|k| episode_key("m/a", k, "one")).collect();
    store.plan_episodes(&lease, &task("episodes", "m/a"), &keys).await.unwrap();
    // Every episode is brought twice at once, as after a reconnection.
    let both = keys.iter().chain(&keys).map(|key| {
        let store = store.clone();
        let episode = episode(key, 1, Outcome::Success);
        async move { store.record_episode(&lease, &episode).await.unwrap() }
    });
    let answers = futures::future::join_all(both).await;
    assert_eq!(answers.iter().filter(|answer| **answer == Appended::Recorded).count(), 200);
    assert_eq!(store.scored_episodes(cycle).await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_dead_holder_of_this_machine_is_replaced_at_once_and_no_other() {
    let subject = OnPostgres::new(Version::Default).await;
    let (store, cycle) = (&subject.store, subject.create().await);
    let first = store.acquire(cycle).await.unwrap();
    let change = "update cycle set holder = jsonb_set(holder, '{hostname}', '\"elsewhere\"')";
    assert_eq!(subject.execute(change).await.unwrap(), 1);
    subject.execute("update cycle set holder = jsonb_set(holder, '{started}', '1')").await.unwrap();
    assert!(matches!(store.acquire(cycle).await, Err(JournalError::Leased(..))));
    assert!(store.cycle_summary(cycle).await.unwrap().is_running);
    let here = "update cycle set holder = jsonb_set(holder, '{hostname}', to_jsonb(trim(both from $1::text)))";
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mut connection = subject.database.connection().await;
    sqlx::query(here).bind(hostname.trim()).execute(&mut connection).await.unwrap();
    assert!(!store.cycle_summary(cycle).await.unwrap().is_running);
    assert!(store.acquire(cycle).await.unwrap().epoch > first.epoch);
}

#[tokio::test]
async fn cycles_have_numbers_without_gaps() {
    let subject = OnPostgres::new(Version::Default).await;
    let made = futures::future::join_all((0..5).map(|_| subject.create())).await;
    let numbers = subject.store.cycle_numbers(&made).await.unwrap();
    let mut sorted: Vec<i64> = numbers.values().map(|number| number.as_i64()).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 3, 4, 5]);
    for (cycle, number) in numbers {
        assert_eq!(subject.store.resolve(&number.to_string()).await.unwrap(), cycle);
        assert_eq!(subject.store.cycle_summary(cycle).await.unwrap().number, number);
    }
    assert!(subject.store.resolve("6").await.is_err());
}

#[tokio::test]
async fn publications_form_a_chain() {
    let subject = OnPostgres::new(Version::Default).await;
    assert_eq!(subject.store.latest_publication().await.unwrap(), None);
    let mut cycles = Vec::new();
    for document in ["one", "two"] {
        let cycle = subject.create().await;
        let lease = subject.store.acquire(cycle).await.unwrap();
        let _ = append(&subject.store, &lease, line(task("publish", ""), 1, TaskEvent::Started)).await;
        let ended = line(task("publish", ""), 1, TaskEvent::Succeeded { output: json!({}) });
        let _ = append(&subject.store, &lease, Entry { publication: Some(publication(document)), ..ended }).await;
        subject.store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
        cycles.push(cycle);
    }
    let first = subject.store.publication(cycles[0]).await.unwrap().unwrap();
    let second = subject.store.latest_publication().await.unwrap().unwrap();
    assert_eq!((first.sequence, first.previous_digest, first.block), (1, None, Some(7)));
    assert_eq!((second.cycle, second.sequence), (cycles[1], 2));
    assert_eq!(second.previous_digest.as_deref(), Some("digest of one"));
}

#[tokio::test]
async fn cycles_are_found_by_latest_id_and_start() {
    let subject = OnPostgres::new(Version::Default).await;
    let store = &subject.store;
    assert!(matches!(store.resolve("@latest").await, Err(Error::NoCycle)));
    let (first, second) = (subject.create().await, subject.create().await);
    assert_eq!(store.resolve("@latest").await.unwrap(), second);
    assert_eq!(store.resolve(&first.to_string().to_uppercase()).await.unwrap(), first);
    let (a, b) = (first.to_string(), second.to_string());
    let shared = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    assert_eq!(store.resolve(&a[..=shared]).await.unwrap(), first);
    let error = store.resolve(&a[..shared]).await.unwrap_err().to_string();
    assert!(error.contains(&a) && error.contains(&b), "{error}");
    for bad in ["", "%", "_", "nothing", "ffffffff", "'; drop table cycle; --"] {
        let error = store.resolve(bad).await.unwrap_err().to_string();
        assert!(error.contains(&format!("no cycle `{bad}`")) && error.contains(&b), "{error}");
    }
}

#[tokio::test]
async fn a_summary_counts_and_keeps_the_salt_to_itself_until_it_is_completed() {
    let subject = OnPostgres::new(Version::Default).await;
    let (store, cycle) = (&subject.store, subject.create().await);
    let lease = store.acquire(cycle).await.unwrap();
    let keys: Vec<EpisodeKey> = (0..5).map(|k| episode_key("m/a", k, "one")).collect();
    store.plan_episodes(&lease, &task("episodes", "m/a"), &keys).await.unwrap();
    let outcomes = [Outcome::Success, Outcome::Success, Outcome::InfraFault(InfraFault::ServerLost)];
    for (key, outcome) in keys.iter().zip(outcomes) {
        let _ = store.record_episode(&lease, &episode(key, 1, outcome)).await.unwrap();
    }
    let counts = store.episode_counts(cycle).await.unwrap();
    let found: Vec<_> = counts.iter().map(|row| (row.outcome.map(|outcome| outcome.to_string()), row.count)).collect();
    let infra = Some("infra_fault(server_lost)".to_owned());
    assert_eq!(found, [(infra, 1), (Some("success".into()), 2), (None, 2)]);
    let running = store.cycle_summary(cycle).await.unwrap();
    assert_eq!((running.salt, running.episodes, running.tasks, running.is_running), (None, (2, 5), (0, 4), true));
    assert_eq!(running.salt_sha256, new_cycle().salt.commitment());
    assert_eq!(store.request_cancel(cycle).await.unwrap(), CancelAnswer::Requested);
    store.release(&lease).await.unwrap();
    assert_eq!(store.request_cancel(cycle).await.unwrap(), CancelAnswer::NobodyRuns);
    let lease = store.acquire(cycle).await.unwrap();
    store.finish(&lease, CycleStatus::Cancelled, Some("asked to\u{0}")).await.unwrap();
    let ended = store.cycle_summary(cycle).await.unwrap();
    assert_eq!((ended.salt, ended.is_running), (None, false), "it can be retried under the same salt");
    assert!(ended.finished_at.is_some() && ended.reason.is_some());
    assert_eq!(store.request_cancel(cycle).await.unwrap(), CancelAnswer::Ended(CycleStatus::Cancelled));
    let status = store.status().await.unwrap().contents.unwrap();
    assert_eq!((status.cycles, status.miners, status.last_completed), (1, 1, None));

    let other = subject.create().await;
    let lease = store.acquire(other).await.unwrap();
    store.finish(&lease, CycleStatus::Completed, None).await.unwrap();
    assert_eq!(store.cycle_summary(other).await.unwrap().salt, Some(new_cycle().salt));
}

/// The connections of a run are cut again and again while it writes.
#[tokio::test]
async fn a_database_that_is_cut_off_loses_nothing() {
    let subject = OnPostgres::new(Version::Default).await;
    let (store, cycle) = (subject.store.clone(), subject.create().await);
    let lease = store.acquire(cycle).await.unwrap();
    let keys: Vec<EpisodeKey> = (0..300).map(|k| episode_key("m/a", k, "one")).collect();
    store.plan_episodes(&lease, &task("episodes", "m/a"), &keys).await.unwrap();
    let cuts = std::cell::Cell::new(0_i64);
    let mut cutter = subject.database.connection().await;
    let writer = async {
        for key in &keys {
            let answer = store.record_episode(&lease, &episode(key, 1, Outcome::Success)).await.unwrap();
            // After a lost acknowledgement the second try finds the first one's work.
            assert!(matches!(answer, Appended::Recorded | Appended::AlreadyRecorded));
            store.heartbeat(&lease).await.unwrap();
        }
    };
    let cutting = async {
        loop {
            let cut: i64 = sqlx::query_scalar(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where application_name = current_setting('application_name') and pid <> pg_backend_pid()",
            )
            .fetch_one(&mut cutter)
            .await
            .unwrap();
            cuts.set(cuts.get() + cut);
            // Enough; from here the writer goes on in peace.
            if cuts.get() >= 40 {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! { () = writer => {}, () = cutting => {} }
    assert!(cuts.get() > 0);
    assert_eq!(store.scored_episodes(cycle).await.unwrap().len(), 300);
}

#[tokio::test]
async fn many_may_initialise_at_once() {
    let database = TestDatabase::new(Version::Wheel).await;
    let mut connection = database.connection().await;
    connection.execute("create table somebody_elses (x int)").await.unwrap();
    let stores = futures::future::join_all((0..4).map(|_| database.store())).await;
    assert!(stores[3].require_schema().await.is_ok());
    stores[3].reset().await.unwrap();
    connection.execute("select x from somebody_elses").await.unwrap();
}

#[tokio::test]
async fn a_reset_waits_for_nobody_and_spares_a_running_cycle() {
    let subject = OnPostgres::new(Version::Default).await;
    let cycle = subject.create().await;
    let lease = subject.store.acquire(cycle).await.unwrap();
    assert!(matches!(subject.store.reset().await, Err(Error::Running(found)) if found == cycle));
    subject.store.release(&lease).await.unwrap();
    subject.store.reset().await.unwrap();
    assert!(subject.store.cycles(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let subject = OnPostgres::new(Version::Default).await;
    subject
        .execute("insert into _sqlx_migrations values (9999, 'from the future', now(), true, '\\x00', 0)")
        .await
        .unwrap();
    let error = Store::open(&subject.database.config(), &Progress::silent()).await.unwrap_err();
    assert!(error.to_string().contains("newer version (9999)") && error.to_string().contains("upgrade robo"));
    assert!(matches!(subject.store.reset().await, Err(Error::NewerSchema { found: 9999, .. })));
    assert!(subject.store.require_schema().await.is_err());
    assert_eq!(subject.store.status().await.unwrap().schema_version, Some(9999));
}

#[tokio::test]
async fn who_has_a_place_in_a_pool_is_listed_while_it_counts() {
    let subject = OnPostgres::new(Version::Default).await;
    let cycle = subject.create().await;
    let lease = subject.store.acquire(cycle).await.unwrap();
    let places = async || {
        let places = subject.store.status().await.unwrap().contents.unwrap().pools;
        places.into_iter().map(|place| (place.pool, place.cycle, place.task.to_string())).collect::<Vec<_>>()
    };
    assert!(places().await.is_empty());
    let _ = append(&subject.store, &lease, claimed(task("episodes", "m/a"), 1, "gpu", 2)).await;
    let _ = append(&subject.store, &lease, line(task("discover", ""), 1, TaskEvent::Started)).await;
    assert_eq!(places().await, [("gpu".to_owned(), cycle, "episodes[m/a]".to_owned())]);
    // Nobody waits for a place of an owner that is gone.
    subject.expire_lease(cycle).await;
    assert!(places().await.is_empty());
}
