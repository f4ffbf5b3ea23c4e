//! TLS of our own: served, renewed without a word lost, and kept as it was when a renewal is broken.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Certificate, Client};
use robo::{config::Guarding, store::Store};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    database::{TestDatabase, Version},
    program::Place,
    served::{Served, unlimited},
};

const NAME: &str = "backend.example";

fn certificate() -> CertifiedKey<rcgen::KeyPair> {
    crate::install_tls();
    generate_simple_self_signed([NAME.to_owned()]).unwrap()
}

fn write(folder: &Path, made: &CertifiedKey<rcgen::KeyPair>) {
    fs::write(folder.join("chain.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

fn guarding(folder: &Path) -> Guarding {
    let file = |name: &str| Some(folder.join(name));
    let patient = Guarding { idle_timeout: Duration::from_secs(3600), ..unlimited() };
    Guarding { tls_cert: file("chain.pem"), tls_key: file("key.pem"), ..patient }
}

async fn served(store: &Store, folder: &Path) -> Served {
    Served::guarded(store, guarding(folder)).await
}

/// A client that trusts this certificate alone, and has no connection yet.
fn trusting(made: &CertifiedKey<rcgen::KeyPair>, address: SocketAddr) -> Client {
    let certificate = Certificate::from_der(made.cert.der()).unwrap();
    let client = Client::builder().no_proxy().resolve(NAME, address);
    client.tls_certs_only([certificate]).build().unwrap()
}

async fn is_served(made: &CertifiedKey<rcgen::KeyPair>, address: SocketAddr) -> bool {
    let url = format!("https://{NAME}:{}/health/live", address.port());
    trusting(made, address).get(url).send().await.is_ok()
}

#[tokio::test]
async fn https_is_served_and_plain_http_is_not() {
    let (folder, made) = (tempfile::tempdir().unwrap(), certificate());
    write(folder.path(), &made);
    let database = TestDatabase::new(Version::Default).await;
    let served = served(&database.store().await, folder.path()).await;
    let url = format!("https://{NAME}:{}/health", served.address.port());
    let answer = trusting(&made, served.address).get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["strict-transport-security"].to_str().unwrap().starts_with("max-age="));
    assert!(!is_served(&certificate(), served.address).await, "a client that trusts another does not take it");
    assert!(served.get("/health").send().await.is_err());
    served.stop().await;
}

#[tokio::test]
async fn a_renewal_is_taken_up_and_a_broken_one_is_not() {
    let (folder, first) = (tempfile::tempdir().unwrap(), certificate());
    write(folder.path(), &first);
    let database = TestDatabase::new(Version::Default).await;
    let served = served(&database.store().await, folder.path()).await;
    let address = served.address;
    // A connection from before, kept open all the while.
    let mut old = connect(&first, address).await;
    ask(&mut old).await;

    let second = certificate();
    fs::write(folder.path().join("chain.pem"), "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    assert!(is_served(&first, address).await);
    // The new key without its certificate, as in the middle of a renewal.
    fs::write(folder.path().join("chain.pem"), first.cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), second.signing_key.serialize_pem()).unwrap();
    assert!(is_served(&first, address).await);
    write(folder.path(), &second);
    while !is_served(&second, address).await {
        assert!(is_served(&first, address).await || is_served(&second, address).await, "one of them at any time");
    }
    assert!(!is_served(&first, address).await);
    ask(&mut old).await;
    fs::remove_file(folder.path().join("key.pem")).unwrap();
    assert!(is_served(&second, address).await);
}

#[tokio::test]
async fn whoever_never_shakes_hands_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &certificate());
    let database = TestDatabase::new(Version::Default).await;
    let hasty = Guarding { idle_timeout: Duration::from_millis(50), ..guarding(folder.path()) };
    let served = Served::guarded(&database.store().await, hasty).await;
    for begin in [&b""[..], b"\x16\x03\x01\x02"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(begin).await.unwrap();
        // A reset ends it as well as a close does.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.is_empty(), "nothing is said: {said:?}");
    }
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(made: &CertifiedKey<rcgen::KeyPair>, address: SocketAddr) -> Stream {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// A request over a connection that stays open.
async fn ask(stream: &mut Stream) {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "the connection is kept");
    }
    assert!(said.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn a_certificate_that_does_not_fit_its_key_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &certificate());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("key.pem"), certificate().signing_key.serialize_pem()).unwrap();
    let place = Place::new();
    let start = || {
        place.run(&[
            "backend",
            "--role",
            "api",
            "--port",
            "0",
            "--tls-cert",
            &path("chain.pem"),
            "--tls-key",
            &path("key.pem"),
        ])
    };
    let ran = start();
    assert!(ran.code == 2 && ran.stderr.contains("cannot be used together"), "{}", ran.stderr);
    fs::write(path("key.pem"), "").unwrap();
    let ran = start();
    assert!(ran.code == 2 && ran.stderr.contains("holds no private key in PEM"), "{}", ran.stderr);
}
