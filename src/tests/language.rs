//! The pipeline language from outside: what YAML comes to, and that secrets stay secret in the real program.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use robo::cycle::FailureClass;
use robo::manifest::Diagnostics;
use robo::plan::{self, Bindings, Compiled, Definition, Expect, Missing, OnLimit, Phase, Stage, Then};
use serde_json::{Map, Value, json};

use crate::support::program::{Place, turn};

/// A root without environments, for pipelines made up by a test.
pub(crate) struct Root(tempfile::TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("environments")).unwrap();
        fs::create_dir_all(directory.path().join("pipelines/parts")).unwrap();
        Self(directory)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The definition of a pipeline whose text follows `version` and `name`.
    pub(crate) fn define(&self, text: &str) -> Definition {
        let file = self.write("pipelines/p.yaml", &format!("version: 1\nname: p\n{text}"));
        compile(&file).unwrap_or_else(|problems| panic!("{problems}")).definition
    }

    /// What is wrong with such a pipeline.
    pub(crate) fn refuse(&self, text: &str) -> Diagnostics {
        let file = self.write("pipelines/p.yaml", &format!("version: 1\nname: p\n{text}"));
        compile(&file).map(|compiled| compiled.definition).expect_err(text)
    }
}

pub(crate) fn compile(file: &Path) -> Result<Compiled, Diagnostics> {
    plan::compile(file, &Bindings { flags: &[], variable: &|_| None, missing: Missing::Refuse })
}

fn stage<'a>(definition: &'a Definition, id: &str) -> &'a Stage {
    definition.stage(&id.parse().unwrap()).unwrap()
}

fn cells(tasks: &[plan::Task]) -> Vec<&str> {
    tasks.iter().map(|task| task.key.cell.as_str()).collect()
}

const DISCOVER: &str =
    "  discover: { uses: file/miners, with: { miners: [{ uid: 1, hotkey: a, endpoint: \"http://127.0.0.1:1\" }] } }\n";

#[test]
fn a_matrix_has_cells_added_and_left_out() {
    let definition = Root::new().define(
        "inputs: { most: { type: integer, default: 9 } }
stages:
  s:
    uses: environments/teardown
    matrix:
      size: [1, 2]
      region: [eu, us]
      max_parallel: 3
      fail_fast: true
      include: [{ size: \"${{ inputs.most }}\", region: ap }]
      exclude: [{ region: us, size: 2 }]
",
    );
    let s = stage(&definition, "s");
    assert_eq!(cells(&s.tasks), ["eu,1", "eu,2", "us,1", "ap,9"]);
    assert_eq!((s.max_parallel, s.fail_fast), (Some(3), true));
    assert_eq!(s.tasks[3].matrix["size"], 9);
    let only = Root::new().define(
        "stages: { s: { uses: environments/teardown, matrix: { include: [{ b: 1, a: x }, { a: y, b: 2 }] } } }\n",
    );
    assert_eq!(cells(&stage(&only, "s").tasks), ["x,1", "y,2"]);
}

#[test]
fn a_matrix_over_outputs_makes_the_tasks_that_a_written_one_does() {
    let root = Root::new();
    let pipeline = |list: &str| {
        root.define(&format!(
            "stages:
{DISCOVER}  each:
    depends_on: [discover]
    uses: environments/teardown
    matrix: {{ key: {list}, part: [2, 1], exclude: [{{ key: b, part: 1 }}], include: [{{ key: z, part: 3 }}] }}
"
        ))
    };
    let (written, late) = (pipeline("[b, a]"), pipeline("\"${{ stages.discover.miners | map(attribute='hotkey') }}\""));
    let late = stage(&late, "each");
    assert!(late.tasks.is_empty() && late.expansion.is_some());
    let context = |keys: &[&str]| {
        let miners: Vec<Value> = keys.iter().map(|key| json!({ "hotkey": key })).collect();
        json!({ "stages": { "discover": { "miners": miners } } })
    };
    let written = stage(&written, "each");
    assert!(written.expansion.is_none());
    assert_eq!(plan::expand(late, &context(&["b", "a"])).unwrap(), written.tasks);
    assert_eq!(plan::expand(written, &json!({})).unwrap(), written.tasks);
    // Nothing found is no task of the list; what is added stays.
    assert_eq!(cells(&plan::expand(late, &context(&[])).unwrap()), ["z,3"]);
    let error = plan::expand(late, &json!({ "stages": { "discover": {} } })).unwrap_err().to_string();
    assert!(error.contains("`matrix.key`"), "{error}");
}

#[test]
fn limits_come_from_the_stage_then_from_defaults() {
    let definition = Root::new().define(
        "pools: { gpu: 2, net: 1 }
defaults:
  timeout: 5m
  queue_timeout: 2m
  pool: gpu
  expect: { quorum: 0.5 }
  retry: { max_attempts: 7, on: [timeout, below_quorum, infra], then: pause }
stages:
  plain: { uses: environments/teardown }
  own: { uses: environments/teardown, pool: net, queue_timeout: 1s, timeout: 2s, expect: complete, retry: { on: [infra], then: fail } }
on_failure:
  note: { uses: environments/teardown }
finally:
  last: { uses: environments/teardown, pool: net }
",
    );
    assert_eq!(definition.pools, [("gpu".to_owned(), 2), ("net".to_owned(), 1)].into());
    let (plain, own) = (stage(&definition, "plain"), stage(&definition, "own"));
    let of = |stage: &Stage| (stage.pool.clone(), stage.queue_timeout_ms, stage.timeout_ms, stage.expect);
    assert_eq!(of(plain), (Some("gpu".into()), Some(120_000), 300_000, Expect::Quorum(0.5)));
    assert_eq!(of(own), (Some("net".into()), Some(1000), 2000, Expect::Complete));
    assert_eq!(plain.retry.on, [FailureClass::Infra, FailureClass::Timeout, FailureClass::BelowQuorum]);
    assert_eq!((plain.retry.then, plain.retry.max_attempts), (Then::Pause, 7));
    assert_eq!((own.retry.on.as_slice(), own.retry.then), (&[FailureClass::Infra][..], Then::Fail));
    // Cleaning up neither queues behind the pool of the others nor waits for a person.
    let (note, last) = (stage(&definition, "note"), stage(&definition, "last"));
    assert_eq!(of(note), (None, None, 300_000, Expect::Quorum(0.5)));
    assert_eq!((last.pool.as_deref(), last.retry.then), (Some("net"), Then::Fail));
}

#[test]
fn concurrency_is_a_group_of_cycles() {
    let root = Root::new();
    let text = |rest: &str| {
        format!(
            "inputs: {{ netuid: {{ type: integer, default: 3 }} }}\nconcurrency: {{ group: \"n-${{{{ inputs.netuid }}}}\"{rest} }}\nstages:\n{DISCOVER}"
        )
    };
    let plain = root.define(&text("")).concurrency.unwrap();
    assert_eq!((plain.group.as_str(), plain.limit, plain.on_limit), ("n-3", 1, OnLimit::Queue));
    let other = root.define(&text(", limit: 2, on_limit: skip")).concurrency.unwrap();
    assert_eq!((other.limit, other.on_limit), (2, OnLimit::Skip));
}

#[test]
fn on_failure_runs_between_the_stages_and_finally() {
    let definition = Root::new().define(&format!(
        "finally: {{ last: {{ uses: environments/teardown }} }}
on_failure:
  second: {{ depends_on: [first], uses: environments/teardown }}
  first: {{ uses: environments/teardown, when: \"${{{{ 'timeout' in cycle.failure }}}}\" }}
stages:
{DISCOVER}"
    ));
    let order: Vec<(&str, Phase)> = definition.stages.iter().map(|stage| (stage.id.as_str(), stage.phase)).collect();
    assert_eq!(
        order,
        [
            ("discover", Phase::Main),
            ("first", Phase::OnFailure),
            ("second", Phase::OnFailure),
            ("last", Phase::Finally)
        ]
    );
    assert_eq!(stage(&definition, "first").when.as_deref(), Some("'timeout' in cycle.failure"));
}

#[test]
fn what_is_included_is_as_if_it_stood_there() {
    let root = Root::new();
    let parts = [
        ("inputs", "inputs: { n: { type: integer, default: 2 } }\n"),
        ("pools", "pools: { gpu: 2 }\n"),
        ("defaults", "defaults: { timeout: 5m, pool: gpu, retry: { max_attempts: \"2\" } }\n"),
        ("on_failure", "on_failure: { note: { uses: environments/teardown } }\n"),
        ("finally", "finally: { last: { uses: environments/teardown } }\n"),
    ]
    .map(|(name, text)| (name, text.replace("\"2\"", "2")));
    let rest = "  s: { depends_on: [discover], uses: environments/teardown, when: \"${{ stages.discover.count < inputs.n }}\" }\n";
    let body: String = parts.iter().map(|(_, text)| text.as_str()).collect();
    let in_place = root.define(&format!("{body}stages:\n{DISCOVER}{rest}")).hash();

    for (name, text) in &parts {
        root.write(&format!("pipelines/parts/{name}.yaml"), text);
    }
    // A part may include others, and one that is included twice counts once.
    root.write("pipelines/parts/more.yaml", "include: [pools.yaml, defaults.yaml, ../parts/pools.yaml]\n");
    root.write("pipelines/parts/stages.yaml", &format!("version: 1\ninclude: [finally.yaml]\nstages:\n{DISCOVER}"));
    let all =
        "include: [parts/inputs.yaml, parts/more.yaml, parts/on_failure.yaml, parts/stages.yaml, parts/pools.yaml]\n";
    assert_eq!(root.define(&format!("{all}stages:\n{rest}")).hash(), in_place);

    // A link does not lead out of the root.
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.yaml"), "pools: { gpu: 1 }\n").unwrap();
    std::os::unix::fs::symlink(outside.path().join("x.yaml"), root.0.path().join("pipelines/link.yaml")).unwrap();
    let problems = root.refuse(&format!("include: [link.yaml]\nstages:\n{DISCOVER}")).to_string();
    assert!(problems.contains("`link.yaml` lies outside"), "{problems}");
}

#[test]
fn a_part_by_itself_is_checked_for_form() {
    let root = Root::new();
    let part =
        root.write("pipelines/part.yaml", "stages: { a: { uses: environments/teardown, depends_on: [elsewhere] } }\n");
    let found = plan::lint(&part);
    assert_eq!((found.errors(), found.iter().count()), (0, 1), "{found}");
    let part = root.write("pipelines/part.yaml", "stages: { a: { use: environments/teardown } }\n");
    assert!(plan::lint(&part).to_string().contains("did you mean `uses`?"));
}

#[test]
fn a_definition_names_its_secrets_and_does_not_hold_them() {
    let root = Root::new();
    let file = root.write(
        "pipelines/p.yaml",
        "version: 1\nname: p\nstages: { s: { uses: file/miners, with: { miners: \"${{ [secrets.LIST] }}\" } } }\n",
    );
    let place = Place::new();
    let plan = |value: Option<&str>| {
        let mut command = place.robo(&["plan", file.to_str().unwrap(), "--format", "json"]);
        if let Some(value) = value {
            command.env("ROBO_SECRET_LIST", value);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (without, warning) = plan(None);
    assert!(without.contains("${{ [secrets.LIST] }}"));
    assert!(warning.contains("warning: the secret `LIST` is not there"), "{warning}");
    assert!(warning.contains("ROBO_SECRET_LIST") && warning.contains("ROBO_SECRETS_DIR"), "{warning}");
    let (one, quiet) = plan(Some("first-value"));
    assert_eq!((&one, quiet.as_str()), (&without, ""));
    assert_eq!(plan(Some("other-value")).0, without);
    // Offline it is a warning, and no error.
    let linted = place.run(&["lint", file.to_str().unwrap()]);
    assert_eq!(linted.code, 0);
    assert!(linted.stderr.contains("ROBO_SECRET_LIST"), "{}", linted.stderr);
}

/// Every file below a directory that holds the text.
pub(crate) fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap_or_default();
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

#[test]
fn a_secret_appears_nowhere() {
    let _turn = turn();
    let (root, place) = (Root::new(), Place::new());
    // A key that a stage gives on, and a value that makes a stage fail with a message about it.
    let (key, list) = ("Swordfish-4711", "Open-Sesame-0815");
    let file = root.write(
        "pipelines/p.yaml",
        "version: 1
name: p
stages:
  gives:
    uses: file/miners
    with: { miners: [{ uid: 1, hotkey: plainly-seen, endpoint: \"http://127.0.0.1:9/${{ secrets.KEY }}\" }] }
  fails:
    depends_on: [gives]
    uses: file/miners
    with: { miners: \"${{ [secrets.LIST] }}\" }
",
    );
    let secrets = tempfile::tempdir().unwrap();
    fs::write(secrets.path().join("LIST"), format!("{list}\n")).unwrap();
    fs::set_permissions(secrets.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let output = place
        .robo(&["run-pipeline", file.to_str().unwrap()])
        .env("ROBO_SECRET_KEY", key)
        .env("ROBO_SECRETS_DIR", secrets.path())
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!(output.status.code(), Some(1), "{said}");
    // The failure is told, with a mask in the place of the value that caused it.
    assert!(said.contains("fails") && said.contains("***"), "{said}");
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let task =
        |name: &str| shown["tasks"].as_array().unwrap().iter().find(|task| task["task"] == name).unwrap().clone();
    assert_eq!(task("gives")["output"]["miners"][0]["endpoint"], "http://127.0.0.1:9/***");
    for secret in [key, list] {
        assert!(!said.contains(secret), "{said}");
        assert!(!shown.to_string().contains(secret), "{shown}");
        assert_eq!(files_with(place.data.path(), secret), [] as [PathBuf; 0]);
    }
    // The search finds what is stored.
    assert!(!files_with(place.data.path(), "plainly-seen").is_empty());
}

#[test]
fn a_secret_that_is_missing_is_a_mistake_of_the_operator() {
    let _turn = turn();
    let (root, place) = (Root::new(), Place::new());
    let text =
        "version: 1\nname: p\nstages: { s: { uses: file/miners, with: { miners: \"${{ [secrets.LIST] }}\" } } }\n";
    let ran = place.run(&["run-pipeline", root.write("pipelines/p.yaml", text).to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let failure = shown["tasks"][0].to_string();
    assert!(failure.contains("config") && failure.contains("there is no secret `LIST`"), "{failure}");
    assert!(failure.contains("ROBO_SECRET_LIST") && failure.contains("ROBO_SECRETS_DIR"), "{failure}");
}

#[test]
fn every_example_is_right_where_it_stands() {
    let place = Place::new();
    let linted = place
        .robo(&["lint", "examples", "--format", "json"])
        .env("ROBO_SECRET_MINER_KEY", "correct-horse")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&linted.stdout).unwrap();
    let errors: Vec<&Value> =
        report["diagnostics"].as_array().unwrap().iter().filter(|one| one["severity"] == "error").collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(linted.status.code(), Some(0));
}

#[test]
fn the_example_of_secrets_runs() {
    let _turn = turn();
    let place = Place::new();
    let output = place
        .robo(&["run-pipeline", "examples/pipelines/secrets.yaml"])
        .env("ROBO_SECRET_MINER_KEY", "correct-horse")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    assert_eq!(shown["tasks"][0]["output"]["miners"][0]["endpoint"], "http://127.0.0.1:9001/***");
}

#[test]
fn evaluation_is_bounded() {
    let context = json!({ "stages": { "a": { "text": "x".repeat(1 << 20), "list": vec![1; 10_000] } } });
    let mut with = Map::new();
    for expression in [
        "stages.a.text ~ stages.a.text",
        "'x' * 2000000",
        "[stages.a.list] * 200",
        "range(1000000)",
        "(range(100000) | join('-')) * 1000",
    ] {
        with.insert("x".into(), json!(format!("${{{{ {expression} }}}}")));
        let result = plan::render(&Value::Object(with.clone()), &context);
        assert!(result.is_err(), "{expression}");
    }
    with.insert("x".into(), json!("${{ stages.a.list | sum }}"));
    assert_eq!(plan::render(&Value::Object(with), &context).unwrap()["x"], 10_000);
}
