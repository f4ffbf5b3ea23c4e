//! Outages of this machine's own network, in network namespaces: nobody pays for them, and nothing is published from them.
//!
//! Needs root and the program `ip` (iproute2).

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    faults::{Result, ended, nothing_runs, until_they_play},
    support::program::{Place, Ran, Running, pipeline, turn, workspace},
};

const SALT: &str = "5a17000000000000000000000000000000000000000000000000000000000007";

/// Two namespaces with a cable between them: robo's and that of its miners. Removed when dropped, with what runs in them.
struct Cable {
    robo: String,
    miners: String,
    serving: Vec<Running>,
}

/// The address of a miner, and one that refuses connections and serves as the canary.
fn address(number: usize) -> String {
    format!("10.213.1.{}", 10 + number)
}

fn ip(words: &str) {
    let ran = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(ran.status.success(), "ip {words}: {}", String::from_utf8_lossy(&ran.stderr));
}

impl Cable {
    fn lay() -> Self {
        let name = std::process::id();
        let cable = Self { robo: format!("robo-{name}"), miners: format!("miners-{name}"), serving: Vec::new() };
        let Self { robo, miners, .. } = &cable;
        ip(&format!("netns add {robo}"));
        ip(&format!("netns add {miners}"));
        ip(&format!("-n {robo} link add out type veth peer name in netns {miners}"));
        ip(&format!("-n {robo} addr add 10.213.1.1/24 dev out"));
        (0..4).for_each(|number| ip(&format!("-n {miners} addr add {}/24 dev in", address(number))));
        for (side, end) in [(robo, "out"), (miners, "in")] {
            ip(&format!("-n {side} link set lo up"));
            ip(&format!("-n {side} link set {end} up"));
        }
        cable
    }

    /// A demo miner at the other end, and where it answers.
    fn serve(&mut self, place: &Place, policy: &str) -> String {
        let host = address(self.serving.len() + 1);
        let words = ["demo-miner", "--policy", policy, "--port", "9000", "--host", &host];
        let miner = within(&self.miners, place.robo(&words)).stdout(Stdio::piped()).spawn().unwrap();
        self.serving.push(miner.into());
        format!("http://{host}:9000")
    }

    /// Pull the plug at the other end, or put it in again.
    fn set(&self, state: &str) {
        ip(&format!("-n {} link set in {state}", self.miners));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.serving.drain(..).for_each(Running::kill_alone);
        for side in [&self.robo, &self.miners] {
            // The test may have failed before it was there.
            let _ = Command::new("ip").args(["netns", "del", side]).output();
        }
    }
}

/// The same program in a network namespace.
fn within(namespace: &str, program: Command) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program.get_program()).args(program.get_args());
    if let Some(directory) = program.get_current_dir() {
        command.current_dir(directory);
    }
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A workspace whose pipeline lets these miners play, and burns where nobody earns anything.
fn of_miners(endpoints: &[String]) -> TempDir {
    let miners = endpoints.iter().enumerate().map(|(uid, endpoint)| {
        format!("        - {{ uid: {}, hotkey: miner-{uid}, endpoint: \"{endpoint}\" }}\n", uid + 1)
    });
    let miners: String = miners.collect();
    let text = format!(
        r#"version: 1
name: outage
environments: [metaworld/reach-v3]
miners: {{ allow_private_endpoints: true, cold_start: {{ budget: 1s }} }}
defaults: {{ timeout: 30m, retry: {{ max_attempts: 1 }} }}
stages:
  discover:
    uses: file/miners
    with:
      miners:
{miners}
  provision: {{ depends_on: [discover], uses: environments/provision, matrix: {{ environment: "${{{{ cycle.environments }}}}" }} }}
  episodes:
    depends_on: [provision]
    uses: episodes/run
    matrix: {{ environment: "${{{{ cycle.environments }}}}" }}
    with: {{ miners: "${{{{ stages.discover.miners }}}}", episodes: 8, per_miner: 1 }}
  aggregate: {{ depends_on: [episodes], uses: scores/aggregate }}
  pareto: {{ depends_on: [aggregate], uses: scores/pareto }}
  weights: {{ depends_on: [pareto], uses: scores/weights, with: {{ burn_uid: 0 }} }}
  publish: {{ depends_on: [weights], uses: weights/publish }}
finally:
  teardown: {{ uses: environments/teardown }}
"#
    );
    let folder = workspace(|_| text.clone());
    let manifest = folder.path().join("environments/metaworld.yaml");
    // Shorter than the outage, and long enough for a busy machine.
    let quick = std::fs::read_to_string(&manifest).unwrap().replace("action_timeout: 20s", "action_timeout: 5s");
    std::fs::write(&manifest, quick).unwrap();
    folder
}

/// The simulator's Python has been prepared, which takes a network.
fn prepared() {
    let _ = Result::undisturbed();
}

#[test]
fn a_cycle_that_loses_its_network_ends_with_the_bytes_of_an_undisturbed_one() {
    let _turn = turn();
    prepared();
    let (mut cable, serving) = (Cable::lay(), Place::new());
    let endpoints = ["heuristic", "reacher", "noop"].map(|policy| cable.serve(&serving, policy));
    let folder = of_miners(&endpoints);
    let (file, canary) = (pipeline(&folder), format!("{}:9", address(0)));
    let arguments = ["run-pipeline", &file, "--salt", SALT, "--canary", &canary];
    let calm = Place::new();
    ended(&Running::from(within(&cable.robo, calm.robo(&arguments)).spawn().unwrap()).wait(), 0, &["done in"]);
    let calm = Result::of(&calm).0;

    let place = Place::new();
    let mut running = Running::from(within(&cable.robo, place.robo(&arguments)).spawn().unwrap());
    until_they_play(&mut running);
    cable.set("down");
    running.until("our network failed");
    cable.set("up");
    ended(&running.wait(), 0, &[]);
    let (result, episodes) = Result::of(&place);
    assert_eq!(result, calm);
    let again = episodes.iter().filter(|episode| episode["attempt"].as_u64() > Some(1)).count();
    assert!(again > 0, "no episode was lost: {episodes:?}");
    nothing_runs(&place);
}

#[test]
fn without_any_network_a_cycle_fails_as_infrastructure() {
    let _turn = turn();
    prepared();
    let endpoints = ["https://miner.example".to_owned(), "http://8.8.8.8:8080".to_owned()];
    let (folder, place) = (of_miners(&endpoints), Place::new());
    let file = pipeline(&folder);
    let robo = place.robo(&["run-pipeline", &file, "--network-patience", "1s"]);
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "robo"]).arg(robo.get_program());
    command.args(robo.get_args()).current_dir(robo.get_current_dir().unwrap());
    command.envs(robo.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::from(command.stdin(Stdio::null()).output().unwrap());
    ended(&ran, 1, &["our network failed and did not come back within 1 s"]);
    let cycle = place.json(&["cycle", "show", "@latest", "--format", "json", "--episodes"]);
    assert_eq!((&cycle["status"], &cycle["weights_document"]), (&Value::from("failed"), &Value::Null), "{cycle}");
    let outcomes: Vec<&Value> =
        cycle["episodes"].as_array().unwrap().iter().map(|episode| &episode["report"]["outcome"]).collect();
    assert!(outcomes.iter().all(|outcome| outcome.is_null() || **outcome == *"infra_fault"), "{cycle}");
    nothing_runs(&place);
}
