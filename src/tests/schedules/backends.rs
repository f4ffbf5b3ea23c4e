//! Real backends as processes: they share cycles, let go of them, and take over from the dead.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::File;
use crate::faults::{Result, arguments, ended, until_they_play};
use crate::support::program::{Place, Running, pipeline, repository, turn, workspace};

fn backend(place: &Place, file: &str) -> Running {
    backend_with(place, file, &[])
}

fn backend_with(place: &Place, file: &str, more: &[&str]) -> Running {
    // Nobody answers as its chain.
    let place_of = ["--host", "127.0.0.1", "--port", "0", "--network", "ws://127.0.0.1:9"];
    let begin = ["backend", "--log-level", "DEBUG", "--pipeline", file];
    let mut running = place.start(&[&begin[..], &place_of, more].concat());
    running.until("listening on");
    running
}

fn trigger(place: &Place, name: &str) {
    let created = place.json(&["schedule", "trigger", name, "--format", "json"]);
    assert!(created["pipeline"] == name && created["cycle"].is_string(), "{created}");
}

fn statuses(place: &Place) -> Vec<Value> {
    let cycles = place.json(&["cycle", "ls", "--limit", "1000", "--format", "json"]);
    cycles["cycles"].as_array().unwrap().iter().map(|cycle| cycle["status"].clone()).collect()
}

fn until_all_are(place: &Place, status: &str) {
    while !statuses(place).iter().all(|found| found == status) {}
}

/// The head of the answer of a backend.
fn answer(backend: &Running, path: &str) -> String {
    let (_, rest) = backend.said.split_once("listening on http://").unwrap();
    let mut stream = TcpStream::connect(rest.split_whitespace().next().unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: robo\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Nobody ages the lease by hand: the second backend takes over when the first has really been silent for as long as it lasts.
#[test]
fn a_backend_that_stands_still_past_its_lease_writes_nothing_more_and_goes_on_serving() {
    let _turn = turn();
    let calm = Result::undisturbed();
    let (folder, place) = (workspace(str::to_owned), Place::new());
    let file = pipeline(&folder);
    // With the salt of the undisturbed one, which a trigger could not name.
    let mut begun = place.start(&arguments(&file));
    until_they_play(&mut begun);
    begun.signal(Signal::SIGTERM);
    ended(&begun.wait(), 4, &[]);

    let mut first = backend(&place, &file);
    first.until("is taken up");
    first.until("`episodes[");
    first.signal(Signal::SIGSTOP);
    let mut second = backend(&place, &file);
    second.until("is taken up");
    assert_eq!(statuses(&place), ["running"]);
    first.signal(Signal::SIGCONT);
    first.until("is left alone: cycle");
    assert!(first.said.contains("is owned by another process, or has ended"), "{}", first.said);
    second.until("ended as completed");
    for backend in [&first, &second] {
        // Each looks for a newer vector by itself, now and then.
        while answer(backend, "/v1/weights/latest") != "HTTP/1.1 200 OK" {}
    }
    for backend in [first, second] {
        backend.signal(Signal::SIGTERM);
        ended(&backend.wait(), 0, &[]);
    }
    assert_eq!(&Result::of(&place).0, calm);
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

#[test]
fn two_backends_share_cycles_and_each_runs_in_one() {
    let (place, file) = (Place::new(), File::new("{ cron: '0 0 1 1 *' }"));
    let file = file.path();
    let backends = [backend(&place, file.to_str().unwrap()), backend(&place, file.to_str().unwrap())];
    // Known once a backend has looked at it.
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().is_empty() {}
    for _ in 0..8 {
        trigger(&place, "scheduled");
    }
    until_all_are(&place, "completed");
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for running in backends {
        running.signal(Signal::SIGTERM);
        let ran = running.wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for line in ran.stderr.lines().filter(|line| line.contains("ended as completed")) {
            let id = line.split("cycle ").nth(1).unwrap().split(' ').next().unwrap();
            *ended.entry(id.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(ended.len(), 8, "{ended:?}");
    assert!(ended.values().all(|times| *times == 1), "{ended:?}");
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

#[test]
fn a_backend_that_is_told_to_stop_or_dies_leaves_its_cycle_to_the_next() {
    let _turn = turn();
    let place = Place::new();
    let folder = workspace(|text| {
        // So many that the second backend has not played them all before the third one listens.
        let text = text.replace("default: 5", "default: 6");
        text.replace("inputs:\n", "schedule: [{ every: { blocks: 360 } }]\ninputs:\n")
    });
    let file = pipeline(&folder);
    // What has begun may take its time to end.
    let mut first = backend_with(&place, &file, &["--grace", "1h"]);
    first.until("schedules by block wait");
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().is_empty() {}
    let listed = place.json(&["schedule", "ls", "--format", "json"]);
    assert_eq!(listed["schedules"][0]["state"], "waits for the chain");
    trigger(&place, "quickstart");
    first.until("an episode has ended");
    first.signal(Signal::SIGTERM);
    let ran = first.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("every episode that had begun has ended"), "{}", ran.stderr);
    assert_eq!(statuses(&place), ["interrupted"]);
    // Who reads the log knows what a line is about.
    let told = ran.stderr.lines().find(|line| line.contains("an episode has ended")).unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!((&told["stage"], &told["pipeline"]), (&json!("episodes"), &json!("quickstart")), "{told}");
    assert!(["cycle", "environment", "hotkey", "task"].iter().all(|field| told[field].is_string()), "{told}");
    let lost = place.json(&["cycle", "show", "--format", "json"]);
    assert!(!lost.to_string().contains("server_lost"), "{lost}");
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());

    let mut second = backend(&place, &file);
    second.until("is taken up");
    second.until("`episodes[");
    let mut third = backend(&place, &file);
    second.kill_everything();
    third.until("is taken up");
    third.until("ended as completed");
    third.signal(Signal::SIGTERM);
    assert_eq!(third.wait().code, 0);
    assert_eq!(statuses(&place), ["completed"]);
    let (disturbed, _) = Result::of(&place);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    ended(&place.run(&["run-pipeline", &file, "--salt", shown["salt"].as_str().unwrap()]), 0, &[]);
    assert_eq!(disturbed, Result::of(&place).0, "with the same salt nothing else comes out undisturbed");
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

/// The first line of an answer.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: robo\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_backend_can_answer_alone_or_work_alone() {
    let (place, file) = (Place::new(), File::new("{ cron: '0 0 1 1 *' }"));
    let file = file.path();
    let file = file.to_str().unwrap();
    let start = |role: &str| {
        let arguments = ["backend", "--role", role, "--pipeline", file, "--host", "127.0.0.1", "--port", "0"];
        let mut running = place.start(&[&arguments[..], &["--network", "ws://127.0.0.1:9"]].concat());
        let mut address = String::new();
        running.until_line(|line| {
            let found = line.split("listening on http://").nth(1).and_then(|rest| rest.split(' ').next());
            address = found.unwrap_or_default().to_owned();
            found.is_some()
        });
        (running, address)
    };
    let (mut api, answers) = start("api");
    assert!(get(&answers, "/v1/pipelines").contains("200") && get(&answers, "/health").contains("200"));
    let created = place.json(&["schedule", "trigger", "scheduled", "--pipeline", file, "--format", "json"]);
    assert_eq!(statuses(&place), ["waiting"], "{created}");
    // It runs no schedules, and shows them as they are in the file all the same.
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replace("0 0 1 1 *", "61 * * * *")).unwrap();
    api.until("can no longer be used; cycles start from its last good version");
    fs::write(file, &text).unwrap();
    api.signal(Signal::SIGHUP);
    api.until("was read again: the next cycle of `scheduled`");
    let (worker, answers) = start("worker");
    until_all_are(&place, "completed");
    for (path, status) in [("/health/ready", "200"), ("/metrics", "200"), ("/v1/status", "404"), ("/docs", "404")] {
        let answer = get(&answers, path);
        assert!(answer.contains(status), "{path}: {answer}");
    }
    for running in [api, worker] {
        running.signal(Signal::SIGTERM);
        let ran = running.wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
}

/// The definition that a backend started like this would give its next cycle.
fn next_definition(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let place = Place::new();
    let common = ["backend", "--pipeline", "pipelines/quickstart.yaml", "--role", "api", "--host", "127.0.0.1"];
    let beside = ["--port", "0", "--network", "ws://127.0.0.1:9"];
    let mut robo = place.robo(&[&common[..], &beside[..], arguments].concat());
    let mut running: Running = robo.envs(variables.iter().copied()).spawn().unwrap().into();
    running.until("listening on");
    let (_, rest) = running.said.split_once("listening on http://").unwrap();
    let mut stream = TcpStream::connect(rest.split_whitespace().next().unwrap()).unwrap();
    write!(stream, "GET /v1/pipelines HTTP/1.1\r\nHost: robo\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    body["pipelines"][0]["definition_hash"].as_str().unwrap().to_owned()
}

#[test]
fn a_backend_takes_its_episodes_from_the_nearest_of_those_who_say_how_many() {
    let of = |episodes: &str| next_definition(&["-i", &format!("episodes_per_env={episodes}")], &[]);
    let (guide, input) = (("ROBO_BACKEND_EPISODES_PER_ENV", "7"), ("ROBO_INPUT_EPISODES_PER_ENV", "8"));
    let (seven, eight, nine) = (of("7"), of("8"), of("9"));
    assert!(seven != eight && eight != nine, "they are told apart");
    assert_eq!(next_definition(&[], &[guide]), seven);
    assert_eq!(next_definition(&[], &[guide, input]), eight);
    assert_eq!(next_definition(&["--episodes-per-env", "9"], &[guide, input]), nine);
    assert_eq!(next_definition(&["--episodes-per-env", "9", "-i", "episodes_per_env=7"], &[guide, input]), seven);
}

#[test]
fn files_that_change_are_read_again_and_broken_ones_change_nothing() {
    let (place, file) = (Place::new(), File::new("{ cron: '0 0 1 1 *' }"));
    let manifest = file.0.path().join("environments/broken.yaml");
    let mut running = backend(&place, file.path().to_str().unwrap());
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().is_empty() {}
    // A mistake says where it is; the schedule stays that of the last good version.
    fs::write(file.path(), "version: 1\nname: scheduled\nschedule: [{ cron: '61 * * * *' }]\nstages: {}\n").unwrap();
    running.until("can no longer be used; cycles start from its last good version");
    let listed = place.json(&["schedule", "ls", "--format", "json"]);
    assert_eq!(listed["schedules"][0]["schedule"], "0 0 1 1 * UTC", "{listed}");
    // Mended: told once it is another one. A signal has everything read again.
    file.write("scheduled", "{ cron: '0 0 2 1 *' }, { every: { time: 90m } }");
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().len() < 2 {}
    let listed = place.json(&["schedule", "ls", "--format", "json"]);
    assert_eq!(listed["schedules"][1]["schedule"], "every 90m", "{listed}");
    running.signal(Signal::SIGHUP);
    running.until("was read again: the next cycle of `scheduled`");
    // A manifest is one of its files as soon as its environments are used.
    fs::write(&manifest, "version: 1\nfamily: broken\n").unwrap();
    let uses = fs::read_to_string(file.path()).unwrap().replace("stages:", "environments: ['broken/*']\nstages:");
    fs::write(file.path(), uses).unwrap();
    running.until("environments/broken.yaml:");
    // It is no file of any good version, and is tried until it is mended all the same.
    let simulated = fs::read_to_string(repository().join("environments/gymnasium.yaml")).unwrap();
    symlink(repository().join("eval-env"), file.0.path().join("eval-env")).unwrap();
    let mended = simulated.replace("family: gymnasium", "family: broken");
    fs::write(&manifest, mended).unwrap();
    running.until("was read again: the next cycle of `scheduled`");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
}

#[test]
fn a_pipeline_without_a_schedule_is_due_at_every_interval_of_the_command_line() {
    let (place, file) = (Place::new(), File::new("{ cron: '0 0 1 1 *' }"));
    let text = fs::read_to_string(file.path()).unwrap().replace("schedule: [{ cron: '0 0 1 1 *' }]\n", "");
    fs::write(file.path(), text).unwrap();
    let path = file.path();
    let arguments = ["backend", "--pipeline", path.to_str().unwrap(), "--host", "127.0.0.1", "--port", "0"];
    let mut running = place.start(&[&arguments[..], &["--eval-interval", "2592000"]].concat());
    running.until("listening on");
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().is_empty() {}
    let listed = place.json(&["schedule", "ls", "--format", "json"]);
    assert_eq!(listed["schedules"][0]["schedule"], "every 720h", "{listed}");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
    // Without an interval nothing is due.
    let mut running = place.start(&[&arguments[..], &["--eval-interval", "0"]].concat());
    running.until("has no schedule");
    running.until("listening on");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
}

#[test]
fn schedules_are_previewed_paused_and_listed_from_the_command_line() {
    let place = Place::new();
    let file = File::new("{ cron: '30 2 * * *', timezone: Europe/Berlin, jitter: 90s }, { every: { blocks: 360 } }");
    let path = file.path();
    let path = path.to_str().unwrap();
    let ran = place.run(&["schedule", "next", path, "-n", "2", "--after", "2027-03-27T12:00:00Z"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("Sun 2027-03-28 03:00 +02:00   2027-03-28T01:00:00Z"), "{}", ran.stdout);
    assert!(ran.stdout.contains("up to 90 s later") && ran.stdout.contains("multiple of 360"), "{}", ran.stdout);
    assert!(place.processes().is_empty() && !place.data.path().join("postgres").exists(), "it needs no database");

    let folder = workspace(|_| fs::read_to_string(repository().join("examples/pipelines/scheduled.yaml")).unwrap());
    let example =
        place.json(&["schedule", "next", &pipeline(&folder), "--after", "2027-03-27T12:00:00Z", "--format", "json"]);
    assert_eq!(example["schedules"][1]["due"][0]["utc"], "2027-03-28T01:00:00Z", "{example}");

    let unknown = place.run(&["schedule", "pause", "scheduled"]);
    assert_eq!((unknown.code, unknown.stderr.contains("robo backend --pipeline")), (2, true), "{}", unknown.stderr);
    assert_eq!(
        place.json(&["schedule", "ls", path, "--format", "json"])["schedules"][0]["state"],
        "no backend has read it"
    );

    let running = backend(&place, path);
    while place.json(&["schedule", "ls", "--format", "json"])["schedules"].as_array().unwrap().len() < 2 {}
    assert_eq!(place.run(&["schedule", "pause", "scheduled", "--reason", "new simulator"]).code, 0);
    let listed = place.run(&["schedule", "ls"]);
    assert_eq!(listed.stdout.matches("paused: new simulator").count(), 2, "{}", listed.stdout);
    let resumed = place.json(&["schedule", "resume", "scheduled", "--format", "json"]);
    assert_eq!(resumed, json!({ "pipeline": "scheduled", "paused": false, "changed": true }));
    let listed = place.json(&["schedule", "ls", path, "--format", "json"]);
    assert_eq!(listed["schedules"][0]["state"], "active", "{listed}");
    assert!(listed["schedules"][0]["next"].is_string() && listed["schedules"][1]["next"].is_null(), "{listed}");
    let wrong = place.run(&["schedule", "trigger", "schduled"]);
    assert_eq!((wrong.code, wrong.stderr.contains("`scheduled`")), (2, true), "{}", wrong.stderr);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);

    fs::write(path, "version: 1\nname: scheduled\nschedule: [{ cron: '61 * * * *' }]\nstages: {}\n").unwrap();
    // A backend starts all the same: it has weights to serve.
    let running = backend(&place, path);
    assert!(running.said.contains("`61` is not a minute"), "{}", running.said);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
}
