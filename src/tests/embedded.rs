//! The embedded server: real supervisors, real crashes, and what the user reads when it cannot run.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use robo::{
    cycle::{CycleId, Salt},
    host::Progress,
    store::{NewCycle, Store, embedded},
};
use serde_json::{Value, json};

use super::support::database::{TestDatabase, Version, embedded_config, fetch_wheel, scratch, wheel_programs};

async fn open(data_dir: &Path) -> Store {
    Store::open(&embedded_config(data_dir), &Progress::silent()).await.unwrap()
}

async fn add_cycle(store: &Store) -> CycleId {
    let new = NewCycle {
        pipeline: "test".into(),
        definition: json!({}),
        definition_hash: "00".into(),
        root: "/".into(),
        salt: Salt::random(),
        pin: None,
        tasks: vec![],
    };
    store.create_cycle(&new).await.unwrap()
}

/// The program under test, with nothing of our own environment that would change what it does.
fn robo(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_robo"));
    command.env("ROBO_DATA_DIR", data_dir).env_remove("ROBO_BACKEND_DATABASE_URL").env_remove("PG_BIN");
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The processes of the server of a data directory: its supervisor and its postmaster.
fn processes(data_dir: &Path) -> (Pid, Pid) {
    let pid = |text: &str| Pid::from_raw(text.trim().parse().unwrap());
    let state = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    let server = pid(state.lines().next().unwrap());
    let status = fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    (pid(parent), server)
}

/// Kill the server with every one of its children, and see them dead.
fn kill_all_at_home_in(cluster: &Path) {
    let is_ours = |pid: &Pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|home| home == cluster);
    loop {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
        let left: Vec<Pid> = pids.filter(is_ours).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            // One that has ended since we looked is as good.
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::yield_now();
    }
}

/// Whether a process runs. One that has ended has no command line, even before anybody has collected it.
fn is_alive(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Waits until no supervisor is left: the kernel hands its lock on when it has ended.
fn wait_until_stopped(data_dir: &Path) {
    File::open(data_dir.join("postgres.server.lock")).unwrap().lock_shared().unwrap();
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_everything_was_killed() {
    let data_dir = scratch();
    let store = open(data_dir.path()).await;
    let mut cycles = Vec::new();
    for _ in 0..50 {
        cycles.push(add_cycle(&store).await);
    }
    let (supervisor, server) = processes(data_dir.path());
    kill(supervisor, Signal::SIGKILL).unwrap();
    kill_all_at_home_in(&data_dir.path().join("postgres"));
    wait_until_stopped(data_dir.path());
    // The same store goes on: its next write starts another server, which recovers.
    cycles.push(add_cycle(&store).await);
    assert_ne!(processes(data_dir.path()), (supervisor, server));
    store.close().await;
    // A process that died without a word leaves its files behind, here with the number of a process that lives.
    let mine = std::process::id();
    fs::write(data_dir.path().join("postgres/postmaster.pid"), format!("{mine}\n/x\n0\n5432\n/x\n\n0 0\nready\n"))
        .unwrap();
    let store = open(data_dir.path()).await;
    let found = store.cycles(100).await.unwrap();
    cycles.reverse();
    assert_eq!(found.into_iter().map(|cycle| cycle.id).collect::<Vec<_>>(), cycles);
    store.close().await;
    assert!(!data_dir.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn many_processes_share_one_server_and_the_last_one_stops_it() {
    let data_dir = scratch();
    let start = || robo(data_dir.path()).args(["db", "init"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let children = [start(), start(), start()];
    let store = open(data_dir.path()).await;
    let one = processes(data_dir.path());
    for child in children {
        let (code, _, errors) = said(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{errors}");
    }
    assert_eq!(processes(data_dir.path()), one);
    let output = robo(data_dir.path()).args(["db", "status", "--format", "json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status["total_cycles"], &status["schema_version"]), (&json!(0), &json!(migrations())));
    assert_eq!(processes(data_dir.path()), one);
    let cycle = add_cycle(&store).await;
    // Without a farewell: the kernel takes the lock back, as it does when a process is killed.
    drop(store);
    wait_until_stopped(data_dir.path());
    assert!(!is_alive(one.0) && !is_alive(one.1));
    assert!(!data_dir.path().join("postgres/postmaster.pid").exists());
    // With one: it has stopped when the program ends.
    let output = robo(data_dir.path()).args(["db", "status"]).output().unwrap();
    assert!(said(&output).1.contains("total cycles      1"), "{output:?} {cycle}");
    assert!(File::open(data_dir.path().join("postgres.server.lock")).unwrap().try_lock_shared().is_ok());
}

#[tokio::test]
async fn a_cluster_that_cannot_be_made_says_why_and_leaves_nothing_half_done() {
    let data_dir = scratch();
    // A limit on the size of files stands in for a disk that is full; both fail the same writes.
    let limited = format!("ulimit -f 2000; exec {} db init", env!("CARGO_BIN_EXE_robo"));
    let output = Command::new("sh").args(["-c", &limited]).env("ROBO_DATA_DIR", data_dir.path()).output().unwrap();
    let (code, _, errors) = said(&output);
    assert_eq!(code, Some(5), "{errors}");
    assert!(errors.contains("did not start: `initdb` failed") && errors.contains("hint: see that the disk has room"));
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(!data_dir.path().join("postgres").exists() && !data_dir.path().join("postgres.new").exists());
    // What a killed `initdb` leaves is cleared away.
    fs::create_dir(data_dir.path().join("postgres.new")).unwrap();
    fs::write(data_dir.path().join("postgres.new/PG_VERSION"), "15").unwrap();
    open(data_dir.path()).await.close().await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_starts() {
    let data_dir = scratch();
    let config =
        |pg_bin: &Path| robo::config::Database { pg_bin: Some(pg_bin.into()), ..embedded_config(data_dir.path()) };
    let refused =
        async |pg_bin: &Path| Store::open(&config(pg_bin), &Progress::silent()).await.unwrap_err().to_string();
    let error = refused(data_dir.path()).await;
    assert!(error.contains("does not hold PostgreSQL's `initdb`"), "{error}");
    fs::create_dir(data_dir.path().join("postgres")).unwrap();
    fs::write(data_dir.path().join("postgres/PG_VERSION"), "12\n").unwrap();
    let error = refused(&wheel_programs()).await;
    assert!(error.contains("made by PostgreSQL 12") && error.contains("is 18"), "{error}");
    let error = Store::open(&embedded_config(data_dir.path()), &Progress::silent()).await.unwrap_err().to_string();
    assert!(error.contains("made by PostgreSQL 12"), "{error}");
    assert!(!data_dir.path().join("postgres.log").exists());
}

#[test]
fn a_data_directory_that_cannot_be_written_to_is_named() {
    let (code, _, errors) = said(&robo(Path::new("/proc/robo")).args(["db", "init"]).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(errors.contains("the data directory `/proc/robo` cannot be written to"), "{errors}");
    assert!(errors.contains("hint: choose another directory"), "{errors}");
}

#[test]
fn the_wheel_is_unpacked_whole_with_its_permissions() {
    let (place, pin) = (scratch(), embedded::WHEEL.unwrap());
    let place = place.path().join("programs");
    // What an unpacking that was cut short has left.
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::write(place.join("bin/old"), "").unwrap();
    let programs = embedded::unpack(&pin, &fetch_wheel(), &place).unwrap();
    assert!(!programs.join("old").exists());
    for program in ["initdb", "postgres", "pg_dump"] {
        assert!(Command::new(programs.join(program)).arg("--version").status().unwrap().success());
        assert_eq!(fs::metadata(programs.join(program)).unwrap().permissions().mode() & 0o777, 0o755);
    }
    let spoiled = place.join("spoiled.whl");
    fs::write(&spoiled, "not a zip file").unwrap();
    let error = embedded::unpack(&pin, &spoiled, &place.join("other")).unwrap_err();
    assert!(error.to_string().contains("spoiled.whl"), "{error}");
}

#[tokio::test]
async fn the_operators_words() {
    let database = TestDatabase::new(Version::Default).await;
    let run = |words: &[&str]| {
        let mut command = robo(Path::new("/nowhere"));
        said(&command.arg("db").args(words).args(["--database-url", database.url()]).output().unwrap())
    };
    let store = database.store().await;
    let cycle = add_cycle(&store).await;
    let (code, _, errors) = run(&["reset"]);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("1 cycles and the results of 0 miners would be lost") && errors.contains("--force"),
        "{errors}"
    );
    let lease = robo::cycle::Journal::acquire(&store, cycle).await.unwrap();
    database.keep_leases().await;
    let (code, _, errors) = run(&["reset", "--force"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains(&format!("cycle `{cycle}` is running")), "{errors}");
    let (_, table, _) = run(&["status"]);
    assert!(table.contains(&format!("running           {cycle} (test, 0 of 0 episodes)")), "{table}");
    robo::cycle::Journal::release(&store, &lease).await.unwrap();
    assert_eq!(run(&["reset", "--force"]).0, Some(0));
    let status: Value = serde_json::from_str(&run(&["status", "--format", "json"]).1).unwrap();
    assert_eq!((&status["total_cycles"], &status["running_cycles"]), (&json!(0), &json!([])));
    assert_eq!((&status["latest_weights"], &status["last_completed_cycle"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_database_is_created_and_initialised_step_by_step() {
    let database = TestDatabase::new(Version::Default).await;
    let name = format!("made_{}", std::process::id());
    let url = database.url().split('&').next().unwrap().replace("/tests?", &format!("/{name}?"));
    let run = |words: &[&str]| {
        said(&robo(Path::new("/nowhere")).arg("db").args(words).args(["--database-url", &url]).output().unwrap())
    };
    let (code, _, errors) = run(&["status"]);
    assert_eq!(code, Some(5));
    assert!(errors.contains("Database connection failed: there is no database") && errors.contains("robo db create"));
    assert!(run(&["create"]).1.starts_with("created"));
    assert!(run(&["create"]).1.starts_with("there already"));
    assert!(run(&["status"]).1.contains("not initialised"));
    assert!(run(&["init"]).1.starts_with("ready"));
    assert_eq!(run(&["init"]).0, Some(0));
    assert!(run(&["status"]).1.contains("total cycles      0"));
    sqlx::query(sqlx::AssertSqlSafe(format!("drop database {name}")))
        .execute(&mut database.connection().await)
        .await
        .unwrap();
}

#[test]
fn a_server_that_does_not_answer_is_code_5_without_the_password() {
    let url = "postgresql://me:s3cret@127.0.0.1:1/robo";
    let output = robo(Path::new("/nowhere")).args(["db", "status", "--database-url", url]).output().unwrap();
    let (code, out, errors) = said(&output);
    assert_eq!(code, Some(5));
    assert!(errors.contains("Database connection failed: `postgresql://me@127.0.0.1:1/robo`"), "{errors}");
    assert!(!out.contains("s3cret") && !errors.contains("s3cret"), "{errors}");
    let output = robo(Path::new("/nowhere")).args(["db", "status", "--database-url", "me:s3cret@db"]).output().unwrap();
    let (code, _, errors) = said(&output);
    assert!(code == Some(2) && !errors.contains("s3cret"), "{errors}");
}

/// The number of the newest one.
fn migrations() -> usize {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.split('_').next().unwrap().parse().unwrap()).max().unwrap()
}
