//! What users of other engines suffer from, and that our language does not have it. Each test bears the lesson's number.

use std::fs;

use proptest::prelude::*;
use robo::plan;
use serde_json::{Map, Value, json};

use crate::language::{Root, compile};
use crate::support::program::{Place, repository};

const DISCOVER: &str =
    "discover: { uses: file/miners, with: { miners: [{ uid: 1, hotkey: a, endpoint: \"http://127.0.0.1:1\" }] } }";

/// Every mistake in a template is told when the file is read, where it is, with what was probably meant.
#[test]
fn lesson_7_errors_at_load() {
    let root = Root::new();
    for (stage, message, help) in [
        ("when: \"${{ stages.discover.cuont > 0 }}\"", "has no output `cuont`", "did you mean `count`?"),
        ("when: \"${{ stages.discovr.count > 0 }}\"", "there is no stage `discovr`", "did you mean `discover`?"),
        ("when: \"${{ inputs.netuit > 0 }}\"", "has no input `netuit`", "did you mean `netuid`?"),
        ("when: \"${{ input.netuid > 0 }}\"", "`input` is not known here", "did you mean `inputs`?"),
        ("when: \"${{ cycle.blok > 0 }}\"", "`cycle` has no field `blok`", "did you mean `block`?"),
        ("when: \"${{ true && false }}\"", "the expression is wrong", "write `and` in place of `&&`"),
        ("when: \"${{ inputs.netuid }}\"", "a condition is true or false, this is integer", ""),
        (
            "when: \"${{ stages.discover.miners | lenght > 0 }}\"",
            "there is no function `lenght`",
            "did you mean `length`?",
        ),
        ("when: \"${{ stages.discover.count is definde }}\"", "nothing `is definde`", "did you mean `defined`?"),
        ("whn: true", "unknown key `whn`", "did you mean `when`?"),
        ("matrix: { x: \"${{ stages.discover.count }}\" }", "a matrix needs a list, this is integer", ""),
    ] {
        let text = format!(
            "version: 1\nname: p\ninputs: {{ netuid: {{ type: integer, default: 1 }} }}
stages: {{
  s: {{ uses: environments/teardown, {stage} }},
  {DISCOVER} }}\n"
        );
        let file = root.write("pipelines/p.yaml", &text);
        let problems = compile(&file).map(|compiled| compiled.definition).expect_err(stage);
        let problem = problems.iter().find(|problem| problem.message.contains(message));
        let problem = problem.unwrap_or_else(|| panic!("{stage}: {problems}"));
        let pointer = problem.pointer.as_ref().unwrap();
        assert_eq!(pointer.line, 5, "{stage}: {problems}");
        let before = pointer.source.find(stage).unwrap();
        assert!((before..before + stage.len()).contains(&(pointer.column - 1)), "{stage}: {problems}");
        assert!(problem.suggestion.as_deref().unwrap_or_default().contains(help), "{stage}: {problems}");
        // Lint is the same code: it misses nothing of it and adds nothing.
        assert_eq!(plan::lint(&file).to_string(), problems.to_string(), "{stage}");
    }
}

/// Lint does not invent mistakes either.
#[test]
fn lesson_7_what_is_right_is_silent() {
    let ran = Place::new().run(&["lint", "pipelines/quickstart.yaml", "environments"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
}

/// A dependency that is only inferred works, and is pointed out.
#[test]
fn lesson_7_an_inferred_dependency_is_pointed_out() {
    let root = Root::new();
    let text = |depends_on: &str| {
        format!(
            "version: 1\nname: p\nstages: {{ {DISCOVER}, s: {{ {depends_on}uses: environments/teardown, when: \"${{{{ stages.discover.count > 0 }}}}\" }} }}\n"
        )
    };
    let file = root.write("pipelines/p.yaml", &text(""));
    let inferred = compile(&file).unwrap();
    let warning = inferred.warnings.to_string();
    assert!(warning.starts_with("warning: `s` waits for `discover` only because it uses its output"), "{warning}");
    assert!(warning.contains("`depends_on: [discover]`"), "{warning}");
    root.write("pipelines/p.yaml", &text("depends_on: [discover], "));
    let declared = compile(&file).unwrap();
    assert!(declared.warnings.is_empty(), "{}", declared.warnings);
    assert_eq!(declared.definition.hash(), inferred.definition.hash());
}

/// What is missing is an error and never an empty text; values travel as JSON, never spliced into text.
#[test]
fn lesson_7_missing_is_not_empty() {
    let context = json!({ "stages": { "a": { "miner": { "uid": 1 }, "quoted": "a\" ] }} ${{ inputs.x }}" } } });
    for missing in [
        "stages.a.gone",
        "stages.a.miner.hotkey",
        "stages.b.x",
        "stages.a.miner.hotkey ~ 'x'",
        "stages.a.gone == ''",
        "stages.a.gone | length",
    ] {
        for text in [format!("${{{{ {missing} }}}}"), format!("before ${{{{ {missing} }}}} after")] {
            let error = plan::render(&json!(text), &context).expect_err(&text);
            assert!(error.message.contains("no value"), "{text}: {error}");
        }
        assert!(plan::truth(missing, &context).is_err(), "{missing}");
    }
    let value =
        plan::render(&json!({ "x": "${{ stages.a.quoted }}", "y": "${{ stages.a.miner }}" }), &context).unwrap();
    assert_eq!(value, json!({ "x": "a\" ] }} ${{ inputs.x }}", "y": { "uid": 1 } }));
}

/// A definition is what the files say. Another value anywhere is another definition, in an included file too.
#[test]
fn lesson_5_an_edit_anywhere_is_another_definition() {
    let root = Root::new();
    let hash = |part: &str| {
        root.write("pipelines/parts/part.yaml", part);
        root.define(&format!("include: [parts/part.yaml]\nstages: {{ {DISCOVER} }}\n")).hash()
    };
    let first = hash("finally: { last: { uses: environments/teardown, timeout: 60s } }\n");
    assert_eq!(hash("# why\nfinally:\n  last:\n    timeout: 1m # soon\n    uses: environments/teardown\n"), first);
    assert_ne!(hash("finally: { last: { uses: environments/teardown, timeout: 61s } }\n"), first);
    assert_ne!(hash("finally: { end: { uses: environments/teardown, timeout: 60s } }\n"), first);
}

/// The value with the keys of every mapping in another order.
fn shuffled(value: &Value, random: &mut impl FnMut() -> u64) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(u64, String, Value)> =
                fields.iter().map(|(name, field)| (random(), name.clone(), shuffled(field, random))).collect();
            fields.sort_by_key(|(place, ..)| *place);
            Value::Object(fields.into_iter().map(|(_, name, field)| (name, field)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| shuffled(item, random)).collect(),
        other => other.clone(),
    }
}

fn everything() -> String {
    fs::read_to_string(repository().join("src/tests/fixtures/manifest/pipelines/language.yaml")).unwrap()
}

fn with_parts() -> Root {
    let root = Root::new();
    let part = repository().join("src/tests/fixtures/manifest/pipelines/parts/cleanup.yaml");
    root.write("pipelines/parts/cleanup.yaml", &fs::read_to_string(part).unwrap());
    root
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lesson_6_comments_and_key_order_never_matter(seed in any::<u64>(), comment in "[ -~]{0,30}") {
        let root = with_parts();
        let hash = |text: &str| compile(&root.write("pipelines/language.yaml", text)).unwrap().definition.hash();
        let first = hash(&everything());
        // Comments, empty lines and space at the ends of lines.
        let commented: String = everything().lines().map(|line| format!("# {comment}\n\n{line}   \n")).collect();
        prop_assert_eq!(hash(&commented), first.clone());
        // Every mapping in another order, and in the form of JSON.
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let value: Value = serde_yaml::from_str(&everything()).unwrap();
        let other = shuffled(&value, &mut random);
        prop_assert_eq!(hash(&serde_json::to_string_pretty(&other).unwrap()), first);
    }
}
