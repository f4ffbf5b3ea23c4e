//! `robo schedule`: the schedules of pipelines as they stand, what they will do, and a person's word in it.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    db,
    desk::Desk,
    exit::{Exit, Failure, Result},
    inputs::{self, Inputs},
    render::{self, Format},
    run_pipeline, schedule_show,
};
use crate::backend::{Pipeline, new_cycle};
use crate::config::Database;
use crate::store::{Admission, ScheduleRow};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
NAME is a pipeline's name. A pause holds for all its schedules, on every backend.

Examples:
  robo schedule next pipelines/nightly.yaml -n 3     # offline: what is due next, here and in UTC
  robo schedule ls                                   # what backends have read, and how it stands
  robo schedule pause nightly --reason 'new simulator'
  robo schedule resume nightly
  robo schedule trigger nightly                      # one cycle, now")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    database: Database,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List schedules with their state, what became of the last due time, and the next one
    #[command(after_help = "Examples:\n  robo schedule ls\n  robo schedule ls pipelines/*.yaml --format json")]
    Ls {
        /// Pipelines to list [default: all that a backend has read]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show when cycles of a pipeline are due, without a database
    #[command(after_help = "\
Examples:
  robo schedule next pipelines/nightly.yaml -n 3
  robo schedule next pipelines/nightly.yaml --after 2026-10-24T12:00:00Z   # around a change of the clock")]
    Next {
        /// The pipeline
        file: PathBuf,
        /// How many due times of each entry
        #[arg(short = 'n', default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
        /// Moment to start from [default: now]
        #[arg(long, value_name = "TIME")]
        after: Option<DateTime<Utc>>,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Start no cycles of a pipeline by schedule; due times are written down as paused and not made up for
    #[command(after_help = "Example:\n  robo schedule pause nightly --reason 'new simulator'")]
    Pause {
        /// The pipeline's name
        name: String,
        /// Why, for whoever wonders
        #[arg(long, default_value = "by hand")]
        reason: String,
        /// How to show what was done
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// End a pause
    #[command(after_help = "Example:\n  robo schedule resume nightly")]
    Resume {
        /// The pipeline's name
        name: String,
        /// How to show what was done
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Create a cycle now, as if one were due; a backend runs it
    #[command(after_help = "\
Examples:
  robo schedule trigger nightly
  robo schedule trigger nightly --pipeline pipelines/nightly.yaml -i episodes_per_env=5")]
    Trigger {
        /// The pipeline's name
        name: String,
        /// Its file [default: the one that the backend has read]
        #[arg(long = "pipeline", value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        inputs: Inputs,
        /// How to show what was done
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

pub(super) async fn run(args: Args) -> Result {
    if let Verb::Next { file, count, after, format } = &args.verb {
        return schedule_show::next(file, (*count).into(), after.unwrap_or_else(Utc::now), *format);
    }
    let desk = Desk::open(&args.database).await?;
    let result = match args.verb {
        Verb::Ls { files, format } => schedule_show::list(&desk, &files, format).await,
        Verb::Pause { name, reason, format } => pause(&desk, &name, &reason, format).await,
        Verb::Resume { name, format } => resume(&desk, &name, format).await,
        Verb::Trigger { name, file, inputs, format } => trigger(&desk, &name, file.as_deref(), &inputs, format).await,
        Verb::Next { .. } => Ok(Exit::Ok),
    };
    desk.close().await;
    result
}

async fn pause(desk: &Desk, name: &str, reason: &str, format: Format) -> Result {
    known(desk, name).await?;
    let changed = desk.store.pause_schedules(name, reason, Utc::now()).await.map_err(db::failure)?;
    let resume = desk.command(&format!("schedule resume {name}"));
    let words = match changed {
        true => format!("`{name}` is paused; cycles that are open go on. End the pause with: {resume}"),
        false => format!("`{name}` is paused already"),
    };
    say(format, &words, &json!({ "pipeline": name, "paused": true, "changed": changed }));
    Ok(Exit::Ok)
}

async fn resume(desk: &Desk, name: &str, format: Format) -> Result {
    known(desk, name).await?;
    let changed = desk.store.resume_schedules(name, Utc::now()).await.map_err(db::failure)?;
    let words = format!("`{name}` {}", if changed { "is no longer paused" } else { "was not paused" });
    say(format, &words, &json!({ "pipeline": name, "paused": false, "changed": changed }));
    Ok(Exit::Ok)
}

/// Words for people, a document for programs.
fn say(format: Format, words: &str, document: &Value) {
    match format {
        Format::Table => render::line(words),
        Format::Json => render::json(document),
    }
}

async fn trigger(desk: &Desk, name: &str, file: Option<&Path>, inputs: &Inputs, format: Format) -> Result {
    let file = match file {
        Some(file) => file.to_owned(),
        None => known(desk, name).await?.file.into(),
    };
    let pipeline = Pipeline::read(&file, &inputs.inputs).map_err(|problems| inputs::refused(&problems))?;
    let found = &pipeline.compiled().definition.pipeline;
    if found != name {
        let problem = anyhow::anyhow!("{} holds the pipeline `{found}`, not `{name}`", file.display());
        return Err(Failure::new(Exit::Usage, problem));
    }
    match desk.store.trigger(&new_cycle(pipeline.compiled()), Utc::now()).await.map_err(db::failure)? {
        Admission::Created(cycle) => {
            let words = format!("cycle {cycle} of `{name}` is created; a backend takes it up within seconds");
            say(format, &words, &json!({ "cycle": cycle, "pipeline": name }));
            let resume = desk.command(&format!("cycle resume {cycle}"));
            render::note(format!("without a backend run it with: {resume}"));
            Ok(Exit::Ok)
        }
        Admission::Refused { group, limit, open } => Ok(run_pipeline::refused(desk, (&group, limit), open)),
    }
}

/// The first schedule of a pipeline that some backend has read.
async fn known(desk: &Desk, name: &str) -> Result<ScheduleRow> {
    let rows = desk.store.schedules().await.map_err(db::failure)?;
    let mut names: Vec<String> = rows.iter().map(|row| format!("`{}`", row.pipeline)).collect();
    names.dedup();
    rows.into_iter().find(|row| row.pipeline == name).ok_or_else(|| {
        let hint = match names.as_slice() {
            [] => "no backend has read a schedule yet; start one with: robo backend --pipeline FILE".to_owned(),
            names => format!("the pipelines with a schedule are {}", names.join(", ")),
        };
        Failure::new(Exit::Usage, anyhow::anyhow!("no backend has read a schedule of a pipeline `{name}`")).hint(hint)
    })
}
