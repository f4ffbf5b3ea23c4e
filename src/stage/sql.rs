//! `sql/query`: one read-only query over the rows of this cycle. How it is kept to them is the business of [`Rows`].

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{Context, Invocation, Output, chain, config, outputs};
use crate::cycle::{FailureClass, Question, Rows, RowsError, StageId, TaskFailure};
use crate::plan::{Definition, Stage};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    query: String,
    max_rows: usize,
    max_bytes: usize,
}

pub(super) async fn run<J: Rows>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let Settings { query, max_rows, max_bytes } = invocation.settings()?;
    let question = Question {
        cycle: context.lease.cycle,
        stages: before(&context.definition, invocation.stage),
        query,
        timeout: Duration::from_millis(invocation.stage.timeout_ms),
        max_rows,
        max_bytes,
    };
    let mut rows = context.journal.ask(&question).await.map_err(failure)?;
    let value = match outputs::of_a_list(invocation.stage) {
        Some(name) => outputs::single(name, rows.into()),
        None => {
            if rows.len() != 1 {
                let found = rows.len();
                return Err(config(format!("the query gives {found} rows: outputs that are no list take exactly one")));
            }
            rows.pop().unwrap_or(Value::Null)
        }
    };
    outputs::checked(invocation.stage, value).map(Output::from)
}

fn failure(error: RowsError) -> TaskFailure {
    let class = match error {
        RowsError::Storage(_) => FailureClass::Infra,
        RowsError::Timeout(_) => FailureClass::Timeout,
        RowsError::Refused(_) | RowsError::Failed(_) | RowsError::TooManyRows(_) | RowsError::TooLarge(_) => {
            FailureClass::Config
        }
    };
    TaskFailure { class, message: chain(&error) }
}

/// Every stage that has ended before this one begins: others may be anywhere, and their rows would be a matter of luck.
fn before(definition: &Definition, stage: &Stage) -> Vec<StageId> {
    let mut seen: BTreeSet<&StageId> = BTreeSet::new();
    let mut open: Vec<&StageId> = stage.depends_on.iter().collect();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(definition.stage(id).into_iter().flat_map(|stage| &stage.depends_on));
        }
    }
    seen.into_iter().cloned().collect()
}
