//! Opens connections to miners: names to addresses, addresses to TCP, TCP to TLS where the endpoint asks for it.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use super::{endpoint::Origin, line::Line, wire::Stream};

/// Opens connections.
pub(super) struct Dialer {
    tls: TlsConnector,
    /// Longest time for all of it.
    patience: Duration,
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
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Dialer {
    /// A dialer with the system's CA certificates. A machine without any can still reach `http://` miners; `https://` ones
    /// then fail to verify.
    pub(super) fn new(patience: Duration) -> Result<Self, rustls::Error> {
        let provider = CryptoProvider::get_default()
            .ok_or_else(|| rustls::Error::General("the process has no TLS provider".to_owned()))?;
        let builder = || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let mut config = match builder()?.with_platform_verifier() {
            Ok(config) => config.with_no_client_auth(),
            Err(_) => builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), patience })
    }

    /// A new connection.
    pub(super) async fn dial(&self, origin: &Origin) -> Result<Line, DialError> {
        let deadline = Instant::now() + self.patience;
        let opened = tokio::time::timeout_at(deadline, self.open(origin, deadline));
        opened.await.unwrap_or(Err(DialError::Late))
    }

    async fn open(&self, origin: &Origin, deadline: Instant) -> Result<Line, DialError> {
        let stream = connect(&addresses(origin).await?, deadline).await?;
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Stream> = if origin.secure {
            let name = ServerName::try_from(origin.host.clone()).map_err(io::Error::other)?;
            Box::new(self.tls.connect(name, stream).await?)
        } else {
            Box::new(stream)
        };
        Ok(Line::new(stream).await?)
    }
}

async fn addresses(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = origin.host.parse() {
        return Ok(vec![SocketAddr::new(address, origin.port)]);
    }
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await?;
    Ok(found.collect())
}

/// The first address that takes the connection. Each gets an equal share of the time that is left, so that one that drops
/// packets does not hide the others.
async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, DialError> {
    let mut failed = DialError::Io(io::Error::other("the name has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        failed = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.into(),
            Err(_) => DialError::Late,
        };
    }
    Err(failed)
}
