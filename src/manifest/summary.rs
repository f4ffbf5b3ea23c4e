//! An episode that has ended, in a few numbers, and what a manifest makes of them: success by an expression, a score.
//!
//! Pure. Both follow from the summary and the manifest alone, and the manifest's part of it is pinned in the cycle's
//! definition, so anybody who has the two can judge an episode again.

use serde_json::{Value, json};

use crate::plan::{ExpressionError, references, truth};

use super::simulation::{Score, ScoreSource};
use super::suggest;

/// What an expression under `success.rule.expression` may use.
pub const NAMES: [&str; 7] =
    ["steps", "max_steps", "return", "mean_reward", "best_reward", "last_reward", "terminated"];

/// An episode that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Steps taken, at least one.
    pub steps: u32,
    /// Steps after which it would have ended anyway.
    pub max_steps: u32,
    /// Sum of the rewards.
    pub total_reward: f64,
    /// Largest reward of a step.
    pub best_reward: f64,
    /// Reward of the last step.
    pub last_reward: f64,
    /// Whether the simulator itself ended it, as it does when a robot has fallen.
    pub terminated: bool,
}

impl Summary {
    /// Whether an expression holds for this episode.
    ///
    /// # Errors
    /// When it has no value, or one that is neither true nor false.
    pub fn holds(&self, expression: &str) -> Result<bool, ExpressionError> {
        truth(expression, &self.to_json())
    }

    fn to_json(self) -> Value {
        json!({
            "steps": self.steps,
            "max_steps": self.max_steps,
            "return": self.total_reward,
            "mean_reward": self.total_reward / f64::from(self.steps.max(1)),
            "best_reward": self.best_reward,
            "last_reward": self.last_reward,
            "terminated": self.terminated,
        })
    }
}

impl Score {
    /// What this episode is worth, 0 to 1; none when that is measured by something that our simulators do not report.
    pub fn of(&self, summary: &Summary) -> Option<f64> {
        match self.from {
            ScoreSource::Return => Some(self.worth(summary.total_reward)),
            ScoreSource::Score => None,
        }
    }

    /// What an episode is worth of which this was measured, 0 to 1.
    pub fn worth(&self, measured: f64) -> f64 {
        ((measured - self.min) / (self.max - self.min)).clamp(0.0, 1.0)
    }
}

/// What is wrong with an expression, found before any episode: names that there are not, or a value that is no answer.
pub(super) fn check(expression: &str) -> Result<(), ExpressionError> {
    for name in references(expression)? {
        if !NAMES.contains(&name.as_str()) {
            let help = match suggest::closest(&name, NAMES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it may use {}", NAMES.join(", ")),
            };
            let message = format!("an episode's summary has no `{name}`");
            return Err(ExpressionError { expression: name, message, help: Some(help) });
        }
    }
    // Whether it gives an answer may depend on the episode: a long good one and a short bad one show the usual slips.
    let good = Summary {
        steps: 100,
        max_steps: 100,
        total_reward: 50.0,
        best_reward: 1.0,
        last_reward: 1.0,
        terminated: false,
    };
    let bad = Summary { steps: 1, total_reward: -1.0, best_reward: -1.0, last_reward: -1.0, terminated: true, ..good };
    good.holds(expression)?;
    bad.holds(expression).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary(total_reward: f64, terminated: bool) -> Summary {
        Summary { steps: 10, max_steps: 20, total_reward, best_reward: 3.0, last_reward: -1.0, terminated }
    }

    #[test]
    fn an_expression_sees_every_number_and_nothing_else() {
        let episode = summary(5.0, false);
        for expression in [
            "return >= 5 and not terminated",
            "steps == 10 and max_steps == 20",
            "mean_reward == 0.5",
            "best_reward > last_reward and last_reward < 0",
            "[return, best_reward] | max == 5",
        ] {
            assert_eq!(episode.holds(expression), Ok(true), "{expression}");
            assert_eq!(check(expression), Ok(()), "{expression}");
        }
        assert_eq!(summary(5.0, true).holds("not terminated"), Ok(false));
        let unknown = check("retrun > 3").unwrap_err();
        assert!(unknown.message.contains("`retrun`"), "{unknown}");
        assert_eq!(unknown.help.as_deref(), Some("did you mean `return`?"));
        for wrong in ["return", "return >", "inputs.x", "return && steps", ""] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_score_is_linear_between_its_ends() {
        let score = Score { from: ScoreSource::Return, min: -100.0, max: 300.0 };
        for (total, expected) in [(-1e9, 0.0), (-100.0, 0.0), (0.0, 0.25), (100.0, 0.5), (300.0, 1.0), (301.0, 1.0)] {
            assert_eq!(score.of(&summary(total, false)), Some(expected), "{total}");
        }
    }

    proptest! {
        #[test]
        fn a_score_is_never_outside_its_range(total in -1e300..1e300_f64, min in -1e6..1e6_f64, span in 1e-6..1e6_f64) {
            let score = Score { from: ScoreSource::Return, min, max: min + span };
            let worth = score.of(&summary(total, false)).unwrap();
            prop_assert!((0.0..=1.0).contains(&worth));
        }
    }
}
