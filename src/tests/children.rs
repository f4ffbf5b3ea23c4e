//! Processes that tests and benches start: `robo` in its serving roles. They end with the value that holds them.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// What the test's environment server asks of its callers.
pub(crate) const TOKEN: &str = "a word for tests";

/// A serving `robo`.
pub(crate) struct Serving {
    child: Child,
    /// `HOST:PORT` it listens on.
    pub(crate) address: String,
}

impl Serving {
    /// `robo` with these arguments, once it says where it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_robo"))
            .args(arguments)
            .arg("--until-eof")
            .env("ROBO_ENV_SERVER_TOKEN", TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("robo starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it can be read");
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("`{line}` is not JSON"));
        let address = said["listening"].as_str().expect("it says where it listens").to_owned();
        Self { child, address }
    }

    /// A demo miner with these arguments.
    pub(crate) fn demo_miner(policy: &str, more: &[&str]) -> Self {
        Self::start(&[&["demo-miner", "--policy", policy, "--port", "0"], more].concat())
    }

    /// An environment server with this package.
    pub(crate) fn env_server(package: &std::path::Path, more: &[&str]) -> Self {
        let python = python();
        let python = ["env-server", "--python", python.to_str().expect("it is text")];
        let package = ["--package", package.to_str().expect("it is text")];
        Self::start(&[&python[..], &package[..], more].concat())
    }

    /// `http://HOST:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kill it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Wait for its exit code, its input still open.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let input = self.child.stdin.take();
        let code = self.child.wait().expect("it ends").code();
        drop(input);
        code
    }

    /// Close its input and wait for its exit code.
    pub(crate) fn close(&mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.wait()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close();
    }
}

/// The interpreter that has the simulator installed.
pub(crate) fn python() -> PathBuf {
    let path = std::env::var_os("ROBO_TEST_PYTHON");
    path.expect(
        "ROBO_TEST_PYTHON must name a Python that has eval-env's requirements installed; `scripts/test` sets it",
    )
    .into()
}

/// The directory of the package `robo_eval_env`.
pub(crate) fn package() -> PathBuf {
    let unmerged = std::env::var_os("ROBO_TEST_EVAL_ENV").map(PathBuf::from);
    unmerged.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("eval-env"))
}
