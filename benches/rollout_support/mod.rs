//! What the rollout bench needs next to robo: a miner that keeps book of itself, others that misbehave, workers without a
//! server, and the clocks of processes.

pub(crate) mod contained;
pub(crate) mod cpu;
pub(crate) mod hostile;
pub(crate) mod mock;
pub(crate) mod overload;
pub(crate) mod permits;
pub(crate) mod play;
pub(crate) mod raw;
pub(crate) mod round;

/// Four numbers from -1 to 1. A linear congruence is noise enough to move an arm.
fn noise(state: &mut u64) -> [f64; 4] {
    [(); 4].map(|()| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    })
}
