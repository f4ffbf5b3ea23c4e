//! `robo backend` as a validator meets it: a real process, a real database, real requests.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::support::own_server;

/// A data directory of its own, and the program in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        // The embedded server runs as another account when the tests run as root.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn robo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_robo"));
        command.args(arguments).env("ROBO_DATA_DIR", self.0.path()).env_remove("ROBO_BACKEND_DATABASE_URL");
        command.env_remove("ROBO_BACKEND_PORT").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.robo(arguments).output().unwrap()
    }

    fn backend(&self) -> Backend {
        let mut child = self.robo(&["backend", "--role", "api", "--host", "127.0.0.1", "--port", "0"]).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while stderr.read_line(&mut said).unwrap() > 0 {
            if let Some((_, rest)) = said.split_once("listening on ") {
                let url = rest.split_whitespace().next().unwrap().to_owned();
                return Backend { child, url, _stderr: stderr };
            }
        }
        panic!("it did not come up ({}): {said}", child.wait().unwrap());
    }
}

struct Backend {
    child: Child,
    url: String,
    /// Held open, so that it can go on logging.
    _stderr: BufReader<ChildStderr>,
}

impl Backend {
    async fn get(&self, path: &str) -> (u16, String, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{}{path}", self.url)).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.json().await.unwrap())
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file that names the embedded server's process.
fn marker(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| if path.ends_with("postmaster.pid") { Some(path) } else { marker(&path) })
}

#[tokio::test]
async fn an_empty_database_is_healthy_and_has_no_weights() {
    let place = Place::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut backend = place.backend();
        let (status, _, health) = backend.get("/health").await;
        assert_eq!(status, 200);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(health, serde_json::json!({"status": "healthy", "database": "connected", "version": version}));
        for path in ["/v1/weights/latest", "/v1/scores/latest", "/v2"] {
            let (status, kind, problem) = backend.get(path).await;
            assert_eq!((status, kind.as_str()), (404, "application/problem+json"), "{path}");
            assert_eq!(problem["status"], 404, "{path}");
        }
        assert_eq!(backend.end(signal).code(), Some(0));
    }
    let shown = place.run(&["weights", "show"]);
    let said = String::from_utf8(shown.stderr).unwrap();
    assert_eq!(shown.status.code(), Some(1));
    assert!(said.contains("error: no weights have been published yet\n\nhint: "), "{said}");
}

#[tokio::test]
async fn a_database_that_has_gone_away_is_told_and_not_explained() {
    let place = Place::new();
    let backend = place.backend();
    // Stopped, not killed: the connection stays open and nothing comes, which is the worst way to be away.
    let server = own_server::postmaster(&marker(place.0.path()).unwrap());
    own_server::freeze(server);
    let (status, _, health) = backend.get("/health").await;
    let (weights_status, _, problem) = backend.get("/v1/weights/latest").await;
    own_server::thaw(server);
    assert_eq!((status, health["database"].as_str()), (503, Some("unreachable")), "{health}");
    assert_eq!((weights_status, problem["status"].as_u64()), (503, Some(503)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("unreachable"), "{problem}");
    // Well again when it is back, and whoever waited for it has gone on.
    while backend.get("/health").await.0 != 200 {}
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended =
        place.run(&["backend", "--role", "api", "--log-format", "text", "--host", "127.0.0.1", "--port", &port]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(said.starts_with(&format!("error: cannot listen on port {port} of 127.0.0.1\n  caused by: ")), "{said}");
    assert!(said.contains("hint: another program listens there"), "{said}");
}

#[test]
fn every_shell_gets_its_completion() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = place.run(&["completions", shell]);
        assert!(ended.status.success());
        assert!(String::from_utf8(ended.stdout).unwrap().contains("run-pipeline"), "{shell}");
    }
    let help = String::from_utf8(place.run(&["completions", "--help"]).stdout).unwrap();
    assert!(help.contains("robo completions bash > ~/.local/share/bash-completion/completions/robo"), "{help}");
}
