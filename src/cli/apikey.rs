//! `robo apikey`: make, list and revoke the keys that operators show to the API, and see what was done with them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{
    db,
    desk::Desk,
    exit::{Exit, Failure, Result},
    render::{self, Format},
    report,
};
use crate::{
    api::Token,
    config::Database,
    manifest,
    store::{ApiKey, KeyAnswer, NewApiKey, OperationRow},
};

/// The longest name of a key.
const LONGEST_NAME: usize = 64;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A key is shown once, when it is made; the database has a digest of it. Show it to the API as `Authorization: Bearer KEY`.
A backend knows of a new key at once, and of a revoked one within two seconds.

Examples:
  robo apikey create ci --expires 90d
  robo apikey ls
  robo apikey revoke ci
  robo apikey log                       # what was started, cancelled, paused and released, and with which key")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a key and print it: nobody can print it again
    #[command(after_help = "\
Examples:
  robo apikey create ci
  robo apikey create ci --expires 90d --format json
  KEY=$(robo apikey create dashboard)   # standard output has nothing but the key")]
    Create {
        /// What to call it; free again once the key is revoked or has come to its end
        #[arg(value_parser = name)]
        name: String,
        /// For how long it is good, as `90d` [default: until it is revoked]
        #[arg(long, value_name = "AGE", value_parser = manifest::duration)]
        expires: Option<Duration>,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List keys: name, first characters, until when they are good, when they were last used
    #[command(after_help = "Examples:\n  robo apikey ls\n  robo apikey ls --all --format json")]
    Ls {
        /// Also those that are no longer good
        #[arg(long)]
        all: bool,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Make a key good for nothing, in every backend, within seconds
    #[command(
        after_help = "Examples:\n  robo apikey revoke ci\n  robo apikey revoke robo_1a2b3c4d   # by its first characters"
    )]
    Revoke {
        /// Its name, or the first characters of the key
        key: String,
        /// How to show what was done
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List what was done over the API: when, with which key, from where, what, and what came of it
    #[command(after_help = "Examples:\n  robo apikey log\n  robo apikey log --limit 100 --format json")]
    Log {
        /// How many, the latest first
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// A name that is easy to type, in a shell too.
fn name(text: &str) -> std::result::Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(is_plain) || text.starts_with('-') {
        return Err(format!("a name is 1 to {LONGEST_NAME} letters, digits, dots, hyphens and underscores"));
    }
    Ok(text.to_owned())
}

pub(super) async fn run(args: Args) -> Result {
    let desk = Desk::open(&args.database).await?;
    let result = match args.verb {
        Verb::Create { name, expires, format } => create(&desk, &name, expires, format).await,
        Verb::Ls { all, format } => ls(&desk, all, format).await,
        Verb::Revoke { key, format } => revoke(&desk, &key, format).await,
        Verb::Log { limit, format } => log(&desk, limit, format).await,
    };
    desk.close().await;
    result
}

async fn create(desk: &Desk, name: &str, expires: Option<Duration>, format: Format) -> Result {
    let token = Token::random();
    let too_long =
        || Failure::new(Exit::Usage, anyhow::anyhow!("no calendar goes that far: choose a shorter --expires"));
    let end = |age: Duration| Utc::now().checked_add_signed(chrono::TimeDelta::from_std(age).ok()?);
    let expires_at = expires.map(|age| end(age).ok_or_else(too_long)).transpose()?;
    let new = NewApiKey { name: name.to_owned(), start: token.start().to_owned(), sha256: token.sha256(), expires_at };
    match desk.store.create_api_key(&new).await.map_err(db::failure)? {
        KeyAnswer::Created(key) => {
            match format {
                Format::Json => {
                    let mut document = document(&key);
                    document["key"] = json!(token.expose());
                    render::json(&document);
                }
                Format::Table => {
                    render::line(token.expose());
                    let until = expires_at.map(|end| format!(" until {}", moment(end))).unwrap_or_default();
                    render::note(format!("this is the key `{name}`, good{until}; it is not shown again"));
                }
            }
            Ok(Exit::Ok)
        }
        KeyAnswer::NameTaken => {
            let revoke = desk.command(&format!("apikey revoke {name}"));
            Err(Failure::new(Exit::Usage, anyhow::anyhow!("there is a key `{name}` already"))
                .hint(format!("choose another name, or revoke that one with: {revoke}")))
        }
    }
}

async fn ls(desk: &Desk, all: bool, format: Format) -> Result {
    let now = Utc::now();
    let mut keys = desk.store.api_keys().await.map_err(db::failure)?;
    keys.retain(|key| all || key.is_good(now));
    if format == Format::Json {
        render::json(&json!({ "keys": keys.iter().map(document).collect::<Vec<_>>() }));
        return Ok(Exit::Ok);
    }
    if keys.is_empty() {
        render::note(format!("there is no key; make one with: {}", desk.command("apikey create NAME")));
        return Ok(Exit::Ok);
    }
    let mut table = report::plain(["name", "key", "created", "good until", "last used"].map(str::to_owned));
    for key in &keys {
        table.add_row([
            key.name.clone(),
            format!("{}...", key.start),
            moment(key.created_at),
            until(key, now),
            key.last_used_at.map_or_else(|| "never".into(), moment),
        ]);
    }
    render::line(table.to_string());
    Ok(Exit::Ok)
}

async fn revoke(desk: &Desk, given: &str, format: Format) -> Result {
    let mut keys = desk.store.api_keys().await.map_err(db::failure)?;
    keys.retain(|key| key.revoked_at.is_none());
    let found: Vec<&ApiKey> = keys.iter().filter(|key| key.name == given || is_start(given, key)).collect();
    let names = || keys.iter().map(|key| format!("`{}` ({}...)", key.name, key.start)).collect::<Vec<_>>().join(", ");
    let key = match found.as_slice() {
        [only] => *only,
        // What was typed may be a whole key: it is not repeated.
        [] => {
            let hint = if keys.is_empty() { "there is none".to_owned() } else { format!("there are {}", names()) };
            let error = anyhow::anyhow!("there is no such key that could be revoked");
            return Err(Failure::new(Exit::Usage, error).hint(hint));
        }
        _ => {
            let error = anyhow::anyhow!("several keys begin like that");
            return Err(Failure::new(Exit::Usage, error).hint(format!("there are {}", names())));
        }
    };
    desk.store.revoke_api_key(key.id).await.map_err(db::failure)?;
    match format {
        Format::Json => render::json(&json!({ "id": key.id, "name": key.name, "revoked": true })),
        Format::Table => {
            render::line(format!("the key `{}` is revoked; backends refuse it within two seconds", key.name))
        }
    }
    Ok(Exit::Ok)
}

async fn log(desk: &Desk, limit: u32, format: Format) -> Result {
    let operations = desk.store.operations(limit).await.map_err(db::failure)?;
    if format == Format::Json {
        let document = |it: &OperationRow| {
            json!({
                "at": it.at, "key": it.key, "client": it.client, "action": it.action, "subject": it.subject,
                "detail": it.detail, "outcome": it.outcome, "cycle": it.cycle_id,
            })
        };
        render::json(&json!({ "operations": operations.iter().map(document).collect::<Vec<_>>() }));
        return Ok(Exit::Ok);
    }
    let mut table = report::plain(["at", "key", "from", "what", "outcome", "how"].map(str::to_owned));
    for it in &operations {
        table.add_row([
            moment(it.at),
            it.key.clone(),
            it.client.clone(),
            format!("{} {}", it.action, it.subject),
            it.outcome.clone(),
            it.detail.to_string(),
        ]);
    }
    render::line(table.to_string());
    Ok(Exit::Ok)
}

/// Whether the key begins as was typed, or is what was typed.
fn is_start(given: &str, key: &ApiKey) -> bool {
    match Token::parse(given) {
        Some(token) => token.sha256() == key.sha256,
        None => given.len() > "robo_".len() && key.start.starts_with(given),
    }
}

fn document(key: &ApiKey) -> Value {
    json!({
        "id": key.id, "name": key.name, "start": key.start, "created_at": key.created_at, "expires_at": key.expires_at,
        "revoked_at": key.revoked_at, "last_used_at": key.last_used_at, "good": key.is_good(Utc::now()),
    })
}

fn until(key: &ApiKey, now: DateTime<Utc>) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", moment(at)),
        (None, Some(end)) if end <= now => format!("ended {}", moment(end)),
        (None, Some(end)) => moment(end),
        (None, None) => "revoked".into(),
    }
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
