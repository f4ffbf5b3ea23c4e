//! The program as a person runs it: a data directory of its own, its output, its process tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// A place to run the program in. Simulators' Python environments are shared by all tests, everything else is its own.
pub(crate) struct Place {
    pub(crate) data: TempDir,
    /// A database to use in place of the embedded one of the data directory.
    database_url: Option<String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        // The embedded server runs as another account when the tests run as root.
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        fs::create_dir_all(&python).unwrap();
        std::os::unix::fs::symlink(&python, data.path().join("python")).unwrap();
        Self { data, database_url: None }
    }

    /// One whose cycles are in a database that the test has.
    pub(crate) fn with_database(url: &str) -> Self {
        Self { database_url: Some(url.to_owned()), ..Self::new() }
    }

    /// The program with these arguments, run from the repository.
    pub(crate) fn robo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_robo"));
        command
            .args(arguments)
            .current_dir(repository())
            .env("ROBO_DATA_DIR", self.data.path())
            // Children inherit little else by which this place would be told from another.
            .env("ROBO_TEST_PLACE", self.data.path())
            .env_remove("ROBO_BACKEND_DATABASE_URL")
            // A pipeline without a schedule must not become due when the hour strikes.
            .env("ROBO_BACKEND_EVAL_INTERVAL_SECONDS", "0")
            .env_remove("RUST_LOG")
            .envs(self.database_url.iter().map(|url| ("ROBO_BACKEND_DATABASE_URL", url)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Run it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.robo(arguments).output().unwrap())
    }

    /// Run it to its end; it must succeed and print JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "robo {arguments:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("robo {arguments:?}: {error}\n{}", ran.stdout))
    }

    /// Start it and go on while it runs.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.robo(arguments).spawn().unwrap().into()
    }

    /// Processes of this place whose command line holds these words.
    pub(crate) fn named(&self, words: &str) -> Vec<Pid> {
        let holds_them = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
        };
        self.processes().into_iter().filter(holds_them).map(Pid::from_raw).collect()
    }

    /// Kill one such process without a word.
    pub(crate) fn kill(&self, words: &str) {
        let found = self.named(words);
        let first = found.first().unwrap_or_else(|| panic!("no process of this place is called `{words}`"));
        kill(*first, Signal::SIGKILL).unwrap();
    }

    /// Processes that work in this place: their command line or environment names it.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        let needle = self.data.path().as_os_str().as_encoded_bytes();
        let names_it = |pid: &i32| {
            ["cmdline", "environ"].iter().any(|file| {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                bytes.windows(needle.len()).any(|window| window == needle)
            })
        };
        parents().into_keys().filter(names_it).collect()
    }
}

/// Runs of whole cycles take turns: each keeps every core busy, and demo miners are judged by the clock.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder with the repository's environments and the quickstart pipeline, its text changed. Miners get 20 s for an
/// action, so that what comes out does not depend on how busy the machine is.
pub(crate) fn workspace(change: impl Fn(&str) -> String) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository().join("eval-env"), folder.path().join("eval-env")).unwrap();
    fs::create_dir(folder.path().join("environments")).unwrap();
    let manifest = fs::read_to_string(repository().join("environments/metaworld.yaml")).unwrap();
    let patient = manifest.replace("action_timeout: 100ms", "action_timeout: 20s");
    assert_ne!(patient, manifest);
    fs::write(folder.path().join("environments/metaworld.yaml"), patient).unwrap();
    let text = fs::read_to_string(repository().join("pipelines/quickstart.yaml")).unwrap();
    fs::write(folder.path().join("pipeline.yaml"), change(&text)).unwrap();
    folder
}

/// The path of a workspace's pipeline.
pub(crate) fn pipeline(workspace: &TempDir) -> String {
    workspace.path().join("pipeline.yaml").to_str().unwrap().to_owned()
}

/// The repository's directory.
pub(crate) fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// What a finished run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The program while it runs.
pub(crate) struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// What it has said on standard error so far.
    pub(crate) said: String,
}

impl From<Child> for Running {
    fn from(mut child: Child) -> Self {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new() }
    }
}

impl Running {
    /// Read standard error until a line holds `text`.
    pub(crate) fn until(&mut self, text: &str) {
        self.until_line(|line| line.contains(text));
    }

    /// Read standard error until a line is what is waited for.
    pub(crate) fn until_line(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            self.said.push_str(&line);
            assert!(read > 0, "it ended before saying what was waited for:\n{}", self.said);
            if wanted(&line) {
                return;
            }
        }
    }

    /// Send a signal to the program alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Kill the program alone and wait for its end.
    pub(crate) fn kill_alone(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kill the program and everything it has started, at once and without a word.
    pub(crate) fn kill_everything(mut self) {
        let parents = parents();
        let mut family = BTreeSet::from([self.pid().as_raw()]);
        loop {
            let more: Vec<i32> = parents
                .iter()
                .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                break;
            }
            family.extend(more);
        }
        for pid in family {
            // Some have ended already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.child.wait().unwrap();
    }

    /// Wait for its end and meanwhile do something again and again. What it still says has to fit the pipe.
    pub(crate) fn wait_while(mut self, mut act: impl FnMut()) -> Ran {
        while self.child.try_wait().unwrap().is_none() {
            act();
        }
        self.wait()
    }

    /// Wait for its end.
    pub(crate) fn wait(mut self) -> Ran {
        let mut stdout = String::new();
        // Standard output is short and fits the pipe; standard error is read to its end first.
        self.stderr.read_to_string(&mut self.said).unwrap();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Ran { code, stdout, stderr: self.said }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

/// Every process with its parent.
pub(crate) fn parents() -> BTreeMap<i32, i32> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}
