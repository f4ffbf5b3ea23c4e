//! Two owners of one cycle: the first is stopped past its lease, the second takes over, the first wakes up. It finds its
//! servers gone and its writes refused, says so, and the cycle ends as if there had been one.

use std::fs;

use nix::sys::signal::Signal;
use robo::host::{Identity, State};
use serde_json::Value;
use sqlx::PgConnection;

use crate::{
    custom_stages::root,
    faults::{Result, arguments, ended, nothing_runs, until_they_play},
    support::{
        database::{TestDatabase, Version},
        program::{Place, pipeline, turn, workspace},
    },
};

/// The environment servers and demo miners that stand in the ledger, as processes.
async fn recorded(connection: &mut PgConnection) -> Vec<(i64, String, Identity)> {
    let rows: Vec<(i64, String, Value)> =
        sqlx::query_as("select epoch, name, identity from resource order by created_at")
            .fetch_all(connection)
            .await
            .unwrap();
    rows.into_iter().map(|(epoch, name, json)| (epoch, name, Identity::from_json(&json).unwrap())).collect()
}

async fn expire_lease(connection: &mut PgConnection) {
    sqlx::query("update cycle set lease_until = now() where status = 'open'").execute(connection).await.unwrap();
}

#[test]
fn a_program_of_an_owner_that_stopped_ends_before_it_runs_again() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let mut connection = runtime.block_on(database.connection());
    let place = Place::with_database(database.url());
    let folder = root("");
    let gate = folder.path().join("open");
    let stage = format!(
        "  wait:\n    uses: container/run\n    with: {{ runtime: process, \
         command: [sh, -c, 'until test -e {}; do sleep 0.05; done; echo \"{{}}\"'] }}\n",
        gate.display()
    );
    fs::write(folder.path().join("pipeline.yaml"), format!("version: 1\nname: gated\nstages:\n{stage}")).unwrap();
    let mut first = place.start(&["run-pipeline", &pipeline(&folder)]);
    first.until("wait ...");
    while runtime.block_on(recorded(&mut connection)).is_empty() {}
    first.signal(Signal::SIGSTOP);
    let before = runtime.block_on(recorded(&mut connection));
    assert!(
        matches!(&before[..], [(1, name, process)] if name == "`sh`" && process.state() == State::Alive),
        "{before:?}"
    );
    runtime.block_on(expire_lease(&mut connection));

    let mut second = place.start(&["cycle", "resume", "@latest"]);
    second.until("ended `sh`");
    assert_eq!(before[0].2.state(), State::Dead);
    fs::write(&gate, "").unwrap();
    ended(&second.wait(), 0, &[]);
    first.signal(Signal::SIGCONT);
    ended(&first.wait(), 1, &["is owned by another process, or has ended"]);
    assert!(runtime.block_on(recorded(&mut connection)).is_empty(), "the ledger still holds something");
}

#[test]
fn an_owner_that_wakes_up_after_its_lease_writes_nothing_and_says_so() {
    let _turn = turn();
    let calm = Result::undisturbed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let mut connection = runtime.block_on(database.connection());
    let (workspace, place) = (workspace(str::to_owned), Place::with_database(database.url()));
    let mut first = place.start(&arguments(&pipeline(&workspace)));
    until_they_play(&mut first);
    first.signal(Signal::SIGSTOP);
    let before = runtime.block_on(recorded(&mut connection));
    assert!(before.iter().any(|(_, name, _)| name == "the environment server"), "{before:?}");
    assert!(before.iter().all(|(epoch, _, process)| *epoch == 1 && process.state() == State::Alive), "{before:?}");
    runtime.block_on(expire_lease(&mut connection));

    let second = place.run(&["cycle", "resume", "@latest"]);
    ended(&second, 0, &["ended the environment server", "epoch 1, which nobody needed any more"]);
    assert!(before.iter().all(|(_, _, process)| process.state() == State::Dead), "what the first had started lives");
    let (result, episodes) = Result::of(&place);
    assert_eq!(&result, calm);

    first.signal(Signal::SIGCONT);
    ended(&first.wait(), 1, &["is owned by another process, or has ended", "robo cycle show"]);
    nothing_runs(&place);
    assert_eq!(Result::of(&place).1, episodes, "it wrote something after all");
    let counted = "select count(*), count(*) filter (where outcome <> 'infra_fault') from episode";
    let counted: (i64, i64) = runtime.block_on(sqlx::query_as(counted).fetch_one(&mut connection)).unwrap();
    assert_eq!(counted, (episodes.len() as i64, episodes.len() as i64));
    assert!(runtime.block_on(recorded(&mut connection)).is_empty(), "the ledger still holds something");
}
