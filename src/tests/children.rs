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
        let mut command = Command::new(env!("CARGO_BIN_EXE_robo"));
        command.args(arguments);
        Self::of(command)
    }

    /// The same, with at most so many files open.
    pub(crate) fn start_with_files(files: u32, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_robo")]);
        command.args(arguments);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut child = command
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
        let arguments = env_server_arguments(package);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start(&[&arguments[..], more].concat())
    }

    /// The same, with at most so many files open.
    pub(crate) fn env_server_with_files(files: u32, package: &std::path::Path) -> Self {
        let arguments = env_server_arguments(package);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start_with_files(files, &arguments)
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

fn env_server_arguments(package: &std::path::Path) -> Vec<String> {
    let text = |path: &std::path::Path| path.to_str().expect("it is text").to_owned();
    vec!["env-server".into(), "--python".into(), text(&python()), "--package".into(), text(package)]
}
