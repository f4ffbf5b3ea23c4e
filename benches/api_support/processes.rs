//! The two that are measured, each a process of its own.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::net::TcpStream;

const PATH: &str = "/v1/weights/latest";

/// `robo backend`, which limits clients as it does by default, but at a rate that nobody reaches.
pub(crate) struct Backend {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Of what is asked for.
    pub(crate) url: String,
}

impl Backend {
    pub(crate) async fn start(database: &str) -> Self {
        let arguments = ["backend", "--host", "127.0.0.1", "--port", "0"];
        let limits = ["--rate-limit", "4000000000", "--rate-burst", "4000000000", "--max-connections", "8192"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_robo"))
            .args(arguments)
            .args(limits)
            .args(["--database-url", database])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").expect("it says so in words");
            if let Some((_, rest)) = line.split_once("listening on http://") {
                break rest.split(' ').next().and_then(|text| text.parse().ok()).expect("it is an address");
            }
        };
        // Whatever else it says has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, url: format!("http://{address}{PATH}") }
    }

    /// The document and its tag.
    pub(crate) async fn latest(&self) -> (String, String) {
        let answer = reqwest::get(&self.url).await.expect("it answers");
        let tag = answer.headers()["etag"].to_str().expect("it is hexadecimal").to_owned();
        (answer.text().await.expect("it is text"), tag)
    }

    /// The most memory that was resident at a time.
    pub(crate) fn peak_mb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("it is a number") / 1024.0
    }

    pub(crate) fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).expect("a pid is that small");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success(), "it stops in order");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The application in Python.
pub(crate) struct Baseline {
    child: Child,
    pub(crate) url: String,
    /// The same document from bytes.
    pub(crate) encoded: String,
    _document: tempfile::NamedTempFile,
}

impl Baseline {
    pub(crate) async fn start(document: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("there is room");
        fs::write(file.path(), document).expect("there is room");
        let python = env::var_os("ROBO_BENCH_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let port = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it has one").port();
        let child = Command::new(python)
            .args(["-m", "uvicorn", "baseline:app", "--host", "127.0.0.1", "--no-access-log", "--log-level", "warning"])
            .args(["--port", &port.to_string(), "--app-dir"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/api_support"))
            .env("LATEST_WEIGHTS", file.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .spawn()
            .expect("scripts/bench-api has installed it");
        let [url, encoded] = [PATH, "/v1/weights/encoded"].map(|path| format!("http://127.0.0.1:{port}{path}"));
        let mut baseline = Self { child, url, encoded, _document: file };
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let ended = baseline.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the application in Python did not start: {ended:?}");
            tokio::task::yield_now().await;
        }
        for url in [&baseline.url, &baseline.encoded] {
            let answer: serde_json::Value = reqwest::get(url).await.expect("it answers").json().await.expect("JSON");
            assert_eq!(answer, serde_json::from_str::<serde_json::Value>(document).expect("JSON"), "the same document");
        }
        baseline
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
