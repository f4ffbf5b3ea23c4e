//! A miner that takes a fixed time over each action and writes down how long it really took. It runs in a thread of its own
//! and costs little, so that what is measured is robo.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
    while let Some(request) = request(&mut stream, &mut text).await {
        let received = Instant::now();
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

/// The head of the next request, in lower case, once all of the request has come.
async fn request(stream: &mut TcpStream, text: &mut Vec<u8>) -> Option<String> {
    text.clear();
    loop {
        if stream.read_buf(text).await.ok()? == 0 {
            return None;
        }
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if text.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap_or(0)) {
            return Some(head);
        }
    }
}
