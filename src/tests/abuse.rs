//! Miners that misbehave on purpose, at the level of bytes: what a running server is held against. Polite in all but the
//! answer to `/act`, so that each of their episodes costs the simulator a scene.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How a miner answers `/act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abuse {
    /// Not at all.
    Silence,
    /// A byte of a header now and then.
    Trickle,
    /// By closing the connection.
    Hangup,
    /// With a body that does not end.
    EndlessBody,
    /// With chunks of one byte that do not end.
    EndlessChunks,
    /// With headers that do not end.
    EndlessHeaders,
    /// With interim answers that do not end.
    EndlessInterim,
    /// With the promise of ten gigabytes.
    HugeLength,
    /// With lists in lists in lists.
    DeepJson,
    /// With as many numbers as an answer can hold.
    ManyNumbers,
    /// By sending us elsewhere.
    Redirect,
    /// In another protocol.
    OtherProtocol,
}

impl Abuse {
    pub(crate) const ALL: [Self; 12] = [
        Self::Silence,
        Self::Trickle,
        Self::Hangup,
        Self::EndlessBody,
        Self::EndlessChunks,
        Self::EndlessHeaders,
        Self::EndlessInterim,
        Self::HugeLength,
        Self::DeepJson,
        Self::ManyNumbers,
        Self::Redirect,
        Self::OtherProtocol,
    ];

    /// Serve on a free port of this machine for as long as the runtime lives. Returns the miner's address.
    pub(crate) async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.serve(stream));
            }
        });
        url
    }

    async fn serve(self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        while let Some(head) = request(&mut stream).await {
            let answered = if head.starts_with("POST /act") {
                self.misbehave(&mut stream).await
            } else {
                stream.write_all(&whole("{}")).await
            };
            if answered.is_err() {
                return;
            }
        }
    }

    async fn misbehave(self, stream: &mut TcpStream) -> std::io::Result<()> {
        let ok = "HTTP/1.1 200 OK\r\n";
        match self {
            Self::Silence => std::future::pending().await,
            Self::Trickle => {
                stream.write_all(format!("{ok}X: ").as_bytes()).await?;
                loop {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
            Self::Hangup => Err(std::io::ErrorKind::ConnectionAborted.into()),
            Self::EndlessBody => flood(stream, &format!("{ok}\r\n"), &" ".repeat(16 * 1024)).await,
            Self::EndlessChunks => {
                flood(stream, &format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), &"1\r\n \r\n".repeat(100)).await
            }
            Self::EndlessHeaders => flood(stream, ok, &"X-Bomb: xxxxxxxxxxxxxxxx\r\n".repeat(100)).await,
            Self::EndlessInterim => flood(stream, "", &"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)).await,
            Self::HugeLength => flood(stream, &format!("{ok}Content-Length: 10000000000\r\n\r\n"), "          ").await,
            Self::DeepJson => stream.write_all(&whole(&format!("{{\"action\": {}", "[".repeat(60_000)))).await,
            Self::ManyNumbers => stream.write_all(&whole(&format!("{{\"action\": [0{}]}}", ",0".repeat(30_000)))).await,
            Self::Redirect => {
                stream
                    .write_all(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
                    .await
            }
            Self::OtherProtocol => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
        }
    }
}

pub(crate) fn whole(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Send a beginning, then the same again and again until nobody takes it any more.
async fn flood(stream: &mut TcpStream, beginning: &str, again: &str) -> std::io::Result<()> {
    stream.write_all(beginning.as_bytes()).await?;
    loop {
        stream.write_all(again.as_bytes()).await?;
    }
}

/// The head of the next request, once all of the request has come.
pub(crate) async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).into_owned();
        let lower = head.to_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        if text.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap_or(0)) {
            return Some(head);
        }
    }
}
