//! Settings that several verbs share, as flags and environment variables. The only reader of the environment.

use std::path::PathBuf;

use clap::Args;

/// Where robo keeps things on this machine.
#[derive(Debug, Clone, Default, Args)]
pub struct DataDir {
    /// Directory for the embedded database and the simulators' Python environments
    /// [default: $XDG_DATA_HOME/robo, ~/.local/share/robo, or /var/lib/robo for root]
    #[arg(long, env = "ROBO_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Which database.
#[derive(Debug, Clone, Default, Args)]
pub struct Database {
    /// PostgreSQL server (13 or newer) to use in place of the embedded one: postgresql://user@host/name
    #[arg(long, env = "ROBO_BACKEND_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    #[command(flatten)]
    pub data: DataDir,
}
