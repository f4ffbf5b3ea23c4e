//! `robo gc`: delete the detail of cycles that ended long ago. The backend does the same once a day.

use std::{
    io::{IsTerminal, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    db,
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::config::{self, KeepFor};
use crate::store::{Aged, Store};

/// How often a plain line tells how far it is.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often the backend collects.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Episodes, lost attempts and journal lines of old cycles are deleted; scores, weights, outputs, definitions and salts stay.
Such a cycle can still be shown and compared; it cannot be forked, rescored or retried.

Examples:
  robo gc --dry-run
  robo gc --older-than 90d")]
pub(super) struct Args {
    /// Say what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,

    /// Age at which detail goes, counted from the end of the cycle; `off` deletes nothing
    #[arg(long, env = "ROBO_RETENTION", value_name = "AGE", default_value = "30d", value_parser = KeepFor::parse)]
    older_than: KeepFor,

    /// How to show the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: config::Database,
}

pub(super) async fn run(args: Args) -> Result {
    let KeepFor::Age(age) = args.older_than else {
        return Err(Failure::new(Exit::Usage, anyhow::anyhow!("retention is off: nothing is old enough to go"))
            .hint("name an age: robo gc --older-than 30d"));
    };
    let store = Store::open(&args.database, &db::progress()).await.map_err(db::failure)?;
    let aged = if args.dry_run {
        store.count_garbage(age).await
    } else {
        let told = Mutex::new(Instant::now());
        store.collect_garbage(age, &|aged| tell(aged, &told)).await
    };
    store.close().await;
    report(&aged.map_err(db::failure)?, &args);
    Ok(Exit::Ok)
}

/// What the backend does by itself: collect when it starts and once a day, until it is dropped. A day on which it fails is
/// told, and made up for by the next.
pub(super) async fn daily(store: Store, keep: KeepFor) {
    let KeepFor::Age(age) = keep else { return };
    loop {
        match store.collect_garbage(age, &|_| {}).await {
            Ok(aged) if aged.cycles > 0 => tracing::info!("detail aged out: {}", describe(&aged)),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old detail could not be deleted");
            }
        }
        tokio::time::sleep(DAY).await;
    }
}

fn tell(aged: &Aged, told: &Mutex<Instant>) {
    let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if told.elapsed() >= INTERVAL {
        *told = Instant::now();
        let back = if stderr().is_terminal() { "... " } else { "" };
        render::note(format!("{back}{}", describe(aged)));
    }
}

fn report(aged: &Aged, args: &Args) {
    match args.format {
        Format::Json => {
            let mut document = json!(aged);
            document["dry_run"] = json!(args.dry_run);
            render::json(&document);
        }
        Format::Table => {
            let verb = if args.dry_run { "would go" } else { "deleted" };
            render::line(format!("{verb}: {}", describe(aged)));
        }
    }
}

fn describe(aged: &Aged) -> String {
    format!(
        "{} episodes, {} lost attempts, {} journal lines of {} cycles, {}",
        aged.episodes,
        aged.attempts,
        aged.events,
        aged.cycles,
        size(aged.bytes)
    )
}

/// `1.5 MB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} bytes"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_rows_and_bytes() {
        let aged = Aged { cycles: 2, episodes: 30, attempts: 4, events: 50, bytes: 1_530_000 };
        assert_eq!(describe(&aged), "30 episodes, 4 lost attempts, 50 journal lines of 2 cycles, 1.5 MB");
    }
}
