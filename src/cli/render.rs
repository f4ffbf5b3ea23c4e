//! Printing: the only place that writes to standard output and standard error.

use std::{
    io::{ErrorKind, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use clap::ValueEnum;

use super::exit::{Exit, Failure};

/// How a verb shows what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
}

/// Print text to standard output, as it is. A reader that has gone away (`| head`) ends the process quietly.
pub(super) fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(Exit::Ok as i32);
        }
        note(format!("error: cannot write to standard output: {error}"));
        std::process::exit(Exit::Failed as i32);
    }
}

/// Print a line to standard output.
pub(super) fn line(text: impl AsRef<str>) {
    print(&format!("{}\n", text.as_ref()));
}

/// Print a value as indented JSON.
pub(super) fn json(value: &serde_json::Value) {
    line(format!("{value:#}"));
}

/// Print a line to standard error. Nobody may be there to read it (a closed terminal, a full disk under a log file): that
/// must not end a cycle.
pub(super) fn note(text: impl AsRef<str>) {
    if LOGGED.load(Ordering::Relaxed) {
        tracing::info!("{}", text.as_ref().trim());
        return;
    }
    let _ = writeln!(anstream::stderr().lock(), "{}", text.as_ref());
}

/// From now on notes are lines of the log, as all that is on standard error is for programs.
pub(super) fn note_as_log_lines() {
    LOGGED.store(true, Ordering::Relaxed);
}

/// Whether notes are lines of the log.
static LOGGED: AtomicBool = AtomicBool::new(false);

/// Print why a verb failed: the error, its causes, and what to do.
pub(super) fn failure(failure: &Failure) {
    if LOGGED.load(Ordering::Relaxed) {
        tracing::error!(hint = failure.hints.join("; "), "{:#}", failure.error);
        return;
    }
    note(format!("error: {}", failure.error));
    for cause in failure.error.chain().skip(1) {
        note(format!("  caused by: {cause}"));
    }
    if !failure.hints.is_empty() {
        note("");
    }
    for hint in &failure.hints {
        note(format!("hint: {hint}"));
    }
}
