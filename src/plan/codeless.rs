//! What must hold for the kinds that run an operator's own program, query, expression or call, beyond the types of their
//! settings; and the digest that pins a program to the cycle.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::manifest::{Diagnostic, Diagnostics};

use super::draft::Draft;
use super::references::Scope;

/// Check every stage of those kinds.
pub(super) fn check(scope: &Scope<'_>, found: &mut Diagnostics) {
    for draft in scope.drafts {
        let problem = match draft.kind.map(|kind| kind.name) {
            Some("container/run") => container(scope, draft),
            Some("webhook/send") => webhook(scope, draft),
            Some("sql/query") if draft.wire.outputs.0.is_empty() => Some(no_outputs(scope, draft)),
            Some("expr/map") => mapping(scope, draft),
            _ => None,
        };
        if let Some(problem) = problem {
            found.push(problem);
        }
    }
}

fn container(scope: &Scope<'_>, draft: &Draft<'_>) -> Option<Diagnostic> {
    let problem = |name: &str, message: &str| scope.document.error(draft.setting_at(name), message);
    let in_container = is_in_container(&draft.with);
    if in_container && !draft.with.contains_key("image") {
        return Some(problem("runtime", "`runtime: docker` needs an `image`"));
    }
    if !in_container && draft.with.contains_key("image") {
        let problem = problem("image", "an `image` needs `runtime: docker`");
        return Some(problem.help("`runtime: process` runs a `command` on this machine"));
    }
    let texts = |value: &Value| value.as_array().is_some_and(|words| words.iter().all(Value::is_string));
    match draft.with.get("command") {
        None if in_container => None,
        None => Some(problem("command", "`runtime: process` needs a `command`")),
        Some(Value::Array(words)) if words.is_empty() => Some(problem("command", "the `command` is empty")),
        Some(command) if command.is_array() && !texts(command) => {
            Some(problem("command", "a `command` is a list of texts").help("write numbers in quotes"))
        }
        Some(_) => match draft.with.get("env") {
            Some(Value::Object(variables)) if !variables.values().all(Value::is_string) => {
                Some(problem("env", "the values of `env` are texts").help("write numbers in quotes"))
            }
            _ => None,
        },
    }
}

/// Whether a program runs in a container, where the files of this machine are not.
fn is_in_container(with: &Map<String, Value>) -> bool {
    with.get("runtime").is_some_and(|runtime| runtime == "docker")
}

fn no_outputs(scope: &Scope<'_>, draft: &Draft<'_>) -> Diagnostic {
    let problem = scope.document.error(draft.at, format!("`{}` does not say what it gives", draft.id));
    problem.help("declare it: `outputs: { NAME: { type: TYPE } }`")
}

fn mapping(scope: &Scope<'_>, draft: &Draft<'_>) -> Option<Diagnostic> {
    let mut outputs = draft.wire.outputs.0.iter();
    let Some((name, output)) = outputs.next() else { return Some(no_outputs(scope, draft)) };
    if let Some((more, _)) = outputs.next() {
        return Some(scope.document.error(more.at, "`expr/map` gives one list, so it has one output"));
    }
    let problem = || {
        let problem = scope.document.error(name.at, format!("`expr/map` gives a list, not {}", output.kind.word()));
        problem.help("declare its type as list, miners, scores or weights")
    };
    (!output.kind.takes_list()).then(problem)
}

fn webhook(scope: &Scope<'_>, draft: &Draft<'_>) -> Option<Diagnostic> {
    let written = |name: &str| draft.wire.with.0.iter().any(|(setting, _)| setting.value == name);
    match (written("payload"), written("text")) {
        (false, false) => Some(scope.document.error(draft.at, "`webhook/send` needs `payload` or `text`")),
        (true, true) => {
            Some(scope.document.error(draft.setting_at("text"), "`webhook/send` takes `payload` or `text`, not both"))
        }
        _ => draft.with.get("url").and_then(Value::as_str).and_then(|url| wrong_address(scope, draft, url)),
    }
}

/// What is wrong with an address that is known before the start.
fn wrong_address(scope: &Scope<'_>, draft: &Draft<'_>, url: &str) -> Option<Diagnostic> {
    let is_right = || url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.contains("${{") || is_right() {
        return None;
    }
    let problem = scope.document.error(draft.setting_at("url"), "the `url` is no address of a web server");
    Some(problem.help("write `https://HOST/PATH`, or take it from a secret: `${{ secrets.WEBHOOK }}`"))
}

/// Write the digest of a program that lies below the root into the settings: what runs is part of the definition.
pub(super) fn pin_program(
    scope: &Scope<'_>,
    index: usize,
    with: &mut Map<String, Value>,
    root: &Path,
    found: &mut Diagnostics,
) {
    if is_in_container(with) {
        return;
    }
    let at = scope.drafts[index].setting_at("command");
    let command = with.get("command").cloned().unwrap_or_default();
    match program_digest(&command, root) {
        None => {}
        Some(Ok(digest)) => drop(with.insert("digest".into(), digest.into())),
        Some(Err(error)) => {
            let problem = scope.document.error(at, format!("the program cannot be read: {error}"));
            found.push(problem.help("a program with a `/` in it is a file below the pipeline's root"));
        }
    }
    match argument_digests(&command, root) {
        Ok(files) if files.is_empty() => {}
        Ok(files) => drop(with.insert("files".into(), Value::Object(files))),
        Err(error) => {
            found.push(scope.document.error(at, format!("a file among the arguments cannot be read: {error}")))
        }
    }
    // It would not be there: the program has an empty directory of its own to work in.
    for bare in arguments(&command).filter(|word| !word.contains('/') && root.join(word).is_file()) {
        let message = format!("`{bare}` is passed as it is, and the file of that name is not where the program runs");
        found.push(scope.document.error(at, message).warning().help(format!("write `./{bare}` if the file is meant")));
    }
}

/// What comes after the program in a command.
fn arguments(command: &Value) -> impl Iterator<Item = &str> {
    command.as_array().into_iter().flatten().skip(1).filter_map(Value::as_str)
}

/// SHA-256, in hex, of every argument with a `/` in it that is a file below the root.
fn argument_digests(command: &Value, root: &Path) -> io::Result<Map<String, Value>> {
    let is_below = |word: &&str| {
        let is_plain = |step| matches!(step, std::path::Component::Normal(_) | std::path::Component::CurDir);
        word.contains('/') && !word.contains("${{") && Path::new(word).components().all(is_plain)
    };
    let files = arguments(command).filter(is_below).filter(|word| root.join(word).is_file());
    files.map(|word| Ok((word.to_owned(), file_digest(root, word)?.into()))).collect()
}

/// SHA-256, in hex, of a file below the root.
///
/// # Errors
/// When it cannot be read.
pub fn file_digest(root: &Path, file: &str) -> io::Result<String> {
    Ok(hex::encode(Sha256::digest(fs::read(root.join(file))?)))
}

/// SHA-256, in hex, of the program that a command starts; none if it is not a file below the root.
pub fn program_digest(command: &Value, root: &Path) -> Option<io::Result<String>> {
    let program = command.get(0)?.as_str()?;
    let is_ours = program.contains('/') && !program.starts_with('/') && !program.contains("${{");
    is_ours.then(|| file_digest(root, program))
}
