//! Runs a cycle on behalf of a person: progress while it runs, the result when it ends, what to do when it does not.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    chain,
    chaos::WRITES,
    cycle_show, db,
    desk::Desk,
    exit::{Exit, Failure, Result},
    miners,
    mortal::{DieAt, Mortal},
    progress::Board,
    render::{self, Format},
    report, weights,
};
use crate::backend::{self, Error, Machine, Steering};
use crate::config::{Discovery, Place};
use crate::cycle::{CycleId, CycleStatus, FailureClass, Guarded, JournalError, TaskFailure};
use crate::engine::{self, Control, Ending};
use crate::host::Progress;
use crate::plan::BuildError;
use crate::stage::{Drain, Subnet, documents};
use crate::store::{self, Store};

/// Tasks in flight at a time when nobody says otherwise.
pub(super) const PARALLEL: u16 = 8;

/// How often a cycle that waits for others looks whether its turn has come.
const TURN: Duration = Duration::from_secs(1);

/// What a person may choose about a run, which does not change its result.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Tasks in flight at a time
    #[arg(long, default_value_t = PARALLEL, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: u16,

    #[command(flatten)]
    pub(super) place: Place,

    #[command(flatten)]
    pub(super) discovery: Discovery,

    /// How to show the result
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,

    /// Testing aid of `robo chaos`: end with SIGKILL before or after a journal write, as `12:before`; `never` counts them
    #[arg(long, value_name = "N:SIDE", hide = true)]
    pub(super) die_at: Option<DieAt>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: PARALLEL,
            place: Place::default(),
            discovery: Discovery::default(),
            format: Format::default(),
            die_at: None,
        }
    }
}

/// Run an open cycle to its end and show the result.
pub(super) async fn drive(desk: &Desk, cycle: CycleId, options: &Options) -> Result {
    let machine = machine(desk.data_dir.clone(), (&options.place, &options.discovery))?;
    sweep(&desk.store).await;
    let journal = Arc::new(Guarded::new(Arc::clone(&desk.store), Mortal::new(options.die_at)));
    let suspend = CancellationToken::new();
    let signals = tokio::spawn(watch_signals(suspend.clone())?);
    let ending = in_turn(desk, &journal, (cycle, &suspend), (options, &machine)).await;
    if let Some(writes) = journal.guard().asked_to_count() {
        render::note(format!("{WRITES}{writes}"));
    }
    // Until here a second signal must be heard: stopping what runs may take its time.
    signals.abort();
    match ending {
        Ok(Ending::Ended(status, failure)) => conclude(desk, cycle, (status, failure), options.format).await,
        Ok(Ending::Suspended) => {
            let resume = desk.command(&format!("cycle resume {cycle}"));
            render::note(format!("\nStopped. Nothing that was finished is lost; go on with: {resume}"));
            Ok(Exit::Cancelled)
        }
        Ok(Ending::Paused(failure)) => Err(paused(desk, cycle, Some(&failure))),
        Err(Error::Engine(engine::Error::Journal(error @ (JournalError::Leased(..) | JournalError::LeaseLost(_))))) => {
            Err(journal_failure(error)
                .hint(format!("see how far it is with: {}", desk.command(&format!("cycle show {cycle}")))))
        }
        Err(Error::Engine(engine::Error::Journal(error))) => {
            Err(journal_failure(error).hint(format!("go on with: {}", desk.command(&format!("cycle resume {cycle}")))))
        }
        Err(Error::Engine(engine::Error::Build(error))) => Err(build_failure(error)),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

/// The machine as its operator describes it.
pub(super) fn machine(data_dir: PathBuf, (place, discovery): (&Place, &Discovery)) -> Result<Machine> {
    let subnet = Subnet { network: chain::network(&discovery.chain)?, secret: miners::secret(&discovery.key)? };
    let machine = Machine::new(data_dir, place).map_err(|problem| {
        let remedy = problem.remedy();
        Failure::new(Exit::Usage, problem).hint(remedy)
    })?;
    Ok(machine.with_subnet(subnet))
}

/// A task waits for somebody to decide.
pub(super) fn paused(desk: &Desk, cycle: CycleId, failure: Option<&TaskFailure>) -> Failure {
    let [resume, cancel] = ["resume", "cancel"].map(|verb| desk.command(&format!("cycle {verb} {cycle}")));
    let why = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
    Failure::new(Exit::Failed, anyhow::anyhow!("cycle {cycle} is paused{why}"))
        .hint(format!("when the cause is gone, go on with: {resume}; or give it up with: {cancel}"))
}

/// Run a cycle when its turn has come.
async fn in_turn(
    desk: &Desk,
    journal: &Arc<Guarded<Store, Mortal>>,
    (cycle, suspend): (CycleId, &CancellationToken),
    (options, machine): (&Options, &Machine),
) -> std::result::Result<Ending, Error> {
    let storage = |error: store::Error| Error::from(JournalError::Storage(Box::new(error)));
    for old in desk.store.given_up_for(cycle).await.map_err(storage)? {
        render::note(format!("cycle {old} is to stop, and nobody runs it: ending it first"));
        if let Err(error) = run(desk, journal, (old, suspend), (options, machine)).await {
            render::note(format!("warning: cycle {old} could not be ended: {:#}", anyhow::Error::from(error)));
        }
    }
    let mut told = None;
    loop {
        let ending = run(desk, journal, (cycle, suspend), (options, machine)).await;
        match &ending {
            Err(Error::Engine(engine::Error::Journal(JournalError::Waits(_, ahead)))) => {
                if told.replace(*ahead) != Some(*ahead) {
                    render::note(format!(
                        "cycle {cycle} waits until cycle {ahead} has ended; Ctrl-C leaves it waiting"
                    ));
                }
            }
            // While it waited, somebody else has taken it up, or ended it.
            Err(Error::Engine(engine::Error::Journal(JournalError::Leased(..) | JournalError::LeaseLost(_))))
                if told.is_some() =>
            {
                let status = desk.store.cycle_summary(cycle).await.map_err(storage)?.status;
                if status != CycleStatus::Open {
                    return Ok(Ending::Ended(status, None));
                }
            }
            _ => return ending,
        }
        // Whoever runs the other one cannot tell us when it has ended.
        tokio::select! {
            () = suspend.cancelled() => return Ok(Ending::Suspended),
            () = tokio::time::sleep(TURN) => {}
        }
    }
}

/// Run a cycle and show how it goes.
async fn run(
    desk: &Desk,
    journal: &Arc<Guarded<Store, Mortal>>,
    (cycle, suspend): (CycleId, &CancellationToken),
    (options, machine): (&Options, &Machine),
) -> std::result::Result<Ending, Error> {
    let board = Arc::new(Board::new());
    let steering = steering(&board, suspend.clone(), options);
    let ending = backend::run_cycle(journal, &desk.store, machine, (cycle, steering)).await;
    board.end();
    ending
}

fn steering(board: &Arc<Board>, suspend: CancellationToken, options: &Options) -> Steering {
    let (entries, episodes, progress) = (Arc::clone(board), Arc::clone(board), Arc::clone(board));
    Steering {
        control: Control {
            suspend,
            observer: Arc::new(move |entry| entries.entry(entry)),
            parallelism: options.parallel.into(),
        },
        drain: Drain::default(),
        watcher: Arc::new(move |progress| episodes.episodes(&progress)),
        progress: Progress::new(move |text| progress.say(text)),
    }
}

/// End what cycles of this machine have left behind. A database that is away now is waited for by what comes next.
async fn sweep(store: &store::Store) {
    if let Err(error) = store.reap().await {
        tracing::warn!(%error, "what earlier cycles may have left running could not be looked for");
    }
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
    let vector: documents::WeightsDocument = serde_json::from_str(&result.weights)?;
    render::line(format!("\n{}", report::results(&scores, &vector)));
    let Some(row) = desk.store.publication(cycle).await.map_err(db::failure)? else {
        render::line(format!("Cycle {cycle} completed; weights sha256:{}, not published", result.digest));
        return Ok(());
    };
    if !row.is_given_out() {
        render::line(format!("Cycle {cycle} completed; its weights are HELD BACK: {}", weights::why(&row)));
        render::note(weights::how_to_release(&row));
        return Ok(());
    }
    render::line(format!("Cycle {cycle} completed; weights sha256:{}\n\nRead the results:", result.digest));
    for (what, command) in [
        ("the vector, --format json for programs", format!("weights show {cycle}")),
        ("stages, outcomes and faults", format!("cycle show {cycle}")),
        ("over HTTP: /v1/weights/latest, /v1/scores/latest", "backend --role api".into()),
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
        error @ JournalError::SaltShown(cycle, _) => {
            let hint = format!("make a new cycle of it with: robo cycle fork {cycle} --from STAGE");
            Failure::new(Exit::Failed, error).hint(hint)
        }
        error @ JournalError::SaltInUse(_, open) => Failure::new(Exit::Failed, error)
            .hint(format!("wait until that one has ended: robo cycle watch {open}; if it completes, fork this one")),
        error => Failure::new(Exit::Failed, error),
    }
}

/// The first signal suspends what runs; the second ends the process at once.
pub(super) fn watch_signals(suspend: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
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
