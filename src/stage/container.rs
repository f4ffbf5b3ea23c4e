//! `container/run`: a program of the operator's own, JSON in and JSON out, as a process or in a container.
//!
//! It sees its input, the variables it is given, PATH and the mark of the ledger; its working directory is empty and goes away
//! with it. It is killed with everything it has started when it ends, takes too long, or the cycle stops. In a container it sees
//! nothing of this machine and reaches nothing.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus};

use serde::Deserialize;
use serde_json::Value;

use super::{Context, Invocation, Output, chain, config, outputs};
use crate::cycle::{FailureClass, TaskFailure};
use crate::host::{
    child::{ChildError, LastWords, Program},
    environment::Role,
    ledger::{self, RecordError},
};
use crate::plan;
use crate::runtime::docker::{Command, Once, OnceError};

/// `EX_TEMPFAIL` of sysexits: the program asks to be tried again.
const TEMPORARY_FAILURE: i32 = 75;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[expect(dead_code, reason = "an image goes with `docker` and nothing else: the plan has seen to it")]
    runtime: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    image: Option<String>,
    input: Value,
    env: BTreeMap<String, String>,
    #[expect(dead_code, reason = "read by whoever decides whether the stage may run again")]
    pure: bool,
    max_bytes: usize,
    /// Of the program, as it was when the cycle was planned.
    #[serde(default)]
    digest: Option<String>,
    /// The same of the arguments that are files below the root.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

pub(super) async fn run<J>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let settings: Settings = invocation.settings()?;
    if let Some(image) = &settings.image {
        let said = in_container(&context.programs, image, &settings).await?;
        return outputs::checked(invocation.stage, read(image, &said)?).map(Output::from);
    }
    let Some(program) = settings.command.first() else {
        return Err(config("`with.command` is empty"));
    };
    let root = Path::new(&context.record.root);
    check_digest(&settings, root)?;
    let command = command(&settings, program, root);
    let (child, id) = ledger::start(command, &*context.ledger).await.map_err(|error| match error {
        RecordError::Child(error) => not_started(error),
        RecordError::Ledger(error) => infra(&error),
    })?;
    let input = settings.input.to_string();
    let conversation = child.converse(input.as_bytes(), settings.max_bytes).await;
    context.ledger.leave(id).await;
    let (status, said, last_words) = conversation.map_err(|error| match error {
        ChildError::TooMuch { .. } => config(error.to_string()),
        error => infra(&error),
    })?;
    if !status.success() {
        return Err(ended_badly(program, status, &last_words));
    }
    outputs::checked(invocation.stage, read(program, &said)?).map(Output::from)
}

fn read(program: &str, said: &[u8]) -> Result<Value, TaskFailure> {
    serde_json::from_slice(said)
        .map_err(|error| config(format!("the standard output of `{program}` is not one JSON value: {error}")))
}

/// Run it in a container; what it said.
async fn in_container(programs: &Once, image: &str, settings: &Settings) -> Result<Vec<u8>, TaskFailure> {
    let command = Command {
        image: image.to_owned(),
        command: settings.command.clone(),
        env: settings.env.clone().into_iter().collect(),
        input: settings.input.to_string().into_bytes(),
        max_bytes: settings.max_bytes,
    };
    let said = programs.run(command).await.map_err(|error| match error {
        OnceError::Place(error) => TaskFailure { class: FailureClass::Infra, message: error.explain() },
        error => config(error.to_string()),
    })?;
    match said.code {
        0 => Ok(said.output),
        code => {
            // What a signal ends has 128 and its number.
            let is_ours = code == i64::from(TEMPORARY_FAILURE) || code > 128;
            let class = if is_ours { FailureClass::Infra } else { FailureClass::Config };
            Err(TaskFailure { class, message: format!("`{image}` failed (exit code {code}){}", said.last_words) })
        }
    }
}

fn command(settings: &Settings, program: &str, root: &Path) -> Program {
    let name = format!("`{program}`");
    // Only a path is looked for below the root; a name is found in PATH.
    let program = if program.contains('/') { root.join(program) } else { program.into() };
    // The program works elsewhere, so files of the pipeline are named in full.
    let argument = |word: &String| match settings.files.contains_key(word) {
        true => root.join(word).into_os_string(),
        false => word.into(),
    };
    let arguments: Vec<std::ffi::OsString> = settings.command[1..].iter().map(argument).collect();
    let command = Program::new(Role::Stage, name, program).args(&arguments).unlogged();
    settings.env.iter().fold(command, |command, (name, value)| command.env(name, value))
}

/// A cycle is pinned to the program it began with, and to the files that are named among its arguments.
fn check_digest(settings: &Settings, root: &Path) -> Result<(), TaskFailure> {
    for (file, pinned) in &settings.files {
        unchanged(file, plan::file_digest(root, file), pinned)?;
    }
    let command = settings.command.clone().into();
    let (Some(pinned), Some(found)) = (&settings.digest, plan::program_digest(&command, root)) else { return Ok(()) };
    unchanged(&settings.command[0], found, pinned)
}

fn unchanged(file: &str, found: std::io::Result<String>, pinned: &str) -> Result<(), TaskFailure> {
    match found {
        Ok(found) if found == pinned => Ok(()),
        Ok(_) => Err(config(format!(
            "`{file}` has changed since the cycle started, which is pinned to it: restore it, or start a new cycle"
        ))),
        Err(error) => Err(config(format!("`{file}` cannot be read: {error}"))),
    }
}

fn not_started(error: ChildError) -> TaskFailure {
    use std::io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    let is_permanent = matches!(&error, ChildError::Start { source, .. }
        if matches!(source.kind(), NotFound | PermissionDenied | InvalidInput) || source.raw_os_error() == Some(nix::libc::ENOEXEC));
    if is_permanent { config(chain(&error)) } else { infra(&error) }
}

fn ended_badly(program: &str, status: ExitStatus, last_words: &LastWords) -> TaskFailure {
    let is_ours = status.code() == Some(TEMPORARY_FAILURE) || status.signal().is_some();
    let class = if is_ours { FailureClass::Infra } else { FailureClass::Config };
    TaskFailure { class, message: format!("`{program}` failed ({status}){last_words}") }
}

fn infra(error: &(dyn std::error::Error + 'static)) -> TaskFailure {
    TaskFailure { class: FailureClass::Infra, message: chain(error) }
}
