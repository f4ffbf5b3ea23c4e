//! `robo cycle watch`: follow a cycle that another process runs, and end as it ends.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use super::{
    cycle_logs::{LOOK, Tail, describe},
    cycle_read::Stored,
    db,
    desk::Desk,
    drive,
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::cycle::{CycleId, CycleStatus, FailureClass, TaskStatus};
use crate::store::{CycleSummary, EventRow};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits as the cycle ends: 0 completed, 1 failed, 3 below quorum, 4 cancelled; and with 1 when it waits for a person. A cycle
that nobody runs is waited for until somebody goes on with it.")]
pub(super) struct Args {
    /// Which cycle
    #[arg(default_value = "@latest")]
    cycle: String,

    /// How to show the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is shown while it runs: a live line on a terminal, plain lines anywhere else.
struct Window {
    bar: Option<ProgressBar>,
    shown: Option<String>,
}

pub(super) async fn run(desk: &Desk, args: &Args) -> Result {
    let cycle = desk.store.resolve(&args.cycle).await.map_err(db::failure)?;
    let mut window = Window::new();
    let mut tail = Tail::new(cycle);
    let mut abandoned = false;
    loop {
        let summary = desk.store.cycle_summary(cycle).await.map_err(db::failure)?;
        for row in tail.next(&desk.store).await? {
            window.event(&row);
        }
        window.progress(&summary);
        match summary.status {
            CycleStatus::Open => {}
            ended => {
                window.end();
                return conclude(desk, cycle, ended, args.format).await;
            }
        }
        if summary.paused && !summary.cancel_requested {
            window.end();
            let stored = Stored::load(&desk.store, cycle).await?;
            let paused = stored.record.tasks.iter().find_map(|task| match &task.status {
                TaskStatus::Paused { failure } => Some(failure),
                _ => None,
            });
            return Err(drive::paused(desk, cycle, paused));
        }
        if !summary.is_running && !abandoned {
            let resume = desk.command(&format!("cycle resume {cycle}"));
            window.say(&format!("nobody runs it; go on with: {resume}"));
        }
        abandoned = !summary.is_running;
        // Another process runs it, and nothing tells us but the database.
        sleep(LOOK).await;
    }
}

async fn conclude(desk: &Desk, cycle: CycleId, status: CycleStatus, format: Format) -> Result {
    match status {
        CycleStatus::Cancelled => {
            render::note(format!("Cycle {cycle} was cancelled."));
            Ok(Exit::Cancelled)
        }
        CycleStatus::Failed => Err(failure(desk, cycle).await?),
        CycleStatus::Completed | CycleStatus::Open => {
            drive::show_result(desk, cycle, format).await?;
            Ok(Exit::Ok)
        }
    }
}

/// Why it failed, with the exit code of the process that ran it: that of the first failure in the plan's order.
async fn failure(desk: &Desk, cycle: CycleId) -> Result<Failure> {
    let stored = Stored::load(&desk.store, cycle).await?;
    let first = stored.record.tasks.iter().find_map(|task| match &task.status {
        TaskStatus::Failed { failure } => Some((&task.key, failure)),
        _ => None,
    });
    let exit = match first {
        Some((_, failure)) if failure.class == FailureClass::BelowQuorum => Exit::BelowQuorum,
        _ => Exit::Failed,
    };
    let reason = first.map_or_else(|| "no reason was recorded".into(), |(key, failure)| format!("{key}: {failure}"));
    let hint = super::cycle_read::show_hint(desk, cycle);
    Ok(Failure::new(exit, anyhow::anyhow!("cycle {cycle} failed: {reason}")).hint(hint))
}

impl Window {
    fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
            let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, shown: None }
    }

    fn event(&self, row: &EventRow) {
        if row.epoch > 0 {
            self.say(&format!("{}  {}  {}", row.at.format("%H:%M:%S"), row.task, describe(&row.event)));
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => render::note(text),
        }
    }

    /// `5/12 tasks  40/60 episodes`, when it has changed.
    fn progress(&mut self, summary: &CycleSummary) {
        let ((ended, tasks), (scored, planned)) = (summary.tasks, summary.episodes);
        let text = format!("{ended}/{tasks} tasks  {scored}/{planned} episodes");
        if self.shown.as_ref() == Some(&text) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.clone()),
            None => render::note(&text),
        }
        self.shown = Some(text);
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
