//! Checks a file by what it is: a pipeline, an environment manifest or a list of miners.
//!
//! Offline, and without values for inputs: what depends on an input that has no default is checked by type only.

use std::path::Path;

use crate::manifest::document::Document;
use crate::manifest::{self, Diagnostic, Diagnostics};

use super::inputs::{Bindings, Missing};
use super::{compile, miners};

/// Everything that is wrong with a file. Warnings are in it, too.
pub fn lint(path: &Path) -> Diagnostics {
    let document = match Document::read(path) {
        Ok(document) => document,
        Err(problem) => return problem.into(),
    };
    let has = |key: &str| document.get(document.root(), key).is_some();
    if has("stages") {
        return pipeline(path);
    }
    if has("family") {
        return environment(path);
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

fn pipeline(path: &Path) -> Diagnostics {
    let bindings = Bindings { flags: &[], variable: &|_| None, missing: Missing::Tolerate };
    match compile(path, &bindings) {
        Ok(compiled) => compiled.warnings,
        Err(found) => found,
    }
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
