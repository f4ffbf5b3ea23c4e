//! Our hold on a server that runs on some node: a connection that it lives by, through a small container beside it.
//!
//! The container stands in the server's network and on the manager, whose engine we speak to. Its one program joins its
//! standard input and output with `robo env-server-hold`, which runs the server: while it hears from us the server lives,
//! and what it is told of the network's rules it does. When the hold breaks, whoever still speaks to the server is cut off
//! at once: nobody waits for a machine that is gone.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use bollard::{
    container::LogOutput,
    query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder},
};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::gate;
use crate::manifest::{Network, Resources};
use crate::runtime::Error;
use crate::runtime::docker::{image, made::Made, spec::Spec, tunnel::Tunnel};

/// What `robo env-server-hold` says when the kernel has ended a process of its container.
pub const OUT_OF_MEMORY: &str = "infra_fault(out_of_memory): a process of this container was ended for its memory";

/// How often we say that we are there.
const BEAT: Duration = Duration::from_secs(5);

/// How long an answer may take.
const SILENCE: Duration = Duration::from_secs(15);

/// Longest answer.
const LONGEST: usize = 64 * 1024;

/// A line to `robo env-server-hold`; one without anything says that we are there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Rules for the network of its container, for `nft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
}

/// Its answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// Why it could not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The connection, before anybody relies on it.
pub(super) struct Wire {
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    input: Pin<Box<dyn AsyncWrite + Send>>,
    heard: Vec<u8>,
}

impl Wire {
    /// Start the container that leads to `server`, a name and a port in the network of what is `made`.
    pub(super) async fn lay(made: &Made, image: &str, (server, patience): (&str, Duration)) -> Result<Self, Error> {
        let client = made.engine.client().await?.clone();
        let doing = "making the way to a service";
        let refused = |error| made.engine.fault(doing, &error);
        let name = gate(&made.name);
        let patience = format!("{}s", patience.as_secs().max(1));
        let command = [&image::program(), "env-server-connect", server, "--patience", &patience];
        let spec = Spec {
            image,
            labels: made.labels(),
            command: command.map(str::to_owned).to_vec(),
            env: Vec::new(),
            resources: &of_a_gate(),
            network: made.name.clone(),
        };
        let mut body = spec.body();
        if let Some(host) = &mut body.host_config {
            // The one name it asks for is known to the engine or not at all yet: nobody else is asked, or long waited for.
            host.dns = Some(vec!["127.0.0.1".into()]);
            host.dns_options = Some(vec!["timeout:1".into(), "attempts:1".into()]);
        }
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let creator = client.clone();
        made.make(doing, async move { creator.create_container(Some(options), body).await }).await?;
        let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).stdout(true).stderr(true).build();
        let attached = client.attach_container(&name, Some(options)).await.map_err(refused)?;
        client.start_container(&name, None).await.map_err(refused)?;
        Ok(Self { output: attached.output, input: attached.input, heard: Vec::new() })
    }

    /// Say something and wait for the answer; what is wrong when none comes.
    pub(super) async fn ask(&mut self, told: &Told) -> Result<Heard, String> {
        let mut line = serde_json::to_vec(told).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.input.write_all(&line).await.map_err(|error| error.to_string())?;
        self.input.flush().await.map_err(|error| error.to_string())?;
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map_err(|error| format!("its answer is not of the protocol: {error}"));
            }
            match self.output.next().await {
                Some(Ok(LogOutput::StdErr { message })) => {
                    return Err(String::from_utf8_lossy(&message).trim().to_owned());
                }
                Some(Ok(piece)) if self.heard.len() < LONGEST => self.heard.extend_from_slice(&piece.into_bytes()),
                Some(Ok(_)) => return Err("its answer has no end".into()),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the connection was closed".into()),
            }
        }
    }
}

/// One program, and one more for every connection to the server.
fn of_a_gate() -> Resources {
    Resources { memory: Some(1 << 30), cpus: None, gpus: 0, pids: Some(2048), network: Network::None }
}

/// A server that we hold. Dropping this lets it go, and it ends.
#[derive(Debug)]
pub(super) struct Hold {
    /// The port of ours that leads to the server, until the hold is lost.
    pub(super) address: SocketAddr,
    orders: mpsc::Sender<Order>,
    _keeping: JoinSet<()>,
}

/// What is to be said beside the signs of life.
#[derive(Debug)]
struct Order {
    told: Told,
    heard: oneshot::Sender<Heard>,
}

impl Hold {
    /// Keep hold of a server from now on.
    pub(super) fn keep(wire: Wire, tunnel: Tunnel) -> Self {
        let (orders, to_be_said) = mpsc::channel(8);
        let address = tunnel.address;
        let mut keeping = JoinSet::new();
        keeping.spawn(async move {
            let why = keep(wire, to_be_said).await;
            tracing::debug!("the hold on an environment server ended: {why}");
            drop(tunnel);
        });
        Self { address, orders, _keeping: keeping }
    }

    /// Say something; none when the hold is lost.
    pub(super) async fn say(&self, told: Told) -> Option<Heard> {
        let (heard, answer) = oneshot::channel();
        self.orders.send(Order { told, heard }).await.ok()?;
        answer.await.ok()
    }
}

async fn keep(mut wire: Wire, mut orders: mpsc::Receiver<Order>) -> String {
    loop {
        let order = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => Some(order),
                None => return "it was let go".into(),
            },
            () = tokio::time::sleep(BEAT) => None,
            // It only answers: whatever it says unasked is its end.
            _ = wire.output.next() => return "the connection was closed".into(),
        };
        let (told, answer) = order.map(|order| (order.told, order.heard)).unzip();
        match timeout(SILENCE, wire.ask(&told.unwrap_or_default())).await {
            // Nobody may be waiting for it any more.
            Ok(Ok(heard)) => drop(answer.map(|answer| answer.send(heard))),
            Ok(Err(problem)) => return problem,
            Err(_) => return format!("nothing was heard for {} seconds", SILENCE.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn wire(pieces: &[&'static str]) -> Wire {
        let pieces: Vec<_> = pieces.iter().map(|piece| LogOutput::StdOut { message: Bytes::from(*piece) }).collect();
        Wire {
            output: Box::pin(futures::stream::iter(pieces.into_iter().map(Ok))),
            input: Box::pin(tokio::io::sink()),
            heard: Vec::new(),
        }
    }

    #[tokio::test]
    async fn answers_come_in_pieces_and_several_in_one() {
        let mut wire = wire(&["{\"prob", "lem\":\"no\"}\n{}\n", "{}"]);
        assert_eq!(wire.ask(&Told::default()).await.unwrap().problem.as_deref(), Some("no"));
        assert_eq!(wire.ask(&Told::default()).await.unwrap().problem, None);
        assert_eq!(wire.ask(&Told::default()).await.unwrap_err(), "the connection was closed");
    }

    #[tokio::test]
    async fn what_breaks_the_protocol_breaks_the_hold() {
        assert!(wire(&["hello\n"]).ask(&Told::default()).await.unwrap_err().contains("not of the protocol"));
        let tunnel = async || {
            let engine = crate::runtime::docker::engine::Engine::new("unix:///nowhere.sock");
            Tunnel::open(&engine, "robo-x-gate", Vec::new()).await.unwrap()
        };
        let hold = Hold::keep(wire(&[]), tunnel().await);
        assert!(hold.say(Told::default()).await.is_none(), "nobody answers");
        let idle = Wire { output: Box::pin(futures::stream::pending()), ..wire(&[]) };
        let hold = Hold::keep(idle, tunnel().await);
        let address = hold.address;
        tokio::net::TcpStream::connect(address).await.expect("the way is open while the hold is");
        drop(hold);
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
