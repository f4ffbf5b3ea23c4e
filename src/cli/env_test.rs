//! `robo env test`: have environments tried by the Python that simulates them, and show what was found.

use std::path::PathBuf;

use serde_json::json;

use super::{
    db, env,
    exit::{Exit, Result},
    render::{self, Format},
    report,
};
use crate::config;
use crate::manifest::{Build, Family, simulation::Simulation};
use crate::runtime::{
    conformance::{self, Depth, Finding},
    python::Environments,
};

/// Environments that are tried at a time; what was found about them is told before the next begin.
const BATCH: usize = 10;

/// Columns between the environment and its speed.
const CHECKS: [&str; 3] = ["spaces", "determinism", "seeds"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: env::Selection,

    /// Steps of an episode that is tried
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,

    /// Leave out the test of determinism, which takes most of the time
    #[arg(long)]
    skip_determinism: bool,

    /// Interpreter with the simulators installed, in place of one made from the locks
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result {
    let selected = args.selection.resolve()?;
    let (families, foreign): (Vec<&Family>, Vec<&Family>) =
        selected.families.iter().partition(|family| family.build.is_some());
    for family in &foreign {
        render::note(format!(
            "{}: not tried, it is simulated by a server of others (`protocol: affinetes`)",
            family.name
        ));
    }
    let count: usize = families.iter().map(|family| family.members.len()).sum();
    let depth = if args.skip_determinism { Depth::Quick } else { Depth::Full };
    let mut findings = Vec::with_capacity(count);
    for (family, build) in families.into_iter().filter_map(|family| Some((family, family.build.as_ref()?))) {
        let python = interpreter(&args, build, &selected.root).await?;
        let package = selected.root.join(&build.context);
        let simulations: Vec<&Simulation> = family.members.iter().map(|member| &member.simulation).collect();
        for batch in simulations.chunks(BATCH) {
            findings.extend(conformance::examine(&python, &package, batch, (args.steps, depth)).await?);
            render::note(format!("{}: {} of {count} environments tried", family.name, findings.len()));
        }
    }
    let is_well = findings.iter().all(Finding::is_well);
    match args.selection.format {
        Format::Json => render::json(&json!({ "environments": findings, "well": is_well })),
        Format::Table => show(&findings),
    }
    Ok(if is_well { Exit::Ok } else { Exit::Failed })
}

async fn interpreter(args: &Args, build: &Build, root: &std::path::Path) -> Result<PathBuf> {
    if let Some(python) = &args.python {
        return Ok(python.clone());
    }
    let environments = Environments {
        data_dir: db::data_dir(&args.selection.data)?,
        python: config::python(),
        progress: db::progress(),
    };
    Ok(env::prepare(&environments, &root.join(&build.requirements)).await?.python)
}

fn show(findings: &[Finding]) {
    let header = ["environment"].into_iter().chain(CHECKS).chain(["steps/s", "images"]);
    let mut table = report::plain(header.map(str::to_owned));
    for finding in findings {
        let mut row = vec![finding.environment.clone()];
        row.extend(CHECKS.map(|name| match finding.checks.iter().find(|check| check.check == name) {
            Some(check) if check.problem.is_some() => "WRONG".to_owned(),
            Some(check) => format!("ok: {}", check.note),
            None => "-".to_owned(),
        }));
        row.push(finding.steps_per_second.map_or("-".to_owned(), |speed| format!("{speed:.0}")));
        row.push(finding.renderer.clone().unwrap_or_else(|| "-".to_owned()));
        table.add_row(row);
    }
    render::line(table.to_string());
    for finding in findings {
        for check in &finding.checks {
            if let Some(problem) = &check.problem {
                render::line(format!("{}: {}: {problem}", finding.environment, check.check));
            }
        }
    }
}
