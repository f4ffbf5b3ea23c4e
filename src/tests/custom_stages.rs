//! Stages without code, run by the real program: what they give, how they fail, and that they decide who is paid.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::examples::Miner;
use crate::support::program::{Place, Ran, pipeline, repository, turn, workspace};

/// A root without environments, with one pipeline of these stages.
pub(crate) fn root(stages: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("environments")).unwrap();
    write(folder.path(), stages);
    folder
}

fn write(root: &Path, stages: &str) {
    fs::write(root.join("pipeline.yaml"), format!("version: 1\nname: custom\nstages:\n{stages}")).unwrap();
}

fn program(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Run a pipeline that is expected to come to its end, and give back its tasks' outputs by name.
fn outputs(place: &Place, folder: &TempDir) -> Value {
    let ran = place.run(&["run-pipeline", &pipeline(folder)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let tasks = shown["tasks"].as_array().unwrap().iter();
    tasks.map(|task| (task["task"].as_str().unwrap().to_owned(), task["output"].clone())).collect()
}

/// The failure of the task `name` of the latest cycle.
fn failure(place: &Place, ran: &Ran, name: &str) -> Value {
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    let tasks = shown["tasks"].as_array().unwrap();
    tasks.iter().find(|task| task["task"] == name).unwrap()["why"].clone()
}

#[test]
fn a_custom_rule_of_each_kind_decides_the_published_weights() {
    let _turn = turn();
    let (swing_up, still) = (Miner::start("swing-up"), Miner::start("still"));
    let example = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let folder = workspace(str::to_owned);
    std::os::unix::fs::symlink(repository().join("examples/stages"), folder.path().join("stages")).unwrap();
    let family = example("environments/classic-control.yaml").replace("action_timeout: 100ms", "action_timeout: 20s");
    fs::write(folder.path().join("environments/classic-control.yaml"), family).unwrap();
    let place = Place::new();
    let run = |name: &str, change: &dyn Fn(String) -> String| {
        let text = example(&format!("pipelines/{name}.yaml"));
        let text = text.replace("http://127.0.0.1:9001", &swing_up.url).replace("http://127.0.0.1:9002", &still.url);
        fs::write(folder.path().join("pipeline.yaml"), change(text)).unwrap();
        let salt = "5a".repeat(32);
        let ran = place.run(&["run-pipeline", &pipeline(&folder), "-i", "episodes_per_env=2", "--salt", &salt]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let shown = place.json(&["cycle", "show", "--format", "json"]);
        // Asked and mapped again over the rows of the copy, it comes to the same bytes.
        let checked = place.run(&["cycle", "rescore", shown["id"].as_str().unwrap(), "--check"]);
        assert_eq!(checked.code, 0, "{}", checked.stderr);
        shown
    };
    let published = |shown: &Value| shown["weights_document"]["weights"].clone();
    let built_in = |shown: &Value| {
        let tasks = shown["tasks"].as_array().unwrap();
        tasks.iter().find(|task| task["task"] == "weights").unwrap()["output"]["weights"]["weights"].clone()
    };
    let as_it_is: &dyn Fn(String) -> String = &|text| text;

    let shown = run("weights-by-program", as_it_is);
    assert_eq!(published(&shown), json!({"1": 0.8, "2": 1.0 - 0.8}));
    assert_ne!(published(&shown), built_in(&shown));

    let shown = run("weights-by-query", as_it_is);
    let successes: u64 = shown["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|count| count["hotkey"] == "swing-up" && count["outcome"] == "success")
        .map(|count| count["count"].as_u64().unwrap())
        .sum();
    assert!(successes > 0, "{shown}");
    let (won, total) = ((1 + successes) as f64, (2 + successes) as f64);
    assert_eq!(published(&shown), json!({"1": won / total, "2": 1.0 / total}));
    assert_ne!(published(&shown), built_in(&shown));

    // One environment is one subset, worth one point.
    let shown = run("weights-by-expression", as_it_is);
    assert_eq!(published(&shown), json!({"1": 2.0 / 3.0, "2": 1.0 / 3.0}));
    assert_ne!(published(&shown), built_in(&shown));

    // The same two rules the other way round: the custom one runs, and nobody is paid by it.
    let shown = run("weights-by-expression", &|text| {
        let shadow = text.replace("publish: { depends_on: [share]", "publish: { depends_on: [weights]");
        assert_ne!(shadow, text);
        shadow
    });
    assert_eq!(published(&shown), built_in(&shown));
}

#[test]
fn a_program_gets_its_input_and_nothing_else() {
    let _turn = turn();
    let folder = root(
        r#"  look:
    uses: container/run
    with:
      runtime: process
      command: [tools/look.sh, "two words", $HOME]
      input: { a: [1, 2.5, "x"], cycle: "${{ cycle.id }}" }
      env: { GIVEN: "a b" }
    outputs:
      input: { type: object }
      arguments: { type: list }
      variables: { type: string }
      directory: { type: string }
      files: { type: integer }
"#,
    );
    fs::create_dir(folder.path().join("tools")).unwrap();
    let script = r#"#!/bin/sh
read -r input
files=$(ls -A | wc -l)
touch litter
variables=$(env | cut -d= -f1 | grep -v -e '^PWD$' -e '^_$' -e '^SHLVL$' -e '^OLDPWD$' | sort | tr '\n' ' ')
printf '{"input": %s, "arguments": ["%s", "%s"], "variables": "%s%s", "directory": "%s", "files": %d}' \
    "$input" "$1" "$2" "$variables" "$GIVEN" "$(pwd)" "$files"
"#;
    program(folder.path(), "tools/look.sh", script);
    let place = Place::new();
    let found = outputs(&place, &folder)["look"].clone();
    assert_eq!(found["input"]["a"], json!([1, 2.5, "x"]));
    assert_eq!(found["input"]["cycle"].as_str().unwrap().len(), 36);
    assert_eq!(found["arguments"], json!(["two words", "$HOME"]), "no shell comes between");
    assert_eq!(found["variables"], "GIVEN PATH ROBO_RESOURCE a b");
    assert_eq!(found["files"], 0);
    let directory = Path::new(found["directory"].as_str().unwrap());
    assert!(directory.is_absolute() && !directory.exists(), "{}", directory.display());
}

#[test]
fn a_program_that_fails_says_why_and_what_can_be_tried_again_is() {
    let _turn = turn();
    let place = Place::new();
    let run = |script: &str, more: &str| {
        let folder = root(&format!(
            "  only:\n    uses: container/run\n    with: {{ runtime: process, command: [sh, -c, {script:?}]{more} }}\n    \
             outputs: {{ n: {{ type: integer }} }}\n    retry: {{ max_attempts: 2, initial_interval: 1ms }}\n"
        ));
        let ran = place.run(&["run-pipeline", &pipeline(&folder)]);
        let failure = failure(&place, &ran, "only");
        (
            failure["class"].as_str().unwrap().to_owned(),
            failure["message"].as_str().unwrap().to_owned(),
            attempts(&place),
        )
    };
    let (class, message, attempts) = run("for i in 1 2 3; do echo line $i >&2; done; exit 3", "");
    assert_eq!((class.as_str(), attempts), ("config", 1), "{message}");
    assert!(message.contains("`sh` failed (exit status: 3)\n  line 1\n  line 2\n  line 3"), "{message}");
    let (class, message, attempts) = run("exit 75", "");
    assert_eq!((class.as_str(), attempts), ("infra", 2), "{message}");
    let (class, message, attempts) = run("kill -9 $$", "");
    assert_eq!((class.as_str(), attempts), ("infra", 2), "{message}");
    assert!(message.contains("signal: 9"), "{message}");
    let (class, message, _) = run("echo nonsense", "");
    assert!(class == "config" && message.contains("`sh` is not one JSON value"), "{message}");
    let (class, message, _) = run("echo '{\"n\": 1.5}'", "");
    assert!(class == "config" && message.contains("`outputs.n` is a number that is not whole"), "{message}");
    let (class, message, _) = run("yes", ", max_bytes: 1000");
    assert!(class == "config" && message.contains("more than 1000 bytes"), "{message}");
}

/// How often the only task of the latest cycle was tried.
fn attempts(place: &Place) -> u64 {
    place.json(&["cycle", "show", "--format", "json"])["tasks"][0]["attempts"].as_u64().unwrap()
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_it_has_started() {
    let _turn = turn();
    let place = Place::new();
    let folder = root(&format!(
        "  only:\n    uses: container/run\n    timeout: 1s\n    retry: {{ max_attempts: 1 }}\n    with:\n      \
         runtime: process\n      command: [sh, -c, 'sleep 1000 & sleep 1000']\n      env: {{ MARK: {:?} }}\n",
        place.data.path().to_str().unwrap()
    ));
    let ran = place.run(&["run-pipeline", &pipeline(&folder)]);
    assert_eq!(failure(&place, &ran, "only")["class"], "timeout");
    // `MARK` holds the name of the place, by which its processes are found.
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

#[test]
fn a_program_ends_with_the_run() {
    let _turn = turn();
    let place = Place::new();
    let folder = root("");
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("sleep 1000 & echo up > {}; sleep 1000", fifo.display());
    write(
        folder.path(),
        &format!(
            "  only:\n    uses: container/run\n    with: {{ runtime: process, command: [sh, -c, {script:?}], env: {{ MARK: {:?} }} }}\n",
            place.data.path().to_str().unwrap()
        ),
    );
    let running = place.start(&["run-pipeline", &pipeline(&folder)]);
    // Opened only when the program has opened it, too.
    assert_eq!(fs::read_to_string(&fifo).unwrap(), "up\n");
    running.signal(nix::sys::signal::Signal::SIGINT);
    let ran = running.wait();
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(place.processes().is_empty(), "left running: {:?}", place.processes());
}

/// Made-up scores that go through the built-in rule, and somebody's own weights that do not.
fn made_up(pays: &str) -> TempDir {
    let entry = |uid: u16, rate: f64| {
        json!({
            "uid": uid, "hotkey": format!("m{uid}"), "environment": "family/task", "success_rate": rate,
            "interval": [0.0, 1.0], "mean_return": 0.5, "episodes": 100, "successes": 50, "outcomes": {"success": 50},
        })
    };
    let scores = json!([entry(2, 0.1), entry(1, 0.9)]);
    root(&format!(
        r#"  score:
    uses: container/run
    with: {{ runtime: process, command: [cat], input: {{ scores: {scores} }} }}
    outputs: {{ scores: {{ type: scores }} }}
  frontier: {{ depends_on: [score], uses: scores/pareto }}
  built_in: {{ depends_on: [frontier], uses: scores/weights }}
  own:
    depends_on: [frontier]
    uses: container/run
    with: {{ runtime: process, command: [cat], input: {{ vector: {{ m1: 1, stranger: 1 }} }} }}
    outputs: {{ vector: {{ type: weights }} }}
  publish: {{ depends_on: [{pays}], uses: weights/publish }}
"#
    ))
}

#[test]
fn scores_of_a_program_go_through_the_built_in_rule() {
    let _turn = turn();
    let place = Place::new();
    let found = outputs(&place, &made_up("built_in"));
    let shown = place.json(&["cycle", "show", "--format", "json"]);
    assert_eq!(shown["weights_document"]["weights"], found["built_in"]["weights"]["weights"]);
    assert!(shown["weights_document"]["weights"]["1"].as_f64().unwrap() > 0.5, "{shown}");
    let uids: Vec<u64> = shown["scores_document"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["uid"].as_u64().unwrap())
        .collect();
    assert_eq!(uids, [1, 2], "put in order");
}

#[test]
fn a_stranger_is_never_paid() {
    let _turn = turn();
    let place = Place::new();
    let ran = place.run(&["run-pipeline", &pipeline(&made_up("own"))]);
    let failure = failure(&place, &ran, "publish");
    assert_eq!(failure["class"], "config");
    assert_eq!(failure["message"], "`with.weights`: `stranger` is none of the miners that were scored");
    let weights = place.json(&["cycle", "show", "--format", "json"])["weights_document"].clone();
    assert!(weights.is_null(), "{weights}");
}

#[test]
fn a_cycle_is_pinned_to_its_programs() {
    let _turn = turn();
    let place = Place::new();
    let folder = root("");
    let target = folder.path().join("second.sh");
    write(
        folder.path(),
        &format!(
            "  first:\n    uses: container/run\n    with: {{ runtime: process, command: [sh, -c, 'echo >> {}; echo {{}}'] }}\n  \
             second:\n    depends_on: [first]\n    uses: container/run\n    with: {{ runtime: process, command: [./second.sh] }}\n",
            target.display()
        ),
    );
    program(folder.path(), "second.sh", "#!/bin/sh\necho '{}'\n");
    let hash = || place.json(&["plan", &pipeline(&folder), "--format", "json"])["definition_hash"].clone();
    let before = hash();
    let ran = place.run(&["run-pipeline", &pipeline(&folder)]);
    let failure = failure(&place, &ran, "second");
    assert_eq!(failure["class"], "config");
    assert!(failure["message"].as_str().unwrap().contains("`./second.sh` has changed since the cycle started"));
    assert!(before.is_string() && hash() != before, "the definition hash covers the program");
}

/// What an interpreter is given to run is found from where the program works, and is as much a part of the cycle as the program.
#[test]
fn files_among_the_arguments_are_found_and_pinned() {
    let _turn = turn();
    let (place, folder) = (Place::new(), root(""));
    fs::create_dir(folder.path().join("parts")).unwrap();
    let rule = folder.path().join("parts/rule.sh");
    fs::write(&rule, "echo \"{\\\"said\\\": \\\"$1\\\"}\"\n").unwrap();
    fs::write(folder.path().join("plain"), "").unwrap();
    let stage = |command: &str| {
        format!(
            "    uses: container/run\n    with: {{ runtime: process, command: [sh, {command}] }}\n    \
             outputs: {{ said: {{ type: string }} }}\n"
        )
    };
    let second = format!("  second:\n    depends_on: [first]\n{}", stage("./parts/rule.sh, x"));
    write(folder.path(), &format!("  first:\n{}{second}", stage("parts/rule.sh, no/such")));
    assert_eq!(outputs(&place, &folder)["first"]["said"], "no/such", "what is no file is passed as it is");
    let plan = || place.json(&["plan", &pipeline(&folder), "--format", "json"]);
    let before = plan();
    let digest = &before["definition"]["stages"][0]["with"]["files"]["parts/rule.sh"];
    assert_eq!(digest.as_str().unwrap().len(), 64, "{before}");

    // The first one changes what the second is about to run.
    let changes = format!("-c, 'echo >> {}; echo \"{{\\\"said\\\": \\\"\\\"}}\"', plain", rule.display());
    write(folder.path(), &format!("  first:\n{}{second}", stage(&changes)));
    let ran = place.run(&["run-pipeline", &pipeline(&folder)]);
    let failure = failure(&place, &ran, "second");
    assert!(failure["message"].as_str().unwrap().contains("`./parts/rule.sh` has changed since"), "{failure}");
    let linted = place.run(&["lint", &pipeline(&folder)]);
    assert!(linted.code == 0 && linted.stderr.contains("write `./plain`"), "{}", linted.stderr);
}

#[test]
fn rows_and_elements_flow_into_other_stages() {
    let _turn = turn();
    let folder = root(
        r#"  discover:
    uses: file/miners
    with:
      miners:
        - { uid: 1, hotkey: a, endpoint: "http://127.0.0.1:1", first_block: 7 }
        - { uid: 2, hotkey: b, endpoint: "http://127.0.0.1:2" }
  known:
    depends_on: [discover]
    uses: sql/query
    with: { query: "select uid, hotkey, first_block from miners order by uid desc" }
    outputs: { rows: { type: list } }
  facts:
    depends_on: [discover]
    uses: sql/query
    with: { query: "select count(*)::integer as n, max(uid) > 1 as several, 0.1::float8 as x, 'q' as s, array[1,2] as l from miners" }
    outputs: { n: { type: integer }, several: { type: boolean }, x: { type: number }, s: { type: string }, l: { type: list } }
  young:
    uses: expr/map
    depends_on: [known, facts]
    with:
      items: "${{ stages.known.rows }}"
      value: "${{ item.hotkey ~ index }}"
      where: "item.first_block == none and stages.facts.n == 2"
    outputs: { names: { type: list } }
"#,
    );
    let found = outputs(&Place::new(), &folder);
    assert_eq!(
        found["known"]["rows"],
        json!([{"uid": 2, "hotkey": "b", "first_block": null}, {"uid": 1, "hotkey": "a", "first_block": 7}])
    );
    assert_eq!(found["facts"], json!({"l": [1, 2], "n": 2, "s": "q", "several": true, "x": 0.1}));
    assert_eq!(found["young"], json!({"names": ["b0"]}));
}

#[test]
fn mistakes_are_told_before_anything_starts() {
    let lint = |stages: &str| {
        let folder = root(stages);
        let ran = Place::new().run(&["lint", &pipeline(&folder)]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        ran.stderr
    };
    let container = |with: &str| lint(&format!("  a: {{ uses: container/run, with: {{ {with} }} }}\n"));
    let said = container("runtime: process, image: python:3, command: [sh]");
    assert!(said.contains("`image` needs `runtime: docker`"), "{said}");
    assert!(container("runtime: docker, command: [sh]").contains("`runtime: docker` needs an `image`"));
    assert!(container("runtime: process").contains("needs a `command`"));
    assert!(container("runtime: process, command: []").contains("is empty"));
    assert!(container("runtime: process, command: [./nowhere.sh]").contains("cannot be read"));
    assert!(container("runtime: process, command: [sh], env: { A: 1 }").contains("values of `env` are texts"));
    assert!(container("runtime: process, command: [sh], digest: x").contains("no setting `digest`"));
    let map = |value: &str| {
        lint(&format!(
            "  a: {{ uses: expr/map, with: {{ items: [1], value: {value:?} }}, outputs: {{ x: {{ type: list }} }} }}\n"
        ))
    };
    assert!(map("itm.uid").contains("`itm` is not known here"));
    assert!(map("item.uid + stages.nope.x").contains("no stage `nope`"));
    assert!(map("stages.nope.x[item:][0]").contains("no stage `nope`"));
    assert!(map("item ~ secrets.KEY").contains("`secrets.KEY` is not known here"));
    assert!(map("item.uid +").contains("wrong"));
    let outputs =
        lint("  a: { uses: expr/map, with: { items: [1], value: item }, outputs: { x: { type: integer } } }\n");
    assert!(outputs.contains("`expr/map` gives a list, not integer"), "{outputs}");
    assert!(lint("  a: { uses: sql/query, with: { query: select 1 } }\n").contains("does not say what it gives"));
    assert!(lint("  a: { uses: webhook/send, with: { url: 'http://x' } }\n").contains("needs `payload` or `text`"));
    let both = lint("  a: { uses: webhook/send, with: { url: 'http://x', payload: 1, text: x } }\n");
    assert!(both.contains("not both"), "{both}");
    for url in ["hooks.example/x", "ftp://hooks.example", "http://"] {
        let said = lint(&format!("  a: {{ uses: webhook/send, with: {{ url: '{url}', text: x }} }}\n"));
        assert!(said.contains("no address of a web server") && said.contains("https://HOST"), "{url}: {said}");
    }
    // Of a secret a part, and what is made of one, would be shown.
    let parted = lint("  a: { uses: webhook/send, with: { url: 'http://x', text: '${{ secrets.KEY[:8] }}' } }\n");
    assert!(parted.contains("nothing would hide what is made of `secrets.KEY`"), "{parted}");
    let items = |with: &str| lint(&format!("  a: {{ {with}, outputs: {{ x: {{ type: list }} }} }}\n"));
    let mapped = items("uses: expr/map, with: { items: ['${{ secrets.KEY }}'], value: 'item[:3]' }");
    assert!(mapped.contains("`expr/map` takes apart what it is given"), "{mapped}");
    let asked = items("uses: sql/query, with: { query: \"select left('${{ secrets.KEY }}', 3) as a\" }");
    assert!(asked.contains("`sql/query` takes apart what it is given"), "{asked}");
}
