//! One way to speak to an environment server, whichever protocol it speaks.

use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::{
    Client, Error, affinetes,
    protocol::{EpisodesRequest, Grant, Open, Opened, ServerMessage},
};
use crate::plan;

/// How a request is steered while it is answered.
#[derive(Debug)]
pub struct Control {
    /// Once it is cancelled, no more episodes begin.
    pub drain: CancellationToken,
    /// Permits for a request that asks for them ([`EpisodesRequest::permits`]).
    pub grants: UnboundedReceiver<Grant>,
}

/// Of a request without permits.
impl From<CancellationToken> for Control {
    fn from(drain: CancellationToken) -> Self {
        Self { drain, grants: unbounded_channel().1 }
    }
}

/// A client of an environment server. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Driver {
    /// Of one of our own.
    Robo(Client),
    /// Of one that others have made.
    Affinetes(affinetes::Client),
}

impl Driver {
    /// The client for such a server at this address. The process's TLS provider must be installed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(server: &plan::Server, url: &str, token: &str) -> Result<Self, Error> {
        Ok(match server.is_foreign() {
            false => Self::Robo(Client::new(url, token)?),
            true => Self::Affinetes(affinetes::Client::new(url, token)?),
        })
    }

    /// Have it load its environments, or say that it has them.
    ///
    /// # Errors
    /// [`Error`] when it cannot.
    pub async fn open(&self, open: &Open) -> Result<Opened, Error> {
        match self {
            Self::Robo(client) => client.open(open).await,
            Self::Affinetes(client) => client.open(&open.simulations).await,
        }
    }

    /// Whether it says how it found a miner before it plays with it. Servers of others play without a word.
    pub fn tells_of_miners(&self) -> bool {
        matches!(self, Self::Robo(_))
    }

    /// Run episodes of an environment that was opened, as `control` lets them begin. Dropping the stream gives them up.
    ///
    /// # Errors
    /// When the request is not accepted.
    pub async fn episodes(
        &self,
        environment: &plan::Environment,
        request: EpisodesRequest,
        control: Control,
    ) -> Result<BoxStream<'static, Result<ServerMessage, Error>>, Error> {
        match self {
            Self::Robo(client) => Ok(client.episodes_with(&request, control).await?.boxed()),
            Self::Affinetes(client) => Ok(client.episodes(environment, request, control)),
        }
    }
}
