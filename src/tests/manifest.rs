//! Manifests and plans from outside: every class of mistake as an operator reads it, the schemas, the hash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use proptest::prelude::*;
use robo::manifest::Diagnostics;
use robo::plan::{self, Bindings, Compiled, Graph, Missing};
use serde_json::{Value, json};

use crate::support::program::{Place, pipeline, repository, workspace};

fn fixtures() -> PathBuf {
    repository().join("src/tests/fixtures/manifest")
}

/// The binary, with the fixtures as its current directory and no variable that could set an input.
fn robo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_robo"));
    command.args(arguments).current_dir(fixtures()).env_remove("ROBO_INPUT_EPISODES_PER_ENV");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

fn compile(file: &Path, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Compiled, Diagnostics> {
    let flags: Vec<(String, String)> = flags.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    plan::compile(file, &Bindings { flags: &flags, variable: &variable, missing: Missing::Refuse })
}

/// A root of its own with the fixtures' environments, for pipelines made up by a test.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let eval_env = directory.path().join("eval-env");
        fs::create_dir_all(eval_env.join("robo_eval_env")).unwrap();
        fs::create_dir_all(eval_env.join("requirements")).unwrap();
        fs::create_dir_all(directory.path().join("environments")).unwrap();
        fs::create_dir_all(directory.path().join("pipelines")).unwrap();
        for file in [
            "environments/metaworld.yaml",
            "eval-env/robo_eval_env/__init__.py",
            "eval-env/requirements/metaworld.lock",
        ] {
            fs::copy(fixtures().join(file), directory.path().join(file)).unwrap();
        }
        Self(directory)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let files = yaml_files(&fixtures().join("broken"));
    assert!(files.len() > 20);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let output = robo(&["lint", &format!("broken/{name}.yaml")]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(output.stdout.is_empty(), "{name}");
        insta::assert_snapshot!(name, text(&output.stderr));
    }
}

#[test]
fn what_is_right_is_silent() {
    let output = robo(&["lint"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (Some(0), String::new(), String::new())
    );
    let output = robo(&["lint", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report, json!({ "diagnostics": [], "errors": 0, "warnings": 0 }));
}

#[test]
fn a_report_for_programs_holds_the_same() {
    let output = robo(&["lint", "broken/circle.yaml", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], 1);
    let first = &report["diagnostics"][0];
    assert_eq!(first["file"], "broken/circle.yaml");
    assert_eq!((&first["pointer"]["line"], &first["pointer"]["column"]), (&json!(5), &json!(55)));
    assert_eq!(first["path"], "stages.second.depends_on[0]");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let root = Root::new();
    let large = root.write("pipelines/large.yaml", vec![b'#'; 10 << 20]);
    let message = plan::lint(&large).to_string();
    assert!(message.contains("too large: 10485760 bytes, at most 1048576"), "{message}");
    let message = plan::lint(&root.0.path().join("pipelines/none.yaml")).to_string();
    assert!(message.contains("No such file"), "{message}");
    let message = plan::lint(root.0.path()).to_string();
    assert!(message.contains("a directory"), "{message}");
    let message = plan::lint(Path::new("/dev/zero")).to_string();
    assert!(message.contains("too large"), "{message}");
}

#[test]
fn what_is_no_pipeline_is_told_in_one_error() {
    for (file, what) in
        [("environments/metaworld.yaml", "an environment manifest"), ("broken/miners.list.yaml", "a list")]
    {
        let found = compile(&fixtures().join(file), &[], &[]).unwrap_err();
        assert_eq!(found.errors(), 1, "{found}");
        assert!(found.to_string().contains(&format!("this is {what}, and not a pipeline")), "{found}");
    }
}

#[test]
fn a_pipeline_without_environments_beside_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p.yaml");
    fs::write(&file, "version: 1\nname: a\nstages: { a: { uses: environments/teardown } }\n").unwrap();
    let message = compile(&file, &[], &[]).unwrap_err().to_string();
    assert!(message.contains("no `environments` directory"), "{message}");
}

#[test]
fn two_families_cannot_share_a_name() {
    let root = Root::new();
    let second =
        root.write("environments/second.yaml", fs::read(fixtures().join("environments/metaworld.yaml")).unwrap());
    let message = plan::lint(&second).to_string();
    assert!(message.contains("family `metaworld` is already defined in"), "{message}");
    assert!(plan::lint(&root.0.path().join("environments/metaworld.yaml")).is_empty());
}

#[test]
fn inputs_come_from_flags_then_variables_then_defaults() {
    let file = fixtures().join("pipelines/quickstart.yaml");
    let variable = [("ROBO_INPUT_EPISODES_PER_ENV", "7")];
    let episodes = |compiled: Compiled| {
        let stage = compiled.definition.stages.iter().find(|stage| stage.uses == "episodes/run").unwrap().clone();
        (stage.with["episodes"].clone(), compiled.definition.planned_episodes(&stage))
    };
    assert_eq!(episodes(compile(&file, &[], &[]).unwrap()), (json!(5), Some(4 * 3 * 5)));
    assert_eq!(episodes(compile(&file, &[], &variable).unwrap()).0, json!(7));
    assert_eq!(episodes(compile(&file, &[("episodes_per_env", "9")], &variable).unwrap()).0, json!(9));

    let wrong = |flag: (&str, &str)| compile(&file, &[flag], &[]).unwrap_err().to_string();
    let message = wrong(("episodes_per_env", "many"));
    assert!(
        message.contains("input `episodes_per_env` cannot be `many` (from -i episodes_per_env): expected an integer")
    );
    assert!(message.contains("quickstart.yaml:"), "{message}");
    assert!(wrong(("episodes_per_env", "0")).contains("the minimum is 1"));
    assert!(wrong(("episode_per_env", "1")).contains("did you mean `episodes_per_env`?"));
    let message = compile(&file, &[], &[("ROBO_INPUT_EPISODES_PER_ENV", "x")]).unwrap_err().to_string();
    assert!(message.contains("from ROBO_INPUT_EPISODES_PER_ENV"), "{message}");
}

#[test]
fn an_input_without_a_value_is_no_mistake_until_it_is_run() {
    let root = Root::new();
    let file = root.write(
        "pipelines/open.yaml",
        r#"
version: 1
name: open
inputs: { miners: { type: string }, share: { type: number, enum: [0.5, 1] }, names: { type: string } }
environments: ["metaworld/*"]
stages:
  discover: { uses: file/miners, with: { path: "${{ inputs.miners }}" } }
  episodes:
    depends_on: [discover]
    uses: episodes/run
    matrix: { environment: ["${{ inputs.names }}"] }
    with: { episodes: 3 }
"#,
    );
    assert_eq!(plan::lint(&file).to_string(), "");
    let message = compile(&file, &[("share", "0.7")], &[]).unwrap_err().to_string();
    assert!(message.contains("input `miners` has no value"), "{message}");
    assert!(
        message.contains("set it with `-i miners=VALUE` or the environment variable ROBO_INPUT_MINERS"),
        "{message}"
    );
    assert!(message.contains("expected `0.5` or `1`"), "{message}");
}

#[test]
fn a_definition_is_complete() {
    let compiled = compile(&fixtures().join("pipelines/quickstart.yaml"), &[], &[]).unwrap();
    assert_eq!(compiled.root, fixtures());
    assert!(compiled.warnings.is_empty(), "{}", compiled.warnings);
    let mut definition = compiled.definition.to_json();
    for environment in definition["environments"].as_array_mut().unwrap() {
        environment["server"]["build_digest"] = json!("[digest]");
    }
    insta::assert_json_snapshot!("definition", definition);
    let stored: plan::Definition = serde_json::from_value(compiled.definition.to_json()).unwrap();
    assert_eq!(stored, compiled.definition);
}

#[test]
fn the_one_stage_of_episodes_may_choose_its_environments_late() {
    let root = Root::new();
    let text = |more: &str| {
        format!(
            "version: 1\nname: p\nenvironments: [metaworld/*]\nstages:
  discover: {{ uses: file/miners, with: {{ miners: [{{ uid: 1, hotkey: a, endpoint: \"demo:noop\" }}] }} }}
  episodes:
    depends_on: [discover]
    uses: episodes/run
    matrix: {{ environment: \"${{{{ cycle.environments if stages.discover.count > 0 else [] }}}}\" }}
    with: {{ episodes: 1 }}
{more}"
        )
    };
    let compiled = compile(&root.write("pipelines/p.yaml", text("")), &[], &[]).unwrap();
    let stage = compiled.definition.stages.iter().find(|stage| stage.uses == "episodes/run").unwrap();
    assert_eq!(compiled.definition.planned_episodes(stage), None);
    let context = json!({
        "stages": { "discover": { "count": 1 } }, "cycle": { "environments": ["metaworld/push-v3", "metaworld/reach-v3"] },
    });
    let tasks = plan::expand(stage, &context).unwrap();
    assert_eq!(tasks.len(), 2);
    let second = "  again: { depends_on: [discover], uses: episodes/run, with: { episodes: 1, environment: metaworld/push-v3 } }\n";
    let problems = compile(&root.write("pipelines/p.yaml", text(second)), &[], &[]).unwrap_err().to_string();
    assert!(problems.contains("only in the pipeline's one such stage"), "{problems}");
}

#[test]
fn plan_and_graph_as_an_operator_sees_them() {
    for (name, arguments) in [
        ("plan_table", vec!["plan", "pipelines/quickstart.yaml", "-i", "episodes_per_env=2"]),
        ("graph_mermaid", vec!["graph", "pipelines/quickstart.yaml"]),
        ("graph_dot", vec!["graph", "pipelines/quickstart.yaml", "--format", "dot"]),
        ("language_table", vec!["plan", "pipelines/language.yaml"]),
        ("language_mermaid", vec!["graph", "pipelines/language.yaml"]),
        ("language_dot", vec!["graph", "pipelines/language.yaml", "--format", "dot"]),
    ] {
        let output = robo(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        insta::assert_snapshot!(name, text(&output.stdout));
    }
    let output = robo(&["plan", "pipelines/quickstart.yaml", "--format", "json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["episodes"], 60);
    let definition: plan::Definition = serde_json::from_value(shown["definition"].clone()).unwrap();
    assert_eq!(shown["definition_hash"], definition.hash());
    assert_eq!(shown["stages"][1]["tasks"][0], "provision[metaworld/button-press-v3]");
    let output = robo(&["plan", "pipelines/quickstart.yaml", "-i", "episodes"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("NAME=VALUE"));
}

#[test]
fn the_hash_follows_values_only() {
    let root = Root::new();
    let original = fs::read_to_string(fixtures().join("pipelines/quickstart.yaml")).unwrap();
    let hash = |content: &str| {
        let file = root.write("pipelines/p.yaml", content);
        compile(&file, &[], &[]).map(|compiled| compiled.definition.hash()).unwrap_or_else(|error| panic!("{error}"))
    };
    let first = hash(&original);
    let same = [
        original.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n"),
        original.replace(
            "    depends_on: [discover]\n    uses: environments/provision",
            "    uses: environments/provision\n    depends_on: [ discover ]   # moved",
        ),
        original.replace("{ uid: 1, hotkey: demo-heuristic,", "{hotkey: demo-heuristic,    uid: 1,"),
        original.replace("timeout: 5m", "timeout: 300s"),
        original.replace("description: Four", "description: 4"),
        original.replace(", with: { rule: epsilon }", ""),
        format!("---\n{original}"),
    ];
    for (index, changed) in same.iter().enumerate() {
        assert_ne!(*changed, original, "variant {index} changes nothing");
        assert_eq!(hash(changed), first, "variant {index}");
    }
    let other = [
        original.replace("default: 5", "default: 6"),
        original.replace("uid: 1,", "uid: 9,"),
        original.replace("temperature: 1.0", "temperature: 1.5"),
        original.replace("  - metaworld/drawer-open-v3\n", ""),
        original.replace("timeout: 5m", "timeout: 6m"),
    ];
    for (index, changed) in other.iter().enumerate() {
        assert_ne!(hash(changed), first, "variant {index}");
    }
    root.write("eval-env/robo_eval_env/__init__.py", "changed = True\n");
    assert_ne!(hash(&original), first);
}

#[test]
fn the_order_of_stages_in_the_file_does_not_change_the_hash() {
    let root = Root::new();
    let teardown = |names: &[&str]| {
        let stages: String =
            names.iter().map(|name| format!("  {name}: {{ uses: environments/teardown }}\n")).collect();
        let file = root.write("pipelines/p.yaml", format!("version: 1\nname: p\nstages:\n{stages}"));
        compile(&file, &[], &[]).unwrap().definition
    };
    let (one, two) = (teardown(&["b", "a"]), teardown(&["a", "b"]));
    assert_eq!(one.hash(), two.hash());
    let order: Vec<String> = Graph::new(&one).unwrap().topological().map(|stage| stage.id.to_string()).collect();
    assert_eq!(order, ["b", "a"]);
}

#[test]
fn a_list_of_miners_becomes_part_of_the_definition() {
    let root = Root::new();
    root.write(
        "pipelines/miners.yaml",
        "- { uid: 4, hotkey: b, endpoint: \"http://h\" }\n- { uid: 3, hotkey: a, endpoint: \"demo:noop\" }\n",
    );
    let pipeline = |with: &str| {
        let text = format!("version: 1\nname: p\nstages: {{ discover: {{ uses: file/miners, with: {with} }} }}\n");
        compile(&root.write("pipelines/p.yaml", text), &[], &[]).unwrap().definition
    };
    let from_file = pipeline("{ path: pipelines/miners.yaml }");
    assert_eq!(
        Value::from(from_file.stages[0].with.clone()),
        json!({ "miners": [{ "uid": 3, "hotkey": "a", "endpoint": "demo:noop" }, { "uid": 4, "hotkey": "b", "endpoint": "http://h" }] })
    );
    let inline = pipeline(
        "{ miners: [{ uid: 3, hotkey: a, endpoint: \"demo:noop\" }, { uid: 4, hotkey: b, endpoint: \"http://h\" }] }",
    );
    assert_eq!(inline.hash(), from_file.hash());

    let with_port = |port: &str| {
        let text = format!(
            "version: 1\nname: p\ninputs: {{ port: {{ type: string, default: '{port}' }} }}\nstages:\n  discover:\n    uses: \
             file/miners\n    with: {{ miners: [{{ uid: 1, hotkey: a, endpoint: 'http://h:${{{{ inputs.port }}}}' }}] }}\n"
        );
        compile(&root.write("pipelines/p.yaml", text), &[], &[])
    };
    assert_eq!(with_port("81").unwrap().definition.stages[0].with["miners"][0]["endpoint"], "http://h:81");
    let message = with_port("99999").unwrap_err().to_string();
    assert!(message.contains("`http://h:99999` is not an endpoint: the port is wrong"), "{message}");
}

#[test]
fn the_engine_asks_the_graph_what_is_ready() {
    let definition = compile(&fixtures().join("pipelines/quickstart.yaml"), &[], &[]).unwrap().definition;
    let graph = Graph::new(&definition).unwrap();
    let ids = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let ready = |begun: &[&str], done: &[&str]| {
        let stages = graph.ready(plan::Phase::Main, &ids(begun), &ids(done));
        stages.into_iter().map(|stage| stage.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ready(&[], &[]), ["discover"]);
    assert!(ready(&["discover"], &[]).is_empty());
    assert_eq!(ready(&["discover"], &["discover"]), ["provision"]);
    let weights = "weights".parse().unwrap();
    assert_eq!(graph.ancestors(&weights).len(), 5);
    assert_eq!(graph.dependents(&"publish".parse().unwrap()).len(), 0);
}

#[test]
fn the_committed_schemas_are_current() {
    for (kind, file) in [("pipeline", "pipeline"), ("fragment", "pipeline-fragment"), ("environment", "environment")] {
        let output = robo(&["schema", kind]);
        let committed = fs::read_to_string(repository().join(format!("schemas/{file}.v1.json"))).unwrap();
        let hint = format!("run `robo schema {kind} > schemas/{file}.v1.json`");
        assert!(text(&output.stdout) == committed, "{hint}");
    }
}

fn validator(kind: &str) -> jsonschema::Validator {
    let schema = fs::read_to_string(repository().join(format!("schemas/{kind}.v1.json"))).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap()
}

fn yaml(file: &Path) -> Value {
    serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn the_schemas_take_what_is_shipped_and_refuse_what_is_broken() {
    let (pipeline, environment, part) =
        (validator("pipeline"), validator("environment"), validator("pipeline-fragment"));
    let mut checked = 0;
    for root in [repository(), fixtures(), repository().join("examples")] {
        let folders = ["pipelines", "environments", "pipelines/parts"].map(|folder| root.join(folder));
        for file in folders.iter().filter(|folder| folder.is_dir()).flat_map(|folder| yaml_files(folder)) {
            let value = yaml(&file);
            let is_part = file.parent().is_some_and(|folder| folder.ends_with("parts"));
            let schema = match (value.get("stages").or(value.get("include")), value.get("family")) {
                _ if is_part => &part,
                (Some(_), _) => &pipeline,
                (_, Some(_)) => &environment,
                _ => continue,
            };
            let problems: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(problems.is_empty(), "{}: {problems:?}", file.display());
            checked += 1;
        }
    }
    assert!(checked >= 12);
    let broken = |name: &str| yaml(&fixtures().join("broken").join(name));
    for name in [
        "unknown_keys.yaml",
        "wrong_types.yaml",
        "durations.yaml",
        "names.yaml",
        "settings.yaml",
        "miners.yaml",
        "limits.yaml",
        "phases.yaml",
    ] {
        assert!(!pipeline.is_valid(&broken(name)), "{name}");
    }
    for name in ["environment.yaml", "environment_shape.yaml"] {
        assert!(!environment.is_valid(&broken(name)), "{name}");
    }
}

#[test]
fn what_is_shipped_compiles() {
    for name in ["quickstart", "generalization"] {
        let file = repository().join(format!("pipelines/{name}.yaml"));
        let compiled = compile(&file, &[], &[]).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(compiled.warnings.is_empty(), "{}", compiled.warnings);
    }
}

#[test]
fn the_documentation_knows_every_stage_kind() {
    let page = fs::read_to_string(repository().join("docs/pipelines.md")).unwrap();
    let (_, after) = page.split_once("<!-- stage kinds -->\n").unwrap();
    let (table, _) = after.split_once("<!-- end -->").unwrap();
    assert!(table == plan::kinds::reference(), "docs/pipelines.md should hold:\n{}", plan::kinds::reference());
}

/// Pieces of YAML and expressions, to get past the first check more often than random bytes do.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,6}",
        Just("stages:\n".to_owned()),
        Just("  a: { uses: file/miners, with: { miners: [] } }\n".to_owned()),
        Just("version: 1\n".to_owned()),
        Just("family: x\n".to_owned()),
        Just("${{ stages.a.miners }}".to_owned()),
        Just("${{".to_owned()),
        Just("&a [*a]".to_owned()),
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just("? ".to_owned()),
        Just("!!float ".to_owned()),
        Just("- {".to_owned()),
        Just("9e999".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("x.yaml");
        fs::write(&file, bytes).unwrap();
        let _ = plan::lint(&file).to_string();
    }

    #[test]
    fn no_manifest_makes_it_panic(pieces in prop::collection::vec(piece(), 0..20), at in 0usize..2500, cut in 0usize..40) {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("x.yaml");
        fs::create_dir(root.path().join("environments")).unwrap();
        let original = fs::read_to_string(fixtures().join("pipelines/quickstart.yaml")).unwrap();
        let head: String = original.chars().take(at).collect();
        let tail: String = original.chars().skip(at + cut).collect();
        fs::write(&file, format!("{head}{}{tail}", pieces.concat())).unwrap();
        let _ = plan::lint(&file).to_string();
        fs::write(&file, pieces.concat()).unwrap();
        let _ = plan::lint(&file).to_string();
    }
}

#[test]
fn the_pipeline_of_the_readme_is_right() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (yaml, _) = rest.split_once("```").unwrap();
    let workspace = workspace(|_| yaml.to_owned());
    let ran = Place::new().run(&["lint", &pipeline(&workspace)]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
}
