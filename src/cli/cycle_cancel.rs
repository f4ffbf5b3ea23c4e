//! `robo cycle cancel`: ask a cycle to stop, and with `--force` stop it whoever holds it. Teardown runs either way.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    cycle_show, db,
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::cycle::{CycleId, CycleStatus};
use crate::manifest;
use crate::store::CancelAnswer;

/// How often `--force` looks whether the owner has obeyed.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which cycle
    cycle: String,

    /// Take the cycle over if its owner has not ended it within --grace, and end it here; the owner can write nothing more
    #[arg(long)]
    force: bool,

    /// How long the owner has to end it; `0s` for not at all
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = grace, requires = "force")]
    grace: Duration,

    /// How to show what became of the cycle; as JSON it is what `cycle ls` has of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// `0s`, or a duration as in manifests.
fn grace(text: &str) -> std::result::Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { manifest::duration(text) }
}

pub(super) async fn run(desk: &Desk, args: &Args) -> Result {
    let cycle = desk.store.resolve(&args.cycle).await.map_err(db::failure)?;
    match desk.store.request_cancel(cycle).await.map_err(db::failure)? {
        CancelAnswer::Requested if args.force => force(desk, cycle, args).await,
        CancelAnswer::Requested => {
            let words = format!("cycle {cycle} will stop within seconds; its teardown still runs");
            say(desk, cycle, args.format, &words).await
        }
        // Nobody else would end it: do what its owner would have done, teardown included.
        CancelAnswer::NobodyRuns => end(desk, cycle, args.format).await,
        CancelAnswer::Ended(status) => {
            let error = anyhow::anyhow!("cycle {cycle} has ended already: {}", status.word());
            Err(Failure::new(Exit::Failed, error))
        }
    }
}

async fn force(desk: &Desk, cycle: CycleId, args: &Args) -> Result {
    let deadline = Instant::now() + args.grace;
    loop {
        let summary = desk.store.cycle_summary(cycle).await.map_err(db::failure)?;
        if summary.status != CycleStatus::Open {
            return say(desk, cycle, args.format, &format!("cycle {cycle} has ended: {}", summary.status.word())).await;
        }
        if !summary.is_running {
            return end(desk, cycle, args.format).await;
        }
        if Instant::now() >= deadline {
            break;
        }
        // The owner is another process, of which only the database tells.
        sleep(LOOK).await;
    }
    if desk.store.revoke_lease(cycle).await.map_err(db::failure)? {
        render::note(format!("cycle {cycle} was taken from an owner that did not end it"));
    }
    end(desk, cycle, args.format).await
}

/// End a cycle that was asked to stop.
async fn end(desk: &Desk, cycle: CycleId, format: Format) -> Result {
    match drive(desk, cycle, &drive::Options { format, ..drive::Options::default() }).await? {
        Exit::Cancelled if format == Format::Json => say(desk, cycle, format, "").await,
        Exit::Cancelled => Ok(Exit::Ok),
        other => Ok(other),
    }
}

/// Words for people, the cycle as it stands for programs.
async fn say(desk: &Desk, cycle: CycleId, format: Format, words: &str) -> Result {
    match format {
        Format::Table => render::line(words),
        Format::Json => {
            render::json(&cycle_show::summary(&desk.store.cycle_summary(cycle).await.map_err(db::failure)?));
        }
    }
    Ok(Exit::Ok)
}
