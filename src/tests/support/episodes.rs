//! Episodes of which a test cares for the outcome alone.

use robo::cycle::{EpisodeReport, Outcome};

/// One step that ended so.
pub(crate) fn report(outcome: Outcome) -> EpisodeReport {
    EpisodeReport {
        outcome,
        detail: None,
        steps: 1,
        total_reward: 0.0,
        score: None,
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms: 1.0,
    }
}
