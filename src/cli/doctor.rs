//! `robo doctor`: whether this machine has what a backend needs, a line for each thing, and what to do where it has not.
//!
//! Changes nothing, but starts the embedded database for a moment where there is one already.

use std::{collections::BTreeSet, path::Path};

use chrono::{TimeDelta, Utc};
use nix::sys::statvfs::statvfs;
use serde_json::json;

use super::{
    chain, db, drive,
    exit::{Exit, Result},
    lint,
    render::{self, Format},
};
use crate::backend::Machine;
use crate::chain::{Head, Patience};
use crate::config::{self, RuntimeKind};
use crate::host::Progress;
use crate::manifest::{self, Diagnostics, Family, Severity};
use crate::store::{DatabaseStatus, Store};

/// Room for a cycle's database and its simulators: less is a warning, a tenth of it a failure.
const ROOM: u64 = 10 << 30;

/// How far two clocks may be apart.
const APART: TimeDelta = TimeDelta::seconds(10);

/// How long ago a finalized block was made on a chain that goes on.
const OLD: TimeDelta = TimeDelta::minutes(5);

/// Checks that this machine has what a backend needs: one line for each thing, with the remedy
///
/// Give it the flags that the backend gets (or the same environment). The exit code is 1 when something fails; warnings are
/// about what only some pipelines need.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo doctor
  robo doctor --runtime docker --netuid 7
  robo doctor --database-url postgresql://robo@db/robo --format json")]
pub(super) struct Args {
    #[command(flatten)]
    discovery: config::Discovery,

    #[command(flatten)]
    place: config::Place,

    #[command(flatten)]
    database: config::Database,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    about: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "FAILED",
        }
    }
}

impl Finding {
    fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Good, found: found.into(), remedy: None }
    }

    fn warning(about: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn bad(about: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Bad, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// The same, as a warning where the thing is not `needed` for certain.
    fn if_needed(self, needed: bool) -> Self {
        let verdict = if needed { self.verdict } else { self.verdict.min_of(Verdict::Warning) };
        Self { verdict, ..self }
    }
}

impl Verdict {
    fn min_of(self, most: Self) -> Self {
        if self == Self::Bad { most } else { self }
    }
}

pub(super) async fn run(args: Args) -> Result {
    let data = db::data_dir(&args.database.data)?;
    let machine = drive::machine(data.clone(), (&args.place, &args.discovery))?;
    let families = families();
    let (database, (chain, made)) = tokio::join!(database(&args.database, &data), chain(&args.discovery));
    let (mut findings, ahead) = database;
    findings.push(docker(&machine, args.place.runtime).await);
    findings.push(images(&machine, &args.place, &families).await);
    findings.push(chain);
    findings.push(disk(&data));
    findings.push(clock(ahead, made));
    findings.push(gpu(&families, Path::new("/dev")));
    findings.push(files());
    show(&findings, args.format);
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if is_bad { Exit::Failed } else { Exit::Ok })
}

fn show(findings: &[Finding], format: Format) {
    match format {
        Format::Json => {
            let all = findings.iter().map(|finding| {
                let verdict = finding.verdict.word().to_lowercase();
                json!({ "about": finding.about, "verdict": verdict, "found": finding.found, "remedy": finding.remedy })
            });
            render::json(&json!({ "findings": all.collect::<Vec<_>>() }));
        }
        Format::Table => findings.iter().for_each(|finding| {
            let remedy = finding.remedy.as_ref().map(|remedy| format!(" -> {remedy}")).unwrap_or_default();
            render::line(format!(
                "{:<8} {:<11} {}{remedy}",
                finding.verdict.word(),
                finding.about,
                finding.found.replace('\n', " ")
            ));
        }),
    }
}

/// The manifests of the directory we are in, if it has any; those with mistakes are `robo lint`'s matter.
fn families() -> Vec<Family> {
    let root = manifest::root_of(Path::new("pipeline.yaml")).ok();
    root.map(|root| manifest::load_all(&root, &mut Diagnostics::default())).unwrap_or_default()
}

/// The pipelines and manifests of the directory we are in.
fn files() -> Finding {
    if lint::manifests_of(Path::new("")).is_empty() {
        return Finding::good("files", "none here: the pipelines and environments that robo carries are used");
    }
    let found = lint::check(&[]);
    let broken: BTreeSet<&str> = found
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.file.as_deref().unwrap_or("the command line"))
        .collect();
    if broken.is_empty() {
        return Finding::good("files", "every pipeline and manifest here can be used");
    }
    let names: Vec<&str> = broken.into_iter().collect();
    let remedy = "`robo lint` shows each mistake with its place; what does not use these files works";
    Finding::warning("files", format!("with mistakes: {}", names.join(", ")), remedy)
}

/// Database and schema, and how far the database's clock is ahead of ours.
async fn database(config: &config::Database, data: &Path) -> (Vec<Finding>, Option<TimeDelta>) {
    if config.database_url.is_none() && !data.join("postgres").exists() {
        let found = format!("an embedded one will be made in {} when it is first needed", data.display());
        return (vec![Finding::good("database", found), Finding::good("migrations", "none are needed yet")], None);
    }
    match asked(config).await {
        Ok((status, ahead)) => {
            let found = format!("PostgreSQL {} at {}", status.server_version, status.location);
            (vec![Finding::good("database", found), migrations(&status)], ahead)
        }
        Err(failure) => {
            let found = format!("Database connection failed: {:#}", failure.error);
            let database = Finding::bad("database", found, failure.hints.join("; "));
            (vec![database, Finding::bad("migrations", "unknown without the database", "see above")], None)
        }
    }
}

async fn asked(config: &config::Database) -> Result<(DatabaseStatus, Option<TimeDelta>)> {
    let store = Store::open_as_is(config, &Progress::new(|_| {})).await.map_err(db::failure)?;
    let status = store.status().await.map_err(db::failure);
    let ahead = store.clock_ahead().await.ok();
    store.close().await;
    Ok((status?, ahead))
}

fn migrations(status: &DatabaseStatus) -> Finding {
    let known = status.known_version;
    match status.schema_version {
        Some(found) if found == known => Finding::good("migrations", format!("schema version {found}, the newest")),
        Some(found) if found > known => Finding::bad(
            "migrations",
            format!("the schema is of a newer robo: version {found}, this one knows {known}"),
            "upgrade robo",
        ),
        Some(found) => Finding::warning(
            "migrations",
            format!("schema version {found} of {known}"),
            "`robo db init`, or start the backend: it migrates",
        ),
        None => {
            Finding::warning("migrations", "the database is empty", "`robo db init`, or start the backend: it migrates")
        }
    }
}

async fn docker(machine: &Machine, runtime: RuntimeKind) -> Finding {
    let is_needed = matches!(runtime, RuntimeKind::Docker | RuntimeKind::Swarm);
    let answers = machine.hosts().answer().await;
    let silent: Vec<&str> = answers.iter().filter(|(_, answers)| !answers).map(|(host, _)| host.as_str()).collect();
    let finding = if silent.is_empty() {
        let hosts: Vec<&str> = answers.iter().map(|(host, _)| host.as_str()).collect();
        Finding::good("docker", format!("{} answers", hosts.join(", ")))
    } else {
        let remedy = "start it, join the group `docker`, or name another with --docker-host";
        Finding::bad("docker", format!("no engine answers at {}", silent.join(", ")), remedy)
    };
    match (finding.verdict, is_needed) {
        (Verdict::Bad, false) => Finding {
            verdict: Verdict::Warning,
            remedy: Some("needed only for --runtime docker or swarm, and for `container/run` with an image".into()),
            ..finding
        },
        _ => finding,
    }
}

async fn images(machine: &Machine, place: &config::Place, families: &[Family]) -> Finding {
    if !matches!(place.runtime, RuntimeKind::Docker | RuntimeKind::Swarm) {
        return Finding::good("images", "none are needed: environment servers do not run in containers");
    }
    let mut missing = Vec::new();
    for family in families {
        let chosen =
            place.eval_image.as_deref().filter(|_| !family.pinned.image && family.protocol == manifest::ROBO_V1);
        let image = chosen.or(family.image.as_deref()).unwrap_or(place.image());
        if !machine.hosts().without(image).await.is_empty() {
            missing.push(format!("{} (`{image}`)", family.name));
        }
    }
    if missing.is_empty() {
        return Finding::good("images", format!("those of {} families are on every host that answers", families.len()));
    }
    let remedy = "`robo build-eval-env FAMILY` for those that are evaluated";
    Finding::warning("images", format!("not on every host: {}", missing.join(", ")), remedy)
}

/// The chain, and when its last finalized block was made.
async fn chain(discovery: &config::Discovery) -> (Finding, Option<TimeDelta>) {
    let network = match chain::network(&discovery.chain) {
        Ok(network) => network,
        Err(failure) => return (Finding::bad("chain", format!("{:#}", failure.error), "see --network"), None),
    };
    let patience = Patience { rounds: 1, ..Patience::default() };
    match Head::read(&network, patience).await {
        Ok(head) => {
            let age = head.made.map(|made| Utc::now() - made);
            (Finding::good("chain", format!("{network}: block {} is finalized, by {}", head.block, head.node)), age)
        }
        Err(error) => {
            let failure = chain::unreachable(error);
            let finding = Finding::bad("chain", format!("{:#}", failure.error), failure.hints.join("; "));
            // Without a subnet only schedules by block ask it.
            (finding.if_needed(discovery.netuid.is_some()), None)
        }
    }
}

fn disk(data: &Path) -> Finding {
    let free = match statvfs(data) {
        Ok(found) => found.blocks_available() * found.fragment_size(),
        Err(error) => return Finding::warning("disk", format!("{}: {error}", data.display()), "see --data-dir"),
    };
    room(free, data)
}

fn room(free: u64, data: &Path) -> Finding {
    let found = format!("{:.1} GB free for {}", free as f64 / 1e9, data.display());
    let remedy = "make room there, or choose another directory with --data-dir";
    match free {
        free if free >= ROOM => Finding::good("disk", found),
        free if free >= ROOM / 10 => Finding::warning("disk", found, remedy),
        _ => Finding::bad("disk", found, remedy),
    }
}

/// This machine's clock against that of the database and that of the chain.
fn clock(ahead: Option<TimeDelta>, age: Option<TimeDelta>) -> Finding {
    let remedy = "have it set by NTP (`timedatectl set-ntp true`)";
    if let Some(ahead) = ahead.filter(|ahead| ahead.abs() > APART) {
        let found = format!("the database's clock is {} s ahead of this machine's", ahead.num_seconds());
        return Finding::bad("clock", found, remedy);
    }
    match age {
        Some(age) if age < -APART => {
            let found = format!("the chain's last finalized block was made in {} s", -age.num_seconds());
            Finding::bad("clock", found, remedy)
        }
        Some(age) if age > OLD => {
            let found = format!("the chain's last finalized block was made {} s ago", age.num_seconds());
            Finding::warning("clock", found, format!("if the chain goes on, {remedy}"))
        }
        None if ahead.is_none() => Finding::good("clock", "nothing to compare it with: neither a database nor a chain"),
        _ => Finding::good("clock", "agrees with those of the database and the chain, as far as they could be asked"),
    }
}

fn gpu(families: &[Family], devices: &Path) -> Finding {
    let wanted: Vec<&str> =
        families.iter().filter(|family| family.resources.gpus > 0).map(|family| family.name.as_str()).collect();
    let has = |name: &str| devices.join(name).exists();
    match (has("nvidia0"), has("dri/renderD128")) {
        (true, _) => Finding::good("gpu", "an NVIDIA device is there"),
        (false, true) => Finding::good("gpu", "a device that draws is there (dri/renderD128)"),
        (false, false) if wanted.is_empty() => {
            Finding::good("gpu", "none, and no family asks for one: images are drawn in software")
        }
        (false, false) => {
            let found = format!("none on this machine, and {} ask for one", wanted.join(", "));
            Finding::warning("gpu", found, "run those families on a Docker host that has one (--docker-host)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told_apart() {
        let seconds = |seconds| Some(TimeDelta::seconds(seconds));
        for (ahead, age, verdict) in [
            (None, None, Verdict::Good),
            (seconds(3), seconds(30), Verdict::Good),
            (seconds(-60), seconds(30), Verdict::Bad),
            (None, seconds(-60), Verdict::Bad),
            (seconds(0), seconds(600), Verdict::Warning),
        ] {
            assert_eq!(clock(ahead, age).verdict, verdict, "{ahead:?} {age:?}");
        }
    }

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        let verdict = |free| room(free, Path::new("/data")).verdict;
        assert_eq!(
            [verdict(ROOM), verdict(ROOM - 1), verdict(1 << 20)],
            [Verdict::Good, Verdict::Warning, Verdict::Bad]
        );
    }

    #[test]
    fn devices_are_looked_for_where_drivers_put_them() {
        let devices = tempfile::tempdir().unwrap();
        assert!(gpu(&[], devices.path()).found.contains("in software"));
        std::fs::create_dir(devices.path().join("dri")).unwrap();
        std::fs::write(devices.path().join("dri/renderD128"), "").unwrap();
        assert!(gpu(&[], devices.path()).found.contains("renderD128"));
        std::fs::write(devices.path().join("nvidia0"), "").unwrap();
        assert!(gpu(&[], devices.path()).found.contains("NVIDIA"));
    }
}
