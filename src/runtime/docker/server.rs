//! One environment server in its container, from the row in the ledger to the removal.
//!
//! The row is there before the container is, so that nothing is ever left that nobody knows of.

use std::{pin::Pin, sync::Mutex, time::Duration};

use bollard::{
    models::NetworkCreateRequest,
    query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, LogsOptionsBuilder},
};
use futures::{StreamExt, future::BoxFuture};
use rand::RngExt;
use tokio::{io::AsyncWrite, time::Instant};

use super::{
    Means,
    engine::{Engine, is_not_found},
    fence::{self, Openings},
    foreign, image,
    keeper::Kind,
    made::Made,
    relay::Relays,
    spec::{self, Spec},
    tunnel::Tunnel,
};
use crate::cycle::InfraFault;
use crate::host::child::LastWords;
use crate::manifest::Network;
use crate::runtime::{Address, Error, Fault, Order, Running, process::health};

/// Where the server listens inside its container.
const INSIDE: &str = "127.0.0.1:8700";

/// How long a server may take to end before it is killed.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A pause between two questions whether a server is ready: an engine has no way to tell us.
const PAUSE: Duration = Duration::from_millis(200);

/// Lines of a container's output that are kept for the error message.
pub(super) const TAIL: &str = "30";

/// What to do about a server that needs more memory than it may use.
pub(super) const MORE_MEMORY: &str = "raise `resources.memory` of its manifest (or ROBO_BACKEND_EVAL_MEM_LIMIT), or lower \
                                      `workers` or `slots_per_worker`";

/// A server that runs.
pub(super) struct Server {
    made: Made,
    /// The image whose `nft` puts up the rules around it.
    wall: String,
    /// Whether it ends by itself when its input closes.
    ending: Ending,
    address: Address,
    network: Network,
    openings: Openings,
    relays: Option<Relays>,
    tunnel: Tunnel,
    /// While we hold it the server's standard input is open; when it closes, the server ends.
    _input: Mutex<Input>,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By itself, when its standard input closes.
    ByItself,
    /// When its container is removed.
    Removed,
}

/// Start a server on an engine and wait until it answers.
pub(super) async fn start(engine: &Engine, order: &Order, means: &Means<'_>) -> Result<Server, Error> {
    let image = image::choose(engine, (&order.family, &order.server), means.ledger).await?;
    let (wall, ending) = match order.server.is_foreign() {
        false => (image.clone(), Ending::ByItself),
        true => (means.wall.to_owned(), Ending::Removed),
    };
    if ending == Ending::Removed && order.server.resources.network == Network::MinersOnly {
        foreign::check_wall(engine, &wall).await?;
    }
    let what = format!("the environment server of `{}`", order.family);
    let made = Made::enter(engine, means.ledger, (Kind::Container, what)).await?;
    match run(&made, (&image, &wall), order, means.patience).await {
        Ok((address, tunnel, input)) => Ok(Server {
            made,
            wall,
            ending,
            address,
            network: order.server.resources.network,
            openings: Openings::default(),
            relays: None,
            tunnel,
            _input: Mutex::new(input),
        }),
        Err(error) => {
            made.remove().await;
            Err(error)
        }
    }
}

type Input = Pin<Box<dyn AsyncWrite + Send>>;
type Reached = (Address, Tunnel, Input);

async fn run(made: &Made, (image, wall): (&str, &str), order: &Order, patience: Duration) -> Result<Reached, Error> {
    let (engine, name) = (&made.engine, made.name.as_str());
    let client = engine.client().await?.clone();
    let doing = "starting a container";
    let refused = |error| engine.fault(doing, &error);
    let token = hex::encode(rand::rng().random::<[u8; 32]>());
    let network = make_network(made, order.server.resources.network).await?;
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let spec = server_spec(made, image, order, (&token, network, INSIDE));
    let mut body = spec.body();
    if order.server.is_foreign() {
        // What the image starts by itself, where it starts it.
        (body.entrypoint, body.cmd, body.working_dir) = (None, None, None);
    }
    let creator = client.clone();
    made.make(doing, async move { creator.create_container(Some(options), body).await }).await?;
    // Attached before it starts: from its first moment on somebody holds its input.
    let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).build();
    let input = client.attach_container(name, Some(options)).await.map_err(refused)?.input;
    client.start_container(name, None).await.map_err(refused)?;
    if order.server.resources.network == Network::MinersOnly {
        // Before it is told anything: up to now it has run no code but ours, or what an image of others starts with.
        fence::put_up(made, wall, &Openings::default()).await?;
    }
    let command = match order.server.is_foreign() {
        false => [&image::program(), "env-server-connect", INSIDE].map(str::to_owned).to_vec(),
        true => foreign::join(),
    };
    let tunnel = Tunnel::open(engine, name, command).await.map_err(|error| {
        Box::new(Fault::new(InfraFault::ServerLost, format!("no port for a container can be had: {error}")))
    })?;
    let url = format!("http://{}", tunnel.address);
    await_health(made, (&url, &token), patience).await?;
    let short = image.get(..19).unwrap_or(image);
    let description = format!("container {name} on {} (image {short})", engine.url());
    Ok((Address { url, token, description }, tunnel, input))
}

/// What a server is started as, wherever it is to listen.
pub(super) fn server_spec<'a>(
    made: &Made,
    image: &'a str,
    order: &'a Order,
    (token, network, listen): (&str, String, &str),
) -> Spec<'a> {
    let mut labels = made.labels();
    labels.insert(spec::SERVER.into(), order.family.clone());
    // What would be written beside the sources or into a home has nowhere to go.
    let env = ["PYTHONNOUSERSITE=1", "PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp", "XDG_CACHE_HOME=/tmp"];
    let (command, own) = match order.server.is_foreign() {
        false => (own_command(order, listen), vec![format!("ROBO_ENV_SERVER_TOKEN={token}")]),
        true => (Vec::new(), foreign::env()),
    };
    Spec {
        image,
        labels,
        command,
        env: env.into_iter().map(str::to_owned).chain(own).collect(),
        resources: &order.server.resources,
        network,
    }
}

fn own_command(order: &Order, listen: &str) -> Vec<String> {
    let python = image::python(&order.server.requirements);
    let command = [
        &image::program(),
        "env-server",
        "--python",
        &python,
        "--package",
        &image::package(),
        "--listen",
        listen,
        "--until-eof",
    ];
    command.map(str::to_owned).to_vec()
}

/// A network for this server alone; `none` where it is to reach nothing.
async fn make_network(made: &Made, network: Network) -> Result<String, Error> {
    if network == Network::None {
        return Ok("none".into());
    }
    let request = NetworkCreateRequest {
        name: made.name.clone(),
        driver: Some("bridge".into()),
        labels: Some(made.labels()),
        ..NetworkCreateRequest::default()
    };
    let client = made.engine.client().await?.clone();
    made.make("making a network", async move { client.create_network(request).await }).await?;
    Ok(made.name.clone())
}

/// Wait until the server answers, or until it is clear that it never will.
async fn await_health(made: &Made, (url, token): (&str, &str), patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    loop {
        let problem = match health(url, Some(token)).await {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        };
        if let Some(fault) = ended(made).await? {
            return Err(fault.into());
        }
        if Instant::now() >= deadline {
            let text = format!("{} does not answer {patience:?} after its start: {problem}", made.name);
            let fault = Fault::new(InfraFault::StartTimeout, text).last_words(last_words(made).await);
            return Err(Box::new(fault.remedy("give it more `cpus`, or look at what it says")).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why the container does not run any more; nothing while it does.
async fn ended(made: &Made) -> Result<Option<Box<Fault>>, Error> {
    let (engine, name) = (&made.engine, &made.name);
    let state = match engine.client().await?.inspect_container(name, None).await {
        Ok(found) => found.state.unwrap_or_default(),
        Err(error) if is_not_found(&error) => {
            let problem = format!("{name} on {} was removed by somebody else", engine.url());
            return Ok(Some(Box::new(Fault::new(InfraFault::ServerLost, problem))));
        }
        Err(error) => return Err(engine.fault("asking how a container is", &error)),
    };
    if state.running == Some(true) {
        return Ok(None);
    }
    let words = last_words(made).await;
    let code = state.exit_code.unwrap_or_default();
    let fault = if state.oom_killed == Some(true) {
        let problem = format!("{name} on {} used more memory than it may and was killed", engine.url());
        Fault::new(InfraFault::OutOfMemory, problem).remedy(MORE_MEMORY)
    } else if words.0.iter().any(|line| line.to_lowercase().contains("no space left on device")) {
        let problem = format!("{name} on {} found no room on a disk and ended ({code})", engine.url());
        Fault::new(InfraFault::DiskFull, problem).remedy("make room on the disk of that host")
    } else {
        Fault::new(InfraFault::ServerLost, format!("{name} on {} ended ({code})", engine.url()))
    };
    Ok(Some(Box::new(fault.last_words(words))))
}

async fn last_words(made: &Made) -> LastWords {
    let Ok(client) = made.engine.client().await else { return LastWords::default() };
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(TAIL).build();
    let said = client.logs(&made.name, Some(options)).filter_map(|piece| async { Some(piece.ok()?.to_string()) });
    let said = said.collect::<Vec<_>>().await.concat();
    LastWords(said.lines().map(|line| line.chars().take(500).collect()).collect())
}

impl Server {
    async fn check_health(&mut self) -> Result<(), Error> {
        let Err(problem) = health(&self.address.url, Some(&self.address.token)).await else { return Ok(()) };
        if let Some(fault) = ended(&self.made).await? {
            return Err(fault.into());
        }
        let problem = format!("{} runs and does not answer well: {problem}", self.address.description);
        let fault = Fault::new(InfraFault::Unhealthy, problem).last_words(last_words(&self.made).await);
        Err(Box::new(fault).into())
    }

    async fn open_the_way(&mut self, miners: &[String]) -> Result<Vec<String>, Error> {
        if self.network == Network::None {
            return Ok(miners.to_vec());
        }
        let mut translated = Vec::with_capacity(miners.len());
        for miner in miners {
            translated.push(self.translate(miner).await?);
        }
        let mut openings = self.openings.clone();
        translated.iter().for_each(|miner| openings.add(miner));
        if self.network == Network::MinersOnly && openings != self.openings {
            fence::put_up(&self.made, &self.wall, &openings).await?;
            self.openings = openings;
        }
        Ok(translated)
    }

    async fn translate(&mut self, miner: &str) -> Result<String, Error> {
        let relays = match &mut self.relays {
            Some(relays) => relays,
            None => {
                let gateway = gateway(&self.made).await?;
                self.relays.insert(Relays::new(gateway))
            }
        };
        relays.translate(miner).await
    }
}

/// The address of the engine's machine on the server's own network.
async fn gateway(made: &Made) -> Result<std::net::IpAddr, Error> {
    let client = made.engine.client().await?;
    let network = client.inspect_network(&made.name, None).await;
    let network = network.map_err(|error| made.engine.fault("looking at a network", &error))?;
    let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let gateway = configs.into_iter().find_map(|config| config.gateway?.parse().ok());
    gateway.ok_or_else(|| {
        let problem = format!("the network of {} has no gateway", made.name);
        Box::new(Fault::new(InfraFault::ServerLost, problem)).into()
    })
}

impl Running for Server {
    fn address(&self) -> &Address {
        &self.address
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.check_health())
    }

    fn reach<'a>(&'a mut self, miners: &'a [String]) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        Box::pin(self.open_the_way(miners))
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Self { made, tunnel, ending, _input: input, .. } = *self;
            // Closing its input tells it to end; connections into it would keep it waiting.
            drop((tunnel, input));
            if ending == Ending::ByItself
                && let Ok(client) = made.engine.client().await
            {
                // One that does not end in time is killed by its removal.
                let _ = tokio::time::timeout(GRACE, client.wait_container(&made.name, None).next()).await;
            }
            made.remove().await;
        })
    }
}
