//! The settings of one stage: checked against its kind, defaults written in, what is known evaluated.

use serde_json::{Map, Value};

use crate::manifest::document::NodeId;
use crate::manifest::{Diagnostic, Diagnostics, suggest};

use super::expression;
use super::graph_of_drafts::Ancestry;
use super::kinds::{Absent, Kind, Rule, Setting, Type};
use super::mapping;
use super::references::Scope;

/// Resolve the settings of a stage.
pub(super) fn resolve(
    scope: &Scope<'_>,
    index: usize,
    kind: &'static Kind,
    ancestry: &Ancestry,
    found: &mut Diagnostics,
) -> Map<String, Value> {
    let draft = &scope.drafts[index];
    for (name, _) in &draft.wire.with.0 {
        if kind.setting(&name.value).is_none() {
            let problem = scope.document.error(name.at, format!("`{}` has no setting `{}`", kind.name, name.value));
            let names: Vec<&str> = kind.settings.iter().map(|setting| setting.name).collect();
            found.push(match suggest::closest(&name.value, names.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None if names.is_empty() => problem.help("it takes none"),
                None => problem.help(format!("it takes: {}", names.join(", "))),
            });
        }
    }
    let mut settings = Map::new();
    for setting in kind.settings {
        let written = draft.wire.with.0.iter().find(|(name, _)| name.value == setting.name);
        let resolver = Resolver { scope, index, setting };
        let value = match written {
            Some((_, raw)) => resolver.written(raw.0).map(Some),
            None => resolver.absent(ancestry),
        };
        match value {
            Ok(Some(value)) => drop(settings.insert(setting.name.to_owned(), value)),
            Ok(None) => {}
            Err(problems) => problems.into_iter().for_each(|problem| found.push(problem)),
        }
    }
    settings
}

struct Resolver<'a> {
    scope: &'a Scope<'a>,
    index: usize,
    setting: &'static Setting,
}

impl Resolver<'_> {
    fn written(&self, node: NodeId) -> Result<Value, Vec<Diagnostic>> {
        let value = self.scope.document.value(node);
        if let (Type::Expression, Value::String(text)) = (self.setting.kind, &value) {
            // Without its braces, so that the engine leaves it to the stage.
            return Ok(mapping::bare(text).into());
        }
        let found = self.scope.check(self.index, node)?;
        if let Some(given) = found.kind.filter(|given| !self.setting.kind.accepts(*given)) {
            let (name, wanted) = (self.setting.name, self.setting.kind.word());
            let message = format!("`{name}` takes {wanted}, this is {}", given.word());
            return Err(vec![self.scope.document.error(node, message)]);
        }
        if !found.has_expression {
            return self.checked(node, value);
        }
        if !found.is_known() {
            // Each task's value is checked now as far as it can be; the text itself stays for the engine.
            if found.is_known_per_task() {
                for task in &self.scope.drafts[self.index].tasks {
                    let value = self.scope.evaluate(node, &value, &task.matrix).map_err(|problem| vec![problem])?;
                    self.checked(node, value)?;
                }
            }
            return Ok(value);
        }
        let value = self.scope.evaluate(node, &value, &Map::new()).map_err(|problem| vec![problem])?;
        self.checked(node, value)
    }

    fn absent(&self, ancestry: &Ancestry) -> Result<Option<Value>, Vec<Diagnostic>> {
        let draft = &self.scope.drafts[self.index];
        let missing = |message: String| self.scope.document.error(draft.at, message);
        match self.setting.absent {
            Absent::Optional => Ok(None),
            Absent::Default(json) => {
                let value: Value = serde_json::from_str(json).unwrap_or_default();
                let needs_matrix = value == "${{ matrix.environment }}";
                if needs_matrix && !draft.axes().any(|axis| axis == "environment") {
                    let problem = missing(format!("stage `{}` does not say which environment", draft.id));
                    let help =
                        "give it `matrix: { environment: \"${{ cycle.environments }}\" }`, or set `with.environment`";
                    return Err(vec![problem.help(help)]);
                }
                if needs_matrix {
                    for task in &draft.tasks {
                        self.checked(draft.at, task.matrix.get("environment").cloned().unwrap_or_default())?;
                    }
                }
                Ok(Some(value))
            }
            Absent::Required if self.setting.kind.is_data() => {
                self.bind(ancestry).map(Some).map_err(|problem| vec![problem])
            }
            Absent::Required => {
                Err(vec![missing(format!("setting `{}` of `{}` is missing", self.setting.name, draft.wire.uses.value))])
            }
        }
    }

    /// The one output of the right type among the stages it waits for, or else among all stages before it.
    fn bind(&self, ancestry: &Ancestry) -> Result<Value, Diagnostic> {
        let draft = &self.scope.drafts[self.index];
        let direct: Vec<usize> = draft.depends_on.iter().map(|(stage, _)| *stage).collect();
        let all: Vec<usize> = ancestry.of(self.index).iter().copied().collect();
        for stages in [direct, all] {
            let candidates = self.candidates(&stages);
            match candidates.as_slice() {
                [] => {}
                [only] => return Ok(Value::String(format!("${{{{ {only} }}}}"))),
                several => {
                    let message =
                        format!("setting `{}` is missing and several stages could give it", self.setting.name);
                    let help = format!("write one of {}", several.join(", "));
                    return Err(self.scope.document.error(draft.at, message).help(help));
                }
            }
        }
        let message = format!("setting `{}` is missing and no stage before `{}` gives it", self.setting.name, draft.id);
        let anywhere: Vec<usize> = (0..self.scope.drafts.len()).filter(|stage| *stage != self.index).collect();
        let anywhere: Vec<usize> =
            anywhere.into_iter().filter(|stage| self.scope.drafts[*stage].phase == draft.phase).collect();
        let problem = self.scope.document.error(draft.at, message);
        Err(match self.candidates(&anywhere).as_slice() {
            [] => problem,
            known => problem.help(format!("there is {}: name the stage in `depends_on`", known.join(", "))),
        })
    }

    fn candidates(&self, stages: &[usize]) -> Vec<String> {
        let drafts = stages.iter().map(|stage| &self.scope.drafts[*stage]);
        // A stage with a matrix gives a list of such values, which is something else.
        let single = drafts.filter(|draft| draft.axes().next().is_none());
        let outputs = single.flat_map(|draft| {
            let fitting = draft.outputs().into_iter().filter(|(_, kind)| *kind == self.setting.kind);
            fitting.map(move |(name, _)| format!("stages.{}.{name}", draft.id))
        });
        outputs.collect()
    }

    /// A value that is known: of the right type, and as the rule wants it.
    fn checked(&self, node: NodeId, value: Value) -> Result<Value, Vec<Diagnostic>> {
        match self.conforms(&value) {
            Ok(()) => Ok(value),
            Err((message, help)) => {
                let problem = self.scope.document.error(node, format!("`{}` {message}", self.setting.name));
                Err(vec![match help {
                    Some(help) => problem.help(help),
                    None => problem,
                }])
            }
        }
    }

    fn conforms(&self, value: &Value) -> Result<(), (String, Option<String>)> {
        if matches!(self.setting.kind, Type::Scores | Type::Pareto | Type::Weights) {
            let help = format!("write `${{{{ stages.ID.{} }}}}`, or leave it out", self.setting.name);
            return Err(("comes from another stage".into(), Some(help)));
        }
        if !self.setting.kind.fits(value) {
            return Err((format!("takes {}, found {}", self.setting.kind.word(), expression::kind_of(value)), None));
        }
        if self.setting.kind == Type::Environment {
            return self.is_environment(value);
        }
        match self.setting.rule {
            Rule::Between(least, most) if !value.as_i64().is_some_and(|number| (least..=most).contains(&number)) => {
                Err((format!("is from {least} to {most}, not {value}"), None))
            }
            Rule::Above(bound) if !value.as_f64().is_some_and(|number| number > bound) => {
                Err((format!("must be above {bound}, not {value}"), None))
            }
            Rule::OneOf(words) if !value.as_str().is_some_and(|word| words.contains(&word)) => {
                let word = value.as_str().unwrap_or_default();
                let near = suggest::closest(word, words.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                Err((format!("cannot be `{word}`, expected {}", crate::manifest::decode::alternatives(words)), near))
            }
            _ => Ok(()),
        }
    }

    fn is_environment(&self, value: &Value) -> Result<(), (String, Option<String>)> {
        let id = value.as_str().unwrap_or_default();
        if self.scope.environments.iter().any(|known| known == id) {
            return Ok(());
        }
        let near = suggest::closest(id, self.scope.environments.iter().map(String::as_str));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        Err((format!("cannot be `{id}`: the pipeline's `environments` have no such one"), help))
    }
}
