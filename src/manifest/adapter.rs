//! Checks what a manifest says of observations, actions, success and scores: for a whole family, or for one task of it.

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::environment::Task;
use super::simulation::{
    Action, ActionKind, Adapter, Dialect, Observation, Render, Score, Success, SuccessRule, SuccessWhen,
};
use super::summary;

/// Largest size of an action or a picture.
pub(super) const LARGEST_SIZE: u32 = 1024;

/// Parts of a manifest below one place of it.
pub(super) struct Parts<'a> {
    /// Where the manifest stands.
    pub(super) document: &'a Document,
    /// Where mistakes are told.
    pub(super) found: &'a mut Diagnostics,
    /// The place: `adapter`, or `tasks.NAME`.
    pub(super) place: &'a [&'a str],
}

impl Parts<'_> {
    /// What a family says.
    pub(super) fn family(&mut self, adapter: &Adapter) {
        self.observation(&adapter.observation, adapter.dialect);
        self.action(&adapter.action, adapter.dialect);
        self.success(&adapter.success);
    }

    /// What a task says in place of its family; `action` is the family's with the task's settings in it.
    pub(super) fn task(&mut self, task: &Task, action: &Action, dialect: Dialect) {
        task.observation.iter().for_each(|observation| self.observation(observation, dialect));
        if task.action.is_some() {
            self.action(action, dialect);
        }
        task.success.iter().for_each(|success| self.success(success));
    }

    pub(super) fn refuse(&mut self, steps: &[&str], message: impl Into<String>, help: Option<String>) {
        let steps: Vec<&str> = self.place.iter().chain(steps).copied().collect();
        let node = self.document.locate(self.document.root(), &steps);
        let problem = self.document.error(node, message);
        self.found.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    fn observation(&mut self, observation: &Observation, dialect: Dialect) {
        if observation.state.is_empty() && observation.cameras.is_empty() {
            let message = "a miner must see something: name a part of the `state` or a camera";
            self.refuse(&["observation"], message, None);
        }
        for (index, part) in observation.state.iter().enumerate() {
            if let Some([start, end]) = part.slice.filter(|[start, end]| start >= end) {
                let message = format!("a slice `[start, end]` needs start < end, not [{start}, {end}]");
                self.refuse(&["observation", "state", &index.to_string(), "slice"], message, None);
            }
        }
        self.observed_channels(observation, dialect);
        observation.render.iter().for_each(|render| self.render(render));
        if observation.cameras.is_empty() && (observation.render.is_some() || !observation.encodings.is_empty()) {
            let message = "`render` and `encodings` are about images, and there is no camera";
            self.refuse(&["observation"], message, None);
        }
        for (name, camera) in &observation.cameras {
            for (side, pixels) in [("width", camera.width), ("height", camera.height)] {
                if !(1..=LARGEST_SIZE).contains(&pixels) {
                    let message = format!("`{side}` must be from 1 to {LARGEST_SIZE} pixels");
                    self.refuse(&["observation", "cameras", name, side], message, None);
                }
            }
        }
    }

    fn render(&mut self, render: &Render) {
        let most =
            [("shadows", render.shadows, 8192), ("msaa", render.msaa, 16), ("mesh_cells", render.mesh_cells, 4096)];
        for (name, value, _) in most.iter().filter(|(_, value, most)| value > most) {
            self.refuse(&["observation", "render", name], format!("`{name}` is too large: {value}"), None);
        }
    }

    fn action(&mut self, action: &Action, dialect: Dialect) {
        self.action_channels(action, dialect);
        if !(1..=LARGEST_SIZE).contains(&action.size) {
            self.refuse(&["action", "size"], format!("`size` must be from 1 to {LARGEST_SIZE}"), None);
        }
        if action.kind == ActionKind::Discrete && action.size != 1 {
            self.refuse(&["action", "size"], "a discrete action has `size: 1`", None);
        }
        if action.low >= action.high {
            let message = format!("`low` must be below `high`, not {} and {}", action.low, action.high);
            self.refuse(&["action", "low"], message, None);
        }
    }

    fn success(&mut self, success: &Success) {
        let last = || Some("write `when: last`".to_owned());
        match &success.rule {
            SuccessRule::Survive if success.when == SuccessWhen::Any => {
                self.refuse(&["success", "rule"], "`survive` is only known at the last step", last());
            }
            SuccessRule::Expression(_) if success.when == SuccessWhen::Any => {
                let message = "an expression is about the whole episode, which is only known at the last step";
                self.refuse(&["success", "rule"], message, last());
            }
            SuccessRule::Expression(expression) => {
                if let Err(error) = summary::check(expression) {
                    self.refuse(&["success", "rule", "expression"], error.message, error.help);
                }
            }
            _ => {}
        }
    }

    pub(super) fn score(&mut self, score: &Score) {
        if score.min >= score.max {
            let message = format!("`min` must be below `max`, not {} and {}", score.min, score.max);
            self.refuse(&["score", "min"], message, None);
        }
    }
}
