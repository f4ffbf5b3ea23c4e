//! One way to speak to an environment server, whichever protocol it speaks.

use futures::{StreamExt, stream::BoxStream};
use tokio_util::sync::CancellationToken;

use super::{
    Client, Error, affinetes,
    protocol::{EpisodesRequest, Open, Opened, ServerMessage},
};
use crate::plan;

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

    /// Run episodes of an environment that was opened. Dropping the stream gives them up; once `drain` is cancelled, no more
    /// of them begin, and the stream ends with those that have begun.
    ///
    /// # Errors
    /// When the request is not accepted.
    pub async fn episodes(
        &self,
        environment: &plan::Environment,
        request: EpisodesRequest,
        drain: CancellationToken,
    ) -> Result<BoxStream<'static, Result<ServerMessage, Error>>, Error> {
        match self {
            Self::Robo(client) => Ok(client.episodes_until(&request, drain).await?.boxed()),
            Self::Affinetes(client) => Ok(client.episodes(environment, request, drain)),
        }
    }
}
