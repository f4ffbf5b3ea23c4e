//! A lone program in an empty folder: it works with the project that it carries, and writes it out for editing.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    metrics::Page,
    support::program::{Place, Ran, Running, repository},
};

/// An empty folder, and a place for data beside it.
struct Empty {
    folder: TempDir,
    place: Place,
}

impl Empty {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), place: Place::new() }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.place.robo(arguments).current_dir(self.folder.path()).output().unwrap())
    }

    fn start(&self, arguments: &[&str]) -> Running {
        self.place.robo(arguments).current_dir(self.folder.path()).spawn().unwrap().into()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }
}

#[test]
fn a_lone_program_plans_what_the_repository_plans() {
    let empty = Empty::new();
    let plan = ["plan", "pipelines/quickstart.yaml", "--format", "json"];
    assert_eq!(empty.json(&plan), empty.place.json(&plan));
    assert_eq!(empty.json(&["plan", "quickstart", "--format", "json"]), empty.place.json(&plan));
    let ran = empty.run(&["plan", "quickstart"]);
    assert!(ran.stderr.contains("using `pipelines/quickstart.yaml` as robo carries it"), "{}", ran.stderr);
    let list = ["env", "ls", "--format", "json"];
    assert_eq!(empty.json(&list), empty.place.json(&list));
    assert_eq!(fs::read_dir(empty.folder.path()).unwrap().count(), 0, "nothing is written beside it");
}

#[test]
fn files_beside_it_win() {
    let empty = Empty::new();
    let written = empty.run(&["init", "project"]);
    assert_eq!(written.code, 0, "{}", written.stderr);
    let project = empty.folder.path().join("project");
    let file = project.join("pipelines/quickstart.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, fs::read_to_string(repository().join("pipelines/quickstart.yaml")).unwrap());

    fs::write(&file, text.replace("temperature: 1.0", "temperature: 3.0")).unwrap();
    let again = empty.run(&["init", "project"]);
    assert!(again.stderr.contains("was edited and stays as it is"), "{}", again.stderr);
    let lone = Empty { folder: TempDir::new().unwrap(), place: Place::new() };
    let hash = |of: &Empty| of.json(&["plan", "quickstart", "--format", "json"])["definition_hash"].clone();
    let carried = hash(&lone);
    for entry in ["pipelines", "environments", "eval-env"] {
        fs::rename(project.join(entry), empty.folder.path().join(entry)).unwrap();
    }
    assert_ne!(hash(&empty), carried, "the edited file is used");
    // The pipeline that robo carries plays the environments that are here.
    fs::remove_dir_all(empty.folder.path().join("pipelines")).unwrap();
    assert_eq!(hash(&empty), carried);
    fs::remove_file(empty.folder.path().join("environments/metaworld.yaml")).unwrap();
    let refused = empty.run(&["plan", "quickstart"]);
    assert!(refused.code == 2 && refused.stderr.contains("metaworld/"), "{}", refused.stderr);
}

#[test]
fn a_backend_of_a_subnet_runs_its_pipeline_at_the_interval_that_was_given() {
    let empty = Empty::new();
    let common =
        ["backend", "--host", "127.0.0.1", "--port", "0", "--network", "ws://127.0.0.1:9", "--log-format", "text"];
    let refused = empty.run(&common);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for words in ["nothing to evaluate", "--netuid N", "--pipeline FILE", "--role api"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Due in years, so that no cycle starts meanwhile.
    let more = ["--netuid", "7", "--eval-interval", "2592000", "--episodes-per-env", "3"];
    let mut running = empty.start(&[&common[..], &more].concat());
    running.until("listening on");
    assert!(running.said.contains("using `pipelines/subnet.yaml` as robo carries it"), "{}", running.said);
    let url = running.said.split("listening on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let page = loop {
        let page = runtime.block_on(Page::of(&url));
        if page.names().contains("robo_schedule_interval_seconds") {
            break page;
        }
    };
    assert_eq!(page.value("robo_schedule_interval_seconds{pipeline=\"subnet\"}"), Some(2_592_000.0), "{}", page.0);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code, 0);
}
