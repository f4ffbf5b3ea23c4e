//! The ledger of what cycles start: who takes over ends what older leases left, the reaper ends what belongs to no live
//! lease, and nothing that anybody needs is touched.

use robo::{
    cycle::{CycleId, CycleStatus, Journal, Lease, Salt},
    host::{
        Identity, State,
        child::Program,
        environment::Role,
        ledger::{self, Ledger},
    },
    store::{CycleLedger, NewCycle, Store},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

use crate::{
    faults::{arguments, nothing_runs, until_they_play},
    support::{
        database::{TestDatabase, Version},
        program::{Place, pipeline, turn, workspace},
    },
};

struct Bench {
    database: TestDatabase,
    store: Store,
    cycle: CycleId,
}

impl Bench {
    async fn new() -> Self {
        let database = TestDatabase::new(Version::Default).await;
        let store = database.store().await;
        let cycle = store.create_cycle(&new_cycle()).await.unwrap();
        Self { database, store, cycle }
    }

    async fn execute(&self, sql: &str) {
        let mut connection = self.database.connection().await;
        connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// The lease and the ledger of a process that takes the cycle up.
    async fn take_up(&self) -> (Lease, CycleLedger) {
        take_up(&self.store, self.cycle).await
    }

    async fn rows(&self) -> i64 {
        let mut connection = self.database.connection().await;
        sqlx::query_scalar("select count(*) from resource").fetch_one(&mut connection).await.unwrap()
    }
}

/// A cycle of nothing.
pub(crate) fn new_cycle() -> NewCycle {
    NewCycle {
        pipeline: "test".into(),
        definition: json!({}),
        definition_hash: "00".repeat(32),
        root: "/".into(),
        salt: Salt::random(),
        pin: None,
        tasks: vec![],
    }
}

/// The lease and the ledger of a process that takes a cycle up.
pub(crate) async fn take_up(store: &Store, cycle: CycleId) -> (Lease, CycleLedger) {
    let lease = store.acquire(cycle).await.unwrap();
    let ledger = store.ledger();
    ledger.take_over(lease).await.unwrap();
    (lease, ledger)
}

/// A process that survives its parent: the kernel's promise does not reach it, only its mark tells whose it is.
async fn survivor(ledger: &CycleLedger) -> Identity {
    let script = Program::new(Role::Tool, "a server", "/bin/sh")
        .args(["-c", "setsid sh -c 'echo $$; exec sleep 1000' 2>/dev/null & read line"]);
    let (mut child, _) = ledger::start(script, ledger).await.unwrap();
    let survivor = child.next_line().await.unwrap().parse().unwrap();
    // Its parent ends when its input does.
    child.stop(std::time::Duration::from_secs(60)).await;
    let survivor = Identity::of(survivor).unwrap();
    assert_eq!(survivor.state(), State::Alive);
    survivor
}

#[tokio::test]
async fn who_takes_a_cycle_over_ends_what_older_leases_left() {
    let bench = Bench::new().await;
    let (old_lease, old) = bench.take_up().await;
    let left = survivor(&old).await;
    bench.execute("update cycle set lease_until = now()").await;
    let (_, new) = bench.take_up().await;
    assert_eq!((left.state(), bench.rows().await), (State::Dead, 0));
    // A second word of the same is of no effect, and a late start of the old owner is refused and does not run.
    new.take_over(old_lease).await.unwrap();
    let late = ledger::start(Program::new(Role::Tool, "a late server", "/bin/cat"), &old).await;
    let error = late.unwrap_err();
    assert!(format!("{:?}", error).contains("LeaseLost"), "{error:?}");
    assert_eq!(bench.rows().await, 0);
    let mine = survivor(&new).await;
    assert_eq!((mine.state(), bench.rows().await), (State::Alive, 1));
    bench.execute("update cycle set owner = null, lease_until = null").await;
    assert_eq!(bench.store.reap().await.unwrap().ended.len(), 1);
    assert_eq!(mine.state(), State::Dead);
}

#[tokio::test]
async fn the_reaper_ends_what_belongs_to_no_live_lease_and_nothing_else() {
    let bench = Bench::new().await;
    let (lease, ledger) = bench.take_up().await;
    for (sql, lives) in [
        // Somebody holds it: us.
        ("select 1", State::Alive),
        // We are late with our heartbeats, and live.
        ("update cycle set lease_until = now() - interval '1 minute'", State::Alive),
        // The holder is on another machine and its lease is live: what is here was left by it, and it may know.
        ("update cycle set lease_until = now() + interval '1 minute', holder = '{}'", State::Alive),
        // It is late, and nobody here can say that it lives.
        ("update cycle set lease_until = now() - interval '1 minute'", State::Dead),
    ] {
        let process = survivor(&ledger).await;
        bench.execute(sql).await;
        let reaped = bench.store.reap().await.unwrap();
        assert_eq!(process.state(), lives, "{sql}: {reaped:?}");
        if lives == State::Alive {
            assert!(reaped.ended.is_empty(), "{reaped:?}");
        } else {
            assert_eq!(reaped.ended.len(), 4, "{reaped:?}");
            assert!(reaped.ended[0].contains("a server (process "), "{reaped:?}");
        }
    }
    assert_eq!(bench.rows().await, 0);
    let process = survivor(&ledger).await;
    bench.store.finish(&lease, CycleStatus::Failed, None).await.unwrap();
    bench.execute("update resource set host = 'elsewhere'").await;
    assert!(bench.store.reap().await.unwrap().ended.is_empty(), "that of another machine is not ours to end");
    let here = process.hostname();
    bench
        .execute(&format!(
            "update resource set host = '{here}', identity = jsonb_set(identity, '{{boot_id}}', '\"x\"')"
        ))
        .await;
    let reaped = bench.store.reap().await.unwrap();
    assert_eq!((reaped.ended.len(), reaped.forgotten, bench.rows().await), (0, 1, 0));
    // Nobody remembers it now: the test itself has to.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid() as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

#[tokio::test]
async fn what_has_ended_by_itself_is_forgotten() {
    let bench = Bench::new().await;
    let (_, ledger) = bench.take_up().await;
    let (child, _) = ledger::start(Program::new(Role::Tool, "a server", "/bin/sh").args(["-c", "read line"]), &ledger)
        .await
        .unwrap();
    assert_eq!(bench.rows().await, 1);
    assert_eq!(bench.store.reap().await.unwrap().forgotten, 0);
    child.stop(std::time::Duration::from_secs(60)).await;
    assert_eq!(bench.store.reap().await.unwrap().forgotten, 1);
    let (child, id) = ledger::start(Program::new(Role::Tool, "another", "/bin/cat"), &ledger).await.unwrap();
    child.stop(std::time::Duration::from_secs(60)).await;
    ledger.leave(id).await;
    assert_eq!(bench.rows().await, 0);
}

/// The first line: the kernel ends servers, workers and miners with the process that started them. The second: the next
/// `robo` on this machine clears the ledger.
#[test]
fn a_killed_robo_leaves_no_process_and_the_next_one_clears_its_rows() {
    let _turn = turn();
    let (workspace, place) = (workspace(str::to_owned), Place::new());
    let mut running = place.start(&arguments(&pipeline(&workspace)));
    until_they_play(&mut running);
    let servers: Vec<Identity> = ["env-server", "robo_eval_env worker", "demo-miner"]
        .iter()
        .flat_map(|words| place.named(words))
        .map(|pid| Identity::of(pid.as_raw() as u32).unwrap())
        .collect();
    assert!(servers.len() >= 6, "a server, its workers and four miners: {servers:?}");
    running.kill_alone();
    // The kernel does it in its own time.
    while servers.iter().any(|process| process.state() == State::Alive) {
        std::thread::yield_now();
    }
    let ran = place.run(&["cycle", "cancel", "@latest"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("which nobody needed any more"), "something had survived: {}", ran.stderr);
    nothing_runs(&place);
}
