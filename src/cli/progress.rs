//! What a running cycle shows: a live line per environment on a terminal, plain lines now and then anywhere else.

use std::{
    collections::HashMap,
    io::{IsTerminal, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::render;
use crate::cycle::{Entry, EnvironmentId, StageId, TaskEvent};
use crate::stage::EpisodeProgress;

/// How often an environment gets a plain line while its episodes run.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// How many tasks of a stage get a line as they start. Of thousands, only what goes wrong is told.
const STARTS_SHOWN: u64 = 40;

/// Shows progress on standard error.
pub(super) struct Board {
    live: Option<MultiProgress>,
    /// Attempts that have started, by stage.
    starts: Mutex<HashMap<StageId, u64>>,
    lines: Mutex<HashMap<EnvironmentId, Line>>,
}

struct Line {
    bar: ProgressBar,
    began: Instant,
    /// Episodes that earlier runs had finished when this one began.
    scored_before: usize,
    shown: Option<Instant>,
}

impl Board {
    pub(super) fn new() -> Self {
        let live = stderr().is_terminal().then(MultiProgress::new);
        Self { live, starts: Mutex::default(), lines: Mutex::default() }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.live {
            // Printing above the bars fails only when the terminal is gone; then nobody reads it.
            Some(live) => drop(live.println(text)),
            None => render::note(text),
        }
    }

    /// What the journal has just taken: only what a person should know.
    pub(super) fn entry(&self, entry: &Entry) {
        let task = &entry.task;
        match &entry.event {
            TaskEvent::Started if !matches!(task.stage.as_str(), "episodes") => {
                let started = self.count_start(&task.stage);
                if started < STARTS_SHOWN {
                    self.say(&format!("{task} ..."));
                } else if started == STARTS_SHOWN {
                    self.say(&format!("{task} ... and more of `{}`, of which only failures are told", task.stage));
                }
            }
            TaskEvent::Retried { failure } => self.say(&format!("{task} failed and will be tried again: {failure}")),
            TaskEvent::Failed { failure } => self.say(&format!("{task} failed: {failure}")),
            TaskEvent::Paused { failure } => self.say(&format!("{task} failed and waits for somebody: {failure}")),
            TaskEvent::Skipped { reason } => self.say(&format!("{task} skipped: {reason}")),
            _ => {}
        }
    }

    /// How many attempts of a stage have started before this one.
    fn count_start(&self, stage: &StageId) -> u64 {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = starts.entry(stage.clone()).or_default();
        *count += 1;
        *count - 1
    }

    /// News of an environment's episodes.
    pub(super) fn episodes(&self, progress: &EpisodeProgress) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(progress.environment.clone()).or_insert_with(|| Line {
            bar: self.bar(progress),
            began: Instant::now(),
            scored_before: progress.scored,
            shown: None,
        });
        let text = describe(progress, line.began.elapsed(), line.scored_before);
        let done = progress.scored == progress.planned;
        if self.live.is_some() {
            line.bar.set_position(progress.scored as u64);
            line.bar.set_message(text);
            if done && !line.bar.is_finished() {
                line.bar.abandon();
            }
        } else if line.shown.is_none_or(|shown| shown.elapsed() >= PLAIN_INTERVAL) || done {
            line.shown = Some(Instant::now());
            render::note(format!("{}  {text}", progress.environment));
        }
    }

    /// Take the live lines away, so that what follows stands alone.
    pub(super) fn end(&self) {
        for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if !line.bar.is_finished() {
                line.bar.abandon();
            }
        }
    }

    fn bar(&self, progress: &EpisodeProgress) -> ProgressBar {
        let Some(live) = &self.live else { return ProgressBar::hidden() };
        let style =
            ProgressStyle::with_template("{prefix:28} {bar:24} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = live.add(ProgressBar::new(progress.planned as u64).with_style(style));
        bar.set_prefix(progress.environment.to_string());
        bar
    }
}

/// `37/60 episodes  success 62 %  1830 steps/s  ETA 12 s`
fn describe(progress: &EpisodeProgress, elapsed: Duration, scored_before: usize) -> String {
    let seconds = elapsed.as_secs_f64();
    let success = match progress.scored {
        0 => "-".into(),
        scored => format!("{:.0} %", 100.0 * progress.successes as f64 / scored as f64),
    };
    let steps = if seconds > 0.2 { format!("{:.0}", progress.steps as f64 / seconds) } else { "-".into() };
    let fresh = progress.scored - scored_before.min(progress.scored);
    let left = progress.planned - progress.scored.min(progress.planned);
    let eta = match (left, fresh) {
        (0, _) => format!("done in {seconds:.0} s"),
        (_, 0) => "ETA -".into(),
        _ => format!("ETA {:.0} s", seconds / fresh as f64 * left as f64),
    };
    let faults = match progress.infra_faults {
        0 => String::new(),
        faults => format!("  {faults} run again"),
    };
    format!("{}/{} episodes  success {success}  {steps} steps/s  {eta}{faults}", progress.scored, progress.planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lesson_10_starts_are_counted_by_stage() {
        let board = Board::new();
        let [wide, other] = ["wide", "other"].map(|stage| stage.parse::<StageId>().unwrap());
        assert_eq!((0..3).map(|_| board.count_start(&wide)).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(board.count_start(&other), 0);
    }

    #[test]
    fn a_line_says_how_far_and_how_fast() {
        let mut progress = EpisodeProgress {
            environment: "m/a".parse().unwrap(),
            planned: 20,
            scored: 5,
            successes: 2,
            infra_faults: 0,
            steps: 1000,
        };
        let text = describe(&progress, Duration::from_secs(10), 0);
        assert_eq!(text, "5/20 episodes  success 40 %  100 steps/s  ETA 30 s");
        progress.infra_faults = 1;
        progress.scored = 20;
        let text = describe(&progress, Duration::from_secs(10), 5);
        assert_eq!(text, "20/20 episodes  success 10 %  100 steps/s  done in 10 s  1 run again");
    }
}
