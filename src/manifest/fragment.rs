//! `include`: files that hold more of a pipeline, taken in before anything is checked.
//!
//! What comes out is the pipeline as if it had been written in one file, except that every mistake still points into the
//! file that holds it. Reads files below the pipeline's root and no others.

use std::path::{Path, PathBuf};

use super::decode::{decode, decode_at};
use super::diagnostic::Diagnostics;
use super::document::{Document, NodeId};
use super::located::{Entries, Located};
use super::pipeline::{Defaults, Fragment, Pipeline};
use super::shown_path;

/// The most files one pipeline may be made of.
const MOST_FILES: usize = 100;

const VERSION: u32 = 1;

/// Read a pipeline with everything it includes, and the files that are. None when something was wrong, which `found` then tells.
pub(crate) fn read_pipeline(
    document: &mut Document,
    path: &Path,
    root: &Path,
    found: &mut Diagnostics,
) -> Option<(Pipeline, Vec<PathBuf>)> {
    let mut files =
        Files { root: std::fs::canonicalize(root).ok()?, open: Vec::new(), taken: Vec::new(), roots: Vec::new() };
    let mut problems = Diagnostics::default();
    let own = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    files.take(document, document.root(), &own, &mut problems);
    // Without all of its files nothing can be said about names; about form it can.
    let complete = !problems.has_errors();
    found.extend(problems);
    let pipeline: Option<Pipeline> = decode(document, found);
    let fragments: Vec<Option<Fragment>> = files.roots.iter().map(|node| decode_at(document, *node, found)).collect();
    let fragments: Vec<Fragment> = fragments.into_iter().collect::<Option<_>>()?;
    let mut pipeline = pipeline.filter(|_| complete)?;
    if pipeline.stages.is_none() && fragments.is_empty() {
        found.push(document.error(document.root(), "`stages` is missing"));
        return None;
    }
    for fragment in fragments {
        merge(document, &mut pipeline, fragment, found);
    }
    Some((pipeline, files.taken))
}

/// Check the form of a file that is only a part of a pipeline. What its names mean is known where it is included.
pub(crate) fn check(document: &Document, found: &mut Diagnostics) {
    let _: Option<Fragment> = decode(document, found);
}

/// The files of one pipeline.
struct Files {
    /// Where all of them must lie.
    root: PathBuf,
    /// Those being read, the pipeline first: each includes the next.
    open: Vec<PathBuf>,
    /// Those read; a file that is included twice counts once.
    taken: Vec<PathBuf>,
    /// Where the included ones begin in the document.
    roots: Vec<NodeId>,
}

impl Files {
    /// Take in all that the file at `node` includes.
    fn take(&mut self, document: &mut Document, node: NodeId, file: &Path, found: &mut Diagnostics) {
        self.open.push(file.to_owned());
        let entries = document.get(node, "include").map(|list| document.items(list).to_vec()).unwrap_or_default();
        for entry in entries {
            // What is no text is reported when the form is checked.
            let Some(written) = document.text(entry).map(str::to_owned) else { continue };
            match self.read(&written, file) {
                Ok(None) => {}
                Ok(Some((path, more))) => {
                    let more = document.take_in(more);
                    self.roots.push(more);
                    self.take(document, more, &path, found);
                }
                Err(Refusal::Located(problem)) => found.push(*problem),
                Err(Refusal::Name(message)) => found.push(document.error(entry, message)),
            }
        }
        self.open.pop();
    }

    fn read(&mut self, written: &str, from: &Path) -> Result<Option<(PathBuf, Document)>, Refusal> {
        let beside = from.parent().unwrap_or(from).join(written);
        let path = std::fs::canonicalize(&beside)
            .map_err(|error| Refusal::Name(format!("cannot include `{written}`: {error}")))?;
        if !path.starts_with(&self.root) {
            let message = format!("`{written}` lies outside the directory that holds `environments`");
            return Err(Refusal::Name(message));
        }
        if let Some(first) = self.open.iter().position(|open| *open == path) {
            let circle = self.open[first..].iter().chain([&path]).map(|file| shown_path(file).display().to_string());
            let circle = circle.collect::<Vec<_>>().join(" -> ");
            return Err(Refusal::Name(format!("files include each other in a circle: {circle}")));
        }
        if self.taken.contains(&path) {
            return Ok(None);
        }
        if self.taken.len() == MOST_FILES {
            return Err(Refusal::Name(format!("a pipeline is made of at most {MOST_FILES} files")));
        }
        self.taken.push(path.clone());
        let document = Document::read(&shown_path(&path)).map_err(|problem| match problem.pointer {
            Some(_) => Refusal::Located(Box::new(problem)),
            None => Refusal::Name(format!("cannot include `{written}`: {}", problem.message)),
        })?;
        Ok(Some((path, document)))
    }
}

/// Why a file was not taken in.
enum Refusal {
    /// Something in it.
    Located(Box<super::Diagnostic>),
    /// Something about its name.
    Name(String),
}

fn merge(document: &Document, pipeline: &mut Pipeline, fragment: Fragment, found: &mut Diagnostics) {
    if let Some(version) = fragment.version.filter(|version| version.value != VERSION) {
        let message = format!("version {} is not known; this is version {VERSION}", version.value);
        found.push(document.error(version.at, message));
    }
    join(document, "an input", &mut pipeline.inputs, fragment.inputs, found);
    join(document, "a pool", &mut pipeline.pools, fragment.pools, found);
    merge_defaults(document, &mut pipeline.defaults, fragment.defaults, found);
    // Names of stages are compared when all are known: one name stands for one stage in any part of the pipeline.
    let none = Located { at: document.root(), value: Entries::default() };
    pipeline.stages.get_or_insert(none).value.0.extend(fragment.stages.0);
    pipeline.on_failure.0.extend(fragment.on_failure.0);
    pipeline.finally.0.extend(fragment.finally.0);
}

fn join<T>(document: &Document, what: &str, known: &mut Entries<T>, more: Entries<T>, found: &mut Diagnostics) {
    for (name, value) in more.0 {
        match known.0.iter().find(|(other, _)| other.value == name.value) {
            Some((other, _)) => {
                let message = format!("there is {what} `{}` already, at {}", name.value, document.place(other.at));
                found.push(document.error(name.at, message));
            }
            None => known.0.push((name, value)),
        }
    }
}

fn merge_defaults(document: &Document, known: &mut Defaults, more: Defaults, found: &mut Diagnostics) {
    let mut setter = Setter { document, found };
    setter.set("retry", &mut known.retry, more.retry);
    setter.set("timeout", &mut known.timeout, more.timeout);
    setter.set("queue_timeout", &mut known.queue_timeout, more.queue_timeout);
    setter.set("pool", &mut known.pool, more.pool);
    setter.set("expect", &mut known.expect, more.expect);
}

struct Setter<'a> {
    document: &'a Document,
    found: &'a mut Diagnostics,
}

impl Setter<'_> {
    fn set<T>(&mut self, key: &str, known: &mut Option<Located<T>>, more: Option<Located<T>>) {
        match (known.as_ref(), more) {
            (Some(known), Some(more)) => {
                let message = format!("`defaults.{key}` is set already, at {}", self.document.place(known.at));
                self.found.push(self.document.error(more.at, message));
            }
            (None, Some(more)) => *known = Some(more),
            (_, None) => {}
        }
    }
}
