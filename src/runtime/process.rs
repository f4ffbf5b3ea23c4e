//! Environment servers as processes of this machine, without containers.
//!
//! Prepares the simulator's Python environment, starts our own program as `robo env-server` in it, and waits until it
//! answers. The server ends when it is stopped, dropped, or when we die: its standard input closes then.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use rand::RngExt;

use super::{Address, Error, Order, Running, Runtime, python::Environments, recorded::Recorded};
use crate::host::{
    Progress,
    child::Program,
    environment::{Role, from_anywhere},
    ledger::{Ledger, NoLedger},
};

/// How long a server of ours may take to say where it listens.
pub(super) const START: Duration = Duration::from_secs(60);
/// How long it may take to answer `GET /health`.
const HEALTH: Duration = Duration::from_secs(10);
/// How long it may take to end before it is killed.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// The runtime of this machine.
#[derive(Debug, Clone)]
pub struct Process {
    environments: Environments,
    program: PathBuf,
    ledger: Arc<dyn Ledger>,
}

impl Process {
    /// Servers started from `program`, a `robo`, with their environments in `environments`.
    pub fn new(environments: Environments, program: PathBuf) -> Self {
        Self { environments, program, ledger: Arc::new(NoLedger) }
    }

    /// The same with the usual choices: the running program, and the interpreter that `ROBO_PYTHON` names.
    ///
    /// # Errors
    /// [`Error::Executable`].
    pub fn with_defaults(data_dir: PathBuf, progress: Progress) -> Result<Self, Error> {
        let environments = Environments { data_dir, python: crate::config::python(), progress };
        Ok(Self::new(environments, current_program()?))
    }

    /// The same, with every server written into `ledger`.
    #[must_use]
    pub fn with_ledger(self, ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, ..self }
    }

    async fn start_server(&self, order: &Order) -> Result<Server, Error> {
        if order.server.is_foreign() {
            let why = "its image was made by others and does not run as a process".to_owned();
            return Err(Error::Nowhere { family: order.family.clone(), why });
        }
        let package = order.root.join(&order.server.context);
        if !package.is_dir() {
            return Err(Error::NoPackage { path: package });
        }
        let environment = self.environments.prepare(&order.root.join(&order.server.requirements)).await?;
        let token = hex::encode(rand::rng().random::<[u8; 32]>());
        let program = Program::new(Role::Robo, "the environment server", &self.program)
            .env("ROBO_ENV_SERVER_TOKEN", &token)
            .arg("env-server")
            .arg("--python")
            .arg(from_anywhere(&environment.python))
            .arg("--package")
            .arg(from_anywhere(&package))
            .args(["--listen", "127.0.0.1:0", "--until-eof"]);
        let mut recorded = Recorded::start(program, &self.ledger).await?;
        let listening = recorded.child.listening(START).await?;
        let process = recorded.child.id().unwrap_or_default();
        let address = Address {
            url: format!("http://{listening}"),
            token,
            description: format!("process {process} (Python {}) at {listening}", environment.version),
        };
        let mut server = Server { recorded, address };
        server.check_health().await?;
        Ok(server)
    }
}

impl Runtime for Process {
    fn start<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Box<dyn Running>, Error>> {
        Box::pin(async move { Ok(Box::new(self.start_server(order).await?) as Box<dyn Running>) })
    }
}

struct Server {
    recorded: Recorded,
    address: Address,
}

impl Server {
    async fn check_health(&mut self) -> Result<(), Error> {
        let answer = health(&self.address.url, Some(&self.address.token)).await;
        if let Some(status) = self.recorded.child.has_ended()? {
            return Err(self.recorded.child.ended(status).into());
        }
        answer.map_err(|problem| Error::Silent {
            name: "the environment server".into(),
            url: self.address.url.clone(),
            problem,
        })
    }
}

impl Running for Server {
    fn address(&self) -> &Address {
        &self.address
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.check_health())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.recorded.stop(GRACE))
    }
}

/// Ask a server on this machine how it is.
pub(super) async fn health(url: &str, token: Option<&str>) -> Result<(), String> {
    // No proxy and no certificates: it is a neighbour.
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(HEALTH)
        .build()
        .map_err(|error| error.to_string())?;
    let mut request = client.get(format!("{url}/health"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    match request.send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("its answer to `GET /health` is {}", answer.status())),
        Err(error) if error.is_timeout() => Err(format!("nothing came within {} seconds", HEALTH.as_secs())),
        Err(error) => Err(error.to_string()),
    }
}

/// The file we run from. Linux marks one that was replaced meanwhile, as a build does; the new one is as good.
pub(super) fn current_program() -> Result<PathBuf, Error> {
    let path = std::env::current_exe().map_err(Error::Executable)?;
    let replaced = path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map(Path::new);
    Ok(replaced.map_or_else(|| path.clone(), Path::to_path_buf))
}
