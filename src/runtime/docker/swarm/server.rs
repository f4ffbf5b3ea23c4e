//! One environment server as a service, from the row in the ledger to the removal.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use bollard::models::NetworkCreateRequest;
use futures::{StreamExt, future::BoxFuture};
use rand::RngExt;
use tokio::time::Instant;

use super::{
    Overlay, gate,
    hold::{Hold, Told, Wire},
    nodes::{Node, Seat},
    service,
    task::{self, PAUSE},
};
use crate::cycle::InfraFault;
use crate::host::ledger::Ledger;
use crate::manifest::Network;
use crate::runtime::docker::{
    engine::Engine,
    fence::{self, Openings},
    image,
    keeper::Kind,
    made::Made,
    relay::Relays,
    server::{GRACE, server_spec},
    tunnel::Tunnel,
};
use crate::runtime::{Address, Error, Fault, Order, Running, process::health};

/// Where the server listens inside its container: in a network of its own, and it asks for its token.
const INSIDE: &str = "0.0.0.0:8700";

/// Both ports of a service, for those beside it.
const SERVER: u16 = 8700;
const HOLD: u16 = 8701;

/// How long a manager may take to notice that a node is gone: three missed heartbeats, which take 15 s where nobody has
/// said otherwise, and some.
const NOTICE: Duration = Duration::from_secs(30);

/// Where a server is to be.
pub(super) struct Place<'a> {
    pub(super) engine: &'a Engine,
    /// Where nodes reach the manager's machine.
    pub(super) address: IpAddr,
    pub(super) overlay: Overlay,
    pub(super) seat: Seat<'a>,
}

/// A server that runs.
pub(super) struct Server {
    made: Made,
    node: Node,
    image: String,
    address: Address,
    network: Network,
    openings: Openings,
    relays: Option<Relays>,
    /// Where nodes reach our machine, if it is the manager's.
    here: IpAddr,
    hold: Hold,
}

/// Start a server on a node and wait until it answers.
pub(super) async fn start(
    place: Place<'_>,
    order: &Order,
    ledger: &Arc<dyn Ledger>,
    patience: Duration,
) -> Result<Server, Error> {
    let engine = place.engine;
    let image = image::choose(engine, (&order.family, &order.server), ledger).await?;
    let (node, here) = (place.seat.node.clone(), place.address);
    let what = format!("the environment server of `{}`", order.family);
    let made = Made::enter(engine, ledger, (Kind::Service, what)).await?;
    let reached = match make_network(&made, order.server.resources.network, place.overlay).await {
        Ok(()) => run(&made, &image, (place.seat, order), patience).await,
        Err(error) => Err(error),
    };
    match reached {
        Ok((address, hold)) => Ok(Server {
            made,
            node,
            image: order.server.image.clone().unwrap_or_default(),
            address,
            network: order.server.resources.network,
            openings: Openings::default(),
            relays: None,
            here,
            hold,
        }),
        Err(error) => {
            made.remove().await;
            Err(error)
        }
    }
}

async fn run(
    made: &Made,
    image: &str,
    (seat, order): (Seat<'_>, &Order),
    patience: Duration,
) -> Result<(Address, Hold), Error> {
    let (engine, name) = (&made.engine, made.name.as_str());
    let begin = Instant::now();
    let token = hex::encode(rand::rng().random::<[u8; 32]>());
    let reference = image::reference(engine, image).await?;
    let spec = server_spec(made, &reference, order, (&token, name.to_owned(), INSIDE));
    let service = service::service(spec, name, &seat.node.id);
    let client = engine.client().await?.clone();
    made.make("making a service", async move { client.create_service(service, None).await }).await?;
    let node = seat.node.clone();
    // It can be counted now.
    drop(seat);
    let place = task::Place { made, node: &node, image: order.server.image.as_deref().unwrap_or_default() };
    // A name that nobody has yet is not looked for: whoever does waits longer than it takes to come.
    let running = tokio::time::timeout(patience, place.until_running()).await;
    match running {
        Ok(running) => running?,
        Err(_) => return Err(late(place, patience, "its node has not started it").await),
    }
    let mut wire = Wire::lay(made, image, (&format!("{name}:{HOLD}"), patience)).await?;
    take_hold(&mut wire, place, (order.server.resources.network, patience)).await?;
    let command = [&image::program(), "env-server-connect", &format!("{name}:{SERVER}")].map(str::to_owned).to_vec();
    let tunnel = Tunnel::open(engine, &gate(name), command).await.map_err(|error| {
        Box::new(Fault::new(InfraFault::ServerLost, format!("no port for a service can be had: {error}")))
    })?;
    let hold = Hold::keep(wire, tunnel);
    let url = format!("http://{}", hold.address);
    await_health((place, &hold), (&url, &token), (begin, patience)).await?;
    let short = image.get(..19).unwrap_or(image);
    let description = format!("service {name} on node {} of {} (image {short})", node.name, engine.url());
    Ok((Address { url, token, description }, hold))
}

/// A network for this server and its gate alone. One that is to reach nothing has no way out.
async fn make_network(made: &Made, network: Network, overlay: Overlay) -> Result<(), Error> {
    let request = NetworkCreateRequest {
        name: made.name.clone(),
        driver: Some("overlay".into()),
        attachable: Some(true),
        internal: Some(network == Network::None),
        options: (overlay == Overlay::Encrypted).then(|| HashMap::from([("encrypted".into(), String::new())])),
        labels: Some(made.labels()),
        ..NetworkCreateRequest::default()
    };
    let client = made.engine.client().await?.clone();
    made.make("making a network", async move { client.create_network(request).await }).await.map(drop)
}

/// Take hold of what runs the server, which then starts it: with its network closed where it is to be.
async fn take_hold(
    wire: &mut Wire,
    place: task::Place<'_>,
    (network, patience): (Network, Duration),
) -> Result<(), Error> {
    let rules = (network == Network::MinersOnly).then(|| Openings::default().rules());
    let told = Told { rules };
    let heard = tokio::select! {
        heard = tokio::time::timeout(patience, wire.ask(&told)) => heard,
        error = place.until_lost() => return Err(error),
    };
    let problem = match heard {
        Ok(Ok(heard)) => match heard.problem {
            None => return Ok(()),
            Some(problem) => return Err(fence::fault(problem).into()),
        },
        Ok(Err(problem)) => problem,
        Err(_) => "nothing was heard".into(),
    };
    Err(late(place, patience, &problem).await)
}

/// Wait until the server answers, or until it is clear that it never will.
async fn await_health(
    (place, hold): (task::Place<'_>, &Hold),
    (url, token): (&str, &str),
    (begin, patience): (Instant, Duration),
) -> Result<(), Error> {
    loop {
        let Err(problem) = health(url, Some(token)).await else { return Ok(()) };
        if let Some(fault) = why(place, hold).await? {
            return Err(fault.into());
        }
        if begin.elapsed() >= patience {
            return Err(late(place, patience, &problem).await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a server does not answer, where the manager knows. While we hold it, it runs; when we do not, the manager is given
/// the time to notice what has become of it.
async fn why(place: task::Place<'_>, hold: &Hold) -> Result<Option<Box<Fault>>, Error> {
    let is_held = hold.say(Told::default()).await.is_some();
    let deadline = Instant::now() + if is_held { Duration::ZERO } else { NOTICE };
    loop {
        let fault = place.lost().await?;
        if fault.is_some() || Instant::now() >= deadline {
            return Ok(fault);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// That a server does not come up, unless the manager knows better by now.
async fn late(place: task::Place<'_>, patience: Duration, problem: &str) -> Error {
    if let Ok(Some(fault)) = place.lost().await {
        return fault.into();
    }
    let text = format!(
        "{} on node {} does not answer {patience:?} after its start: {problem}",
        place.made.name, place.node.name
    );
    let fault = Fault::new(InfraFault::StartTimeout, text).last_words(place.words().await);
    let remedy = "give it more `cpus`, or look at what it says; nodes have to reach each other at 7946 (TCP, UDP) and 4789 \
                  (UDP)";
    Box::new(fault.remedy(remedy)).into()
}

impl Server {
    fn place(&self) -> task::Place<'_> {
        task::Place { made: &self.made, node: &self.node, image: &self.image }
    }

    async fn check_health(&mut self) -> Result<(), Error> {
        let Err(problem) = health(&self.address.url, Some(&self.address.token)).await else { return Ok(()) };
        if let Some(fault) = why(self.place(), &self.hold).await? {
            return Err(fault.into());
        }
        let problem = format!("{} runs and does not answer well: {problem}", self.address.description);
        let fault = Fault::new(InfraFault::Unhealthy, problem).last_words(self.place().words().await);
        Err(Box::new(fault).into())
    }

    async fn open_the_way(&mut self, miners: &[String]) -> Result<Vec<String>, Error> {
        if self.network == Network::None {
            return Ok(miners.to_vec());
        }
        let mut translated = Vec::with_capacity(miners.len());
        for miner in miners {
            translated.push(self.relays().translate(miner).await?);
        }
        let mut openings = self.openings.clone();
        translated.iter().for_each(|miner| openings.add(miner));
        if self.network == Network::MinersOnly && openings != self.openings {
            match self.hold.say(Told { rules: Some(openings.rules()) }).await {
                Some(heard) => heard.problem.map_or(Ok(()), |problem| Err(fence::fault(problem)))?,
                // Whoever asks it for episodes is told why.
                None => return Ok(translated),
            }
            self.openings = openings;
        }
        Ok(translated)
    }

    fn relays(&mut self) -> &mut Relays {
        self.relays.get_or_insert_with(|| Relays::new(self.here))
    }
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
            let Self { made, hold, .. } = *self;
            // Letting go tells it to end; its gate ends with it.
            drop(hold);
            if let Ok(client) = made.engine.client().await {
                // One that does not end in time is killed by its removal.
                let _ = tokio::time::timeout(GRACE, client.wait_container(&gate(&made.name), None).next()).await;
            }
            made.remove().await;
        })
    }
}
