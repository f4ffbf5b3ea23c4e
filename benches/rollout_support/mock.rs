//! A miner that takes a fixed time over each action and writes down how long it really took. It runs in a thread of its own
//! and costs little, so that what is measured is robo.

use std::{
    collections::HashMap,
    io::IoSliceMut,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use nix::{
    cmsg_space,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns},
        time::TimeSpec,
    },
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
};

#[derive(Default)]
struct Book {
    acts: AtomicU64,
    taken: Mutex<HashMap<String, Vec<Duration>>>,
}

/// The miner, as the bench sees it.
pub(crate) struct Mock {
    address: SocketAddr,
    book: Arc<Book>,
}

impl Mock {
    /// Start to serve. Ends with the process.
    pub(crate) fn start(latency: Duration) -> Self {
        let book = Arc::new(Book::default());
        let (sender, address) = std::sync::mpsc::channel();
        let kept = book.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port is free");
                sender.send(listener.local_addr().expect("it is bound")).expect("the bench waits");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, latency, kept.clone()));
                }
            });
        });
        Self { address: address.recv().expect("the miner starts"), book }
    }

    /// How it is reached by who knows this machine under this name.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.address.port())
    }

    /// Actions answered so far.
    pub(crate) fn acts(&self) -> u64 {
        self.book.acts.load(Ordering::Relaxed)
    }

    /// Median and 95th percentile (nearest rank) of an episode's latencies, in milliseconds.
    pub(crate) fn taken(&self, episode_id: &str) -> [f64; 2] {
        let mut taken = self.book.taken.lock().expect("nobody panicked")[episode_id].clone();
        taken.sort_unstable();
        [50, 95].map(|percent| taken[(taken.len() * percent).div_ceil(100) - 1].as_secs_f64() * 1000.0)
    }
}

async fn serve(mut stream: TcpStream, latency: Duration, book: Arc<Book>) {
    let _ = stream.set_nodelay(true);
    let mut text = Vec::with_capacity(4096);
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    // The moment at which a request reaches this machine is the beginning, however late the miner gets to run.
    let _ = setsockopt(&stream, ReceiveTimestampns, &true);
    while let Some((request, received)) = request(&mut stream, &mut text).await {
        if !request.starts_with("post /act") {
            let body = r#"{"accepts": ["base64"]}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            continue;
        }
        tokio::time::sleep(latency).await;
        let action = super::noise(&mut noise);
        let body = format!("{{\"action\": {action:?}}}");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let taken = received.elapsed();
        let _ = stream.write_all(answer.as_bytes()).await;
        book.acts.fetch_add(1, Ordering::Relaxed);
        if let Some(id) = request.lines().find_map(|line| line.strip_prefix("x-episode-id: ")) {
            book.taken.lock().expect("nobody panicked").entry(id.to_owned()).or_default().push(taken);
        }
    }
}

/// The head of the next request, in lower case, once all of the request has come, and when the last byte of it did.
async fn request(stream: &mut TcpStream, text: &mut Vec<u8>) -> Option<(String, Instant)> {
    text.clear();
    loop {
        let mut bytes = [0; 4096];
        stream.readable().await.ok()?;
        let (read, received) = match stream.try_io(Interest::READABLE, || receive(stream.as_raw_fd(), &mut bytes)) {
            Ok((0, _)) => return None,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        };
        text.extend_from_slice(&bytes[..read]);
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if text.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap_or(0)) {
            return Some((head, received));
        }
    }
}

/// Bytes that are there, and when the kernel received the last of them.
fn receive(socket: RawFd, bytes: &mut [u8]) -> std::io::Result<(usize, Instant)> {
    let (mut parts, mut control) = ([IoSliceMut::new(bytes)], cmsg_space!(TimeSpec));
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let stamp = message.cmsgs().ok().into_iter().flatten().find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    let ago = stamp.map_or(Duration::ZERO, |stamp| now.saturating_sub(stamp));
    Ok((message.bytes, Instant::now() - ago))
}
