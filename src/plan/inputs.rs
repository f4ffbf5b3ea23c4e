//! Binding inputs: flag, then environment variable, then default; types checked.

use serde_json::{Map, Value};

use crate::manifest::decode::alternatives;
use crate::manifest::document::{Document, NodeId};
use crate::manifest::located::Entries;
use crate::manifest::pipeline::{Input, InputType};
use crate::manifest::{Diagnostic, Diagnostics};

use super::kinds::Type;

/// Values for inputs, from outside the pipeline.
pub struct Bindings<'a> {
    /// `-i name=value`, in the order given; the last of a name wins.
    pub flags: &'a [(String, String)],
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// What happens to an input that has no value.
    pub missing: Missing,
}

/// What happens to an input that has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Refuse,
    /// It stays open: what depends on it is checked by type only.
    Tolerate,
}

/// The environment variable that sets an input.
pub fn variable_of(input: &str) -> String {
    format!("ROBO_INPUT_{}", input.to_uppercase())
}

/// The declared inputs with their values.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Every declared name with its type.
    pub(super) declared: Vec<(String, Type)>,
    /// Those with a value.
    pub(super) values: Map<String, Value>,
}

impl Inputs {
    pub(super) fn type_of(&self, name: &str) -> Option<Type> {
        self.declared.iter().find(|(declared, _)| declared == name).map(|(_, kind)| *kind)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|(name, _)| name.as_str())
    }
}

/// Bind every declared input.
pub(super) fn bind(
    document: &Document,
    declared: &Entries<Input>,
    bindings: &Bindings<'_>,
    diagnostics: &mut Diagnostics,
) -> Inputs {
    let mut inputs = Inputs::default();
    for (name, _) in bindings.flags {
        if !declared.names().any(|input| input == name) {
            let problem = Diagnostic::of_command_line(format!("the pipeline has no input `{name}`"));
            diagnostics.push(problem.closest(name, declared.names()));
        }
    }
    for (name, input) in &declared.0 {
        if !is_name(&name.value) {
            let message = format!("`{}` is not an input name (a-z, 0-9 and _, starting with a letter)", name.value);
            diagnostics.push(document.error(name.at, message));
        }
        let declaration = Declaration { document, name: &name.value, at: name.at, input };
        declaration.check(diagnostics);
        match declaration.value(bindings) {
            Ok(Some(value)) => drop(inputs.values.insert(name.value.clone(), value)),
            Ok(None) => {}
            Err(problem) => diagnostics.push(problem),
        }
        inputs.declared.push((name.value.clone(), type_of(input.kind)));
    }
    inputs
}

fn is_name(name: &str) -> bool {
    name.parse::<crate::cycle::StageId>().is_ok()
}

fn type_of(kind: InputType) -> Type {
    match kind {
        InputType::Integer => Type::Integer,
        InputType::Number => Type::Number,
        InputType::String => Type::String,
        InputType::Boolean => Type::Boolean,
    }
}

struct Declaration<'a> {
    document: &'a Document,
    name: &'a str,
    at: NodeId,
    input: &'a Input,
}

impl Declaration<'_> {
    /// What the declaration says must make sense by itself.
    fn check(&self, diagnostics: &mut Diagnostics) {
        let numeric = matches!(self.input.kind, InputType::Integer | InputType::Number);
        for bound in [&self.input.minimum, &self.input.maximum].into_iter().flatten().filter(|_| !numeric) {
            diagnostics.push(self.document.error(bound.at, "only a number has a minimum or maximum"));
        }
        if let (Some(minimum), Some(maximum)) = (&self.input.minimum, &self.input.maximum)
            && minimum.value > maximum.value
        {
            diagnostics.push(self.document.error(maximum.at, "the maximum is below the minimum"));
        }
        for allowed in self.input.allowed.iter().flatten() {
            if let Err(reason) = self.conforms(&self.document.value(allowed.0), Against::Type) {
                diagnostics.push(self.document.error(allowed.0, reason));
            }
        }
        if let Some(default) = &self.input.default
            && let Err(reason) = self.conforms(&self.document.value(default.0), Against::Everything)
        {
            diagnostics.push(self.document.error(default.0, format!("the default does not fit: {reason}")));
        }
    }

    fn value(&self, bindings: &Bindings<'_>) -> Result<Option<Value>, Diagnostic> {
        let variable = variable_of(self.name);
        let flag = bindings.flags.iter().rev().find(|(name, _)| name == self.name).map(|(_, text)| text.clone());
        let (text, source) = match (flag, (bindings.variable)(&variable)) {
            (Some(text), _) => (text, format!("-i {}", self.name)),
            (None, Some(text)) => (text, variable),
            (None, None) => return self.default(bindings.missing),
        };
        let value = self.parse(&text);
        let checked = value.and_then(|value| self.conforms(&value, Against::Everything).map(|()| value));
        checked.map(Some).map_err(|reason| {
            let message = format!("input `{}` cannot be `{}` (from {source}): {reason}", self.name, shorten(&text));
            self.document.error(self.at, message)
        })
    }

    fn default(&self, missing: Missing) -> Result<Option<Value>, Diagnostic> {
        match (&self.input.default, missing) {
            (Some(default), _) => Ok(Some(self.document.value(default.0))),
            (None, Missing::Tolerate) => Ok(None),
            (None, Missing::Refuse) => {
                let problem = self.document.error(self.at, format!("input `{}` has no value", self.name));
                let (name, variable) = (self.name, variable_of(self.name));
                Err(problem.help(format!("set it with `-i {name}=VALUE` or the environment variable {variable}")))
            }
        }
    }

    fn parse(&self, text: &str) -> Result<Value, String> {
        match self.input.kind {
            InputType::Integer => text.parse::<i64>().map(Value::from).map_err(|_| "expected an integer".into()),
            InputType::Number => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::from(number)),
                _ => Err("expected a number".into()),
            },
            InputType::Boolean => {
                text.parse::<bool>().map(Value::from).map_err(|_| "expected `true` or `false`".into())
            }
            InputType::String => Ok(Value::from(text)),
        }
    }

    fn conforms(&self, value: &Value, against: Against) -> Result<(), String> {
        let fits = match self.input.kind {
            InputType::Integer => value.is_i64() || value.is_u64(),
            InputType::Number => value.is_number(),
            InputType::Boolean => value.is_boolean(),
            InputType::String => value.is_string(),
        };
        if !fits {
            let expected = type_of(self.input.kind).word();
            return Err(format!("expected {expected}, found {}", super::expression::kind_of(value)));
        }
        // A value is put into settings before the cycle starts; it must not turn into an expression there.
        if value.as_str().is_some_and(|text| text.contains("${{")) {
            return Err("a value cannot hold `${{`".into());
        }
        if against == Against::Type {
            return Ok(());
        }
        if let Some(number) = value.as_f64() {
            if let Some(minimum) = self.input.minimum.as_ref().filter(|minimum| number < minimum.value) {
                return Err(format!("the minimum is {}", minimum.value));
            }
            if let Some(maximum) = self.input.maximum.as_ref().filter(|maximum| number > maximum.value) {
                return Err(format!("the maximum is {}", maximum.value));
            }
        }
        let Some(allowed) = &self.input.allowed else { return Ok(()) };
        let allowed: Vec<Value> = allowed.iter().map(|allowed| self.document.value(allowed.0)).collect();
        if allowed.iter().any(|allowed| allowed == value || (value.is_number() && allowed.as_f64() == value.as_f64())) {
            return Ok(());
        }
        let words: Vec<String> =
            allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        Err(format!("expected {}", alternatives(&words)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    Type,
    Everything,
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
