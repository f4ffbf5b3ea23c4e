//! `robo backend`: serve weights and scores over HTTP; start cycles by their schedules and run every open one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{
    chain, db, drive,
    exit::{Exit, Failure, Result},
    gc,
    inputs::{self, Inputs},
    project::{self, Found},
    render,
};
use crate::backend::{Backend, BlockSource, FinalizedHead, Limits, Outside, Pipeline, Pipelines, Source, tell_of};
use crate::manifest::Diagnostics;
use crate::{
    api::{self, Addresses, Endpoints, Metrics, Protection, Settings, standing::Validity},
    config::{self, KeepFor},
    runtime::docker::Containers,
    store::Store,
};

/// Serves weights, scores and everything else about cycles over HTTP until SIGINT or SIGTERM
///
/// It also starts the cycles of its pipelines when they are due, and runs every open cycle that nobody else runs. With --netuid
/// and no --pipeline it runs `pipelines/subnet.yaml`; --role api runs nothing. Any number of
/// backends may share a database: each due time gives one cycle, and each cycle runs in one of them. When it is told to
/// stop, episodes that have begun end (--grace), and cycles stay where they are and go on in the next backend. A pipeline is
/// read again when one of its files changes, and at SIGHUP; a mistake in it is told and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo backend --netuid 7                                          # evaluates the miners of a subnet
  robo backend --role api --host 127.0.0.1                         # answers, runs nothing
  robo backend --pipeline pipelines/quickstart.yaml -i episodes_per_env=20
  robo backend --pipeline pipelines/nightly.yaml pipelines/hourly.yaml --cycles 1
  curl http://127.0.0.1:8000/v1/weights/latest")]
pub(super) struct Args {
    #[command(flatten)]
    serving: config::Serving,

    #[command(flatten)]
    guarding: config::Guarding,

    /// Pipelines whose schedules are run [default: pipelines/subnet.yaml with --netuid]
    #[arg(long = "pipeline", value_name = "FILE", num_args = 1..)]
    pipelines: Vec<PathBuf>,

    #[command(flatten)]
    inputs: Inputs,

    /// Cycles that run here at a time; others wait, or run in another backend
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    cycles: u16,

    /// Tasks of a cycle in flight at a time
    #[arg(long, default_value_t = drive::PARALLEL, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// What it does: several on one database may each do a part
    #[arg(long, env = "ROBO_BACKEND_ROLE", value_enum, default_value_t)]
    role: Role,

    /// How long episodes that have begun may go on when it is told to stop, as `30s`; those that do not end in time are
    /// played again
    #[arg(long, env = "ROBO_BACKEND_GRACE", value_name = "TIME", default_value = "30s",
          value_parser = crate::manifest::duration)]
    grace: Duration,

    #[command(flatten)]
    evaluation: config::Evaluation,

    #[command(flatten)]
    discovery: config::Discovery,

    #[command(flatten)]
    place: config::Place,

    #[command(flatten)]
    retention: config::Retention,

    #[command(flatten)]
    database: config::Database,
}

/// What a backend does; several on one database may each do a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Role {
    /// Answers the API and, with pipelines, starts and runs cycles.
    #[default]
    All,
    /// Answers the API; runs nothing and deletes nothing.
    Api,
    /// Starts and runs cycles, also without pipelines of its own; answers only `/health` and `/metrics`.
    Worker,
}

impl Role {
    fn addresses(self) -> Addresses {
        if self == Self::Worker { Addresses::Health } else { Addresses::All }
    }
}

pub(super) async fn run(args: Args) -> Result {
    let pipelines = Pipelines::with_broken(read(&args)?);
    let protection = Protection::new(args.guarding).map_err(|error| {
        Failure::new(Exit::Usage, error)
            .hint("--tls-cert has the chain of certificates and --tls-key its key, both in PEM")
    })?;
    let scheme = protection.scheme();
    let metrics = Metrics::new()?;
    let reload = tokio::spawn(reload(pipelines.clone())?);
    let settings = Settings {
        validity: Validity(args.serving.valid_blocks),
        pipelines: Arc::new(pipelines.clone()),
        protection,
        endpoints: if args.serving.show_endpoints { Endpoints::Shown } else { Endpoints::Hidden },
        metrics: metrics.clone(),
        addresses: args.role.addresses(),
    };
    let network = chain::network(&args.discovery.chain)?;
    let scope = chain::scope(args.discovery.netuid, &network);
    let blocks: Arc<dyn BlockSource> = Arc::new(FinalizedHead::of(network));
    // Before the database: a port in use is found at once, and nothing has to be taken back.
    let listener = TcpListener::bind((args.serving.host, args.serving.port)).await;
    let listener = listener.map_err(|error| cannot_listen(&args.serving, error))?;
    let address = listener.local_addr()?;
    let machine = drive::machine(db::data_dir(&args.database.data)?, (&args.place, &args.discovery))?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(drive::watch_signals(stop.clone())?);
    let store = Store::open(&args.database, &db::progress()).await.map_err(db::failure)?;
    let store = Arc::new(store.with_keeper(Arc::new(Containers)).serving(scope));
    render::note(format!("listening on {scheme}://{address} (database: {}); Ctrl-C stops", store.location()));
    let limits = Limits { cycles: args.cycles.into(), tasks: args.parallel.into(), grace: args.grace };
    let watched = machine.clone();
    metrics.watch_stalls(machine.stalls());
    let runs = args.role == Role::Worker || args.role == Role::All && !pipelines.is_empty();
    let work = async {
        if runs {
            Backend::new(&store, machine, (pipelines, blocks), limits).run(stop.clone()).await;
        } else {
            let _ = stop.run_until_cancelled(pipelines.keep_current()).await;
        }
    };
    let watch = tokio::spawn(async move {
        watched.watch_engines(|host, answers| metrics.docker_host(host, answers)).await;
    });
    let keep = if args.role == Role::Api { KeepFor::Ever } else { args.retention.retention };
    let retention = tokio::spawn(gc::daily(Store::clone(&store), keep));
    let serve = async {
        let served = api::serve(listener, (Store::clone(&store), settings), stop.clone().cancelled_owned()).await;
        // Without the one there is nothing to look at the other by.
        stop.cancel();
        served
    };
    let (served, ()) = tokio::join!(serve, work);
    signals.abort();
    reload.abort();
    watch.abort();
    retention.abort();
    // It holds the store, which is closed in order once nobody else does.
    let _ = retention.await;
    Store::clone(&store).close().await;
    served?;
    render::note("stopped");
    Ok(Exit::Ok)
}

/// Have the pipelines read again at every SIGHUP, from now on.
fn reload(pipelines: Pipelines) -> std::io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: every pipeline is read again");
            pipelines.read_again();
        }
    })
}

/// The pipeline of a subnet.
const SUBNET: &str = "pipelines/subnet.yaml";

/// The pipelines' files: those that were named, else that of the subnet.
fn chosen(args: &Args) -> Result<Vec<PathBuf>> {
    if !args.pipelines.is_empty() || args.role != Role::All {
        return Ok(args.pipelines.clone());
    }
    if args.discovery.netuid.is_some() {
        return Ok(vec![SUBNET.into()]);
    }
    let error = anyhow::anyhow!("the backend has nothing to evaluate: neither --netuid nor --pipeline is given");
    Err(Failure::new(Exit::Usage, error).hint(
        "evaluate the miners of a subnet with --netuid N, or run pipelines of your own with --pipeline FILE; \
         --role api only answers",
    ))
}

/// A pipeline as it was found.
type Read = (Source, std::result::Result<Pipeline, Diagnostics>);

/// Every pipeline. A file with mistakes keeps no other from working: they are logged, and it is tried again when it changes.
///
/// # Errors
/// What is wrong with the command line, and two pipelines of one name.
fn read(args: &Args) -> Result<Vec<Read>> {
    let mut all: Vec<Read> = Vec::new();
    for file in chosen(args)? {
        let Found { file, root } = project::pipeline(&file, &args.database.data)?;
        let outside = Outside {
            discovery: args.discovery.clone(),
            evaluation: args.evaluation.clone(),
            place: args.place.clone(),
        };
        let source = Source { file, root, inputs: args.inputs.inputs.clone(), outside: Some(outside) };
        let read = source.read();
        match &read {
            Err(problems) if problems.blames_command_line() => return Err(inputs::refused(problems)),
            Err(problems) => {
                let file = source.file.display();
                tracing::warn!("{file} cannot be used, and no cycle of it starts:\n{problems}");
            }
            Ok(pipeline) => {
                tell_of(pipeline, None);
                expect_another_name(pipeline, &all)?;
                if pipeline.compiled().schedules.is_empty() {
                    let name = pipeline.name();
                    render::note(format!(
                        "`{name}` has no schedule: start it with `robo run-pipeline` or `robo schedule trigger`"
                    ));
                }
            }
        }
        all.push((source, read));
    }
    Ok(all)
}

fn expect_another_name(pipeline: &Pipeline, all: &[Read]) -> Result<()> {
    let name = pipeline.name();
    let mut known = all.iter().filter_map(|(_, read)| read.as_ref().ok());
    let Some(other) = known.find(|other| other.name() == name) else { return Ok(()) };
    let (one, other) = (pipeline.file().display(), other.file().display());
    let problem = anyhow::anyhow!("{other} and {one} are both called `{name}`");
    Err(Failure::new(Exit::Usage, problem).hint("a pipeline is known by its name: choose another"))
}

fn cannot_listen(args: &config::Serving, error: std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another program listens there: stop it, or choose another with --port",
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose another with --port",
        _ => "choose an address of this machine with --host, 127.0.0.1 for this machine only",
    };
    let what = format!("cannot listen on port {} of {}", args.port, args.host);
    Failure::new(Exit::Failed, anyhow::Error::from(error).context(what)).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{Args as _, FromArgMatches};

    /// A backend whose operator has said nothing, whatever the variables of whoever tests it.
    fn unsaid() -> super::Args {
        let command = super::Args::augment_args(clap::Command::new("backend")).mut_args(|it| it.env(None::<&str>));
        super::Args::from_arg_matches(&command.get_matches_from(["backend"])).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_guide() {
        let args = unsaid();
        assert_eq!((args.serving.host.to_string().as_str(), args.serving.port), ("0.0.0.0", 8000));
        assert_eq!((args.evaluation.eval_interval, args.evaluation.episodes_per_env), (None, None));
        assert_eq!((args.discovery.chain.network.to_string().as_str(), args.discovery.netuid), ("finney", None));
        assert_eq!((&args.place.eval_image, &args.place.eval_mem_limit), (&None, &None));
        assert_eq!((crate::config::EVAL_IMAGE, crate::config::EVAL_MEM_LIMIT), ("robo-subnet/eval-env:v1", 8 << 30));
        assert_eq!(
            (args.grace, args.serving.valid_blocks, args.database.database_url),
            (Duration::from_secs(30), 720, None)
        );
    }

    /// A daemon whose operator has said nothing keeps a month, and does collect.
    #[test]
    fn detail_is_collected_after_thirty_days_unless_somebody_says_otherwise() {
        let args = unsaid();
        let month = std::time::Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!(args.retention.retention, crate::config::KeepFor::Age(month));
    }
}
