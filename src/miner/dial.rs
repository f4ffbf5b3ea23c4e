//! Opens connections to miners: names to addresses, addresses to TCP, TCP to TLS where the endpoint asks for it.
//!
//! Nothing else here looks a name up or connects. What a name server answers is checked as a whole before the first packet
//! leaves, and the connection goes to an address that was checked: the name is not asked for a second time in between.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::address::Refusal;
use crate::cycle::Condition;

use super::{
    line::Line,
    names::{self, Names},
    route::{Peer, Route},
    socket::{Socket, Stamping},
    trust,
    wire::{Clock, Stream},
};

/// Opens connections.
pub(super) struct Dialer {
    tls: TlsConnector,
    /// Whether anybody is trusted to vouch for certificates.
    pub(super) trust: Trust,
    names: Names,
    /// Longest time for all of it.
    patience: Duration,
    _stamping: Stamping,
}

/// Whose word counts for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// That of the machine's CA certificates.
    Authorities,
    /// Nobody's: the machine has none.
    Nobody,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// Why there is no connection, in words for the miner.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the connection did not open in time")]
    Late,
    /// The name could not be looked up.
    #[error("the name cannot be looked up: {0}")]
    Name(io::Error),
    #[error("this machine names no resolver, so no name can be looked up: {0}")]
    NoResolver(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// TLS could not be agreed on.
    #[error("{0}")]
    Tls(String),
    /// Where it leads nobody is to be called.
    #[error(transparent)]
    Forbidden(#[from] Refusal),
}

impl Dialer {
    /// A dialer with the system's CA certificates. A machine without any can still reach `http://` miners; `https://` ones
    /// then fail to verify.
    pub(super) fn new(patience: Duration) -> Result<Self, rustls::Error> {
        let provider = CryptoProvider::get_default()
            .ok_or_else(|| rustls::Error::General("the process has no TLS provider".to_owned()))?;
        let builder = || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let (config, trust) = match builder()?.with_platform_verifier() {
            Ok(config) => (config.with_no_client_auth(), Trust::Authorities),
            Err(_) => {
                let config = builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
                (config, Trust::Nobody)
            }
        };
        Ok(Self { trust, ..Self::with(config, patience) })
    }

    fn with(mut config: ClientConfig, patience: Duration) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tls: TlsConnector::from(Arc::new(config)),
            trust: Trust::Authorities,
            names: Names::of_the_system(),
            patience,
            _stamping: Stamping::start(),
        }
    }

    /// A new connection.
    pub(super) async fn dial(&self, route: &Route) -> Result<Line, DialError> {
        let deadline = Instant::now() + self.patience;
        let opened = tokio::time::timeout_at(deadline, self.open(route, deadline));
        // A miner may move to another address while it is played. Where it moves to is looked at as carefully.
        opened.await.unwrap_or(Err(DialError::Late)).inspect_err(|_| route.unpin())
    }

    async fn open(&self, route: &Route, deadline: Instant) -> Result<Line, DialError> {
        let addresses = self.addresses(route).await?;
        let (stream, address) = connect(&addresses, deadline).await?;
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        let clock = Arc::new(Clock::default());
        let stream = Socket::new(stream, clock.clone());
        let (stream, certificate): (Box<dyn Stream>, _) = if route.endpoint.origin.secure {
            let name = ServerName::try_from(route.endpoint.origin.host.clone()).map_err(io::Error::other)?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| match trust::explain(&error) {
                Some(words) => DialError::Tls(words),
                None => DialError::Io(error),
            })?;
            let certificate = fingerprint(&stream);
            (Box::new(stream), certificate)
        } else {
            (Box::new(stream), None)
        };
        let peer = Peer { address, certificate };
        route.note(&peer);
        Ok(Line::new(stream, clock, peer).await?)
    }

    /// Where the route leads: as it was found before, else as it is found now, if all of that may be called.
    async fn addresses(&self, route: &Route) -> Result<Arc<[SocketAddr]>, DialError> {
        if let Some(addresses) = route.pinned() {
            return Ok(addresses);
        }
        let answers = match route.written() {
            Some(address) => vec![address],
            None => self.look_up(&route.endpoint.origin.host, route.endpoint.origin.port).await?,
        };
        Ok(route.pin(answers)?)
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        self.names.look_up(name, port).await.map_err(|error| match Condition::of(&error) {
            Condition::NoDescriptors | Condition::NoBuffers => DialError::Io(error),
            _ if names::has_no_resolver() => DialError::NoResolver(error),
            _ => DialError::Name(error),
        })
    }
}

/// SHA-256 of the certificate that a server has shown.
fn fingerprint(stream: &TlsStream<Socket>) -> Option<String> {
    let shown = stream.get_ref().1.peer_certificates()?.first()?;
    Some(hex::encode(Sha256::digest(shown)))
}

impl DialError {
    /// The row of the table of blame, where it is about the connection.
    pub(super) fn condition(&self) -> Option<Condition> {
        match self {
            Self::Late => Some(Condition::Silence),
            Self::Name(_) => Some(Condition::NameLookup),
            Self::NoResolver(_) => Some(Condition::NoResolver),
            Self::Io(error) => Some(Condition::of(error)),
            Self::Http(_) | Self::Tls(_) | Self::Forbidden(_) => None,
        }
    }
}

/// The first address that takes the connection. Each gets an equal share of the time that is left, so that one that drops
/// packets does not hide the others.
async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut failed = DialError::Io(io::Error::other("the name has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        failed = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => error.into(),
            Err(_) => DialError::Late,
        };
    }
    Err(failed)
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
