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
        let config = match builder()?.with_platform_verifier() {
            Ok(config) => config.with_no_client_auth(),
            Err(_) => builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        Ok(Self::with(config, patience))
    }

    fn with(mut config: ClientConfig, patience: Duration) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(config)), patience }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::Request;
    use rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn certificate() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("../tests/fixtures/tls/certificate.pem")).unwrap()
    }

    /// The port of a miner that speaks TLS, on IPv4 alone, and says 200 to whatever it is asked.
    async fn miner() -> u16 {
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tests/fixtures/tls/key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        port
    }

    fn dialer(trusted: &[CertificateDer<'static>]) -> Dialer {
        let mut roots = RootCertStore::empty();
        trusted.iter().for_each(|certificate| roots.add(certificate.clone()).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Dialer::with(config.with_root_certificates(roots).with_no_client_auth(), PATIENCE)
    }

    async fn status(dialer: &Dialer, host: &str, port: u16) -> Result<u16, String> {
        let origin = Origin { secure: true, host: host.to_owned(), port };
        let mut line = dialer.dial(&origin).await.map_err(|error| error.to_string())?;
        let answer = line.send(Request::new(Full::new(Bytes::new()))).await.map_err(|error| error.to_string())?;
        assert!(line.clock.sent() <= line.clock.came());
        Ok(answer.status().as_u16())
    }

    #[tokio::test]
    async fn a_certificate_must_be_vouched_for_and_name_the_host() {
        let port = miner().await;
        // The name may have an IPv6 address first, where nobody listens.
        assert_eq!(status(&dialer(&[certificate()]), "localhost", port).await, Ok(200));
        let stranger = status(&dialer(&[]), "localhost", port).await.unwrap_err();
        assert!(stranger.contains("certificate"), "{stranger}");
        let other = status(&dialer(&[certificate()]), "127.0.0.1", port).await.unwrap_err();
        assert!(other.contains("certificate"), "{other}");
    }
}
