//! The task that stands for a stage whose matrix never became known.

use serde_json::Map;

use crate::cycle::TaskKey;
use crate::plan::{Stage, Task};

/// The one task that stands for a stage whose matrix has not become known: it is skipped, cancelled or fails for it.
pub(super) fn stand_in(stage: &Stage) -> Task {
    Task { key: TaskKey { stage: stage.id.clone(), cell: String::new() }, matrix: Map::new() }
}
