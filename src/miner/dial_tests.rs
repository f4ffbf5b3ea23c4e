//! Where connections lead when a name server lies, and whom they trust: certificates are made here, name servers are
//! functions, sockets are real.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::address::{Reach, Rules};

use super::{super::names::Lookup, *};

const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who vouches for certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a name, changed before it is signed.
    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Shown { certificate, key }
    }
}

/// What a server shows.
struct Shown {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Shown {
    fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().der().clone();
        Self { certificate, key }
    }
}

/// The port of a miner that speaks TLS, on IPv4 alone, and says 200 to whatever it is asked.
async fn miner(shown: &Shown) -> u16 {
    miner_that_reports(shown).await.0
}

/// The same, with a message for every answer that it has given to its kernel.
async fn miner_that_reports(shown: &Shown) -> (u16, mpsc::Receiver<()>) {
    let key = PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![shown.certificate.clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answered, answers) = mpsc::channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = answered.send(());
        }
    });
    (port, answers)
}

fn dialer(trusted: Option<&Authority>) -> Dialer {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|authority| roots.add(authority.certificate.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Dialer::with(config.with_root_certificates(roots).with_no_client_auth(), PATIENCE)
}

/// A dialer whose name server answers with these, one after the other, the last of them for ever; and how often it was asked.
fn dialer_that_looks_up(answers: Vec<Vec<SocketAddr>>) -> (Dialer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let answers = Mutex::new(answers);
    let lookup: Box<Lookup> = Box::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { Ok(answer) })
    });
    (Dialer { names: Names::new(lookup), ..dialer(None) }, asked)
}

fn local(endpoint: &str) -> Route {
    Route::new(endpoint, Rules { reach: Reach::Private, ..Rules::default() }).unwrap()
}

/// The status that a miner answers with, and who it was.
async fn status(dialer: &Dialer, endpoint: &str) -> Result<(u16, Peer), DialError> {
    let mut line = dialer.dial(&local(endpoint)).await?;
    let answer = line.send(Request::new(Full::new(Bytes::new()))).await?;
    assert!(line.clock.sent() <= line.clock.came());
    Ok((answer.status().as_u16(), line.peer))
}

/// What TLS objects to.
async fn objection(shown: &Shown, trusted: Option<&Authority>, host: &str) -> String {
    let port = miner(shown).await;
    match status(&dialer(trusted), &format!("https://{host}:{port}")).await {
        Err(DialError::Tls(words)) => words,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_that_is_vouched_for_and_names_the_host_is_taken_and_remembered() {
    let authority = Authority::new();
    let shown = authority.sign("localhost", |_| {});
    let port = miner(&shown).await;
    // The name may have an IPv6 address first, where nobody listens.
    let (status, peer) = status(&dialer(Some(&authority)), &format!("https://localhost:{port}")).await.unwrap();
    assert_eq!((status, peer.address), (200, SocketAddr::from(([127, 0, 0, 1], port))));
    assert_eq!(peer.certificate, Some(hex::encode(Sha256::digest(&shown.certificate))));
}

#[tokio::test]
async fn a_certificate_that_is_wrong_says_what_to_renew() {
    let authority = Authority::new();
    let trusted = Some(&authority);
    let expired = authority.sign("localhost", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = authority.sign("localhost", |params| {
        params.not_before = date_time_ymd(2900, 1, 1);
        params.not_after = date_time_ymd(2901, 1, 1);
    });
    let other = authority.sign("other.example", |_| {});
    for (shown, trusted, part) in [
        (&expired, trusted, "TLS: the certificate has expired ("),
        (&future, trusted, "TLS: the certificate is not valid yet ("),
        (&other, trusted, "TLS: the certificate is for another name"),
        (&Shown::self_signed("localhost"), trusted, "it is self-signed"),
        (&authority.sign("localhost", |_| {}), None, "nobody who is trusted has signed"),
    ] {
        let words = objection(shown, trusted, "localhost").await;
        assert!(words.contains(part), "{words}");
    }
    let by_address = objection(&authority.sign("localhost", |_| {}), trusted, "127.0.0.1").await;
    assert!(by_address.contains("another name"), "{by_address}");
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = status(&dialer(None), &endpoint).await.unwrap_err();
    assert!(matches!(&error, DialError::Tls(words) if words.contains("does not speak TLS")), "{error:?}");
}

/// A listener that counts who comes, until it is told to go.
async fn listener() -> (SocketAddr, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let counter = came.clone();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    (address, came, task)
}

fn metadata() -> SocketAddr {
    SocketAddr::from(([169, 254, 169, 254], 80))
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_its_address_stays() {
    let (address, _, task) = listener().await;
    let (dialer, asked) = dialer_that_looks_up(vec![vec![address], vec![metadata()]]);
    let route = local("http://rebinding.example");
    for _ in 0..3 {
        assert_eq!(dialer.dial(&route).await.unwrap().peer.address, address);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the second answer was never asked for");
    // When the address takes no connection any more the name is looked up again, and what it says now is checked again.
    task.abort();
    let _ = task.await;
    assert!(matches!(dialer.dial(&route).await, Err(DialError::Io(_))));
    for _ in 0..2 {
        assert!(matches!(dialer.dial(&route).await, Err(DialError::Forbidden(Refusal::Name(_)))));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_miner_that_moves_is_found_again() {
    let ((first, _, task), (second, ..)) = (listener().await, listener().await);
    let (dialer, _) = dialer_that_looks_up(vec![vec![first], vec![second]]);
    let route = local("http://moving.example");
    assert_eq!(dialer.dial(&route).await.unwrap().peer.address, first);
    assert_eq!(route.news().map(|peer| peer.address), Some(first));
    task.abort();
    let _ = task.await;
    assert!(dialer.dial(&route).await.is_err());
    assert_eq!(dialer.dial(&route).await.unwrap().peer.address, second);
    assert_eq!(route.news().map(|peer| peer.address), Some(second), "and it is told");
}

#[tokio::test]
async fn one_private_address_among_public_ones_refuses_them_all() {
    let (address, came, _) = listener().await;
    let public = SocketAddr::from(([8, 8, 8, 8], 80));
    for answers in [vec![address], vec![public, address], vec![address, public]] {
        let (dialer, _) = dialer_that_looks_up(vec![answers]);
        let route = Route::new("http://mixed.example", Rules::default()).unwrap();
        assert!(matches!(dialer.dial(&route).await, Err(DialError::Forbidden(Refusal::Name(_)))));
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_real_name_server_is_checked_like_any_other() {
    // `localhost` by another spelling that only a resolver knows to be this machine.
    let (address, came, _) = listener().await;
    let endpoint = format!("http://ip6-localhost:{}", address.port());
    let route = Route::new(&endpoint, Rules::default()).unwrap();
    // Whether the machine knows the name or not: nobody is connected to.
    assert!(matches!(dialer(None).dial(&route).await, Err(DialError::Forbidden(_) | DialError::Name(_))));
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

/// The kernel's stamps lie below TLS: an answer counts by its arrival, although nobody decrypts it until later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_tls_counts_from_its_arrival() {
    let authority = Authority::new();
    let (port, answers) = miner_that_reports(&authority.sign("localhost", |_| {})).await;
    let dialer = dialer(Some(&authority));
    let mut line = dialer.dial(&local(&format!("https://localhost:{port}"))).await.unwrap();
    let clock = line.clock.clone();
    let mut answer = std::pin::pin!(line.send(Request::new(Full::new(Bytes::new()))));
    assert!(futures::FutureExt::now_or_never(answer.as_mut()).is_none(), "the request is sent");
    // A connection moves only while a call waits for it, and this thread stands still until the answer has arrived.
    answers.recv().unwrap();
    let stalled = Duration::from_millis(100);
    let arrived = Instant::now();
    std::thread::sleep(stalled);
    answer.await.unwrap();
    assert!(clock.came().unwrap() < arrived + stalled, "it counts from when it was read");
}
