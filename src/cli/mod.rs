//! The command line: one file per verb, and the rendering of errors, tables and progress.

mod exit;
mod lifetime;
mod render;

mod apikey;
mod backend;
mod build_eval_env;
mod chain;
mod chaos;
mod commitment;
mod commitment_set;
mod completions;
mod crypto;
mod cycle;
mod cycle_cancel;
mod cycle_diff;
mod cycle_explain;
mod cycle_fork;
mod cycle_graph;
mod cycle_logs;
mod cycle_miners;
mod cycle_read;
mod cycle_retry;
mod cycle_roster;
mod cycle_show;
mod cycle_tables;
mod cycle_watch;
mod db;
mod demo_miner;
mod desk;
mod differences;
mod doctor;
mod drive;
mod env;
mod env_server;
mod env_server_connect;
mod env_server_hold;
mod env_test;
mod episode;
mod episode_replay;
mod episode_run;
mod gc;
mod graph;
mod init;
mod inputs;
mod lint;
mod miners;
mod mortal;
mod plan;
mod plan_against;
mod progress;
mod project;
mod report;
mod run_pipeline;
mod schedule;
mod schedule_show;
mod schema;
mod score;
mod shown;
mod validate;
mod weights;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use tracing_subscriber::EnvFilter;

use crate::telemetry::{self, LogFormat, Telemetry};
use exit::Exit;

#[derive(Debug, Parser)]
#[command(name = "robo", version, about, long_about = None, propagate_version = true)]
struct Cli {
    /// How much to log [default: INFO for `backend` and `validate`, WARNING for all others]
    #[arg(long, env = "ROBO_BACKEND_LOG_LEVEL", global = true, ignore_case = true)]
    log_level: Option<LogLevel>,

    /// How log lines are written: `json` is one object a line, with `cycle`, `stage`, `environment` and `hotkey` where they apply.
    /// `auto` writes JSON for verbs that serve, unless they are at a terminal
    #[arg(
        long,
        env = "ROBO_BACKEND_LOG_FORMAT",
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = false
    )]
    log_format: LogFormat,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
enum LogLevel {
    Debug,
    Info,
    #[value(alias = "WARN")]
    Warning,
    Error,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run one cycle of a pipeline, from discovery to weights
    RunPipeline(run_pipeline::Args),
    /// Write the pipelines and environments that robo carries into a directory, for editing
    Init(init::Args),
    /// Check pipelines and environment manifests without running anything
    Lint(lint::Args),
    /// List environments, check their manifests, prepare them, and try whether they keep their word
    Env(env::Args),
    /// Play one episode by hand; list, show and replay the episodes of a cycle
    Episode(episode::Args),
    /// Print the JSON Schema of a manifest
    Schema(schema::Args),
    /// Show what a pipeline would do: stages, tasks, episodes, definition hash
    Plan(plan::Args),
    /// Print a pipeline's graph as DOT or Mermaid
    Graph(graph::Args),
    /// List, show, resume, retry, fork, rescore, cancel and compare cycles
    Cycle(cycle::Args),
    /// Show, preview, pause and trigger the schedules of pipelines
    Schedule(schedule::Args),
    /// Delete the detail of cycles that ended long ago
    Gc(gc::Args),
    /// List the miners of a subnet as the chain has them, with a status for each
    Miners(miners::Args),
    /// Show whether a chain can be read, and where it stands
    Chain(chain::Args),
    /// Write what a miner commits, and read what it has committed, or would
    Commitment(commitment::Args),
    /// Make a key pair, and encrypt and decrypt the deployments of miners
    Crypto(crypto::Args),
    /// Show published weights
    Weights(weights::Args),
    /// Score a table of success rates offline
    Score(score::Args),
    /// Create, initialise, inspect and reset the database
    Db(db::Args),
    /// Check that this machine has what a backend needs
    Doctor(doctor::Args),
    /// Make, list and revoke keys of the API
    Apikey(apikey::Args),
    /// Kill a cycle at its journal writes, resume it, and demand the same bytes
    Chaos(chaos::Args),
    /// Serve weights and scores over HTTP; run schedules and cycles
    Backend(backend::Args),
    /// Put a backend's weights on chain, every tempo (for validators)
    Validate(validate::Args),
    /// Build the images that environment servers run from
    BuildEvalEnv(build_eval_env::Args),
    /// Run an environment server (started by robo itself)
    EnvServer(env_server::Args),
    /// Join standard input and output with an environment server's port (started by robo itself, in a container)
    #[command(hide = true)]
    EnvServerConnect(env_server_connect::Args),
    /// Run an environment server for as long as somebody holds a connection (started by robo itself, in a container)
    #[command(hide = true)]
    EnvServerHold(env_server_hold::Args),
    /// Serve a demonstration policy over the miner protocol
    DemoMiner(demo_miner::Args),
    /// Print tab completion for a shell
    Completions(completions::Args),
}

/// The whole program.
pub fn main() -> ExitCode {
    crate::config::forget_foreign_variables();
    let command = crate::config::without_empty_variables(Cli::command());
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    // One TLS provider for everything; a second call would only find it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Dropped last: what is told of the end is sent, too.
    let _telemetry = start_telling(&cli);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match cli.verb {
        Verb::EnvServer(_) => env_server::tune(&mut runtime),
        // It does nothing at the same time, and a container's processes and threads are counted.
        Verb::EnvServerConnect(_) | Verb::EnvServerHold(_) => drop(runtime.worker_threads(1)),
        _ => {}
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            render::note(format!("error: cannot start: {error}"));
            return Exit::Failed.into();
        }
    };
    let result = runtime.block_on(run(cli.verb));
    // What still runs has lost its owner; give blocking threads a moment and go.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            render::failure(&failure);
            failure.exit.into()
        }
    }
}

/// Whether these words, after the program's name, are a command line. For those who check what is written of it.
///
/// # Errors
/// The first line of what is wrong.
pub fn understands(words: &[&str]) -> Result<(), String> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, MissingRequiredArgument, ValueValidation};
    let parsed = Cli::command().try_get_matches_from(["robo"].iter().chain(words));
    match parsed.map_err(|error| (error.kind(), error.to_string())) {
        // Words like `N` and `URL` stand for what a reader puts in; what is not said can come from a variable.
        Ok(_) | Err((DisplayHelp | DisplayVersion | MissingRequiredArgument | ValueValidation, _)) => Ok(()),
        Err((_, text)) => Err(text.lines().next().unwrap_or_default().to_owned()),
    }
}

async fn run(verb: Verb) -> exit::Result {
    match verb {
        Verb::RunPipeline(args) => run_pipeline::run(args).await,
        Verb::Init(args) => init::run(args).await,
        Verb::Lint(args) => lint::run(args).await,
        Verb::Env(args) => env::run(args).await,
        Verb::Episode(args) => episode::run(args).await,
        Verb::Schema(args) => schema::run(args).await,
        Verb::Plan(args) => plan::run(args).await,
        Verb::Graph(args) => graph::run(args).await,
        Verb::Cycle(args) => cycle::run(args).await,
        Verb::Schedule(args) => schedule::run(args).await,
        Verb::Gc(args) => gc::run(args).await,
        Verb::Miners(args) => miners::run(args).await,
        Verb::Chain(args) => chain::run(args).await,
        Verb::Commitment(args) => commitment::run(args).await,
        Verb::Crypto(args) => crypto::run(args).await,
        Verb::Weights(args) => weights::run(args).await,
        Verb::Score(args) => score::run(args).await,
        Verb::Db(args) => db::run(args).await,
        Verb::Doctor(args) => doctor::run(args).await,
        Verb::Apikey(args) => apikey::run(args).await,
        Verb::Chaos(args) => chaos::run(args).await,
        Verb::Backend(args) => backend::run(args).await,
        Verb::Validate(args) => validate::run(args).await,
        Verb::BuildEvalEnv(args) => build_eval_env::run(args).await,
        Verb::EnvServer(args) => env_server::run(args).await,
        Verb::EnvServerConnect(args) => env_server_connect::run(&args),
        Verb::EnvServerHold(args) => env_server_hold::run(args).await,
        Verb::DemoMiner(args) => demo_miner::run(args).await,
        Verb::Completions(args) => completions::run(args).await,
    }
}

/// Logs and traces, as the verb and the command line want them.
fn start_telling(cli: &Cli) -> Telemetry {
    let serves = match &cli.verb {
        Verb::Backend(_) => true,
        Verb::Validate(args) => args.serves(),
        _ => false,
    };
    let level = cli.log_level.unwrap_or(if serves { LogLevel::Info } else { LogLevel::Warning });
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warning => "warn",
        LogLevel::Error => "error",
    };
    // sqlx warns of every slow statement; on a busy disk that would be most of what a person reads.
    let filter = filter(crate::config::log_filter(), &format!("warn,sqlx=error,robo={level}"));
    let is_json = cli.log_format.is_json(serves);
    if is_json {
        render::note_as_log_lines();
    }
    let runs_cycles = matches!(cli.verb, Verb::Backend(_) | Verb::RunPipeline(_) | Verb::Cycle(_));
    telemetry::start(filter, is_json, runs_cycles)
}

/// What somebody wants to be logged, or the usual; a variable that is set to nothing is not set.
fn filter(wanted: Option<String>, usual: &str) -> EnvFilter {
    let wanted = wanted.filter(|text| !text.trim().is_empty()).and_then(|text| EnvFilter::try_new(text).ok());
    wanted.unwrap_or_else(|| EnvFilter::new(usual))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn what_is_logged_is_the_usual_unless_somebody_wants_otherwise() {
        let of = |wanted: Option<&str>| super::filter(wanted.map(str::to_owned), "robo=info").to_string();
        assert_eq!([of(None), of(Some("")), of(Some(" ")), of(Some("=="))], [(); 4].map(|()| "robo=info".to_owned()));
        assert_eq!(of(Some("warn")), "warn");
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
