//! What a backend adds to pipelines that leave it open: how often, and how many episodes.

use std::num::NonZeroU32;

use clap::Args;

/// Seconds from one cycle to the next, when neither a pipeline nor the operator says.
const DEFAULT_INTERVAL: NonZeroU32 = NonZeroU32::new(3600).unwrap();

/// When a backend starts the cycles of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// By the pipeline's own schedules.
    Own,
    /// At every multiple of so many seconds.
    Every(NonZeroU32),
    /// Only by hand.
    Never,
}

/// How a backend evaluates where its pipelines do not say.
#[derive(Debug, Clone, Args)]
pub struct Evaluation {
    /// Seconds from one cycle to the next, due at their multiples since 1970 (3600: on the hour). It replaces the schedules of
    /// the pipelines; with 0, a pipeline without a schedule is only started by hand [default: the pipeline's own schedule, else 3600]
    #[arg(long, env = "ROBO_BACKEND_EVAL_INTERVAL_SECONDS", value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(..=2_592_000))]
    pub eval_interval: Option<u32>,

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
        let is_meant = matches!(name, "ROBO_INPUT_EPISODES_PER_ENV" | "ROBO_BACKEND_EPISODES_PER_ENV");
        self.episodes_per_env.filter(|_| is_meant).map(|episodes| episodes.to_string())
    }

    /// The schedules of a pipeline that has these of its own: seconds from one cycle to the next, where they are not its own.
    pub fn interval(&self, has_own: bool) -> Interval {
        match self.eval_interval.map(NonZeroU32::new) {
            Some(Some(seconds)) => Interval::Every(seconds),
            Some(None) | None if has_own => Interval::Own,
            Some(None) => Interval::Never,
            None => Interval::Every(DEFAULT_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_was_given_replaces_schedules() {
        let interval = |eval_interval| {
            let evaluation = Evaluation { eval_interval, episodes_per_env: None };
            [true, false].map(|has_own| evaluation.interval(has_own))
        };
        let every = |seconds| Interval::Every(NonZeroU32::new(seconds).unwrap());
        assert_eq!(interval(None), [Interval::Own, every(3600)]);
        assert_eq!(interval(Some(900)), [every(900), every(900)]);
        assert_eq!(interval(Some(0)), [Interval::Own, Interval::Never]);
    }
}
