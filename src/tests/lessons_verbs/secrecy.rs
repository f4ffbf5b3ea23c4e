//! A salt is shown when nothing that began with it can play any more, and not before: not by what is made of a cycle, not by its
//! documents, and not because it is opened again.

use robo::{
    cycle::{JournalError, Lease},
    store::{Admission, Error, NewFork, Origin, Publishing},
};

use super::*;

/// A cycle with everything the base has come to, its documents too, that has not ended.
async fn unfinished(store: &Store, base: &Value, (root, salt): (&str, &str)) -> Lease {
    let rows = base["tasks"].as_array().unwrap();
    let stages = base["definition"]["stages"].as_array().unwrap();
    let keys = stages.iter().flat_map(|stage| stage["tasks"].as_array().unwrap().clone());
    let keys: Vec<TaskKey> = keys.map(|task| serde_json::from_value(task["key"].clone()).unwrap()).collect();
    let new = new_cycle(base, root, salt, keys.clone());
    let lease = store.acquire(store.create_cycle(&new).await.unwrap()).await.unwrap();
    for key in keys.into_iter().filter(|key| key.stage.as_str() != "teardown") {
        let row = rows.iter().find(|row| row["task"] == key.to_string()).unwrap();
        let publication = (key.stage.as_str() == "publish").then(|| Publication {
            scores: base["scores_document"].to_string().replace(base["salt"].as_str().unwrap(), salt),
            weights: base["weights_document"].to_string(),
            digest: base["weights_digest"].as_str().unwrap().into(),
            guard: PublishGuard::default(),
        });
        let _ = store.append(&lease, &Entry::new(key.clone(), 1, TaskEvent::Started)).await.unwrap();
        let done = Entry::new(key, 1, TaskEvent::Succeeded { output: row["output"].clone() });
        let _ = store.append(&lease, &Entry { publication, ..done }).await.unwrap();
    }
    lease
}

fn new_cycle(base: &Value, root: &str, salt: &str, tasks: Vec<TaskKey>) -> NewCycle {
    NewCycle {
        pipeline: "quickstart".into(),
        definition: base["definition"].clone(),
        definition_hash: base["definition_hash"].as_str().unwrap().into(),
        root: root.into(),
        salt: salt.parse().unwrap(),
        pin: None,
        tasks,
    }
}

#[test]
fn a_salt_is_shown_only_when_nothing_that_began_with_it_can_play() {
    let base = Base::get();
    let (model, bench) = (base.show(&base.cycle), Bench::new());
    let (root, salt) = (base.folder.path().to_str().unwrap(), "5ec2e7".to_owned() + &"0".repeat(58));
    let store = bench.runtime.block_on(bench.database.store());
    let lease = bench.runtime.block_on(unfinished(&store, &model, (root, &salt)));
    let id = lease.cycle.to_string();
    let (fork, rescore) = (["cycle", "fork", &id, "--from", "weights"], ["cycle", "rescore", &id]);

    // While it plays, and while it waits for somebody who goes on with it.
    let refused = |arguments: &[&str], code: i32, words: &[&str]| {
        let ran = bench.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{words:?}: {}", ran.stderr);
    };
    let hidden = |cycle: &str| {
        let shown = bench.ok(&["cycle", "show", cycle, "--format", "json"]).stdout;
        assert!(!shown.contains(&salt) && shown.contains("salt_sha256"), "{shown}");
    };
    for arguments in [&fork[..], &rescore] {
        refused(arguments, 2, &["has not ended", "cycle watch"]);
    }
    hidden(&id);
    bench.runtime.block_on(store.pause(&lease)).unwrap();
    refused(&fork, 2, &["has not ended"]);
    hidden(&id);
    bench.runtime.block_on(async {
        let lease = store.acquire(lease.cycle).await.unwrap();
        store.finish(&lease, CycleStatus::Failed, Some("a bad day")).await.unwrap();
    });
    // A draft that was made before the failure is not shown: what it says is the seeds of a retry.
    hidden(&id);

    // One at a time: a fork, and nothing beside it.
    let new = NewFork {
        cycle: new_cycle(&model, root, &salt, Vec::new()),
        parent: lease.cycle,
        origin: Origin::Fork,
        from: "weights".parse().unwrap(),
        kept: Vec::new(),
        skipped: Vec::new(),
        publishing: Publishing::Draft,
    };
    let open = bench.runtime.block_on(async {
        let Admission::Created(open) = store.create_fork(&new).await.unwrap() else { panic!("there is no limit") };
        let beside = store.create_fork(&new).await.unwrap_err();
        assert!(matches!(beside, Error::SaltInUse(cycle) if cycle == open), "{beside}");
        let by_hand = store.admit_cycle(&new.cycle).await.unwrap_err();
        assert!(matches!(by_hand, Error::SaltInUse(cycle) if cycle == open), "{by_hand}");
        open
    });
    refused(&["cycle", "retry", &id, "--stage", "teardown"], 1, &["nothing that was asked for"]);
    bench.runtime.block_on(async {
        let retried = store.reopen(lease.cycle, &[]).await.unwrap_err();
        assert!(matches!(retried, JournalError::SaltInUse(this, other) if (this, other) == (lease.cycle, open)));
        let failed = store.acquire(open).await.unwrap();
        store.finish(&failed, CycleStatus::Failed, None).await.unwrap();
        // Either may go on now, and then not the other.
        store.reopen(lease.cycle, &[]).await.unwrap();
        assert!(matches!(store.reopen(open, &[]).await, Err(JournalError::SaltInUse(..))));
        let lease = store.acquire(lease.cycle).await.unwrap();
        store.finish(&lease, CycleStatus::Failed, Some("a bad day")).await.unwrap();
    });

    // The first that completes shows it, and nothing that is older goes on.
    let ran = bench.ok(&fork);
    assert!(ran.stderr.contains("can no longer be retried"), "{}", ran.stderr);
    assert_eq!(bench.json(&["cycle", "show", &created(&ran)])["salt"], json!(salt));
    hidden(&id);
    bench.runtime.block_on(async {
        for older in [lease.cycle, open] {
            let retried = store.reopen(older, &[]).await.unwrap_err();
            assert!(matches!(retried, JournalError::SaltShown(..)), "{retried}");
        }
        // What begins with a salt that everybody knows has nothing to hide.
        for _ in 0..2 {
            let Admission::Created(later) = store.create_fork(&new).await.unwrap() else { panic!("there is no limit") };
            let lease = store.acquire(later).await.unwrap();
            store.finish(&lease, CycleStatus::Failed, None).await.unwrap();
            store.reopen(later, &[]).await.unwrap();
        }
        store.close().await;
    });
}
