//! `file/miners`: a list of miners that an operator wrote. The list itself was read when the plan was made and is part
//! of the pinned definition.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::json;

use super::{Context, Invocation, Output, config};
use crate::cycle::{Miner, TaskFailure};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    miners: Vec<Miner>,
}

pub(super) async fn run<J>(_context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let Settings { miners } = invocation.settings()?;
    check(&miners)?;
    let count = miners.len();
    Ok(json!({ "miners": miners, "count": count }).into())
}

/// Whether a list names somebody, and nobody twice.
pub(super) fn check(miners: &[Miner]) -> Result<(), TaskFailure> {
    if miners.is_empty() {
        return Err(config("No miners found: the list of miners is empty"));
    }
    let (mut uids, mut hotkeys) = (HashSet::new(), HashSet::new());
    for miner in miners {
        if !uids.insert(miner.uid) {
            return Err(config(format!("uid {} stands twice in the list of miners", miner.uid)));
        }
        if !hotkeys.insert(&miner.hotkey) {
            return Err(config(format!("hotkey `{}` stands twice in the list of miners", miner.hotkey)));
        }
    }
    Ok(())
}
