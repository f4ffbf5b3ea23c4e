//! What a backend adds to pipelines that leave it open: how often, and how many episodes.

use std::num::NonZeroU32;

use clap::Args;

/// How a backend evaluates where its pipelines do not say.
#[derive(Debug, Clone, Args)]
pub struct Evaluation {
    /// Seconds from one cycle to the next of a pipeline without a schedule, due at their multiples since 1970 (3600: on the hour);
    /// 0 for none
    #[arg(long, env = "ROBO_BACKEND_EVAL_INTERVAL_SECONDS", value_name = "SECONDS", default_value_t = 3600,
          value_parser = clap::value_parser!(u32).range(..=2_592_000))]
    pub eval_interval: u32,

    /// Episodes of every miner in every environment.
    // Its variable is one of those of inputs: `ROBO_INPUT_EPISODES_PER_ENV` beats it, and not the flag.
    #[arg(
        long,
        value_name = "N",
        help = "Episodes of every miner in every environment, for pipelines with an input `episodes_per_env` (an `-i` beats it) \
                  [env: ROBO_BACKEND_EPISODES_PER_ENV] [default: the pipeline's own; 50 in pipelines/subnet.yaml]"
    )]
    pub episodes_per_env: Option<NonZeroU32>,
}

impl Evaluation {
    /// What an input's variable (`ROBO_INPUT_<NAME>`) is set to by a flag.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.episodes_per_env.filter(|_| name == "ROBO_INPUT_EPISODES_PER_ENV").map(|episodes| episodes.to_string())
    }

    /// Seconds between two cycles of a pipeline without a schedule.
    pub fn interval(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.eval_interval)
    }
}
