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
use crate::manifest::document::{Document, NodeId};
use crate::manifest::fragment::read_pipeline;
use crate::manifest::pipeline::Pipeline;
use crate::manifest::{self, Diagnostic, Diagnostics, Manifests};
use crate::schedule::Schedule;

use super::draft::{self, Added, Draft};
use super::graph_of_drafts::{Ancestry, ancestry};
use super::inputs::{self, Bindings, Inputs};
use super::kinds::DISCOVERY;
use super::limits::{self, Limits};
use super::matrix::{self, Expanded};
use super::references::{Found, Scope};
use super::{Definition, Environment, Phase, Stage};
use super::{
    codeless, concurrency, discovery, environments, foreign, guard, miners, overrides, rules, schedule, secrets,
    settings,
};

const VERSION: u32 = 1;
/// A pipeline that can be run.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What a cycle is pinned to.
    pub definition: Definition,
    /// The directory that its paths are relative to.
    pub root: PathBuf,
    /// When it runs by itself. No part of the definition: the same cycle may be started by hand.
    pub schedules: Vec<Schedule>,
    /// The files it was made of, and the directory of the manifests: when none of them has changed, nothing has, but for the
    /// sources that simulate.
    pub files: Vec<PathBuf>,
    /// What is probably not meant.
    pub warnings: Diagnostics,
    /// Every use of a secret: its name, and the warning for when it is not there.
    secrets: Vec<(String, Diagnostic)>,
}

impl Compiled {
    /// A warning for every secret that is not there: its stage will fail.
    pub fn missing_secrets(&self, is_there: &dyn Fn(&str) -> bool) -> Diagnostics {
        let mut missing = Diagnostics::default();
        self.secrets.iter().filter(|(name, _)| !is_there(name)).for_each(|(_, warning)| missing.push(warning.clone()));
        missing
    }
}

/// Compile a pipeline's file.
///
/// # Errors
/// [`Diagnostics`] with every mistake found in the pipeline, in the manifests it uses, and in the bindings.
pub fn compile(path: &Path, bindings: &Bindings<'_>) -> Result<Compiled, Diagnostics> {
    compile_in(path, None, bindings)
}

/// Compile a pipeline's file with the environments of another project than its own, if one is given.
///
/// # Errors
/// As [`compile`].
pub fn compile_in(path: &Path, root: Option<&Path>, bindings: &Bindings<'_>) -> Result<Compiled, Diagnostics> {
    let mut found = Diagnostics::default();
    let document = Document::read(path).and_then(|document| expect_pipeline(&document).map(|()| document));
    let compiled = document.map_err(Diagnostics::from).and_then(|mut document| {
        let root = match root {
            Some(root) => Some(root.to_owned()),
            None => manifest::root_of(path).map_err(|problem| found.push(problem)).ok(),
        };
        let pipeline = match &root {
            Some(root) => read_pipeline(&mut document, path, root, &mut found),
            None => decode(&document, &mut found).map(|pipeline| (pipeline, Vec::new())),
        };
        // A pipeline without environments does not care what is wrong with them.
        let is_used = pipeline.as_ref().is_none_or(|(pipeline, _)| !pipeline.environments.is_empty());
        let Manifests { families, broken } = match &root {
            Some(root) if is_used => manifest::load_each(root, &mut found),
            _ => Manifests::default(),
        };
        if let Some((pipeline, _)) = &pipeline {
            environments::tell_of_broken(&pipeline.environments, broken, &mut found);
        }
        let (Some((pipeline, included)), Some(root)) = (pipeline, root) else { return Err(Diagnostics::default()) };
        check_head(&document, &pipeline, &mut found);
        limits::check_pools(&document, &pipeline, &mut found);
        let schedules = schedule::read(&document, &pipeline.schedule, &mut found);
        let inputs = inputs::bind(&document, &pipeline.inputs, bindings, &mut found);
        let mut selected = environments::select(&document, &pipeline.environments, &families, &mut found);
        overrides::apply(&mut selected, bindings, &mut found);
        overrides::apply_to_containers(&mut selected, &families, bindings, &mut found);
        let compiler = Compiler {
            document: &document,
            pipeline: &pipeline,
            root: &root,
            inputs,
            environments: selected,
            bindings,
        };
        // A manifest that is new changes its directory.
        let manifests = families.iter().map(|family| family.file.clone()).chain([root.join("environments")]);
        let files = [path.to_owned()].into_iter().chain(included).chain(manifests).collect();
        let compiled = compiler.definition(&mut found).ok_or_else(Diagnostics::default)?;
        Ok((compiled, root, (schedules, files)))
    });
    match compiled {
        Ok(((definition, secrets), root, (schedules, files))) if !found.has_errors() => {
            Ok(Compiled { definition, root, schedules, files, warnings: found.sorted(), secrets })
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
    if !is_name(name) {
        let message = format!("`{name}` is not a pipeline name (a-z, 0-9, `-` and `_`, starting with a letter)");
        found.push(document.error(pipeline.name.at, message));
    }
}

/// Whether a text can name a pipeline or a pool.
pub(super) fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    letters && name.len() <= 63 && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
}

struct Compiler<'a> {
    document: &'a Document,
    pipeline: &'a Pipeline,
    root: &'a Path,
    inputs: Inputs,
    environments: Vec<Environment>,
    bindings: &'a Bindings<'a>,
}

impl Compiler<'_> {
    /// The definition, and every use of a secret in it.
    fn definition(self, found: &mut Diagnostics) -> Option<(Definition, Vec<(String, Diagnostic)>)> {
        let ids: Vec<String> =
            self.environments.iter().map(|environment| environment.simulation.environment.to_string()).collect();
        let mut drafts = draft::drafts(self.document, self.pipeline, found);
        let secrets = self.check_expressions(&ids, &mut drafts, found);
        self.expand(&ids, &mut drafts, found);
        let limits: Vec<Limits> =
            drafts.iter().map(|draft| Limits::of(self.document, self.pipeline, draft, found)).collect();
        let ancestry = match ancestry(self.document, &drafts) {
            Ok(ancestry) => ancestry,
            Err(problem) => {
                found.push(problem);
                return None;
            }
        };
        self.resolve_settings(&ids, &ancestry, &mut drafts, found);
        let inputs: Vec<&str> = self.pipeline.inputs.0.iter().map(|(name, _)| name.value.as_str()).collect();
        overrides::apply_to_stages(&mut drafts, (&inputs, self.bindings), self.document, found);
        rules::check(&self.scope(&ids, &drafts), &ancestry, found);
        guard::fill_in(&mut drafts);
        let miners = miners::rules(self.document, &self.pipeline.miners, found);
        miners::warn_of_refused(self.document, &miners.rules, &drafts, found);
        let wire = self.pipeline.concurrency.as_ref();
        let concurrency = wire.and_then(|wire| concurrency::resolve(&self.scope(&ids, &drafts), wire, found));
        let in_order = ancestry.order.iter();
        let mut stages: Vec<Stage> =
            in_order.filter_map(|index| self.stage(&drafts, *index, &limits[*index])).collect();
        if found.has_errors() {
            return None;
        }
        stages.sort_by_key(|stage| match stage.phase {
            Phase::Main => 0,
            Phase::OnFailure => 1,
            Phase::Finally => 2,
        });
        let pools = self.pipeline.pools.0.iter().map(|(name, limit)| (name.value.clone(), limit.value));
        let definition = Definition {
            version: VERSION,
            pipeline: self.pipeline.name.value.clone(),
            inputs: self.inputs.values,
            environments: self.environments,
            pools: pools.collect(),
            concurrency,
            miners,
            stages,
        };
        Some((definition, secrets))
    }

    fn scope<'s>(&'s self, environments: &'s [String], drafts: &'s [Draft<'s>]) -> Scope<'s> {
        Scope { document: self.document, inputs: &self.inputs, environments, drafts }
    }

    /// Check every expression of every stage; what refers to a stage waits for it. Returns the uses of secrets.
    fn check_expressions(
        &self,
        ids: &[String],
        drafts: &mut [Draft<'_>],
        found: &mut Diagnostics,
    ) -> Vec<(String, Diagnostic)> {
        let (mut inferred, mut secrets) = (Vec::new(), Vec::new());
        for index in 0..drafts.len() {
            let wire = drafts[index].wire;
            let scope = self.scope(ids, drafts);
            let settings = wire.with.0.iter();
            let mut checked: Vec<_> =
                settings.map(|(name, raw)| (raw.0, scope.check_setting(index, &name.value, raw.0))).collect();
            let others = wire.when.map(|raw| raw.0).into_iter().chain(drafts[index].matrix.nodes());
            checked.extend(others.map(|node| (node, scope.check(index, node))));
            for (node, result) in checked {
                match result {
                    Ok(Found { stages, secrets: named, .. }) => {
                        inferred.extend(stages.into_iter().map(|stage| (index, stage, node)));
                        secrets.extend(named.into_iter().map(|name| self.use_of_secret(name, node)));
                    }
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
        secrets
    }

    fn use_of_secret(&self, name: String, node: NodeId) -> (String, Diagnostic) {
        let message = format!("the secret `{name}` is not there: the stage would fail");
        let warning = self.document.error_within(node, &format!("secrets.{name}"), message).warning();
        let remedies = secrets::remedies(&name);
        (name, warning.help(remedies))
    }

    fn expand(&self, ids: &[String], drafts: &mut [Draft<'_>], found: &mut Diagnostics) {
        for index in 0..drafts.len() {
            if drafts[index].axes().next().is_none() {
                drafts[index].whole();
                continue;
            }
            match matrix::expand(&self.scope(ids, drafts), index) {
                Ok(Expanded::Tasks(tasks)) => drafts[index].tasks = tasks,
                Ok(Expanded::Later(expansion)) => drafts[index].expansion = Some(expansion),
                // There is nothing to run then.
                Ok(Expanded::Open) => {}
                // Environments that do not exist have been reported; that a list of them is empty follows. What is wrong
                // with an expression itself was reported with all the others.
                Err(_) if self.environments.is_empty() && !self.pipeline.environments.is_empty() => {}
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
            if kind.name == "container/run" {
                codeless::pin_program(&scope, index, &mut with, self.root, found);
            }
            if kind.name == "file/miners" {
                let at = |name: &str| drafts[index].setting_at(name);
                miners::resolve(self.document, &mut with, &at, self.root, found);
                let problem = |message| self.document.error(drafts[index].at, message);
                miners::warn_of_demos(problem, &with, &self.environments, found);
            }
            if kind.name == DISCOVERY {
                discovery::resolve(&scope, index, &mut with, self.bindings, found);
            }
            if kind.name == "episodes/run" {
                let problem = |name: &str, message| self.document.error(drafts[index].setting_at(name), message);
                foreign::warn(problem, &with, &self.environments, found);
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
        if let Some(secret) = checked.secrets.first() {
            let problem =
                self.document.error_within(node, &format!("secrets.{secret}"), "a condition cannot use secrets");
            found.push(problem.help("secrets can stand in `with` only"));
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

    fn stage(&self, drafts: &[Draft<'_>], index: usize, limits: &Limits) -> Option<Stage> {
        let draft = &drafts[index];
        let mut depends_on: Vec<_> = draft.depends_on.iter().map(|(stage, _)| drafts[*stage].id.clone()).collect();
        depends_on.sort();
        Some(Stage {
            id: draft.id.clone(),
            uses: draft.kind?.name.to_owned(),
            phase: draft.phase,
            depends_on,
            when: draft.when.clone(),
            with: draft.with.clone(),
            outputs: draft.wire.outputs.0.iter().map(|(name, output)| (name.value.clone(), output.kind)).collect(),
            tasks: draft.tasks.clone(),
            expansion: draft.expansion.clone(),
            max_parallel: draft.matrix.max_parallel,
            fail_fast: draft.matrix.fail_fast,
            pool: limits.pool.clone(),
            queue_timeout_ms: limits.queue_timeout_ms,
            retry: limits.retry.clone(),
            timeout_ms: limits.timeout_ms,
            expect: limits.expect,
        })
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
