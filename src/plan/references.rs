//! What an expression may refer to, checked before anything starts.

use serde_json::{Map, Value, json};

use crate::manifest::document::{Document, NodeId};
use crate::manifest::{Diagnostic, suggest};

use super::Phase;
use super::draft::Draft;
use super::expression::{self, ExpressionError, Part};
use super::inputs::Inputs;
use super::kinds::{DISCOVERY, Type};
use super::mapping;
use super::secret_use;

/// Fields of `cycle` and their types.
const CYCLE: [(&str, Type); 5] = [
    ("id", Type::String),
    ("environments", Type::List),
    ("publish", Type::Boolean),
    ("block", Type::Integer),
    ("failure", Type::String),
];

/// What expressions can start with.
const ROOTS: [&str; 5] = ["inputs", "cycle", "stages", "matrix", "secrets"];

/// What a text of a manifest may refer to.
pub(super) struct Scope<'a> {
    pub(super) document: &'a Document,
    pub(super) inputs: &'a Inputs,
    /// Ids of the pipeline's environments, sorted.
    pub(super) environments: &'a [String],
    pub(super) drafts: &'a [Draft<'a>],
}

/// What is known of a value before the cycle starts.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its type, when it is exactly one reference.
    pub(super) kind: Option<Type>,
    /// Stages it needs the outputs of.
    pub(super) stages: Vec<usize>,
    /// What else keeps it from being evaluated now.
    pub(super) waits_for: Vec<String>,
    /// Secrets it names.
    pub(super) secrets: Vec<String>,
    /// Whether it differs between the tasks of its stage.
    pub(super) uses_matrix: bool,
    /// Whether there is an expression in it at all.
    pub(super) has_expression: bool,
}

impl Found {
    /// Whether it can be evaluated now, for the stage as a whole.
    pub(super) fn is_known(&self) -> bool {
        self.is_known_per_task() && !self.uses_matrix
    }

    /// Whether it can be evaluated now, for each task.
    pub(super) fn is_known_per_task(&self) -> bool {
        self.stages.is_empty() && self.waits_for.is_empty()
    }

    fn join(&mut self, other: Self) {
        self.stages.extend(other.stages);
        self.waits_for.extend(other.waits_for);
        self.secrets.extend(other.secrets);
        self.uses_matrix |= other.uses_matrix;
        self.has_expression |= other.has_expression;
    }
}

impl Scope<'_> {
    /// Check every expression below a node, on behalf of a stage.
    pub(super) fn check(&self, stage: usize, node: NodeId) -> Result<Found, Vec<Diagnostic>> {
        let mut found = Found::default();
        let mut problems = Vec::new();
        let items = self.document.items(node).iter().copied();
        for child in items.chain(self.document.entries(node).map(|(.., value)| value)) {
            match self.check(stage, child) {
                Ok(below) => found.join(below),
                Err(below) => problems.extend(below),
            }
        }
        if let Some(text) = self.document.text(node) {
            match self.check_text(stage, node, text) {
                Ok(here) => found = here,
                Err(here) => problems.extend(here),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Check a text that stands at `node`, or stands for it.
    pub(super) fn check_text(&self, stage: usize, node: NodeId, text: &str) -> Result<Found, Vec<Diagnostic>> {
        let parts = expression::parts(text).map_err(|error| vec![self.wrong(node, &error)])?;
        let mut found = Found::default();
        let mut problems = Vec::new();
        let only = parts.len() == 1;
        for part in parts {
            let Part::Expression(expression) = part else { continue };
            found.has_expression = true;
            match expression::references(&expression) {
                Err(error) => problems.push(self.wrong(node, &error)),
                Ok(names) => {
                    for name in names {
                        match self.reference(stage, &name) {
                            Ok(mut one) => {
                                let kind = one.kind.take();
                                found.join(one);
                                found.kind = kind.filter(|_| only && expression == name);
                            }
                            Err((message, help)) => {
                                let problem = self.document.error_within(node, &name, message);
                                problems.push(match help {
                                    Some(help) => problem.help(help),
                                    None => problem,
                                });
                            }
                        }
                    }
                }
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Check the setting of that name: one that is an expression by itself also knows the element it is evaluated for.
    pub(super) fn check_setting(&self, stage: usize, name: &str, node: NodeId) -> Result<Found, Vec<Diagnostic>> {
        let setting = self.drafts[stage].kind.and_then(|kind| kind.setting(name));
        match (setting, self.document.text(node)) {
            (Some(setting), Some(text)) if setting.kind == Type::Expression => {
                self.check_element(stage, node, mapping::bare(text))
            }
            _ => {
                let found = self.check(stage, node)?;
                let parted = self.parted(node);
                if !parted.is_empty() {
                    return Err(parted);
                }
                match (found.secrets.first(), self.drafts[stage].kind) {
                    (Some(secret), Some(kind)) if kind.takes_apart() => {
                        let message =
                            format!("`{}` takes apart what it is given, and nothing would hide the parts", kind.name);
                        Err(vec![self.document.error_within(node, &format!("secrets.{secret}"), message)])
                    }
                    _ => Ok(found),
                }
            }
        }
    }

    /// What is wrong with the expressions below a node that use a secret otherwise than whole.
    fn parted(&self, node: NodeId) -> Vec<Diagnostic> {
        let items = self.document.items(node).iter().copied();
        let below = items.chain(self.document.entries(node).map(|(.., value)| value));
        let mut found: Vec<Diagnostic> = below.flat_map(|child| self.parted(child)).collect();
        let problem = |part| {
            let Part::Expression(expression) = part else { return None };
            let names = expression::references(&expression).ok()?;
            let secret = names.iter().find(|name| name.starts_with("secrets."))?;
            let message = format!("nothing would hide what is made of `{secret}` here");
            let problem = self.document.error_within(node, &expression, message);
            let help = "a secret stands whole or is joined to other texts: `${{ 'Bearer ' ~ secrets.NAME }}`";
            (!secret_use::is_whole(&expression)).then(|| problem.help(help))
        };
        let text = self.document.text(node).unwrap_or_default();
        found.extend(expression::parts(text).unwrap_or_default().into_iter().filter_map(problem));
        found
    }

    fn check_element(&self, stage: usize, node: NodeId, expression: &str) -> Result<Found, Vec<Diagnostic>> {
        let names = expression::references(expression).map_err(|error| vec![self.wrong(node, &error)])?;
        let mut found = Found::default();
        let mut problems = Vec::new();
        for name in names.iter().filter(|name| !mapping::is_of_element(name)) {
            match self.reference(stage, name) {
                Ok(one) if !one.secrets.is_empty() => {
                    let message = format!("`{name}` is not known here: what is made of an element would hold it");
                    problems.push(self.document.error_within(node, name, message));
                }
                Ok(one) => found.join(one),
                Err((message, help)) => {
                    let problem = self.document.error_within(node, name, message);
                    problems.push(match help {
                        Some(help) => problem.help(help),
                        None => problem,
                    });
                }
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    fn wrong(&self, node: NodeId, error: &ExpressionError) -> Diagnostic {
        let problem = self.document.error_within(node, &error.expression, error.message.clone());
        match &error.help {
            Some(help) => problem.help(help.clone()),
            None => problem,
        }
    }

    fn reference(&self, stage: usize, name: &str) -> Result<Found, (String, Option<String>)> {
        let mut steps = name.split('.');
        let root = steps.next().unwrap_or_default();
        let field = steps.next();
        match (root, field) {
            ("inputs", Some(input)) => self.input(name, input),
            ("cycle", Some(field)) => {
                let fields = CYCLE.map(|(name, _)| name);
                let Some((_, kind)) = CYCLE.iter().find(|(name, _)| *name == field) else {
                    return Err(unknown(format!("`cycle` has no field `{field}`"), field, &fields));
                };
                let mut found = Found { kind: Some(*kind), ..Found::default() };
                if field == "failure" && self.drafts[stage].phase != Phase::OnFailure {
                    return Err(("`cycle.failure` is known to stages of `on_failure` only".into(), None));
                }
                if field == "block" {
                    found.stages.extend(self.discovery(stage)?);
                }
                if field != "environments" {
                    found.waits_for.push(format!("cycle.{field}"));
                }
                Ok(found)
            }
            ("stages", Some(id)) => self.output(stage, id, steps.next(), steps.next().is_some()),
            ("matrix", Some(axis)) => {
                let axes: Vec<&str> = self.drafts[stage].axes().collect();
                match axes.contains(&axis) {
                    true => Ok(Found { kind: Some(Type::Any), uses_matrix: true, ..Found::default() }),
                    false => Err(unknown(format!("the stage has no matrix `{axis}`"), axis, &axes)),
                }
            }
            ("secrets", Some(secret)) => Ok(Found {
                kind: Some(Type::String),
                waits_for: vec![format!("secrets.{secret}")],
                secrets: vec![secret.to_owned()],
                ..Found::default()
            }),
            ("inputs" | "cycle" | "stages" | "matrix" | "secrets", None) => {
                Err((format!("`{root}` needs a field"), Some(format!("write `{root}.NAME`"))))
            }
            ("task", _) => Err(("`task` is only known in environment manifests".into(), None)),
            _ => Err(unknown(format!("`{root}` is not known here"), root, &ROOTS)),
        }
    }

    pub(super) fn input(&self, name: &str, input: &str) -> Result<Found, (String, Option<String>)> {
        let Some(kind) = self.inputs.type_of(input) else {
            let names: Vec<&str> = self.inputs.names().collect();
            return Err(unknown(format!("the pipeline has no input `{input}`"), input, &names));
        };
        let mut found = Found { kind: Some(kind), ..Found::default() };
        if !self.inputs.values.contains_key(input) {
            found.waits_for.push(name.to_owned());
        }
        Ok(found)
    }

    /// The stage whose block is the cycle's, for a stage that asks for it: it has to wait until the block is known.
    fn discovery(&self, stage: usize) -> Result<Option<usize>, (String, Option<String>)> {
        let is_it = |draft: &Draft<'_>| draft.kind.is_some_and(|kind| kind.name == DISCOVERY);
        match self.drafts.iter().position(is_it) {
            Some(found) if found == stage => Err(("the block is not known before the stage has read it".into(), None)),
            // What runs last takes what there is.
            found => Ok(found.filter(|found| self.drafts[*found].phase == self.drafts[stage].phase)),
        }
    }

    fn output(
        &self,
        stage: usize,
        id: &str,
        field: Option<&str>,
        deeper: bool,
    ) -> Result<Found, (String, Option<String>)> {
        let ids: Vec<&str> = self.drafts.iter().map(|draft| draft.id.as_str()).collect();
        let Some(target) = ids.iter().position(|known| *known == id) else {
            return Err(unknown(format!("there is no stage `{id}`"), id, &ids));
        };
        if target == stage {
            return Err(("a stage cannot use its own outputs".into(), None));
        }
        if self.drafts[target].phase != self.drafts[stage].phase {
            let message = match self.drafts[stage].phase {
                Phase::Finally => "a stage of `finally` runs however the others ended, so it cannot use their outputs",
                Phase::OnFailure => {
                    "a stage of `on_failure` runs when others have failed, so it cannot use their outputs; `cycle.failure` says what failed"
                }
                Phase::Main => "a stage of `on_failure` or `finally` runs last, so no other stage can use its outputs",
            };
            return Err((message.into(), None));
        }
        let found = |kind| Found { kind: Some(kind), stages: vec![target], ..Found::default() };
        // An unknown kind is reported by itself; what it gives is not known then.
        let Some(kind) = self.drafts[target].kind else { return Ok(found(Type::Any)) };
        let given = self.drafts[target].outputs();
        let outputs: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        let Some(field) = field else {
            let all = outputs.iter().map(|output| format!("stages.{id}.{output}")).collect::<Vec<_>>().join(", ");
            return Err((
                format!("`stages.{id}` needs a field"),
                Some(format!("there are: {all}")).filter(|_| !all.is_empty()),
            ));
        };
        match given.iter().find(|(name, _)| *name == field) {
            None if kind.declares_outputs => {
                let (message, help) = unknown(format!("stage `{id}` has no output `{field}`"), field, &outputs);
                let declare = || format!("declare it: `outputs: {{ {field}: {{ type: any }} }}`");
                Err((message, help.or_else(|| Some(declare()))))
            }
            None => Err(unknown(format!("`{}` has no output `{field}`", kind.name), field, &outputs)),
            Some(_) if deeper => Ok(found(Type::Any)),
            Some(_) if self.drafts[target].axes().next().is_some() => Ok(found(Type::List)),
            Some((_, kind)) => Ok(found(*kind)),
        }
    }

    /// What an expression sees before the start.
    pub(super) fn context(&self, matrix: &Map<String, Value>) -> Value {
        json!({ "inputs": self.inputs.values, "cycle": { "environments": self.environments }, "matrix": matrix })
    }

    /// The value at a node with everything evaluated.
    pub(super) fn evaluate(
        &self,
        node: NodeId,
        value: &Value,
        matrix: &Map<String, Value>,
    ) -> Result<Value, Diagnostic> {
        expression::render(value, &self.context(matrix)).map_err(|error| self.wrong(node, &error))
    }
}

fn unknown(message: String, written: &str, known: &[&str]) -> (String, Option<String>) {
    let help = match suggest::closest(written, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() || known.len() > 12 => None,
        None => Some(format!("there are: {}", known.join(", "))),
    };
    (message, help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Diagnostics;
    use crate::manifest::decode::decode;
    use crate::manifest::pipeline::Pipeline;
    use crate::plan::draft;
    use crate::plan::kinds::{Kind, Output};

    static FREE: Kind = Kind {
        name: "test/free",
        doc: "",
        settings: &[],
        outputs: &[Output { name: "exit", kind: Type::Integer, doc: "" }],
        declares_outputs: true,
        purity: crate::plan::kinds::Purity::Effects,
    };

    #[test]
    fn declared_outputs_are_known_by_name_and_type() {
        let text = "version: 1\nname: p\nstages:
  a: { uses: test/free, outputs: { points: { type: scores }, notes: { type: list, description: why } } }
  many: { uses: test/free, matrix: { x: [1] }, outputs: { points: { type: scores } } }
  user: { uses: environments/teardown }\n";
        let document = Document::parse("p.yaml", text.as_bytes()).unwrap();
        let pipeline: Pipeline = decode(&document, &mut Diagnostics::default()).unwrap();
        let mut drafts = draft::drafts(&document, &pipeline, &mut Diagnostics::default());
        for draft in drafts.iter_mut().filter(|draft| draft.wire.uses.value == FREE.name) {
            draft.kind = Some(&FREE);
        }
        let inputs = Inputs::default();
        let scope = Scope { document: &document, inputs: &inputs, environments: &[], drafts: &drafts };
        let check = |name: &str| scope.check_text(2, drafts[2].at, &format!("${{{{ {name} }}}}"));
        for (name, kind) in [
            ("stages.a.points", Type::Scores),
            ("stages.a.notes", Type::List),
            ("stages.a.exit", Type::Integer),
            ("stages.a.points.entries", Type::Any),
            ("stages.many.points", Type::List),
        ] {
            assert_eq!(check(name).unwrap().kind, Some(kind), "{name}");
        }
        let near = check("stages.a.pionts").unwrap_err().remove(0).to_string();
        assert!(near.contains("stage `a` has no output `pionts`") && near.contains("did you mean `points`?"), "{near}");
        assert_eq!(drafts[0].outputs().len(), 3);
    }
}
