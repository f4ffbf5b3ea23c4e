//! Checks a file by what it is: a pipeline, an environment manifest or a list of miners.
//!
//! Offline, and without values for inputs: what depends on an input that has no default is checked by type only.

use std::path::Path;

use crate::manifest::document::Document;
use crate::manifest::{self, Diagnostic, Diagnostics};

use super::inputs::{Bindings, Missing};
use super::{compile, miners};

/// Keys that only a pipeline or a part of one has.
const PARTS: [&str; 4] = ["stages", "include", "on_failure", "finally"];

/// Everything that is wrong with a file. Warnings are in it, too. Secrets are taken to be there.
pub fn lint(path: &Path) -> Diagnostics {
    lint_with(path, &|_| true)
}

/// The same, with a warning for every secret that is not there.
pub fn lint_with(path: &Path, secret: &dyn Fn(&str) -> bool) -> Diagnostics {
    let document = match Document::read(path) {
        Ok(document) => document,
        Err(problem) => return problem.into(),
    };
    let has = |key: &str| document.get(document.root(), key).is_some();
    if has("family") && !has("stages") {
        return environment(path);
    }
    let is_part = PARTS.iter().any(|key| has(key));
    if is_part && !has("version") && !has("name") {
        return fragment(&document);
    }
    if is_part {
        return pipeline(path, secret);
    }
    let mut found = Diagnostics::default();
    if document.is_list(document.root()) {
        miners::check_list(&document, &mut found);
    } else {
        let message = "this is neither a pipeline (`stages`) nor an environment manifest (`family`)";
        found.push(document.error(document.root(), message));
    }
    found.sorted()
}

fn pipeline(path: &Path, secret: &dyn Fn(&str) -> bool) -> Diagnostics {
    let bindings = Bindings { flags: &[], variable: &|_| None, missing: Missing::Tolerate };
    match compile(path, &bindings) {
        Ok(compiled) => {
            let mut warnings = compiled.missing_secrets(secret);
            warnings.extend(compiled.warnings);
            warnings.sorted()
        }
        Err(found) => found,
    }
}

/// A part of a pipeline is checked as a whole with the pipeline that includes it.
fn fragment(document: &Document) -> Diagnostics {
    let mut found = Diagnostics::default();
    manifest::fragment::check(document, &mut found);
    if !found.has_errors() {
        let message = "this has neither `version` nor `name`, so only its form was checked, as a part of a pipeline";
        let problem = document.error(document.root(), message).warning();
        found.push(problem.help("what it means is checked with the pipeline that includes it"));
    }
    found.sorted()
}

fn environment(path: &Path) -> Diagnostics {
    let mut found = Diagnostics::default();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = absolute.parent().unwrap_or(&absolute);
    match manifest::root_of(path) {
        // In its place the file is read with its neighbours, whose names it must not take.
        Ok(root) if directory == root.join("environments") => {
            let mut all = Diagnostics::default();
            manifest::load_all(&root, &mut all);
            let shown = manifest::shown_path(&absolute).display().to_string();
            all.iter().filter(|problem| problem.file.as_deref() == Some(shown.as_str())).cloned().for_each(|problem| {
                found.push(Diagnostic { file: Some(path.display().to_string()), ..problem });
            });
        }
        _ => {
            manifest::load(path, directory.parent().unwrap_or(directory), &mut found);
        }
    }
    found.sorted()
}
