//! Connections: taken, bounded in number and in patience, served, and ended in order.
//!
//! HTTP/1.1 alone: what multiplexes many requests over one connection belongs before a proxy that is made for it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, http::Uri};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::TcpUserTimeout},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::host::descriptors::{self, TooFew};

use super::{
    client::{Proxies, counted},
    guard::Peer,
    tls::Tls,
};

/// How long a TLS handshake may take, where nobody has less patience.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long what we have sent may stay untaken, in milliseconds.
const UNTAKEN: u32 = 30_000;

/// The largest head of a request, address and headers together.
const LARGEST_HEAD: usize = 16 * 1024;

/// The rest after a connection that could not be taken, as when there are no file descriptors left.
const REST: Duration = Duration::from_millis(100);

/// File descriptors for what is no connection of a client.
const OTHER_FILES: u64 = 1024;

/// How connections are taken.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    pub(super) tls: Option<Tls>,
    pub(super) proxies: Proxies,
    /// Connections at a time.
    pub(super) most: u32,
    /// How long a client may take for the head of a request, and send none.
    pub(super) patience: Duration,
}

/// Serve until `stop`, and then what is on its way.
///
/// # Errors
/// When there is nothing left to listen on.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    entrance: Entrance,
    stop: CancellationToken,
) -> io::Result<()> {
    allow_files(entrance.most);
    let places = Arc::new(Semaphore::new(entrance.most as usize));
    let crowd = Crowd { most: (entrance.most / 4) as usize, clients: Arc::default() };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            // Those that have ended make room in the set.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_for_good(&error) => return Err(error),
            Err(error) => {
                tracing::warn!("a connection could not be taken: {error}");
                sleep(REST).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        // A proxy of ours stands for everybody behind it.
        let seat = if entrance.proxies.trusts(address) { Some(None) } else { crowd.enter(counted(address)).map(Some) };
        let Some(seat) = seat else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        let connection = Connection { router, peer: Peer(peer), patience: entrance.patience, stop };
        let tls = entrance.tls.as_ref().map(Tls::acceptor);
        connections.spawn(async move {
            let _held: (OwnedSemaphorePermit, Option<Seat>) = (place, seat);
            let _ = stream.set_nodelay(true);
            // A client that takes nothing of what it has asked for does not keep its connection for ever.
            let _ = setsockopt(&stream, TcpUserTimeout, &UNTAKEN);
            match tls {
                None => connection.serve(stream).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE.min(connection.patience), tls.accept(stream)).await {
                        connection.serve(stream).await;
                    }
                }
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The next connection, once there is a place for it: until then it waits where the system keeps it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Whether the listener itself is broken. Everything else passes: a client that has gone again, a network that is down, no room
/// for one more file.
fn is_for_good(error: &io::Error) -> bool {
    let error = error.raw_os_error().map(Errno::from_raw);
    matches!(error, Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK))
}

struct Connection {
    router: Router,
    peer: Peer,
    patience: Duration,
    stop: CancellationToken,
}

impl Connection {
    /// Answer until the client has no more questions, or we have no more patience.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let Self { router, peer, patience, stop } = self;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            forget_last_slash(request.uri_mut());
            // The router is always ready.
            router.clone().call(request)
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .max_buf_size(LARGEST_HEAD)
                .serve_connection(TokioIo::new(stream), service)
        );
        // How a connection ends is its client's affair.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

/// `/v1/status/` is the same resource as `/v1/status`.
fn forget_last_slash(uri: &mut Uri) {
    let Some(path) = uri.path().strip_suffix('/').filter(|path| !path.is_empty()) else { return };
    let address = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    if let Ok(address) = address.parse() {
        *uri = address;
    }
}

/// How many connections each client holds.
#[derive(Clone)]
struct Crowd {
    most: usize,
    clients: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection that counts until it is dropped.
struct Seat {
    crowd: Crowd,
    client: IpAddr,
}

impl Crowd {
    /// One more connection, if the client may have it.
    fn enter(&self, client: IpAddr) -> Option<Seat> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let held = clients.entry(client).or_default();
        if *held >= self.most {
            return None;
        }
        *held += 1;
        Some(Seat { crowd: self.clone(), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut clients = self.crowd.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = clients.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Let this process have a file descriptor for each connection, as far as the system lets it.
fn allow_files(connections: u32) {
    if let Err(TooFew { allowed, .. }) = descriptors::allow(u64::from(connections) + OTHER_FILES) {
        tracing::warn!("only {allowed} files may be open at a time: fewer than {connections} connections are taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_changes_nothing() {
        let of = |text: &str| {
            let mut uri: Uri = text.parse().unwrap();
            forget_last_slash(&mut uri);
            uri.to_string()
        };
        assert_eq!((of("/v1/status/"), of("/v1/cycles/?limit=1")), ("/v1/status".into(), "/v1/cycles?limit=1".into()));
        assert_eq!((of("/"), of("/v1/status")), ("/".into(), "/v1/status".into()));
    }

    #[test]
    fn a_client_holds_so_many_connections_and_nothing_stays_of_it() {
        let crowd = Crowd { most: 2, clients: Arc::default() };
        let client: IpAddr = [192, 0, 2, 1].into();
        let held = [crowd.enter(client), crowd.enter(client)];
        assert!(held.iter().all(Option::is_some) && crowd.enter(client).is_none());
        assert!(crowd.enter([192, 0, 2, 2].into()).is_some(), "another is not in its way");
        drop(held);
        assert!(crowd.clients.lock().unwrap().is_empty());
    }
}
