//! Parts that die, simulators that change and impatient people, while a cycle runs: what is published is what would have
//! been published anyway, or the cycle stands where it stood.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use robo::cycle::Salt;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    database::{TestDatabase, Version},
    program::{Place, Ran, Running, pipeline, repository, turn, workspace},
};

const SALT: &str = "5a17000000000000000000000000000000000000000000000000000000000002";

/// Long enough that no fault comes too late.
const LONG: &str = "episodes_per_env=30";

pub(crate) fn arguments(file: &str) -> [&str; 6] {
    ["run-pipeline", file, "-i", "episodes_per_env=2", "--salt", SALT]
}

/// What is left of a cycle: all that must not depend on what went wrong on the way.
#[derive(Debug, PartialEq)]
pub(crate) struct Result {
    weights: String,
    scores: String,
    /// Outcome and trajectory by environment, seed and miner.
    episodes: BTreeMap<[String; 3], (Value, Value)>,
}

impl Result {
    pub(crate) fn of(place: &Place) -> (Self, Vec<Value>) {
        let cycle = place.json(&["cycle", "show", "@latest", "--format", "json", "--episodes"]);
        assert_eq!(cycle["status"], "completed", "{cycle}");
        let rows = cycle["episodes"].as_array().unwrap();
        let episodes = rows.iter().map(|row| {
            let name = ["environment", "seed_index", "hotkey"].map(|field| row[field].to_string());
            let outcome = row["report"]["outcome"].clone();
            (name, (outcome, row["report"]["trajectory_hash"].clone()))
        });
        let documents = [&cycle["weights_document"], &cycle["scores_document"]].map(Value::to_string);
        let [weights, scores] = documents;
        (Self { weights, scores, episodes: episodes.collect() }, rows.clone())
    }

    /// That of a run in which nothing went wrong; run once for all tests.
    pub(crate) fn undisturbed() -> &'static Self {
        static CALM: OnceLock<Result> = OnceLock::new();
        CALM.get_or_init(|| {
            let (workspace, place) = (workspace(str::to_owned), Place::new());
            ended(&place.run(&arguments(&pipeline(&workspace))), 0, &["done in"]);
            Self::of(&place).0
        })
    }
}

pub(crate) fn ended(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is missing in: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

pub(crate) fn nothing_runs(place: &Place) {
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

/// Wait until simulators step, so that whatever dies next dies in the middle of an episode.
pub(crate) fn until_they_play(running: &mut Running) {
    running.until_line(|line| {
        line.contains(" episodes  ") && !line.contains("  - steps/s") && !line.contains("  0 steps/s")
    });
}

/// A workspace whose simulator's sources are its own, to be changed.
fn with_own_sources() -> TempDir {
    let folder = workspace(str::to_owned);
    let sources = folder.path().join("eval-env");
    fs::remove_file(&sources).unwrap();
    let copied = Command::new("cp").arg("-r").arg(repository().join("eval-env")).arg(&sources).status().unwrap();
    assert!(copied.success());
    folder
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "`{from}` is not in {} any more", file.display());
    fs::write(file, changed).unwrap();
}

#[test]
fn a_worker_the_server_and_the_database_die_and_nobody_pays_for_it() {
    let _turn = turn();
    let calm = Result::undisturbed();
    let (workspace, place) = (workspace(str::to_owned), Place::new());
    let mut running = place.start(&arguments(&pipeline(&workspace)));
    until_they_play(&mut running);
    // Its episodes were innocent: they start again at another worker, and nobody hears of it.
    let workers = place.named("robo_eval_env worker");
    place.kill("robo_eval_env worker");
    while !place.named("robo_eval_env worker").iter().any(|worker| !workers.contains(worker)) {}
    until_they_play(&mut running);
    place.kill("env-server");
    running.until(" run again");
    place.kill("postgres -D");
    ended(&running.wait(), 0, &[]);
    nothing_runs(&place);
    let (result, episodes) = Result::of(&place);
    assert_eq!(&result, calm);
    let again = episodes.iter().filter(|episode| episode["attempt"].as_u64() > Some(1)).count();
    assert!(again > 0, "no episode was lost: {episodes:?}");
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    assert!(shown["outcomes"].as_array().unwrap().iter().all(|count| count["outcome"] != "infra_fault"), "{shown}");
    let bias = serde_json::to_value(robo::scoring::bias(strata(&episodes))).unwrap();
    assert_eq!(shown["retried_episodes"], bias, "{episodes:?}");
}

#[test]
fn a_retry_goes_on_in_the_middle_of_the_episodes_that_failed() {
    let _turn = turn();
    let calm = Result::undisturbed();
    let once = |text: &str| text.replace("defaults:\n", "defaults:\n  retry: { max_attempts: 1 }\n");
    let (workspace, place) = (workspace(once), Place::new());
    let mut command = place.robo(&arguments(&pipeline(&workspace)));
    let mut running = Running::from(command.env("ROBO_SECRET_PROBE", "none of their business").spawn().unwrap());
    running.until_line(|line| line.contains(" episodes  ") && !line.contains(" 0/"));
    for program in ["env-server", "robo_eval_env worker", "demo-miner"] {
        let processes = place.named(program);
        assert!(!processes.is_empty(), "no {program}");
        let told = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/environ")).unwrap().contains("ROBO_SECRET");
        assert!(!processes.iter().any(told), "{program} knows our secrets");
    }
    // No server lives for long, so no attempt at the stage can end well.
    let failed = running.wait_while(|| {
        for server in place.named("env-server") {
            let _ = kill(server, Signal::SIGKILL);
        }
    });
    ended(&failed, 1, &["failed: episodes", "robo cycle show"]);
    let shown = || place.json(&["cycle", "show", "--format", "json", "--episodes"]);
    let before = shown();
    assert_eq!(before["status"], "failed");
    assert!(before["salt"].is_null(), "the seeds of a cycle that can be tried again are nobody's business");
    let done: Vec<&Value> = before["episodes"].as_array().unwrap().iter().filter(|row| is_terminal(row)).collect();
    assert!(!done.is_empty() && done.len() < calm.episodes.len(), "{} are done", done.len());

    ended(&place.run(&["cycle", "retry"]), 0, &["runs again: episodes"]);
    nothing_runs(&place);
    let (result, episodes) = Result::of(&place);
    assert_eq!(result.episodes, calm.episodes);
    for row in done {
        assert!(episodes.contains(row), "it was played again: {row}");
    }
}

fn is_terminal(row: &Value) -> bool {
    !row["report"].is_null() && row["report"]["outcome"]["outcome"] != "infra_fault"
}

/// Episodes by miner and environment, those that ran again apart.
fn strata(episodes: &[Value]) -> Vec<robo::scoring::Stratum> {
    let mut strata = BTreeMap::new();
    for episode in episodes {
        let key = (episode["environment"].to_string(), episode["hotkey"].to_string());
        let none = robo::scoring::Stratum { retried: 0, retried_successes: 0, once: 0, once_successes: 0 };
        let stratum = strata.entry(key).or_insert(none);
        let won = u64::from(episode["report"]["outcome"]["outcome"] == "success");
        if episode["attempt"].as_u64() > Some(1) {
            (stratum.retried, stratum.retried_successes) = (stratum.retried + 1, stratum.retried_successes + won);
        } else {
            (stratum.once, stratum.once_successes) = (stratum.once + 1, stratum.once_successes + won);
        }
    }
    strata.into_values().collect()
}

#[test]
fn a_miner_that_dies_loses_only_its_own_episodes() {
    let _turn = turn();
    let calm = Result::undisturbed();
    let (workspace, place) = (workspace(str::to_owned), Place::new());
    let mut running = place.start(&arguments(&pipeline(&workspace)));
    until_they_play(&mut running);
    place.kill("demo-miner --policy random");
    ended(&running.wait(), 0, &[]);
    nothing_runs(&place);
    let (result, _) = Result::of(&place);
    let lost = serde_json::json!({ "outcome": "miner_fault", "reason": "connection_error" });
    let mut faults = 0;
    for (name, episode) in &result.episodes {
        if episode.0 == lost {
            assert!(name[2].contains("demo-random"), "{name:?}");
            faults += 1;
        } else {
            assert_eq!(Some(episode), calm.episodes.get(name), "{name:?}");
        }
    }
    assert!(faults > 0, "it died too late to matter");
    assert_eq!(result.episodes.len(), calm.episodes.len());
}

#[test]
fn terminated_then_resumed_twice_at_once_from_elsewhere() {
    let _turn = turn();
    let calm = Result::undisturbed();
    let (workspace, place) = (workspace(str::to_owned), Place::new());
    // A relative path, which means something else in the directory of the resume.
    let mut command = place.robo(&arguments("pipeline.yaml"));
    let mut running = Running::from(command.current_dir(workspace.path()).spawn().unwrap());
    until_they_play(&mut running);
    running.signal(Signal::SIGTERM);
    ended(&running.wait(), 4, &["robo cycle resume"]);
    nothing_runs(&place);

    let resumes = ["/", "/tmp"].map(|directory| {
        let mut command = place.robo(&["cycle", "resume", "@latest"]);
        Running::from(command.current_dir(directory).spawn().unwrap())
    });
    let mut resumes = resumes.map(Running::wait);
    resumes.sort_by_key(|ran| ran.code);
    ended(&resumes[0], 0, &[]);
    ended(&resumes[1], 1, &["is running in another process", "robo cycle show"]);
    nothing_runs(&place);
    assert_eq!(&Result::of(&place).0, calm);
}

#[test]
fn cancelled_from_another_process_it_stops_and_cleans_up() {
    let _turn = turn();
    let (workspace, place) = (workspace(str::to_owned), Place::new());
    let mut running = place.start(&["run-pipeline", &pipeline(&workspace), "-i", LONG]);
    until_they_play(&mut running);
    ended(&place.run(&["cycle", "resume"]), 1, &["is running in another process"]);
    let asked = place.run(&["cycle", "cancel", "@latest"]);
    ended(&asked, 0, &[]);
    assert!(asked.stdout.contains("will stop within seconds"), "{}", asked.stdout);
    ended(&running.wait(), 4, &["teardown ...", "was cancelled"]);
    nothing_runs(&place);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    assert_eq!(shown["status"], "cancelled");
    let tasks = shown["tasks"].as_array().unwrap();
    let of = |task: &str| &tasks.iter().find(|row| row["task"] == task).unwrap()["status"];
    assert_eq!((of("publish"), of("teardown")), (&"cancelled".into(), &"succeeded".into()), "{tasks:?}");
    assert!(tasks.iter().all(|task| task["attempts"].as_u64() <= Some(1)), "something ran twice: {tasks:?}");
    ended(&place.run(&["cycle", "cancel", "@latest"]), 1, &["has ended already: cancelled"]);
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_leaves_nothing_behind() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(TestDatabase::new(Version::Default));
    let mut connection = runtime.block_on(database.connection());
    let (workspace, place) = (workspace(str::to_owned), Place::with_database(database.url()));
    let mut running = place.start(&["run-pipeline", &pipeline(&workspace), "-i", LONG]);
    until_they_play(&mut running);
    // A server that does not hear keeps the orderly way out waiting for seconds.
    for server in place.named("env-server") {
        kill(server, Signal::SIGSTOP).unwrap();
    }
    running.signal(Signal::SIGINT);
    running.until("press Ctrl-C again");
    // The cycle is given back; what is left to wait for is the server, and that is when people press again.
    let mut is_given_back = || {
        let asked = sqlx::query_scalar::<_, bool>("select owner is null from cycle");
        runtime.block_on(asked.fetch_one(&mut connection)).unwrap()
    };
    while !is_given_back() {}
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    ended(&ran, 4, &[]);
    assert!(!ran.stderr.contains("Stopped."), "it did not leave at once: {}", ran.stderr);
    // The kernel ends the rest, and has no way to tell us when.
    let patience = Instant::now() + Duration::from_secs(60);
    while !place.processes().is_empty() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    nothing_runs(&place);
    assert_eq!(place.json(&["cycle", "show", "--format", "json"])["status"], "interrupted");
    assert_eq!(place.json(&["cycle", "cancel", "@latest", "--format", "json"])["status"], "cancelled");
}

#[test]
fn a_simulator_that_always_fails_ends_below_quorum_and_says_why() {
    let _turn = turn();
    let (folder, place) = (with_own_sources(), Place::new());
    let episode = folder.path().join("eval-env/robo_eval_env/episode.py");
    edit(&episode, ENTRY, &format!("{ENTRY}\n        raise RuntimeError(\"the arm fell off\")"));
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=1"]);
    ended(&ran, 3, &["only 0 of 4 episodes", "after 5 tries each", "the arm fell off", "robo cycle show"]);
    nothing_runs(&place);

    let manifest = folder.path().join("environments/metaworld.yaml");
    edit(&manifest, "drawer-open-v3: {}", "drawer-open-v3: { kwargs: { env_name: drawer-explode-v3 } }");
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=1"]);
    ended(&ran, 1, &["provision[", "drawer-explode-v3"]);
    assert!(!ran.stderr.contains("will be tried again"), "what cannot work was tried again: {}", ran.stderr);
    nothing_runs(&place);
}

/// One seed of four is lost for good, for every miner: twelve of sixteen are exactly what is asked for.
#[test]
fn a_cycle_that_loses_some_episodes_for_good_passes_its_quorum() {
    let _turn = turn();
    let (folder, place) = (with_own_sources(), Place::new());
    let others = "  - metaworld/button-press-v3\n  - metaworld/door-open-v3\n  - metaworld/drawer-open-v3\n";
    edit(&folder.path().join("pipeline.yaml"), others, "");
    let plays = "    uses: episodes/run\n";
    edit(&folder.path().join("pipeline.yaml"), plays, &format!("{plays}    expect: {{ quorum: 0.75 }}\n"));
    let salt: Salt = SALT.parse().unwrap();
    let lost = salt.seed(&"metaworld/reach-v3".parse().unwrap(), 2);
    let falls =
        format!("{ENTRY}\n        if self._seed == {lost}:\n            raise SimulatorError(\"the arm fell off\")");
    edit(&folder.path().join("eval-env/robo_eval_env/episode.py"), ENTRY, &falls);
    let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=4", "--salt", SALT]);
    ended(&ran, 0, &[]);
    nothing_runs(&place);
    let shown = place.json(&["cycle", "show", "--format", "json", "--episodes"]);
    let played = shown["tasks"].as_array().unwrap().iter().find(|row| row["task"] == "episodes[metaworld/reach-v3]");
    let output = &played.unwrap()["output"];
    assert_eq!((&output["planned"], &output["scored"]), (&16.into(), &12.into()), "{shown}");
    let scored = shown["episodes"].as_array().unwrap();
    assert!(scored.len() == 12 && scored.iter().all(|row| row["seed_index"] != 2), "{scored:?}");
    for entry in shown["scores_document"]["entries"].as_array().unwrap() {
        assert_eq!(entry["episodes"], 3, "a rate is of what could be scored: {entry}");
    }
}

#[test]
fn messages_that_nobody_can_read_end_nothing() {
    let place = Place::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    // The database is created, which is told, and there is no cycle, which is told as well.
    let ran = Ran::from(place.robo(&["cycle", "ls"]).stderr(full).output().unwrap());
    assert_eq!(ran.code, 0);
}

/// The first line of a step in the simulator's sources.
const ENTRY: &str = "    def step(self, values: Any) -> tuple[View, float, Ending | None]:";

#[test]
fn sources_that_change_under_a_cycle_stop_it() {
    let _turn = turn();
    let (folder, place) = (with_own_sources(), Place::new());
    let manifest = folder.path().join("environments/metaworld.yaml");
    edit(&manifest, "workers: auto, slots_per_worker: 32", "workers: 2, slots_per_worker: 4");
    let mut running = place.start(&["run-pipeline", &pipeline(&folder), "-i", LONG]);
    until_they_play(&mut running);
    let episode = folder.path().join("eval-env/robo_eval_env/episode.py");
    let original = fs::read_to_string(&episode).unwrap();
    edit(&episode, ENTRY, &format!("{ENTRY}\n        # Another simulator."));
    // The server that takes its place would simulate something else.
    place.kill("env-server");
    ended(&running.wait(), 6, &["metaworld", "has changed", "restore those files"]);
    nothing_runs(&place);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let counts = shown["outcomes"].as_array().unwrap().iter();
    let lost: u64 =
        counts.filter(|row| row["outcome"] == "infra_fault").map(|row| row["count"].as_u64().unwrap()).sum();
    assert!((1..=8).contains(&lost), "of eight episodes in flight {lost} were lost: {shown}");
    assert_eq!(shown["status"], "interrupted");
    ended(&place.run(&["cycle", "resume"]), 6, &["metaworld", "has changed", "restore those files"]);
    fs::write(&episode, original).unwrap();
    let mut running = place.start(&["cycle", "resume"]);
    until_they_play(&mut running);
    running.signal(Signal::SIGTERM);
    ended(&running.wait(), 4, &[]);
    nothing_runs(&place);
}
