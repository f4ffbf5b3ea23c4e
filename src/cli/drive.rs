//! Runs a cycle on behalf of a person: progress while it runs, the result when it ends, what to do when it does not.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    cycle_show, db,
    desk::Desk,
    exit::{Exit, Failure, Result},
    progress::Board,
    render::{self, Format},
    report,
};
use crate::cycle::{CycleId, CycleStatus, FailureClass, JournalError, TaskFailure};
use crate::engine::{self, Control, Ending};
use crate::host::Progress;
use crate::plan::BuildError;
use crate::runtime::{self, DemoMiners};
use crate::stage::{self, Context, Invocation, Servers, documents};
use crate::store;

/// Tasks in flight at a time when nobody says otherwise.
const PARALLEL: u16 = 8;

/// What a person may choose about a run, which does not change its result.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Tasks in flight at a time
    #[arg(long, default_value_t = PARALLEL, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: u16,

    /// How to show the result
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Default for Options {
    fn default() -> Self {
        Self { parallel: PARALLEL, format: Format::default() }
    }
}

/// Run an open cycle to its end and show the result.
pub(super) async fn drive(desk: &Desk, cycle: CycleId, options: &Options) -> Result {
    let store = Arc::clone(&desk.store);
    let record = crate::cycle::Journal::load(&*store, cycle).await.map_err(journal_failure)?;
    let board = Arc::new(Board::new());
    let servers = {
        let board = Arc::clone(&board);
        let progress = Progress::new(move |text| board.say(text));
        let runtime = runtime::Process::with_defaults(desk.data_dir.clone(), progress)?;
        Arc::new(Servers::new(Arc::new(runtime), DemoMiners::with_defaults()?, record.root.into()))
    };
    let suspend = CancellationToken::new();
    let signals = tokio::spawn(watch_signals(suspend.clone())?);
    let control = {
        let board = Arc::clone(&board);
        Control { suspend, observer: Arc::new(move |entry| board.entry(entry)), parallelism: options.parallel.into() }
    };
    let watcher: Arc<dyn Fn(stage::EpisodeProgress) + Send + Sync> = {
        let board = Arc::clone(&board);
        Arc::new(move |progress| board.episodes(&progress))
    };
    let execute = |scope: engine::Scope, attempt: engine::Attempt| {
        let context = Context {
            journal: Arc::clone(&store),
            lease: scope.lease,
            definition: scope.definition,
            record: scope.record,
            servers: Arc::clone(&servers),
            watcher: Arc::clone(&watcher),
        };
        async move {
            let settings = attempt.settings()?;
            let invocation = Invocation { task: &attempt.task, stage: &attempt.stage, settings: &settings };
            stage::run(&context, invocation).await
        }
    };
    let ending = engine::run(&store, cycle, execute, control).await;
    board.end();
    servers.stop().await;
    // Until here a second signal must be heard: stopping what runs may take its time.
    signals.abort();
    match ending {
        Ok(Ending::Ended(status, failure)) => conclude(desk, cycle, (status, failure), options.format).await,
        Ok(Ending::Suspended) => {
            let resume = desk.command(&format!("cycle resume {cycle}"));
            render::note(format!("\nStopped. Nothing that was finished is lost; go on with: {resume}"));
            Ok(Exit::Cancelled)
        }
        Ok(Ending::Paused(failure)) => Err(paused(desk, cycle, &failure)),
        Err(engine::Error::Journal(error @ (JournalError::Leased(..) | JournalError::LeaseLost(_)))) => {
            Err(journal_failure(error)
                .hint(format!("see how far it is with: {}", desk.command(&format!("cycle show {cycle}")))))
        }
        Err(engine::Error::Journal(error)) => {
            Err(journal_failure(error).hint(format!("go on with: {}", desk.command(&format!("cycle resume {cycle}")))))
        }
        Err(engine::Error::Build(error)) => Err(build_failure(error)),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

/// A task waits for somebody to decide.
fn paused(desk: &Desk, cycle: CycleId, failure: &TaskFailure) -> Failure {
    let [resume, cancel] = ["resume", "cancel"].map(|verb| desk.command(&format!("cycle {verb} {cycle}")));
    Failure::new(Exit::Failed, anyhow::anyhow!("cycle {cycle} is paused: {failure}"))
        .hint(format!("when the cause is gone, go on with: {resume}; or give it up with: {cancel}"))
}

/// The simulator's sources are not those that the cycle began with.
pub(super) fn build_failure(error: BuildError) -> Failure {
    Failure::new(Exit::Mismatch, error).hint(
        "a cycle is pinned to what simulates: restore those files and resume it, or cancel it and start a new one",
    )
}

async fn conclude(desk: &Desk, cycle: CycleId, ended: (CycleStatus, Option<TaskFailure>), format: Format) -> Result {
    match ended {
        (CycleStatus::Completed, _) => {
            show_result(desk, cycle, format).await?;
            Ok(Exit::Ok)
        }
        (CycleStatus::Cancelled, _) => {
            render::note(format!("Cycle {cycle} was cancelled."));
            Ok(Exit::Cancelled)
        }
        (_, failure) => {
            let exit = match failure.as_ref().map(|failure| failure.class) {
                Some(FailureClass::BelowQuorum) => Exit::BelowQuorum,
                _ => Exit::Failed,
            };
            let reason = failure.map_or_else(|| "no reason was recorded".into(), |failure| failure.message);
            Err(Failure::new(exit, anyhow::anyhow!("cycle {cycle} failed: {reason}"))
                .hint(format!("see every task with: {}", desk.command(&format!("cycle show {cycle}")))))
        }
    }
}

/// The result of a completed cycle and where to read more.
pub(super) async fn show_result(desk: &Desk, cycle: CycleId, format: Format) -> Result<()> {
    if format == Format::Json {
        let parts = cycle_show::Parts::default();
        cycle_show::show(&desk.store, &cycle.to_string(), parts, format).await?;
        return Ok(());
    }
    let Some(result) = desk.store.result(cycle).await.map_err(db::failure)? else {
        render::line(format!("Cycle {cycle} completed and published no weights."));
        return Ok(());
    };
    let scores: documents::ScoresDocument = serde_json::from_str(&result.scores)?;
    let weights: documents::WeightsDocument = serde_json::from_str(&result.weights)?;
    render::line(format!("\n{}", report::results(&scores, &weights)));
    if desk.store.publication(cycle).await.map_err(db::failure)?.is_none() {
        render::line(format!("Cycle {cycle} completed; weights sha256:{}, not published", result.digest));
        return Ok(());
    }
    render::line(format!("Cycle {cycle} completed; weights sha256:{}\n\nRead the results:", result.digest));
    for (what, command) in [
        ("the vector, --format json for programs", format!("weights show {cycle}")),
        ("stages, outcomes and faults", format!("cycle show {cycle}")),
        ("over HTTP: /v1/weights/latest, /v1/scores/latest", "backend".into()),
    ] {
        render::line(format!("  {:56}  {what}", desk.command(&command)));
    }
    Ok(())
}

/// A journal's error as the person at the terminal needs it.
pub(super) fn journal_failure(error: JournalError) -> Failure {
    match error {
        JournalError::Storage(error) => match error.downcast::<store::Error>() {
            // The hints are those of every verb; that the journal is what could not be written makes it a matter of the database.
            Ok(error) => Failure { exit: Exit::DatabaseUnreachable, ..db::failure(*error) },
            Err(error) => Failure::new(Exit::DatabaseUnreachable, JournalError::Storage(error)),
        },
        error @ JournalError::Unknown(_) => Failure::new(Exit::Usage, error).hint("list cycles with: robo cycle ls"),
        error => Failure::new(Exit::Failed, error),
    }
}

/// The first signal suspends the cycle; the second ends the process at once.
fn watch_signals(suspend: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        next(&mut interrupt, &mut terminate).await;
        render::note("\nstopping; press Ctrl-C again to leave at once");
        suspend.cancel();
        next(&mut interrupt, &mut terminate).await;
        std::process::exit(Exit::Cancelled as i32);
    })
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
