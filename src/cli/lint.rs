//! `robo lint`: check pipelines and environment manifests without running anything.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config;
use crate::manifest::{self, Diagnostic, Diagnostics, Severity};
use crate::plan;

use super::exit::{Exit, Result};
use super::render::{self, Format};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  robo lint\n  robo lint pipelines/quickstart.yaml environments/\n\nWhat a file is follows from what it holds. Nothing is printed when all is well; the exit code is 2 when anything is wrong."
)]
pub(super) struct Args {
    /// Files, directories of them, or a directory with pipelines/ and environments/ [default: the current directory]
    pub(super) paths: Vec<PathBuf>,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

pub(super) async fn run(args: Args) -> Result {
    let found = check(&args.paths);
    match args.format {
        Format::Json => {
            let all: Vec<&Diagnostic> = found.iter().collect();
            let errors = found.errors();
            render::json(&json!({ "diagnostics": all, "errors": errors, "warnings": all.len() - errors }));
        }
        Format::Table if !found.is_empty() => render::note(found.to_string()),
        Format::Table => {}
    }
    Ok(if found.has_errors() { Exit::Usage } else { Exit::Ok })
}

/// Everything that is wrong with these files, or with those of the project here.
pub(super) fn check(paths: &[PathBuf]) -> Diagnostics {
    let mut found = Diagnostics::default();
    for file in files(paths, &mut found) {
        found.extend(plan::lint_with(&file, &config::has_secret));
    }
    // What is an error in a file of its own is not repeated as a warning for the pipelines beside it.
    let is_error = |one: &Diagnostic| found.iter().any(|it| it.severity == Severity::Error && is_same(it, one));
    let told = found.iter().filter(|one| one.severity == Severity::Error || !is_error(one));
    told.cloned().collect()
}

/// Whether two are about the same mistake.
fn is_same(one: &Diagnostic, other: &Diagnostic) -> bool {
    let file = |one: &Diagnostic| one.file.as_ref().and_then(|file| std::fs::canonicalize(file).ok());
    (&one.pointer, &one.message) == (&other.pointer, &other.message) && file(one) == file(other)
}

/// Every file to check; what cannot be found is reported.
fn files(paths: &[PathBuf], found: &mut Diagnostics) -> Vec<PathBuf> {
    let usual = manifests_of(Path::new(""));
    let paths = if paths.is_empty() { usual.as_slice() } else { paths };
    if paths.is_empty() {
        let problem = Diagnostic::of_command_line("there is neither `pipelines/` nor `environments/` here");
        found.push(problem.help("name the files to check: `robo lint PATH...`"));
    }
    let mut files = Vec::new();
    for path in paths {
        let directories = match path.is_dir() {
            true => Some(manifests_of(path)).filter(|inner| !inner.is_empty()).unwrap_or_else(|| vec![path.clone()]),
            false => Vec::new(),
        };
        if directories.is_empty() {
            files.push(path.clone());
        }
        files.extend(directories.iter().flat_map(|directory| inside(directory, found)));
    }
    files
}

/// The directories of manifests in a directory that holds a whole project.
pub(super) fn manifests_of(project: &Path) -> Vec<PathBuf> {
    ["pipelines", "environments"].iter().map(|name| project.join(name)).filter(|path| path.is_dir()).collect()
}

fn inside(directory: &Path, found: &mut Diagnostics) -> Vec<PathBuf> {
    let name = directory.display().to_string();
    let files = match manifest::yaml_files(directory) {
        Ok(files) => files,
        Err(error) => {
            found.push(Diagnostic::of_file(&name, format!("cannot read the directory: {error}")));
            return Vec::new();
        }
    };
    if files.is_empty() {
        found.push(Diagnostic::of_file(&name, "there are no YAML files in this directory"));
    }
    files
}
