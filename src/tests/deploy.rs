//! What stands in `deploy/` and beside it, tried with the programs that will read it.

mod compose;
mod restore;
mod units;

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::program::repository;

/// A program that `scripts/tools` has unpacked, or that is installed.
pub(crate) fn tool(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools").join(name);
    if unpacked.is_file() { unpacked } else { name.into() }
}

/// What a program says that has to succeed.
#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `scripts/tools` installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}:\n{said}");
    said
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The metrics that an expression names: those of a histogram by the name of the whole.
fn metrics_in(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("robo_")).map(|word| {
        let whole = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        whole.unwrap_or(word).to_owned()
    })
}

/// The metrics that the rules and the dashboard ask for.
pub(crate) fn metrics_named() -> [(&'static str, BTreeSet<String>); 2] {
    let rules = read("deploy/prometheus/alerts.yml");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: String = panels.map(|target| format!("{}\n", target["expr"].as_str().unwrap())).collect();
    [("alerts.yml", metrics_in(&rules).collect()), ("dashboard.json", metrics_in(&asked).collect())]
}

#[test]
fn rules_and_configuration_of_prometheus_are_right_and_every_alert_fires_when_it_should() {
    let folder = repository().join("deploy/prometheus");
    let promtool = |arguments: &[&str]| succeeds(Command::new(tool("promtool")).args(arguments).current_dir(&folder));
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts.test.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let silent = tests.lines().any(|line| line.contains(&format!("alertname: {alert} }}")));
        let fires = tests.contains(&format!("alertname: {alert}\n        exp_alerts:"));
        assert!(silent && fires, "`{alert}` has a test in which it fires and one in which it does not");
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap();
    let (mut ids, mut rules) = (BTreeSet::new(), String::from("groups:\n- name: dashboard\n  rules:\n"));
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "every panel has its own id: {panel}");
        assert_eq!(panel["datasource"]["uid"], "prometheus", "as it is provisioned: {panel}");
        for (place, target) in panel["targets"].as_array().unwrap().iter().enumerate() {
            let name = format!("panel:{}:{place}", panel["id"]);
            writeln!(rules, "  - {{ record: \"{name}\", expr: {} }}", target["expr"]).unwrap();
        }
    }
    assert!(read("deploy/grafana/provisioning/datasources/prometheus.yml").contains("uid: prometheus"));
    // Promtool reads expressions as those of rules.
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    fs::write(file.path(), rules).unwrap();
    succeeds(Command::new(tool("promtool")).args(["check", "rules"]).arg(file.path()));
}
