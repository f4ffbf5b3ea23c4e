//! Validators as they are: each keeps its connection and asks once a second, whatever the others do.
//!
//! A request counts from the moment it is due, not from when its client got round to it: time in which the client itself was kept
//! waiting is part of what it sees.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::sleep_until,
};

/// From one question of a client to its next.
const PERIOD: Duration = Duration::from_secs(1);

/// All that were measured, sorted.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    fn at(&self, share: f64) -> f64 {
        let index = ((self.0.len() as f64 * share) as usize).min(self.0.len() - 1);
        self.0[index].as_secs_f64() * 1000.0
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        self.at(0.99)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| self.at(share));
        let count = self.0.len();
        write!(f, "p50 {median:.2}, p99 {p99:.2}, p99.9 {p999:.2}, most {most:.2} ms of {count} answers")
    }
}

/// So many clients for so long, after a second in which all of them connect and ask once.
pub(crate) async fn run(address: SocketAddr, (clients, time): (usize, Duration), tag: Option<&str>) -> Latencies {
    let known = tag.map(|tag| format!("If-None-Match: {tag}\r\n")).unwrap_or_default();
    let request = format!("GET /v1/weights/latest HTTP/1.1\r\nHost: bench\r\n{known}\r\n");
    let start = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..clients {
        // Evenly over the second, as clocks that nobody has set to each other are.
        let first = start + PERIOD.mul_f64(number as f64 / clients as f64);
        running.spawn(poll(address, request.clone(), (first, start + PERIOD + time)));
    }
    let mut all = Vec::new();
    while let Some(polled) = running.join_next().await {
        all.extend(polled.expect("no client gives up"));
    }
    all.sort_unstable();
    Latencies(all)
}

async fn poll(address: SocketAddr, request: String, (first, end): (Instant, Instant)) -> Vec<Duration> {
    let mut due = first;
    sleep_until(due.into()).await;
    let mut stream = BufReader::new(TcpStream::connect(address).await.expect("it takes connections"));
    stream.get_ref().set_nodelay(true).expect("it is a socket");
    ask(&mut stream, &request).await;
    let mut latencies = Vec::new();
    loop {
        due += PERIOD;
        if due > end {
            return latencies;
        }
        sleep_until(due.into()).await;
        ask(&mut stream, &request).await;
        latencies.push(due.elapsed());
    }
}

/// A question and the whole of its answer.
async fn ask(stream: &mut BufReader<TcpStream>, request: &str) {
    stream.write_all(request.as_bytes()).await.expect("it listens");
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        stream.read_line(&mut line).await.expect("it answers");
        let header = line.trim_end().to_ascii_lowercase();
        assert!(!header.starts_with("http/") || header.contains(" 200") || header.contains(" 304"), "{header}");
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("it is a number");
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("all of it comes");
}
