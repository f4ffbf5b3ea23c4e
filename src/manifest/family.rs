//! Environment manifests, checked: each file of `environments/` becomes a [`Family`] with its environments complete.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cycle::EnvironmentId;

use super::build::{self, Build};
use super::decode::decode;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::document::{Document, NodeId};
use super::environment::{self as wire, EpisodeOverride};
use super::resources::Resources;
use super::simulation::{ActionKind, Simulation, SuccessRule, SuccessWhen};
use super::task_text;

const DEFAULT_SLOTS: u32 = 16;
const DEFAULT_ACTION_TIMEOUT_MS: u64 = 100;
const DEFAULT_RESET_TIMEOUT_MS: u64 = 5_000;
const LARGEST_SIZE: u32 = 1024;
const MOST_STEPS: u32 = 1_000_000;
const FEWEST_PIDS: u32 = 16;

/// Environments that are made the same way and share a server.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name: the first half of its environments' ids.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// What its Python environment is made of.
    pub build: Build,
    /// Container image, for runtimes that use one.
    pub image: Option<String>,
    /// Protocol of its server.
    pub protocol: &'static str,
    /// Worker processes; none means one per core.
    pub workers: Option<u32>,
    /// Episodes in flight per worker.
    pub slots_per_worker: u32,
    /// Episodes after which a server is replaced by a fresh one; none for never.
    pub recycle_after: Option<u32>,
    /// What one server may use.
    pub resources: Resources,
    /// Its environments in file order.
    pub members: Vec<Member>,
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

/// Every family of `root/environments/*.yaml`, sorted by file name. Names are unique.
pub fn load_all(root: &Path, diagnostics: &mut Diagnostics) -> Vec<Family> {
    let directory = root.join("environments");
    let mut files: Vec<PathBuf> = match std::fs::read_dir(&directory) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) => {
            let message = format!("cannot read the directory: {error}");
            diagnostics.push(Diagnostic::of_file(&directory.display().to_string(), message));
            return Vec::new();
        }
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut families: Vec<Family> = Vec::new();
    for file in &files {
        let Some((document, family)) = load(file, root, diagnostics) else { continue };
        match families.iter().find(|other| other.name == family.name) {
            Some(other) => {
                let message = format!("family `{}` is already defined in `{}`", family.name, shown(&other.file));
                diagnostics.push(document.error(document.locate(document.root(), &["family"]), message));
            }
            None => families.push(family),
        }
    }
    families
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

struct Check<'a> {
    document: &'a Document,
    found: &'a mut Diagnostics,
}

impl Check<'_> {
    fn refuse(&mut self, steps: &[&str], message: impl Into<String>) {
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
        self.adapter(&manifest.adapter);
        self.episode(manifest);
        let workers = self.workers(manifest);
        let slots_per_worker = manifest.server.slots_per_worker.as_ref().map_or(DEFAULT_SLOTS, |slots| slots.value);
        if !(1..=4096).contains(&slots_per_worker) {
            self.refuse(&["server", "slots_per_worker"], "`slots_per_worker` must be from 1 to 4096");
        }
        if manifest.server.recycle_after.as_ref().is_some_and(|episodes| episodes.value == 0) {
            self.refuse(&["server", "recycle_after"], "`recycle_after` must be at least 1 episode");
        }
        let build = build::resolve(self.document, &manifest.build, file, root, self.found);
        if manifest.tasks.value.0.is_empty() {
            self.refuse(&["tasks"], "a family needs at least one task");
        }
        let members = manifest.tasks.value.0.iter();
        let members = members.filter_map(|(name, task)| self.member(manifest, name.at, &name.value, task)).collect();
        Some(Family {
            name: manifest.family.value.clone(),
            file: file.to_owned(),
            build: build?,
            image: manifest.image.clone(),
            protocol: match manifest.server.protocol {
                wire::Protocol::RoboV1 => "robo/v1",
            },
            workers,
            slots_per_worker,
            recycle_after: manifest.server.recycle_after.as_ref().map(|episodes| episodes.value),
            resources: self.resources(&manifest.resources),
            members,
        })
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

    fn adapter(&mut self, adapter: &wire::Adapter) {
        if adapter.observation.state.is_empty() && adapter.observation.cameras.is_empty() {
            self.refuse(
                &["adapter", "observation"],
                "a miner must see something: name a part of the `state` or a camera",
            );
        }
        for (index, part) in adapter.observation.state.iter().enumerate() {
            if let Some([start, end]) = part.slice.filter(|[start, end]| start >= end) {
                let steps = ["adapter", "observation", "state", &index.to_string(), "slice"];
                self.refuse(&steps, format!("a slice `[start, end]` needs start < end, not [{start}, {end}]"));
            }
        }
        for (name, camera) in &adapter.observation.cameras {
            for (side, pixels) in [("width", camera.width), ("height", camera.height)] {
                if !(1..=LARGEST_SIZE).contains(&pixels) {
                    let steps = ["adapter", "observation", "cameras", name, side];
                    self.refuse(&steps, format!("`{side}` must be from 1 to {LARGEST_SIZE} pixels"));
                }
            }
        }
        let action = &adapter.action;
        if !(1..=LARGEST_SIZE).contains(&action.size) {
            self.refuse(&["adapter", "action", "size"], format!("`size` must be from 1 to {LARGEST_SIZE}"));
        }
        if action.kind == ActionKind::Discrete && action.size != 1 {
            self.refuse(&["adapter", "action", "size"], "a discrete action has `size: 1`");
        }
        if action.low >= action.high {
            let message = format!("`low` must be below `high`, not {} and {}", action.low, action.high);
            self.refuse(&["adapter", "action", "low"], message);
        }
        if adapter.success.rule == SuccessRule::Survive && adapter.success.when == SuccessWhen::Any {
            let help = "write `when: last`";
            let node = self.document.locate(self.document.root(), &["adapter", "success", "rule"]);
            let message = "`survive` is only known at the last step";
            self.found.push(self.document.error(node, message).help(help));
        }
    }

    fn episode(&mut self, manifest: &wire::Environment) {
        self.steps_in_range(&["episode", "max_steps"], manifest.episode.max_steps.value);
        if manifest.episode.stop_on_success {
            self.stop_needs_any(manifest, &["episode", "stop_on_success"]);
        }
    }

    fn steps_in_range(&mut self, steps: &[&str], max_steps: u32) {
        if !(1..=MOST_STEPS).contains(&max_steps) {
            self.refuse(steps, format!("`max_steps` must be from 1 to {MOST_STEPS}"));
        }
    }

    fn stop_needs_any(&mut self, manifest: &wire::Environment, steps: &[&str]) {
        if manifest.adapter.success.when != SuccessWhen::Any {
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
                let number = number.filter(|number| (1..=LARGEST_SIZE).contains(number));
                if number.is_none() {
                    let message = format!("`workers` is `auto` or a number from 1 to {LARGEST_SIZE}");
                    self.found.push(self.document.error(node, message));
                }
                number
            }
        }
    }

    fn member(&mut self, manifest: &wire::Environment, at: NodeId, name: &str, task: &wire::Task) -> Option<Member> {
        if format!("x/{name}").parse::<EnvironmentId>().is_err() {
            let message = format!("`{name}` is not a task name (a-z, 0-9, `-` and `_`, starting with a letter)");
            self.found.push(self.document.error(at, message));
        }
        let EpisodeOverride { max_steps, stop_on_success, action_timeout, reset_timeout } = &task.episode;
        if let Some(max_steps) = max_steps {
            self.steps_in_range(&["tasks", name, "episode", "max_steps"], *max_steps);
        }
        if *stop_on_success == Some(true) {
            self.stop_needs_any(manifest, &["tasks", name, "episode", "stop_on_success"]);
        }
        let mut gymnasium = manifest.adapter.gymnasium.clone();
        gymnasium.kwargs.extend(task.kwargs.clone());
        gymnasium.kwargs = self.kwargs(gymnasium.kwargs, name, task);
        // Either half may be wrong; both have been checked and reported by themselves.
        let environment = format!("{}/{name}", manifest.family.value).parse().ok()?;
        let episode = &manifest.episode;
        Some(Member {
            simulation: Simulation {
                environment,
                gymnasium,
                observation: manifest.adapter.observation.clone(),
                action: manifest.adapter.action.clone(),
                success: manifest.adapter.success.clone(),
                determinism: manifest.adapter.determinism,
                max_steps: max_steps.unwrap_or(episode.max_steps.value),
                stop_on_success: stop_on_success.unwrap_or(episode.stop_on_success),
            },
            action_timeout_ms: action_timeout
                .or(episode.action_timeout)
                .map_or(DEFAULT_ACTION_TIMEOUT_MS, |span| span.milliseconds()),
            reset_timeout_ms: reset_timeout
                .or(episode.reset_timeout)
                .map_or(DEFAULT_RESET_TIMEOUT_MS, |span| span.milliseconds()),
        })
    }

    fn kwargs(&mut self, kwargs: Map<String, Value>, name: &str, task: &wire::Task) -> Map<String, Value> {
        let mut filled = Map::new();
        for (key, value) in kwargs {
            let steps: &[&str] = match task.kwargs.contains_key(&key) {
                true => &["tasks", name, "kwargs", &key],
                false => &["adapter", "gymnasium", "kwargs", &key],
            };
            match task_text::fill(&value, name) {
                Ok(value) => drop(filled.insert(key, value)),
                Err(unknown) => {
                    let node = self.document.locate(self.document.root(), steps);
                    let message = format!("`{unknown}` is not known here");
                    let problem = self.document.error_within(node, &unknown, message);
                    self.found.push(problem.help("only `${{ task.name }}` can be used in `kwargs`"));
                }
            }
        }
        filled
    }
}
