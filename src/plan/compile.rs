//! From a pipeline's file to the definition a cycle is pinned to.
//!
//! Passes, each over all stages so that every mistake is told at once: read, bind inputs, select environments, resolve
//! names, check expressions, expand matrices, check limits, order, resolve settings, check the whole. Reads the pipeline, the
//! environment manifests and the build files below the root; changes nothing.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::manifest::decode::decode;
use crate::manifest::document::Document;
use crate::manifest::located::Located;
use crate::manifest::pipeline::{ExpectWire, Pipeline, RetryWire};
use crate::manifest::{self, Diagnostic, Diagnostics};
use crate::schedule::Schedule;

use super::draft::{self, Added, Draft};
use super::graph_of_drafts::{Ancestry, ancestry};
use super::inputs::{self, Bindings, Inputs};
use super::references::{Found, Scope};
use super::{
    Definition, Environment, Expect, Retry, Stage, definition, environments, matrix, miners, rules, schedule, settings,
};

const VERSION: u32 = 1;
const DEFAULT_TIMEOUT_MS: u64 = 60 * 60 * 1000;

fn default_retry() -> Retry {
    Retry {
        max_attempts: 3,
        initial_interval_ms: 2_000,
        backoff: 2.0,
        max_interval_ms: 60_000,
        jitter: 0.2,
        on: definition::retryable(),
        then: definition::Then::Fail,
    }
}

/// A pipeline that can be run.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What a cycle is pinned to.
    pub definition: Definition,
    /// The directory that its paths are relative to.
    pub root: PathBuf,
    /// When it runs by itself. No part of the definition: the same cycle may be started by hand.
    pub schedules: Vec<Schedule>,
    /// What is probably not meant.
    pub warnings: Diagnostics,
}

/// Compile a pipeline's file.
///
/// # Errors
/// [`Diagnostics`] with every mistake found in the pipeline, in the manifests it uses, and in the bindings.
pub fn compile(path: &Path, bindings: &Bindings<'_>) -> Result<Compiled, Diagnostics> {
    let mut found = Diagnostics::default();
    let document = Document::read(path).and_then(|document| expect_pipeline(&document).map(|()| document));
    let compiled = document.map_err(Diagnostics::from).and_then(|document| {
        let pipeline: Option<Pipeline> = decode(&document, &mut found);
        let root = manifest::root_of(path).map_err(|problem| found.push(problem)).ok();
        let families = root.as_deref().map(|root| manifest::load_all(root, &mut found));
        let (Some(pipeline), Some(root), Some(families)) = (pipeline, root, families) else {
            return Err(Diagnostics::default());
        };
        check_head(&document, &pipeline, &mut found);
        let schedules = schedule::read(&document, &pipeline.schedule, &mut found);
        let inputs = inputs::bind(&document, &pipeline.inputs, bindings, &mut found);
        let selected = environments::select(&document, &pipeline.environments, &families, &mut found);
        let compiler =
            Compiler { document: &document, pipeline: &pipeline, root: &root, inputs, environments: selected };
        compiler.definition(&mut found).map(|definition| (definition, root, schedules)).ok_or_else(Diagnostics::default)
    });
    match compiled {
        Ok((definition, root, schedules)) if !found.has_errors() => {
            Ok(Compiled { definition, root, schedules, warnings: found.sorted() })
        }
        Ok(_) => Err(found.sorted()),
        Err(more) => {
            found.extend(more);
            Err(found.sorted())
        }
    }
}

/// One error for a file that is something else, in place of one for each of its keys.
fn expect_pipeline(document: &Document) -> Result<(), Diagnostic> {
    let has = |key: &str| document.get(document.root(), key).is_some();
    let what = match (document.is_list(document.root()), has("family") && !has("stages")) {
        (true, _) => "a list",
        (_, true) => "an environment manifest",
        _ => return Ok(()),
    };
    Err(document.error(document.root(), format!("this is {what}, and not a pipeline")).help("a pipeline has `stages`"))
}

/// Version and name.
fn check_head(document: &Document, pipeline: &Pipeline, found: &mut Diagnostics) {
    if pipeline.version.value != VERSION {
        let message = format!("version {} is not known; this is version {VERSION}", pipeline.version.value);
        found.push(document.error(pipeline.version.at, message));
    }
    let name = &pipeline.name.value;
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    if !(letters && name.len() <= 63 && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())) {
        let message = format!("`{name}` is not a pipeline name (a-z, 0-9, `-` and `_`, starting with a letter)");
        found.push(document.error(pipeline.name.at, message));
    }
}

struct Compiler<'a> {
    document: &'a Document,
    pipeline: &'a Pipeline,
    root: &'a Path,
    inputs: Inputs,
    environments: Vec<Environment>,
}

impl Compiler<'_> {
    fn definition(self, found: &mut Diagnostics) -> Option<Definition> {
        let ids: Vec<String> =
            self.environments.iter().map(|environment| environment.simulation.environment.to_string()).collect();
        let mut drafts = draft::drafts(self.document, self.pipeline, found);
        self.check_expressions(&ids, &mut drafts, found);
        self.expand(&ids, &mut drafts, found);
        let limits: Vec<(Retry, Expect)> = drafts.iter().map(|draft| self.limits(draft, found)).collect();
        let ancestry = match ancestry(self.document, &drafts) {
            Ok(ancestry) => ancestry,
            Err(problem) => {
                found.push(problem);
                return None;
            }
        };
        self.resolve_settings(&ids, &ancestry, &mut drafts, found);
        rules::check(&self.scope(&ids, &drafts), &ancestry, found);
        let in_order = ancestry.order.iter();
        let stages: Vec<Stage> = in_order.filter_map(|index| self.stage(&drafts, *index, &limits[*index])).collect();
        if found.has_errors() {
            return None;
        }
        let (main, last): (Vec<Stage>, Vec<Stage>) =
            stages.into_iter().partition(|stage| stage.phase == super::Phase::Main);
        Some(Definition {
            version: VERSION,
            pipeline: self.pipeline.name.value.clone(),
            inputs: self.inputs.values,
            environments: self.environments,
            pools: Default::default(),
            concurrency: None,
            stages: main.into_iter().chain(last).collect(),
        })
    }

    fn scope<'s>(&'s self, environments: &'s [String], drafts: &'s [Draft<'s>]) -> Scope<'s> {
        Scope { document: self.document, inputs: &self.inputs, environments, drafts }
    }

    /// Check every expression of every stage; what refers to a stage waits for it.
    fn check_expressions(&self, ids: &[String], drafts: &mut [Draft<'_>], found: &mut Diagnostics) {
        let mut inferred = Vec::new();
        for index in 0..drafts.len() {
            let wire = drafts[index].wire;
            let scope = self.scope(ids, drafts);
            let mut texts: Vec<_> = wire.with.0.iter().map(|(_, raw)| raw.0).collect();
            texts.extend(wire.when.map(|raw| raw.0));
            for node in texts {
                match scope.check(index, node) {
                    Ok(Found { stages, .. }) => inferred.extend(stages.into_iter().map(|stage| (index, stage, node))),
                    Err(problems) => problems.into_iter().for_each(|problem| found.push(problem)),
                }
            }
        }
        let declared = direct_and_indirect(drafts);
        for (index, stage, node) in inferred {
            if drafts[index].wait_for(stage, node) == Added::New && !declared[index].contains(&stage) {
                let (id, other) = (&drafts[index].id, &drafts[stage].id);
                let message = format!("`{id}` waits for `{other}` only because it uses its output");
                let problem = self.document.error(node, message).warning();
                found.push(problem.help(format!("say so: `depends_on: [{other}]`")));
            }
        }
    }

    fn expand(&self, ids: &[String], drafts: &mut [Draft<'_>], found: &mut Diagnostics) {
        for index in 0..drafts.len() {
            if drafts[index].axes().next().is_none() {
                drafts[index].whole();
                continue;
            }
            let tasks = matrix::tasks(&self.scope(ids, drafts), index);
            match tasks {
                Ok(Some(tasks)) => drafts[index].tasks = tasks,
                // Only when inputs are left open: there is nothing to run then.
                Ok(None) => {}
                // Environments that do not exist have been reported; that a list of them is empty follows.
                Err(_) if self.environments.is_empty() && !self.pipeline.environments.is_empty() => {
                    let scope = self.scope(ids, drafts);
                    let lists = drafts[index].wire.matrix.0.iter();
                    lists
                        .filter_map(|(_, raw)| scope.check(index, raw.0).err())
                        .flatten()
                        .for_each(|problem| found.push(problem));
                }
                Err(problems) => problems.into_iter().for_each(|problem| found.push(problem)),
            }
        }
    }

    fn resolve_settings(&self, ids: &[String], ancestry: &Ancestry, drafts: &mut [Draft<'_>], found: &mut Diagnostics) {
        for index in 0..drafts.len() {
            let scope = self.scope(ids, drafts);
            let when = self.condition(&scope, index, found);
            let Some(kind) = drafts[index].kind else { continue };
            let mut with = settings::resolve(&scope, index, kind, ancestry, found);
            if kind.name == "file/miners" {
                let at = |name: &str| drafts[index].setting_at(name);
                miners::resolve(self.document, &mut with, &at, self.root, found);
                let problem = |message| self.document.error(drafts[index].at, message);
                miners::warn_of_demos(problem, &with, &self.environments, found);
            }
            drafts[index].when = when;
            drafts[index].with = with;
        }
    }

    /// The stage's condition as one expression without braces; `true` or `false` when it is known.
    fn condition(&self, scope: &Scope<'_>, index: usize, found: &mut Diagnostics) -> Option<String> {
        let node = scope.drafts[index].wire.when?.0;
        let text = match self.document.value(node) {
            Value::Bool(value) => return Some(value.to_string()),
            Value::String(text) => text,
            other => {
                let message = format!("a condition is an expression, this is {}", super::expression::kind_of(&other));
                found.push(self.document.error(node, message));
                return None;
            }
        };
        let trimmed = text.trim();
        let inner = trimmed.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
        let Some(inner) = inner.filter(|inner| !inner.contains("${{")) else {
            let problem = self.document.error(node, "a condition is exactly one expression");
            found.push(
                problem.help(format!("write `${{{{ {} }}}}`", trimmed.replace("${{", "").replace("}}", "").trim())),
            );
            return None;
        };
        let checked = scope.check_text(index, node, trimmed).ok()?;
        if let Some(kind) = checked.kind.filter(|kind| !super::kinds::Type::Boolean.accepts(*kind)) {
            let message = format!("a condition is true or false, this is {}", kind.word());
            found.push(self.document.error(node, message));
        }
        if !checked.is_known() {
            return Some(inner.trim().to_owned());
        }
        match super::expression::truth(trimmed, &scope.context(&serde_json::Map::new())) {
            Ok(value) => Some(value.to_string()),
            Err(error) => {
                found.push(self.document.error(node, error.message));
                None
            }
        }
    }

    /// How often a stage is tried and how complete it has to be.
    fn limits(&self, draft: &Draft<'_>, found: &mut Diagnostics) -> (Retry, Expect) {
        let defaults = &self.pipeline.defaults;
        let retry = self.retry([defaults.retry.as_ref(), draft.wire.retry.as_ref()], found);
        let expect = self.expect(draft.wire.expect.as_ref().or(defaults.expect.as_ref()), found);
        (retry, expect)
    }

    fn stage(&self, drafts: &[Draft<'_>], index: usize, (retry, expect): &(Retry, Expect)) -> Option<Stage> {
        let draft = &drafts[index];
        let mut depends_on: Vec<_> = draft.depends_on.iter().map(|(stage, _)| drafts[*stage].id.clone()).collect();
        depends_on.sort();
        let timeout = draft.wire.timeout.or(self.pipeline.defaults.timeout);
        Some(Stage {
            id: draft.id.clone(),
            uses: draft.kind?.name.to_owned(),
            phase: draft.phase,
            depends_on,
            when: draft.when.clone(),
            with: draft.with.clone(),
            tasks: draft.tasks.clone(),
            expansion: None,
            max_parallel: None,
            fail_fast: false,
            pool: None,
            queue_timeout_ms: None,
            retry: retry.clone(),
            timeout_ms: timeout.map_or(DEFAULT_TIMEOUT_MS, |timeout| timeout.milliseconds()),
            expect: *expect,
        })
    }

    /// The built-in retry, changed by the pipeline's defaults, changed by the stage.
    fn retry(&self, layers: [Option<&Located<RetryWire>>; 2], found: &mut Diagnostics) -> Retry {
        let mut retry = default_retry();
        for layer in layers.into_iter().flatten() {
            let RetryWire { max_attempts, initial_interval, backoff, max_interval, jitter } = layer.value;
            retry.max_attempts = max_attempts.unwrap_or(retry.max_attempts);
            retry.initial_interval_ms = initial_interval.map_or(retry.initial_interval_ms, |span| span.milliseconds());
            retry.backoff = backoff.unwrap_or(retry.backoff);
            retry.max_interval_ms = max_interval.map_or(retry.max_interval_ms, |span| span.milliseconds());
            retry.jitter = jitter.unwrap_or(retry.jitter);
            let mut check = |holds: bool, key: &str, message: &str| {
                if !holds {
                    found.push(self.document.error(self.document.locate(layer.at, &[key]), message));
                }
            };
            let attempts = "`max_attempts` is from 1 to 100: it counts the first attempt, too";
            check((1..=100).contains(&retry.max_attempts), "max_attempts", attempts);
            check((1.0..=100.0).contains(&retry.backoff), "backoff", "`backoff` is from 1 to 100");
            check((0.0..=1.0).contains(&retry.jitter), "jitter", "`jitter` is from 0 to 1");
        }
        retry
    }

    fn expect(&self, wire: Option<&Located<ExpectWire>>, found: &mut Diagnostics) -> Expect {
        match wire.map(|expect| (expect.at, expect.value)) {
            None | Some((_, ExpectWire::Complete)) => Expect::Complete,
            Some((at, ExpectWire::Quorum(share))) => {
                if !(0.0..=1.0).contains(&share) {
                    let at = self.document.locate(at, &["quorum"]);
                    found.push(self.document.error(at, format!("a quorum is a share from 0 to 1, not {share}")));
                }
                Expect::Quorum(share)
            }
        }
    }
}

/// For every stage, those it waits for as declared, directly or not. Circles are no problem here.
fn direct_and_indirect(drafts: &[Draft<'_>]) -> Vec<BTreeSet<usize>> {
    let reach = |start: usize| {
        let mut seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(stage) = open.pop() {
            for (dependency, _) in &drafts[stage].depends_on {
                if seen.insert(*dependency) {
                    open.push(*dependency);
                }
            }
        }
        seen
    };
    (0..drafts.len()).map(reach).collect()
}
