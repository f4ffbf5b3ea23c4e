//! `robo db`: create, initialise, inspect and reset the database.

use serde_json::{Value, json};

use crate::{
    config,
    host::{self, Progress},
    store::{self, Contents, Created, CycleSummary, DatabaseStatus, PoolPlace, PublicationRow, Store, embedded},
};

use super::{
    exit::{Exit, Failure, Result},
    render::{self, Format},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  robo db status\n  robo db create --database-url postgresql://robo@db.example/robo\n  robo db init   --database-url postgresql://robo@db.example/robo\n\nNone of it is needed for the embedded database, which is made when it is first used."
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create the database if it is missing, without tables
    Create(config::Database),
    /// Create the tables, or bring those of an older robo up to date
    Init(config::Database),
    /// Show where the database is and what it holds
    Status {
        #[command(flatten)]
        database: config::Database,

        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Delete every cycle, result and publication, and begin with empty tables
    Reset {
        #[command(flatten)]
        database: config::Database,

        /// Really delete
        #[arg(long)]
        force: bool,
    },
    /// Look after the embedded server (started by robo itself)
    #[command(hide = true)]
    Supervise(embedded::Orders),
}

pub(super) async fn run(args: Args) -> Result {
    match args.verb {
        Verb::Create(database) => create(&database).await,
        Verb::Init(database) => init(&database).await,
        Verb::Status { database, format } => status(&database, format).await,
        Verb::Reset { database, force } => reset(&database, force).await,
        Verb::Supervise(orders) => supervise(&orders),
    }
}

/// Progress of the embedded server, on standard error.
pub(super) fn progress() -> Progress {
    Progress::new(|message| render::note(message))
}

/// The data directory, made if it is not there.
pub(super) fn data_dir(config: &config::DataDir) -> Result<std::path::PathBuf> {
    host::data_dir(config).map_err(|error| failure(error.into()))
}

/// Why a verb failed in the database, with what to do about it.
pub(super) fn failure(error: store::Error) -> Failure {
    use store::Error as E;
    let (exit, hint) = match &error {
        error if error.is_disk_full() => (
            Exit::DatabaseUnreachable,
            "the disk of the database is full: make room there, then do the same again; nothing that was finished is lost",
        ),
        error if error.absence().is_some() => (
            Exit::DatabaseUnreachable,
            "it was tried again for half a minute; see to the database, then do the same again: nothing that was finished is lost",
        ),
        E::Url(_) => (Exit::Usage, "example: --database-url postgresql://robo@localhost:5432/robo"),
        E::Unreachable { .. } => (
            Exit::DatabaseUnreachable,
            "check that the server runs and the URL is right, or leave --database-url out to use the embedded one",
        ),
        E::ForeignOptions => (Exit::Usage, "unset `PGOPTIONS`"),
        E::NoDatabase(_) => (Exit::DatabaseUnreachable, "run `robo db create`, then `robo db init`"),
        E::NotInitialised => (Exit::Failed, "run `robo db init`"),
        E::NewerSchema { .. } => (Exit::Failed, "an older robo does not write to it; nothing was changed"),
        E::OtherSchema { .. } => (Exit::Failed, "use the robo that made it, or another database; nothing was changed"),
        E::OldServer(_) => (Exit::Failed, "upgrade the server, or leave --database-url out to use the embedded one"),
        E::Running(_) => (Exit::Failed, "wait for it to end, or stop it with `robo cycle cancel`"),
        E::UnknownCycle { .. } | E::AmbiguousCycle { .. } => (Exit::Usage, "`robo cycle ls` lists all cycles"),
        E::AgedOut(_) => (Exit::Failed, "keep detail for longer with --retention or ROBO_RETENTION; start a new cycle"),
        E::NotEnded(_) => {
            (Exit::Usage, "wait for it to end: `robo cycle watch` tells when; or stop it with `robo cycle cancel`")
        }
        E::SaltInUse(_) => {
            (Exit::Usage, "wait for it to end: `robo cycle watch` tells when; or stop it with `robo cycle cancel`")
        }
        E::NoCycle => (Exit::Failed, "`robo run-pipeline pipelines/quickstart.yaml` runs one"),
        E::DataDir(_) => (Exit::Failed, "choose another directory with --data-dir or ROBO_DATA_DIR"),
        E::Embedded(error) => (Exit::DatabaseUnreachable, embedded_hint(error)),
        _ => (Exit::Failed, ""),
    };
    let failure = Failure::new(exit, error);
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

fn embedded_hint(error: &embedded::Error) -> &'static str {
    use embedded::Error as E;
    match error {
        E::NoPrograms(_) => {
            "install it (Debian and Ubuntu: apt install postgresql), or use a server with --database-url"
        }
        E::NotPrograms(_) => "give --pg-bin (PG_BIN) a directory like /usr/lib/postgresql/15/bin",
        E::OtherMajor { .. } => {
            "install that version and name it with --pg-bin (PG_BIN), or begin anew with another --data-dir"
        }
        E::NoPassage { .. } => "make it passable (chmod o+x), or choose another directory with --data-dir",
        E::NotOurs(_) => "run as its owner, or choose another directory with --data-dir",
        E::NoAccount => "run robo as an ordinary user, or use a server with --database-url",
        E::Wheel { .. } => "remove the file and try again",
        E::Start(_) | E::File { .. } => "see that the disk has room and the data directory can be written to",
    }
}

async fn create(config: &config::Database) -> Result {
    let (store, created) = Store::create(config, &progress()).await.map_err(failure)?;
    let what = match created {
        Created::New => "created",
        Created::Existing => "there already",
    };
    render::line(format!("{what}: {}", store.location()));
    store.close().await;
    Ok(Exit::Ok)
}

async fn init(config: &config::Database) -> Result {
    let store = Store::open(config, &progress()).await.map_err(failure)?;
    render::line(format!("ready: {}", store.location()));
    store.close().await;
    Ok(Exit::Ok)
}

async fn status(config: &config::Database, format: Format) -> Result {
    let store = Store::open_as_is(config, &progress()).await.map_err(failure)?;
    let status = store.status().await.map_err(failure);
    store.close().await;
    let status = status?;
    match format {
        Format::Json => render::json(&to_json(&status)),
        Format::Table => render::print(&to_text(&status)),
    }
    Ok(Exit::Ok)
}

async fn reset(config: &config::Database, force: bool) -> Result {
    let store = Store::open_as_is(config, &progress()).await.map_err(failure)?;
    let result = reset_opened(&store, force).await;
    store.close().await;
    result
}

async fn reset_opened(store: &Store, force: bool) -> Result {
    if force {
        store.reset().await.map_err(failure)?;
        render::line(format!("empty: {}", store.location()));
        return Ok(Exit::Ok);
    }
    let loss = match store.status().await.map_err(failure)?.contents {
        Some(contents) => {
            format!("{} cycles and the results of {} miners would be lost", contents.cycles, contents.miners)
        }
        None => "its tables would be lost".into(),
    };
    let error = anyhow::anyhow!("refusing to empty {}: {loss}", store.location());
    Err(Failure::new(Exit::Usage, error).hint("add --force to delete all of it"))
}

/// Blocks this thread, the main one, for as long as the server runs: the kernel ties the server's life to it.
fn supervise(orders: &embedded::Orders) -> Result {
    let tell = |report: &embedded::Report| render::line(json!(report).to_string());
    embedded::supervise(orders, tell)?;
    Ok(Exit::Ok)
}

fn to_json(status: &DatabaseStatus) -> Value {
    let contents = status.contents.as_ref();
    json!({
        "location": status.location,
        "server_version": status.server_version,
        "schema_version": status.schema_version,
        "known_schema_version": status.known_version,
        "total_cycles": contents.map(|contents| contents.cycles),
        "unique_miners": contents.map(|contents| contents.miners),
        "last_completed_cycle": contents.and_then(|contents| contents.last_completed.as_ref()).map(cycle_json),
        "running_cycles": contents.map(|contents| contents.running.iter().map(cycle_json).collect::<Vec<_>>()),
        "pools": contents.map(|contents| contents.pools.iter().map(place_json).collect::<Vec<_>>()),
        "latest_weights": contents.and_then(|contents| contents.latest.as_ref()).map(publication_json),
    })
}

fn cycle_json(cycle: &CycleSummary) -> Value {
    json!({
        "cycle_id": cycle.number,
        "cycle_uuid": cycle.id,
        "pipeline": cycle.pipeline,
        "status": cycle.status,
        "created_at": cycle.created_at,
        "finished_at": cycle.finished_at,
        "tasks": { "ended": cycle.tasks.0, "planned": cycle.tasks.1 },
        "episodes": { "scored": cycle.episodes.0, "planned": cycle.episodes.1 },
    })
}

fn place_json(place: &PoolPlace) -> Value {
    json!({ "pool": place.pool, "cycle_id": place.cycle, "task": place.task.to_string() })
}

fn publication_json(row: &PublicationRow) -> Value {
    json!({
        "cycle_id": row.cycle,
        "sequence": row.sequence,
        "digest": row.publication.digest,
        "created_at": row.created_at,
    })
}

fn to_text(status: &DatabaseStatus) -> String {
    let schema = match status.schema_version {
        None => "not initialised: run `robo db init`".to_owned(),
        Some(found) if found > status.known_version => {
            format!("{found}, newer than this robo knows ({}): upgrade robo", status.known_version)
        }
        Some(found) if found < status.known_version => {
            format!("{found} of {}: run `robo db init`", status.known_version)
        }
        Some(found) => found.to_string(),
    };
    let mut rows = vec![
        ("database", status.location.clone()),
        ("server", format!("PostgreSQL {}", status.server_version)),
        ("schema version", schema),
    ];
    if let Some(contents) = &status.contents {
        rows.extend(content_rows(contents));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<16}  {value}\n")).collect()
}

fn content_rows(contents: &Contents) -> Vec<(&'static str, String)> {
    let none = || "none".to_owned();
    let cycle = |cycle: &CycleSummary| {
        let (scored, planned) = cycle.episodes;
        format!("{} ({}, {scored} of {planned} episodes)", cycle.id, cycle.pipeline)
    };
    let completed = contents.last_completed.as_ref().map_or_else(none, cycle);
    let running: Vec<String> = contents.running.iter().map(cycle).collect();
    let place = |place: &PoolPlace| format!("{} by {} of cycle {}", place.pool, place.task, place.cycle);
    let pools: Vec<String> = contents.pools.iter().map(place).collect();
    let weights = contents.latest.as_ref().map_or_else(none, |row| {
        format!("no. {} of cycle {}, {}", row.sequence, row.cycle, row.created_at.format("%Y-%m-%d %H:%M:%S UTC"))
    });
    vec![
        ("total cycles", contents.cycles.to_string()),
        ("unique miners", contents.miners.to_string()),
        ("last completed", completed),
        ("running", if running.is_empty() { none() } else { running.join(", ") }),
        ("places in pools", if pools.is_empty() { none() } else { pools.join(", ") }),
        ("latest weights", weights),
    ]
}
