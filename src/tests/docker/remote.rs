//! An engine on another machine, as its operator guards it: behind TLS, for callers that it knows by their certificates.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    engine::{SOCKET, engine},
    program::{Place, pipeline, turn, workspace},
};

/// Who vouches for the engine and for its callers.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    text: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let signed = params.self_signed(&key).unwrap();
        let (certificate, text) = (signed.der().clone(), signed.pem());
        Self { issuer: Issuer::new(params, key), certificate, text }
    }

    fn vouch(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The files of a caller, as `DOCKER_CERT_PATH` names them, who trusts `trusted`.
    fn caller(&self, trusted: &Self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let (certificate, key) = self.vouch("caller");
        write("cert.pem", &certificate.pem());
        write("key.pem", &key.serialize_pem());
        write("ca.pem", &trusted.text);
        folder
    }
}

/// The real engine behind TLS, for as long as this lives.
async fn guarded(authority: &Authority) -> (String, JoinSet<()>) {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let (certificate, key) = authority.vouch("localhost");
    let config = ServerConfig::builder()
        .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("tcp://localhost:{}", listener.local_addr().unwrap().port());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut joined = JoinSet::new();
        while let Ok((from, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            joined.spawn(async move {
                let Ok(mut from) = acceptor.accept(from).await else { return };
                let mut to = UnixStream::connect(SOCKET).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (url, serving)
}

/// What a cycle says on that host, whose image nobody has made: whoever says so has spoken to the engine.
fn cycle_on(host: &str, papers: &Path) -> String {
    let folder = workspace(|text| text.replace("defaults:\n", "defaults:\n  retry: { max_attempts: 1 }\n"));
    let place = Place::new();
    let manifest = folder.path().join("environments/metaworld.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("robo-subnet/eval-env:v1", "robo-test/nobody-made-this")).unwrap();
    let mut robo = place.robo(&["run-pipeline", &pipeline(&folder), "--runtime", "docker", "--docker-host", host]);
    let output = robo.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", papers).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_engine_behind_tls_is_reached_by_who_has_the_papers() {
    let (_turn, _engine) = (turn(), engine());
    let (ours, theirs) = (Authority::new(), Authority::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (host, _serving) = runtime.block_on(guarded(&ours));
    for (papers, words) in [
        (ours.caller(&ours), "infra_fault(image_missing)"),
        (ours.caller(&theirs), "infra_fault(host_unreachable)"),
        (theirs.caller(&ours), "infra_fault(host_unreachable)"),
    ] {
        let said = cycle_on(&host, papers.path());
        assert!(said.contains(words), "{words}: {said}");
        assert!(words.contains("image") || said.contains("DOCKER_CERT_PATH"), "the remedy: {said}");
    }
}
