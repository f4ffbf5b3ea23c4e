//! A program of an operator's own, run once in a container: JSON to its standard input, its standard output back.
//!
//! It is held as an environment server is, and reaches nothing. Its container is a row in the ledger while it exists.

use std::time::Duration;

use bollard::{
    container::LogOutput,
    errors::Error as Refusal,
    query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder},
};
use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{Docker, engine::Engine, image, keeper::Kind, made::Made, spec::Spec};
use crate::cycle::InfraFault;
use crate::host::child::LastWords;
use crate::manifest::{Network, Resources};
use crate::runtime::{Error, Fault};

/// Bytes of standard error that are kept.
const LAST_WORDS: usize = 16 * 1024;

/// How long a container may take to be known as ended once its output has.
const ENDING: Duration = Duration::from_secs(30);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Command {
    /// The image, by name or id.
    pub image: String,
    /// The program and its arguments; empty for what the image itself starts.
    pub command: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// What it reads.
    pub input: Vec<u8>,
    /// Most bytes that it may say.
    pub max_bytes: usize,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code.
    pub code: i64,
    /// Its standard output.
    pub output: Vec<u8>,
    /// The end of its standard error.
    pub last_words: LastWords,
}

/// Why there is no such end.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The place has failed it.
    #[error(transparent)]
    Place(#[from] Error),
    /// It says more than it may.
    #[error("the container wrote more than {0} bytes to its standard output")]
    TooMuch(usize),
}

/// Runs programs in containers.
#[derive(Debug, Clone)]
pub struct Once {
    docker: Docker,
}

impl Once {
    /// On the first of the runtime's hosts, in its ledger.
    pub fn new(docker: Docker) -> Self {
        Self { docker }
    }

    /// The id of an image on the host, if it is there.
    ///
    /// # Errors
    /// [`Error`] when the host cannot be asked.
    pub async fn image(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(image::inspect(self.docker.hosts.first()?, name).await?.and_then(|found| found.id))
    }

    /// Run a command to its end. Giving up the future ends it.
    ///
    /// # Errors
    /// [`OnceError`].
    pub async fn run(&self, command: Command) -> Result<Said, OnceError> {
        let (engine, ledger) = (self.docker.hosts.first()?, &self.docker.ledger);
        let id = self.pinned(&command.image).await?;
        let what = format!("a program of the image `{}`", command.image);
        let made = Made::enter(engine, ledger, (Kind::Container, what)).await?;
        let said = converse(&made, &id, &command, self.resources()).await;
        // Here and not on drop: the row is to be gone when the stage is.
        made.remove().await;
        said
    }

    async fn pinned(&self, name: &str) -> Result<String, Error> {
        let engine = self.docker.hosts.first()?;
        let missing = |id: &str| {
            let problem = format!("there is no image `{id}` on {}", engine.url());
            let remedy = format!("bring it there with `docker pull {name}`, `docker load` or `docker build`");
            Error::from(Box::new(Fault::new(InfraFault::ImageMissing, problem).remedy(remedy)))
        };
        let id = self.image(name).await?.ok_or_else(|| missing(name))?;
        let pinned = self.docker.ledger.pin(name, &id).await?;
        if pinned != id && self.image(&pinned).await?.is_none() {
            return Err(missing(&pinned));
        }
        Ok(pinned)
    }

    fn resources(&self) -> Resources {
        let memory = Some(self.docker.defaults.memory);
        Resources { memory, cpus: None, gpus: 0, pids: Some(256), network: Network::None }
    }
}

async fn converse(made: &Made, image: &str, command: &Command, resources: Resources) -> Result<Said, OnceError> {
    let (engine, name) = (&made.engine, made.name.as_str());
    let client = engine.client().await?.clone();
    let doing = "running a container";
    let refused = |error| engine.fault(doing, &error);
    let mut body = Spec {
        image,
        labels: made.labels(),
        command: command.command.clone(),
        env: command.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        resources: &resources,
        network: "none".into(),
    }
    .body();
    if command.command.is_empty() {
        (body.entrypoint, body.cmd) = (None, None);
    }
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let creator = client.clone();
    made.make(doing, async move { creator.create_container(Some(options), body).await }).await?;
    let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).stdout(true).stderr(true).build();
    let mut attached = client.attach_container(name, Some(options)).await.map_err(refused)?;
    client.start_container(name, None).await.map_err(refused)?;
    let input = async {
        // A program that does not want to know ends all the same.
        let _ = attached.input.write_all(&command.input).await;
        let _ = attached.input.shutdown().await;
    };
    let mut said = Said { code: 0, output: Vec::new(), last_words: LastWords::default() };
    let mut errors = Vec::new();
    let output = async {
        while let Some(piece) = attached.output.next().await {
            match piece.map_err(refused)? {
                LogOutput::StdErr { message } => {
                    errors.extend_from_slice(&message);
                    errors.drain(..errors.len().saturating_sub(LAST_WORDS));
                }
                piece => said.output.extend_from_slice(&piece.into_bytes()),
            }
            if said.output.len() > command.max_bytes {
                return Err(OnceError::TooMuch(command.max_bytes));
            }
        }
        Ok(())
    };
    let ((), output) = tokio::join!(input, output);
    output?;
    said.last_words = LastWords(String::from_utf8_lossy(&errors).lines().map(str::to_owned).collect());
    said.code = exit_code(engine, name).await?;
    Ok(said)
}

/// How the container ended, whose output has.
async fn exit_code(engine: &Engine, name: &str) -> Result<i64, Error> {
    let client = engine.client().await?;
    let waited = tokio::time::timeout(ENDING, client.wait_container(name, None).next()).await;
    match waited {
        Ok(Some(Ok(ended))) => Ok(ended.status_code),
        Ok(Some(Err(Refusal::DockerContainerWaitError { code, .. }))) => killed(engine, name, code).await,
        Ok(Some(Err(error))) => Err(engine.fault("waiting for a container", &error)),
        Ok(None) | Err(_) => {
            let problem = format!("{name} on {} closed its output and does not end", engine.url());
            Err(Box::new(Fault::new(InfraFault::Unhealthy, problem)).into())
        }
    }
}

/// The code of a container that did not end well; being killed for its memory is not its own answer.
async fn killed(engine: &Engine, name: &str, code: i64) -> Result<i64, Error> {
    let found = engine.client().await?.inspect_container(name, None).await;
    let found = found.map_err(|error| engine.fault("asking how a container is", &error))?;
    if found.state.and_then(|state| state.oom_killed) == Some(true) {
        let problem = format!("{name} on {} used more memory than it may and was killed", engine.url());
        let fault = Fault::new(InfraFault::OutOfMemory, problem).remedy("raise ROBO_BACKEND_EVAL_MEM_LIMIT");
        return Err(Box::new(fault).into());
    }
    Ok(code)
}
