//! Environment manifests, checked: each file of `environments/` becomes a [`Family`] with its environments complete.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cycle::EnvironmentId;

use super::adapter::Parts;
use super::affinetes::{self, Way};
use super::build::{self, Build};
use super::decode::decode;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::document::Document;
use super::environment::{self as wire, EpisodeOverride};
use super::located::Located;
use super::resources::Resources;
use super::simulation::{Adapter, Determinism, Gymnasium, Simulation, Simulator, Success, SuccessWhen};
use super::task_text;
use super::units::Span;

/// The protocol of our own servers.
pub const ROBO_V1: &str = "robo/v1";
/// The protocol of servers that others have made.
pub const AFFINETES: &str = "affinetes";

const DEFAULT_SLOTS: u32 = 16;
const DEFAULT_ACTION_TIMEOUT_MS: u64 = 100;
const DEFAULT_RESET_TIMEOUT_MS: u64 = 5_000;
const MOST_WORKERS: u32 = 1024;
const MOST_STEPS: u32 = 1_000_000;
const FEWEST_PIDS: u32 = 16;

/// Environments that are made the same way and share a server.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name: the first half of its environments' ids.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// What its Python environment is made of; none when a server of others simulates.
    pub build: Option<Build>,
    /// Container image, for runtimes that use one.
    pub image: Option<String>,
    /// What an operator's flags do not replace.
    pub pinned: Pinned,
    /// Protocol of its server.
    pub protocol: &'static str,
    /// Worker processes; none means one per core.
    pub workers: Option<u32>,
    /// Episodes in flight per worker, or calls at a time of a server of others.
    pub slots_per_worker: u32,
    /// Episodes after which a server is replaced by a fresh one; none for never.
    pub recycle_after: Option<u32>,
    /// What one server may use.
    pub resources: Resources,
    /// Its environments in file order.
    pub members: Vec<Member>,
}

/// What an operator's flags do not replace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The image.
    pub image: bool,
    /// The memory.
    pub memory: bool,
}

/// One environment of a family.
#[derive(Debug, Clone)]
pub struct Member {
    /// What the simulator is told.
    pub simulation: Simulation,
    /// Time a miner has to answer `/act`, in milliseconds.
    pub action_timeout_ms: u64,
    /// Time a miner has to answer `/reset`, in milliseconds.
    pub reset_timeout_ms: u64,
}

/// The directory that holds `environments/`: the nearest one at or above the file's own.
pub fn root_of(file: &Path) -> Result<PathBuf, Diagnostic> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let found = absolute.ancestors().skip(1).find(|directory| directory.join("environments").is_dir());
    found.map(Path::to_owned).ok_or_else(|| {
        Diagnostic::of_file(
            &file.display().to_string(),
            "there is no `environments` directory beside or above this file",
        )
        .help("environment manifests live in `environments/*.yaml`, next to the directory of the pipelines")
    })
}

/// A manifest that cannot be used.
#[derive(Debug)]
pub struct Broken {
    /// The family that it says to describe, or its file's name where it does not say.
    pub name: String,
    /// What is wrong with it.
    pub problems: Diagnostics,
}

/// The manifests of a project.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Those that can be used, sorted by file name. Names are unique.
    pub families: Vec<Family>,
    /// Those that cannot.
    pub broken: Vec<Broken>,
}

/// Every family of `root/environments`, sorted by file name. Every mistake in any of them is reported.
pub fn load_all(root: &Path, diagnostics: &mut Diagnostics) -> Vec<Family> {
    let Manifests { families, broken } = load_each(root, diagnostics);
    broken.into_iter().for_each(|broken| diagnostics.extend(broken.problems));
    families
}

/// The same, with the mistakes kept apart by manifest: one that is broken says nothing about the others.
pub fn load_each(root: &Path, diagnostics: &mut Diagnostics) -> Manifests {
    let directory = root.join("environments");
    let files = match yaml_files(&directory) {
        Ok(files) => files,
        Err(error) => {
            let message = format!("cannot read the directory: {error}");
            diagnostics.push(Diagnostic::of_file(&directory.display().to_string(), message));
            return Manifests::default();
        }
    };
    let mut all = Manifests::default();
    for file in &files {
        let mut problems = Diagnostics::default();
        let loaded = load(file, root, &mut problems);
        let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some((document, family)) = loaded else {
            let document = Document::read(&shown_path(file)).ok();
            let named = document.as_ref().and_then(|it| it.text(it.get(it.root(), "family")?));
            let name = named.map_or_else(stem, str::to_owned);
            all.broken.push(Broken { name, problems });
            continue;
        };
        match all.families.iter().find(|other| other.name == family.name) {
            Some(other) => {
                let message = format!("family `{}` is already defined in `{}`", family.name, shown(&other.file));
                problems.push(document.error(document.locate(document.root(), &["family"]), message));
                all.broken.push(Broken { name: family.name, problems });
            }
            None => {
                diagnostics.extend(problems);
                all.families.push(family);
            }
        }
    }
    all
}

/// The YAML files of a directory, sorted. What editors and other systems leave beside them is no manifest: hidden files, backups
/// and locks.
pub(crate) fn yaml_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|file| is_yaml(file))
        .collect();
    files.sort();
    Ok(files)
}

fn is_yaml(file: &Path) -> bool {
    let is_leftover = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '#']));
    !is_leftover && file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// One manifest, checked by itself.
pub(crate) fn load(file: &Path, root: &Path, diagnostics: &mut Diagnostics) -> Option<(Document, Family)> {
    let document = match Document::read(&shown_path(file)) {
        Ok(document) => document,
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            return None;
        }
    };
    let manifest: wire::Environment = decode(&document, diagnostics)?;
    let mut found = Diagnostics::default();
    let family = Check { document: &document, found: &mut found }.family(&manifest, file, root);
    let family = family.filter(|_| !found.has_errors());
    diagnostics.extend(found);
    family.map(|family| (document, family))
}

/// The path as the operator would write it: relative to the current directory when it is below it.
pub(crate) fn shown_path(file: &Path) -> PathBuf {
    let below = std::env::current_dir().ok().and_then(|current| file.strip_prefix(current).ok().map(Path::to_owned));
    below.unwrap_or_else(|| file.to_owned())
}

fn shown(file: &Path) -> String {
    shown_path(file).display().to_string()
}

pub(super) struct Check<'a> {
    document: &'a Document,
    found: &'a mut Diagnostics,
}

impl Check<'_> {
    pub(super) fn refuse_with(&mut self, steps: &[&str], message: impl Into<String>, help: impl Into<String>) {
        let node = self.document.locate(self.document.root(), steps);
        self.found.push(self.document.error(node, message).help(help));
    }

    pub(super) fn refuse(&mut self, steps: &[&str], message: impl Into<String>) {
        let node = self.document.locate(self.document.root(), steps);
        self.found.push(self.document.error(node, message));
    }

    fn family(&mut self, manifest: &wire::Environment, file: &Path, root: &Path) -> Option<Family> {
        if manifest.version.value != 1 {
            self.refuse(&["version"], format!("version {} is not known; this is version 1", manifest.version.value));
        }
        if format!("{}/x", manifest.family.value).parse::<EnvironmentId>().is_err() {
            let name = &manifest.family.value;
            self.refuse(
                &["family"],
                format!("`{name}` is not a family name (a-z, 0-9, `-` and `_`, starting with a letter)"),
            );
        }
        let way = self.way(manifest);
        if let Some(Way::Gymnasium(adapter, _)) = &way {
            self.parts(&["adapter"]).family(adapter);
            self.episode(manifest, adapter);
        }
        self.shared(manifest);
        let workers = self.workers(manifest);
        let build = match &way {
            Some(Way::Gymnasium(_, build)) => Some(build::resolve(self.document, build, file, root, self.found)),
            _ => None,
        };
        let members = manifest.tasks.value.0.iter();
        let members = members.filter_map(|(name, task)| self.member((manifest, way.as_ref()?), name, task)).collect();
        let (protocol, slots) = match manifest.server.protocol {
            wire::Protocol::RoboV1 => (ROBO_V1, DEFAULT_SLOTS),
            // Images share one simulator between calls that run at a time.
            wire::Protocol::Affinetes => (AFFINETES, 1),
        };
        Some(Family {
            name: manifest.family.value.clone(),
            file: file.to_owned(),
            build: match build {
                Some(build) => Some(build?),
                None => None,
            },
            image: manifest.image.clone(),
            pinned: Pinned {
                image: manifest.pinned.contains(&wire::Pinnable::Image),
                memory: manifest.pinned.contains(&wire::Pinnable::Memory),
            },
            protocol,
            workers,
            slots_per_worker: manifest.server.slots_per_worker.as_ref().map_or(slots, |slots| slots.value),
            recycle_after: manifest.server.recycle_after.as_ref().map(|episodes| episodes.value),
            resources: self.resources(&manifest.resources),
            members,
        })
    }

    /// What both kinds of families have.
    fn shared(&mut self, manifest: &wire::Environment) {
        self.steps_in_range(&["episode", "max_steps"], manifest.episode.max_steps.value);
        manifest.adapter.score.iter().for_each(|score| self.parts(&["adapter"]).score(score));
        if manifest.server.slots_per_worker.as_ref().is_some_and(|slots| !(1..=4096).contains(&slots.value)) {
            self.refuse(&["server", "slots_per_worker"], "`slots_per_worker` must be from 1 to 4096");
        }
        if manifest.server.recycle_after.as_ref().is_some_and(|episodes| episodes.value == 0) {
            self.refuse(&["server", "recycle_after"], "`recycle_after` must be at least 1 episode");
        }
        if manifest.tasks.value.0.is_empty() {
            self.refuse(&["tasks"], "a family needs at least one task");
        }
    }

    fn resources(&mut self, resources: &wire::Resources) -> Resources {
        if resources.cpus.as_ref().is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus.value)) {
            self.refuse(&["resources", "cpus"], "`cpus` must be from 0.01 to 1024");
        }
        if resources.pids.as_ref().is_some_and(|pids| pids.value < FEWEST_PIDS) {
            self.refuse(&["resources", "pids"], format!("`pids` must be at least {FEWEST_PIDS}"));
        }
        Resources {
            memory: resources.memory.map(|memory| memory.0),
            cpus: resources.cpus.as_ref().map(|cpus| cpus.value),
            gpus: resources.gpus.unwrap_or(0),
            pids: resources.pids.as_ref().map(|pids| pids.value),
            network: resources.network,
        }
    }

    fn parts<'b>(&'b mut self, place: &'b [&'b str]) -> Parts<'b> {
        Parts { document: self.document, found: self.found, place }
    }

    fn episode(&mut self, manifest: &wire::Environment, adapter: &Adapter) {
        if manifest.episode.stop_on_success {
            self.stop_needs_any(&adapter.success, &["episode", "stop_on_success"]);
        }
    }

    fn steps_in_range(&mut self, steps: &[&str], max_steps: u32) {
        if !(1..=MOST_STEPS).contains(&max_steps) {
            self.refuse(steps, format!("`max_steps` must be from 1 to {MOST_STEPS}"));
        }
    }

    fn stop_needs_any(&mut self, success: &Success, steps: &[&str]) {
        if success.when != SuccessWhen::Any {
            self.refuse(
                steps,
                "`stop_on_success` only goes with `success.when: any`: stopping early would change what counts",
            );
        }
    }

    fn workers(&mut self, manifest: &wire::Environment) -> Option<u32> {
        let node = manifest.server.workers?.0;
        match self.document.value(node) {
            Value::String(word) if word == "auto" => None,
            value => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                let number = number.filter(|number| (1..=MOST_WORKERS).contains(number));
                if number.is_none() {
                    let message = format!("`workers` is `auto` or a number from 1 to {MOST_WORKERS}");
                    self.found.push(self.document.error(node, message));
                }
                number
            }
        }
    }

    fn member(
        &mut self,
        (manifest, way): (&wire::Environment, &Way<'_>),
        name: &Located<String>,
        task: &wire::Task,
    ) -> Option<Member> {
        let (at, name) = (name.at, name.value.as_str());
        if format!("x/{name}").parse::<EnvironmentId>().is_err() {
            let message = format!("`{name}` is not a task name (a-z, 0-9, `-` and `_`, starting with a letter)");
            self.found.push(self.document.error(at, message));
        }
        let EpisodeOverride { max_steps, stop_on_success, action_timeout, reset_timeout } = &task.episode;
        if let Some(max_steps) = max_steps {
            self.steps_in_range(&["tasks", name, "episode", "max_steps"], *max_steps);
        }
        task.score.iter().for_each(|score| self.parts(&["tasks", name]).score(score));
        let episode = &manifest.episode;
        let max_steps = max_steps.unwrap_or(episode.max_steps.value);
        let action_timeout_ms =
            action_timeout.or(episode.action_timeout).map_or(DEFAULT_ACTION_TIMEOUT_MS, |span| span.milliseconds());
        let stop_on_success = stop_on_success.unwrap_or(episode.stop_on_success);
        let score = task.score.or(manifest.adapter.score);
        let (simulator, score, determinism, reset_timeout_ms) = match way {
            Way::Gymnasium(adapter, _) => (
                self.adapted((adapter, stop_on_success), name, task),
                score,
                manifest.adapter.determinism.unwrap_or_default(),
                reset_timeout.or(episode.reset_timeout).map_or(DEFAULT_RESET_TIMEOUT_MS, |span| span.milliseconds()),
            ),
            Way::Affinetes(call) => {
                self.unheard((task.episode.stop_on_success, *reset_timeout), name);
                (
                    self.call((manifest, call), (name, task), (max_steps, action_timeout_ms)),
                    Some(score.unwrap_or(affinetes::SCORE)),
                    Determinism::None,
                    affinetes::RESET_TIMEOUT_MS,
                )
            }
        };
        // Either half may be wrong; both have been checked and reported by themselves.
        let environment = format!("{}/{name}", manifest.family.value).parse().ok()?;
        Some(Member {
            simulation: Simulation { environment, simulator, score, determinism, max_steps, stop_on_success },
            action_timeout_ms,
            reset_timeout_ms,
        })
    }

    /// Settings of a task's episodes that a server of others would not hear of.
    fn unheard(&mut self, (stop, reset): (Option<bool>, Option<Span>), name: &str) {
        for (key, is_said) in [("stop_on_success", stop == Some(true)), ("reset_timeout", reset.is_some())] {
            if is_said {
                let message = format!("`{key}` does not go with `protocol: affinetes`");
                self.refuse_with(&["tasks", name, "episode", key], message, "remove this key");
            }
        }
    }

    /// A family's adapter with a task's own settings in it.
    fn adapted(&mut self, (family, stop): (&Adapter, bool), name: &str, task: &wire::Task) -> Simulator {
        let action = match &task.action {
            Some(own) => own.over(&family.action),
            None => family.action.clone(),
        };
        self.parts(&["tasks", name]).task(task, &action, family.dialect);
        let success = task.success.as_ref().unwrap_or(&family.success);
        if stop && (task.success.is_some() || task.episode.stop_on_success.is_some()) {
            self.stop_needs_any(success, &["tasks", name, "episode", "stop_on_success"]);
        }
        Simulator::Gymnasium(Box::new(Adapter {
            gymnasium: self.gymnasium(&family.gymnasium, name, task),
            dialect: family.dialect,
            observation: task.observation.as_ref().unwrap_or(&family.observation).clone(),
            action,
            success: success.clone(),
        }))
    }

    /// How a task is made: the family's way with the task's name filled in and the task's own settings over it.
    fn gymnasium(&mut self, family: &Gymnasium, name: &str, task: &wire::Task) -> Gymnasium {
        let mut gymnasium = family.clone();
        let mut make_at = vec!["adapter", "gymnasium", "make"];
        if let Some(make) = &task.make {
            gymnasium.make = make.clone();
            make_at = vec!["tasks", name, "make"];
        }
        if let Some(Value::String(make)) = self.filled(&Value::String(gymnasium.make.clone()), name, &make_at) {
            gymnasium.make = make;
        }
        gymnasium.kwargs.extend(task.kwargs.clone());
        let mut filled = Map::new();
        for (key, value) in gymnasium.kwargs {
            let steps: &[&str] = match task.kwargs.contains_key(&key) {
                true => &["tasks", name, "kwargs", &key],
                false => &["adapter", "gymnasium", "kwargs", &key],
            };
            if let Some(value) = self.filled(&value, name, steps) {
                filled.insert(key, value);
            }
        }
        Gymnasium { kwargs: filled, ..gymnasium }
    }

    /// A value with `${{ task.name }}` filled in; what else it may name is refused.
    pub(super) fn filled(&mut self, value: &Value, name: &str, steps: &[&str]) -> Option<Value> {
        match task_text::fill(value, name) {
            Ok(value) => Some(value),
            Err(unknown) => {
                let node = self.document.locate(self.document.root(), steps);
                let problem = self.document.error_within(node, &unknown, format!("`{unknown}` is not known here"));
                self.found.push(problem.help("only `${{ task.name }}` can be used in `make` and `kwargs`"));
                None
            }
        }
    }
}
