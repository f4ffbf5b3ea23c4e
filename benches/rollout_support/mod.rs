//! What the rollout bench needs next to robo: a miner that keeps book of itself, and the clocks of processes.

pub(crate) mod cpu;
pub(crate) mod mock;
