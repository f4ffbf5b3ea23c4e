//! `robo cycle cancel`: ask a cycle to stop, and with `--force` stop it whoever holds it. Teardown runs either way.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    db,
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    render,
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
}

/// `0s`, or a duration as in manifests.
fn grace(text: &str) -> std::result::Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { manifest::duration(text) }
}

pub(super) async fn run(desk: &Desk, args: &Args) -> Result {
    let cycle = desk.store.resolve(&args.cycle).await.map_err(db::failure)?;
    match desk.store.request_cancel(cycle).await.map_err(db::failure)? {
        CancelAnswer::Requested if args.force => force(desk, cycle, args.grace).await,
        CancelAnswer::Requested => {
            render::line(format!("cycle {cycle} will stop within seconds; its teardown still runs"));
            Ok(Exit::Ok)
        }
        // Nobody else would end it: do what its owner would have done, teardown included.
        CancelAnswer::NobodyRuns => end(desk, cycle).await,
        CancelAnswer::Ended(status) => {
            let error = anyhow::anyhow!("cycle {cycle} has ended already: {}", status.word());
            Err(Failure::new(Exit::Failed, error))
        }
    }
}

async fn force(desk: &Desk, cycle: CycleId, grace: Duration) -> Result {
    let deadline = Instant::now() + grace;
    loop {
        let summary = desk.store.cycle_summary(cycle).await.map_err(db::failure)?;
        if summary.status != CycleStatus::Open {
            render::line(format!("cycle {cycle} has ended: {}", summary.status.word()));
            return Ok(Exit::Ok);
        }
        if !summary.is_running {
            return end(desk, cycle).await;
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
    end(desk, cycle).await
}

/// End a cycle that was asked to stop.
async fn end(desk: &Desk, cycle: CycleId) -> Result {
    match drive(desk, cycle, &drive::Options::default()).await? {
        Exit::Cancelled => Ok(Exit::Ok),
        other => Ok(other),
    }
}
