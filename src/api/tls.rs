//! TLS of our own: a chain of certificates and its key, read again when the files change.
//!
//! A connection keeps the certificate it began with, so a renewal drops none. Files that cannot be used leave what was there in
//! force and are told about: a renewal is often written one file after the other, and for a moment the two do not fit.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const ROUND: Duration = Duration::from_secs(2);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` holds no {what} in PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not fit, or are of a kind that nobody knows.
    #[error("the certificate and its key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// A certificate that is renewed while we serve.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    files: Files,
    /// What the files held when they were first read.
    first: [u8; 32],
    current: watch::Sender<Arc<ServerConfig>>,
}

#[derive(Debug, Clone)]
struct Files {
    certificates: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// Read the files.
    ///
    /// # Errors
    /// [`Error`]
    pub(super) fn read(certificates: PathBuf, key: PathBuf) -> Result<Self, Error> {
        let files = Files { certificates, key };
        let contents = files.read()?;
        Ok(Self { first: digest(&contents), current: watch::Sender::new(files.config(&contents)?), files })
    }

    /// What takes a new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.borrow()).into()
    }

    /// Look at the files again and again, for ever.
    pub(super) async fn keep(&self) {
        let mut clock = interval(ROUND);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Ok(self.first);
        loop {
            clock.tick().await;
            let files = self.files.clone();
            // Reading files may take its time: not on a thread that answers others.
            let Ok(read) = tokio::task::spawn_blocking(move || files.read()).await else { continue };
            let found = read.as_ref().map(digest).map_err(ToString::to_string);
            if found == last {
                continue;
            }
            last = found;
            match read.and_then(|contents| self.files.config(&contents)) {
                Ok(config) => {
                    self.current.send_replace(config);
                    tracing::info!(
                        "new connections get the certificate that is now in `{}`",
                        self.files.certificates.display()
                    );
                }
                Err(error) => tracing::error!(
                    "the certificate stays the one that was read before: {:#}",
                    anyhow::Error::from(error)
                ),
            }
        }
    }
}

impl Files {
    /// Certificates and key as they are in the files.
    fn read(&self) -> Result<[Vec<u8>; 2], Error> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|source| Error::File { path: path.clone(), source });
        Ok([read(&self.certificates)?, read(&self.key)?])
    }

    fn config(&self, [chain, key]: &[Vec<u8>; 2]) -> Result<Arc<ServerConfig>, Error> {
        let wrong = |path: &PathBuf, what| {
            let path = path.clone();
            move |source| Error::Pem { path, what, source }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(wrong(&self.certificates, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(wrong(&self.key, "private key"))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(Error::Pair)?;
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(Error::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn digest([chain, key]: &[Vec<u8>; 2]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [chain, key] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
