//! `robo env`: list environments, check their manifests, prepare their simulators, and try whether they keep their word.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    db, env_test,
    exit::{Exit, Failure, Result},
    lint, project,
    render::{self, Format},
    report,
};
use crate::config::{self, DataDir};
use crate::manifest::{
    self, Broken, Diagnostics, Family, Manifests, Member,
    simulation::{Adapter, ScoreSource, Simulator, SuccessRule},
};
use crate::plan;
use crate::runtime::python::Environments;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the environments of environments/
    #[command(
        after_help = "Examples:\n  robo env ls\n  robo env ls 'dm_control/*' metaworld\n  robo env ls --format json | jq -r '.environments[].environment'"
    )]
    Ls(Selection),
    /// Check environment manifests without running anything
    #[command(after_help = "Examples:\n  robo env lint\n  robo env lint environments/gymnasium.yaml")]
    Lint(LintArgs),
    /// Prepare the Python environments that simulate, so that the first cycle need not
    #[command(
        after_help = "Examples:\n  robo env build\n  robo env build metaworld gymnasium\n\nFamilies with the same requirements lock share one. Container images are made by `robo build-eval-env`."
    )]
    Build(BuildArgs),
    /// Try what manifests promise: spaces, determinism, seeds; and measure the speed
    #[command(
        after_help = "Examples:\n  robo env test gymnasium\n  robo env test 'metaworld-all/*' --steps 20 --format json\n\nEvery environment plays the same seed and actions in a fresh process, in it again after other episodes, and in a second process between others. The exit code is 1 when anything is wrong."
    )]
    Test(env_test::Args),
}

/// Which environments.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Families, ids, or globs such as `metaworld/*` [default: all]
    pub(super) patterns: Vec<String>,

    /// Directory that holds environments/ [default: the current one, or the nearest above it]
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,

    #[command(flatten)]
    pub(super) data: DataDir,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Debug, clap::Args)]
struct LintArgs {
    /// Manifests, or directories of them [default: environments]
    paths: Vec<PathBuf>,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    #[command(flatten)]
    selection: Selection,
}

pub(super) async fn run(args: Args) -> Result {
    match args.verb {
        Verb::Ls(selection) => list(&selection),
        Verb::Lint(args) => {
            let paths = if args.paths.is_empty() { vec![PathBuf::from("environments")] } else { args.paths };
            lint::run(lint::Args { paths, format: args.format }).await
        }
        Verb::Build(args) => build(&args).await,
        Verb::Test(args) => env_test::run(args).await,
    }
}

/// What a selection names: the root its paths start from, and families with the members that were asked for.
pub(super) struct Selected {
    pub(super) root: PathBuf,
    pub(super) families: Vec<Family>,
}

impl Selection {
    /// Read the manifests and keep what is asked for.
    ///
    /// # Errors
    /// When a manifest is wrong, or a pattern names nothing.
    pub(super) fn resolve(&self) -> Result<Selected> {
        let wrong = |found: String| Failure::new(Exit::Usage, anyhow::anyhow!(found));
        let root = project::root(self.root.as_deref(), &self.data)?;
        let mut found = Diagnostics::default();
        let Manifests { mut families, broken } = manifest::load_each(&root, &mut found);
        let half = |pattern: &String| pattern.split('/').next().unwrap_or_default().to_owned();
        let is_wanted = |name: &str| self.patterns.iter().any(|pattern| plan::matches(&half(pattern), name));
        for Broken { name, problems } in broken {
            let is_error = families.is_empty() || is_wanted(&name);
            let of_it = problems.iter().cloned();
            found.extend(of_it.map(|problem| if is_error { problem } else { problem.warning() }).collect());
        }
        if found.has_errors() {
            return Err(wrong(found.to_string()));
        }
        if !found.is_empty() {
            render::note(found.to_string());
        }
        let named = |member: &Member, pattern: &String| {
            let pattern = if pattern.contains('/') { pattern.clone() } else { format!("{pattern}/*") };
            plan::matches(&pattern, member.simulation.environment.as_str())
        };
        for pattern in &self.patterns {
            if !families.iter().flat_map(|family| &family.members).any(|member| named(member, pattern)) {
                let error = anyhow::anyhow!("no environment is called `{pattern}`");
                return Err(Failure::new(Exit::Usage, error).hint("`robo env ls` lists them"));
            }
        }
        for family in &mut families {
            let is_wanted = |member: &Member| self.patterns.iter().any(|pattern| named(member, pattern));
            family.members.retain(|member| self.patterns.is_empty() || is_wanted(member));
        }
        families.retain(|family| !family.members.is_empty());
        Ok(Selected { root, families })
    }
}

fn list(selection: &Selection) -> Result {
    let selected = selection.resolve()?;
    let members = selected.families.iter().flat_map(|family| family.members.iter().map(move |member| (family, member)));
    if selection.format == Format::Json {
        let all: Vec<Value> = members.map(|(family, member)| document(family, member)).collect();
        render::json(&json!({ "environments": all }));
        return Ok(Exit::Ok);
    }
    let header = ["environment", "steps", "sees", "acts", "success", "score", "lock"];
    let mut table = report::plain(header.map(str::to_owned));
    for (family, member) in members {
        table.add_row(row(family, member));
    }
    render::line(table.to_string());
    Ok(Exit::Ok)
}

fn document(family: &Family, member: &Member) -> Value {
    json!({
        "environment": member.simulation.environment,
        "simulation": member.simulation,
        "protocol": family.protocol,
        "requirements": family.build.as_ref().map(|build| &build.requirements),
        "build_digest": family.build.as_ref().map(|build| &build.digest),
        "image": family.image,
        "action_timeout_ms": member.action_timeout_ms,
        "reset_timeout_ms": member.reset_timeout_ms,
    })
}

fn row(family: &Family, member: &Member) -> [String; 7] {
    let simulation = &member.simulation;
    let [sees, acts, success] = match &simulation.simulator {
        Simulator::Gymnasium(adapter) => [sees(adapter), adapter.action.size.to_string(), success(adapter)],
        Simulator::Affinetes(call) => {
            let sees = if call.use_images { "as its server says, with images" } else { "as its server says" };
            [sees.to_owned(), "as its server says".to_owned(), "as its server says".to_owned()]
        }
    };
    let score = simulation.score.map_or("-".to_owned(), |score| {
        let from = match score.from {
            ScoreSource::Return => "return",
            ScoreSource::Score => "its score,",
        };
        format!("{from} {} to {}", score.min, score.max)
    });
    let lock = match &family.build {
        Some(build) => Path::new(&build.requirements).file_name().unwrap_or_default().to_string_lossy().into_owned(),
        None => format!("none ({}: seeds shown, no replay)", family.protocol),
    };
    [simulation.environment.to_string(), simulation.max_steps.to_string(), sees, acts, success, score, lock]
}

fn sees(adapter: &Adapter) -> String {
    let observation = &adapter.observation;
    let mut sees: Vec<String> = match (observation.size, observation.state.is_empty()) {
        (_, true) => Vec::new(),
        (Some(size), false) => vec![format!("{size} numbers")],
        (None, false) => vec!["numbers".to_owned()],
    };
    let cameras = observation.cameras.iter();
    sees.extend(cameras.map(|(name, camera)| format!("{name} {}x{}", camera.width, camera.height)));
    sees.join(", ")
}

fn success(adapter: &Adapter) -> String {
    match &adapter.success.rule {
        SuccessRule::Info(key) => format!("info {key}"),
        SuccessRule::ReturnAtLeast(least) => format!("return >= {least}"),
        SuccessRule::RewardAtLeast(least) => format!("reward >= {least}"),
        SuccessRule::Survive => "survive".to_owned(),
        SuccessRule::Expression(expression) => expression.clone(),
    }
}

async fn build(args: &BuildArgs) -> Result {
    let selected = args.selection.resolve()?;
    let environments = Environments {
        data_dir: db::data_dir(&args.selection.data)?,
        python: config::python(),
        progress: db::progress(),
    };
    let mut built: Vec<(String, Vec<String>, String, PathBuf)> = Vec::new();
    for family in &selected.families {
        let Some(manifest::Build { requirements: lock, .. }) = &family.build else {
            render::note(format!("{}: nothing to prepare, it is simulated by a server of others", family.name));
            continue;
        };
        if let Some((_, families, ..)) = built.iter_mut().find(|(known, ..)| known == lock) {
            families.push(family.name.clone());
            continue;
        }
        let environment = prepare(&environments, &selected.root.join(lock)).await?;
        built.push((lock.clone(), vec![family.name.clone()], environment.version, environment.python));
    }
    if args.selection.format == Format::Json {
        let all: Vec<Value> = built
            .iter()
            .map(|(lock, families, version, python)| {
                json!({ "requirements": lock, "families": families, "version": version, "python": python })
            })
            .collect();
        render::json(&json!({ "built": all }));
        return Ok(Exit::Ok);
    }
    let mut table = report::plain(["lock", "families", "Python", "interpreter"].map(str::to_owned));
    for (lock, families, version, python) in built {
        table.add_row([lock, families.join(", "), version, python.display().to_string()]);
    }
    render::line(table.to_string());
    Ok(Exit::Ok)
}

/// The Python environment of a lock.
pub(super) async fn prepare(environments: &Environments, lock: &Path) -> Result<crate::runtime::python::Environment> {
    environments.prepare(lock).await.map_err(|error| {
        let remedy = error.remedy();
        let failure = Failure::new(Exit::Failed, error);
        match remedy {
            Some(remedy) => failure.hint(remedy),
            None => failure,
        }
    })
}
