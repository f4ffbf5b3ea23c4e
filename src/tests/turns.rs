//! `concurrency` from the file to the exit code: one cycle is open, and another of its group is wanted.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::custom_stages::root;
use crate::support::program::{Place, Running, turn};

/// A pipeline whose cycles stay open until a file is there.
struct Gate {
    folder: TempDir,
    place: Place,
}

impl Gate {
    fn new() -> Self {
        Self { folder: root(""), place: Place::new() }
    }

    fn pipeline(&self, on_limit: &str) -> PathBuf {
        let gate = self.folder.path().join("open");
        let file = self.folder.path().join(format!("{on_limit}.yaml"));
        let text = format!(
            "version: 1
name: gated
inputs: {{ subnet: {{ type: integer, default: 1 }} }}
concurrency: {{ group: \"subnet-${{{{ inputs.subnet }}}}\", on_limit: {on_limit} }}
stages:
  wait:
    uses: container/run
    with:
      runtime: process
      command: [sh, -c, 'until test -e {}; do sleep 0.05; done; echo \"{{}}\"']
",
            gate.display()
        );
        fs::write(&file, text).unwrap();
        file
    }

    fn start(&self, on_limit: &str) -> Running {
        self.place.start(&["run-pipeline", self.pipeline(on_limit).to_str().unwrap()])
    }

    /// A cycle that is open, and its id.
    fn first(&self) -> (Running, String) {
        let mut first = self.start("queue");
        first.until("wait ...");
        let cycles = self.cycles();
        assert_eq!(cycles.len(), 1, "{cycles:?}");
        (first, cycles[0].0.clone())
    }

    fn open(&self) {
        fs::write(self.folder.path().join("open"), "").unwrap();
    }

    /// Cycles and how they stand, the newest first.
    fn cycles(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let listed = self.place.json(&["cycle", "ls", "--format", "json"]);
        let rows = listed["cycles"].as_array().unwrap().iter();
        rows.map(|row| (text(&row["id"]), text(&row["status"]))).collect()
    }
}

#[test]
fn a_cycle_too_many_is_skipped_or_waits_for_its_turn() {
    let _turn = turn();
    let gate = Gate::new();
    let (first, id) = gate.first();

    let skipped = gate.place.run(&["run-pipeline", gate.pipeline("skip").to_str().unwrap()]);
    assert_eq!(skipped.code, 4, "{}", skipped.stderr);
    assert!(skipped.stderr.contains("subnet-1") && skipped.stderr.contains(&id), "{}", skipped.stderr);
    assert_eq!(gate.cycles().len(), 1, "what is skipped leaves no cycle behind");

    // Another group is another matter.
    let mut elsewhere = gate.place.start(&["run-pipeline", gate.pipeline("skip").to_str().unwrap(), "-i", "subnet=2"]);
    elsewhere.until("wait ...");

    let mut second = gate.start("queue");
    second.until(&format!("waits until cycle {id} has ended"));
    gate.open();
    for running in [first, elsewhere, second] {
        let ran = running.wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    assert_eq!(gate.cycles().iter().filter(|(_, status)| status == "completed").count(), 3);
}

#[test]
fn a_cycle_too_many_takes_the_place_of_the_oldest() {
    let _turn = turn();
    let gate = Gate::new();
    let (first, id) = gate.first();
    let second = gate.start("replace");
    let replaced = first.wait();
    assert_eq!(replaced.code, 4, "{}", replaced.stderr);
    gate.open();
    let ran = second.wait();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let cycles = gate.cycles();
    assert_eq!((cycles[0].1.as_str(), &cycles[1]), ("completed", &(id, "cancelled".to_owned())));
}
