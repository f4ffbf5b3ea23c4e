//! `expr/map`: an expression for every element of a list.

use serde::Deserialize;
use serde_json::Value;

use super::{Invocation, Output, chain, config, outputs};
use crate::cycle::{FailureClass, TaskFailure};
use crate::plan::Mapping;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    items: Value,
    value: String,
    #[serde(default)]
    r#where: Option<String>,
    max_bytes: usize,
}

pub(super) async fn run(invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let Settings { items, value, r#where, max_bytes } = invocation.settings()?;
    let Some(name) = outputs::of_a_list(invocation.stage) else {
        return Err(config("`expr/map` gives one list: declare one output of type list, miners, scores or weights"));
    };
    let mapping = Mapping { value, condition: r#where, max_bytes };
    let context = invocation.context.clone();
    // Many elements may take seconds of pure work, which must not hold up heartbeats.
    let mapped = tokio::task::spawn_blocking(move || mapping.apply(items, &context))
        .await
        .map_err(|error| TaskFailure { class: FailureClass::Infra, message: chain(&error) })?;
    let values = mapped.map_err(|error| config(chain(&error)))?;
    outputs::checked(invocation.stage, outputs::single(name, values.into())).map(Output::from)
}
