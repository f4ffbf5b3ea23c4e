//! A child process with an owner: it dies when its owner lets go, and its last words are kept for the error message.
//!
//! Talks to the operating system only. It never decides to start a process again; that is its owner's business.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fmt, io,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{
    environment::{self, Role},
    process::{die_with_parent, on_lasting_thread},
};

/// Lines of standard error that are kept.
const TAIL_LINES: usize = 50;
/// Characters of a line that are kept.
const LINE_LENGTH: usize = 1000;
/// Bytes that are read as one line.
const LONGEST_LINE: u64 = 64 * 1024;

/// Why a child is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot start {name}")]
    Start {
        /// What was to be started.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It has nowhere to work.
    #[error("cannot make a working directory for {name}")]
    Directory {
        /// What was to be started.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{name} ended at once ({status}){last_words}")]
    Ended {
        /// What ended.
        name: String,
        /// How.
        status: ExitStatus,
        /// The end of its standard error.
        last_words: LastWords,
    },
    /// It did not say where it listens.
    #[error("{name} did not say where it listens: {problem}{last_words}")]
    NotListening {
        /// What was started.
        name: String,
        /// What it did instead.
        problem: String,
        /// The end of its standard error.
        last_words: LastWords,
    },
    /// It said more than was asked for.
    #[error("{name} wrote more than {most} bytes to its standard output")]
    TooMuch {
        /// What was started.
        name: String,
        /// Most that was asked for.
        most: usize,
    },
    /// The system does not say how it is.
    #[error("cannot wait for {name}")]
    Wait {
        /// What was waited for.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The end of a child's standard error, printed below a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastWords(pub Vec<String>);

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// A program and what it is given. Standard input stays open until the child is stopped.
#[derive(Debug)]
pub struct Program {
    role: Role,
    name: String,
    command: Command,
    /// The name its standard error is logged under; none if it is only kept for the error message.
    logged_as: Option<String>,
}

impl Program {
    /// A program by its path, under the name that messages use. It inherits what its role does, and works in an empty
    /// directory of its own, which goes away with it.
    pub fn new(role: Role, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        let name = name.into();
        let command = Command::from(environment::command(role, path.as_ref()));
        Self { role, logged_as: Some(name.clone()), name, command }
    }

    /// The name that messages use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a variable of its environment.
    #[must_use]
    pub fn env(mut self, variable: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Without a log line for what it writes to standard error, which may hold secrets that it was given.
    #[must_use]
    pub fn unlogged(mut self) -> Self {
        self.logged_as = None;
        self
    }

    /// Start it in a process group of its own, so that a Ctrl-C at the terminal reaches only us and all it starts
    /// ends with it.
    ///
    /// # Errors
    /// [`ChildError::Start`].
    pub async fn start(self) -> Result<Child, ChildError> {
        let Self { role, name, mut command, logged_as } = self;
        let directory =
            environment::private_directory().map_err(|source| ChildError::Directory { name: name.clone(), source })?;
        command.current_dir(directory.path());
        if role.has_own_home() {
            command.env("HOME", directory.path()).env("TMPDIR", directory.path());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        die_with_parent(command.as_std_mut(), Signal::SIGKILL);
        let handle = tokio::runtime::Handle::current();
        let spawned = on_lasting_thread(move || {
            let _in_runtime = handle.enter();
            command.spawn()
        })
        .await
        .and_then(|spawned| spawned);
        let mut process = spawned.map_err(|source| ChildError::Start { name: name.clone(), source })?;
        let tail = Tail::default();
        let errors = process.stderr.take().map(|stream| tokio::spawn(listen(stream, logged_as, tail.clone())));
        Ok(Child {
            group: process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw),
            stdin: process.stdin.take(),
            stdout: process.stdout.take().map(BufReader::new),
            process,
            name,
            tail,
            errors,
            _directory: directory,
        })
    }
}

/// A running child. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: tokio::process::Child,
    /// None once the child has been waited for: the number may belong to somebody else then.
    group: Option<Pid>,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    tail: Tail,
    errors: Option<JoinHandle<()>>,
    /// Where it works. The last field: it goes when the child has been killed.
    _directory: TempDir,
}

impl Child {
    /// Its process id, while it has not been waited for.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The next line of its standard output; none when there will be no more.
    pub async fn next_line(&mut self) -> Option<String> {
        read_line(self.stdout.as_mut()?).await
    }

    /// Wait for its first line, `{"listening": "127.0.0.1:PORT"}`, and give back the address.
    ///
    /// # Errors
    /// [`ChildError::Ended`] or [`ChildError::NotListening`], with the end of its standard error.
    pub async fn listening(&mut self, patience: Duration) -> Result<SocketAddr, ChildError> {
        #[derive(serde::Deserialize)]
        struct Listening {
            listening: SocketAddr,
        }
        let problem = match timeout(patience, self.next_line()).await {
            Err(_) => format!("nothing came in {} seconds", patience.as_secs()),
            Ok(Some(line)) => match serde_json::from_str::<Listening>(&line) {
                Ok(Listening { listening }) => {
                    self.drain_output();
                    return Ok(listening);
                }
                Err(_) => format!("its first line was `{line}`"),
            },
            // It closed its output, most likely by ending.
            Ok(None) => match timeout(Duration::from_secs(5), self.wait()).await {
                Ok(status) => return Err(self.ended(status?)),
                Err(_) => "it closed its standard output".into(),
            },
        };
        Err(ChildError::NotListening { name: self.name.clone(), problem, last_words: self.last_words() })
    }

    /// Give it `input`, close its standard input, and wait for its end: how it ended, what it wrote, its last words.
    ///
    /// What it leaves running is killed with its group. Giving up drops the child, which kills it, too.
    ///
    /// # Errors
    /// [`ChildError::TooMuch`] as soon as it has written more than `most` bytes; [`ChildError::Wait`].
    pub async fn converse(mut self, input: &[u8], most: usize) -> Result<(ExitStatus, Vec<u8>, LastWords), ChildError> {
        let (stdin, stdout) = (self.stdin.take(), self.stdout.take());
        let write = async move {
            if let Some(mut stdin) = stdin {
                // A program need not read what it is given.
                let _ = stdin.write_all(input).await;
            }
        };
        let read = async move {
            let mut bytes = Vec::new();
            if let Some(stdout) = stdout {
                let _ = stdout.take(most as u64 + 1).read_to_end(&mut bytes).await;
            }
            bytes
        };
        let talk = async { tokio::join!(write, read).1 };
        tokio::pin!(talk);
        let (status, bytes) = tokio::select! {
            bytes = &mut talk => {
                if bytes.len() > most {
                    return Err(ChildError::TooMuch { name: self.name.clone(), most });
                }
                (self.wait().await?, bytes)
            }
            // Its group is gone now. Only a process that left the group can still hold the pipe, and it is not waited for.
            status = self.wait() => (status?, timeout(Duration::from_secs(5), talk).await.unwrap_or_default()),
        };
        if bytes.len() > most {
            return Err(ChildError::TooMuch { name: self.name.clone(), most });
        }
        Ok((status, bytes, self.last_words()))
    }

    /// The error for a child that ended although nobody stopped it.
    pub fn ended(&self, status: ExitStatus) -> ChildError {
        ChildError::Ended { name: self.name.clone(), status, last_words: self.last_words() }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// [`ChildError::Wait`].
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>, ChildError> {
        let status = self.process.try_wait().map_err(|source| self.wait_error(source))?;
        if status.is_some() {
            self.kill_group();
        }
        Ok(status)
    }

    /// Wait until it ends by itself, then end what it left behind. Safe to give up and to repeat.
    ///
    /// # Errors
    /// [`ChildError::Wait`].
    pub async fn wait(&mut self) -> Result<ExitStatus, ChildError> {
        let status = self.process.wait().await.map_err(|source| self.wait_error(source))?;
        self.kill_group();
        self.hear_out().await;
        Ok(status)
    }

    /// Close its standard input, which tells our own programs to end; kill its group when it has not after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        self.stdin = None;
        if timeout(grace, self.wait()).await.is_err() {
            tracing::warn!(child.name = self.name, "{} did not end in {} s; killing it", self.name, grace.as_secs());
        }
        self.kill_group();
        // After SIGKILL the end is near; it is waited for so that no zombie stays.
        let _ = timeout(Duration::from_secs(5), self.process.wait()).await;
    }

    /// The end of its standard error so far.
    pub fn last_words(&self) -> LastWords {
        self.tail.words()
    }

    fn wait_error(&self, source: io::Error) -> ChildError {
        ChildError::Wait { name: self.name.clone(), source }
    }

    /// What the child wrote before its end may still be in the pipe.
    async fn hear_out(&mut self) {
        // Kept until it has ended: whoever waits may give up in the middle and wait again.
        if let Some(errors) = &mut self.errors {
            if timeout(Duration::from_secs(1), &mut *errors).await.is_err() {
                errors.abort();
            }
            self.errors = None;
        }
    }

    /// Keep the pipe empty, so that a child that goes on printing never blocks.
    fn drain_output(&mut self) {
        if let Some(stdout) = self.stdout.take() {
            tokio::spawn(listen(stdout, Some(self.name.clone()), Tail::default()));
        }
    }

    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // An empty group is what we want to see.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_group();
        if let Some(errors) = &self.errors {
            errors.abort();
        }
    }
}

/// The last lines that a child wrote to standard error.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn words(&self) -> LastWords {
        LastWords(self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect())
    }
}

async fn listen(stream: impl AsyncRead + Unpin, logged_as: Option<String>, tail: Tail) {
    let mut stream = BufReader::new(stream);
    while let Some(line) = read_line(&mut stream).await {
        if let Some(name) = &logged_as {
            tracing::info!(child.name = name, "{name}: {line}");
        }
        tail.push(line);
    }
}

/// One line without its end, whatever bytes it is made of.
async fn read_line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    // A line without an end must not fill our memory: it is read in pieces.
    match (&mut *stream).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(String::from_utf8_lossy(&bytes).trim_end().chars().take(LINE_LENGTH).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new(Role::Tool, "the test program", "/bin/sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_server_says_where_it_listens() {
        let mut child = shell(r#"echo '{"listening": "127.0.0.1:4711"}'; exec cat"#).start().await.expect("sh starts");
        let address = child.listening(Duration::from_secs(60)).await.unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:4711");
        assert!(child.has_ended().unwrap().is_none());
        // `cat` ends when its input does: no kill is needed.
        child.stop(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn one_that_dies_at_once_is_quoted() {
        let mut child = shell("for i in $(seq 60); do echo line $i >&2; done; exit 3").start().await.unwrap();
        let error = child.listening(Duration::from_secs(60)).await.unwrap_err().to_string();
        assert!(error.starts_with("the test program ended at once (exit status: 3)"), "{error}");
        assert!(error.ends_with("\n  line 60") && error.contains("\n  line 11\n") && !error.contains("line 10\n"));
    }

    #[tokio::test]
    async fn one_that_talks_nonsense_is_quoted_too() {
        let mut child = shell("echo hello; exec cat").start().await.unwrap();
        let error = child.listening(Duration::from_secs(60)).await.unwrap_err().to_string();
        assert!(error.contains("its first line was `hello`"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let error = Program::new(Role::Tool, "nothing", "/does/not/exist").start().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot start nothing");
    }

    #[tokio::test]
    async fn letting_go_kills_what_the_child_has_started_as_well() {
        // The grandchild holds the write end of a pipe; its end is what closes the read end.
        let (reader, writer) = std::io::pipe().unwrap();
        let pipe = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&writer));
        let script = format!("sleep 1000 >{pipe} & echo started; wait");
        let mut child = shell(&script).start().await.unwrap();
        assert_eq!(child.next_line().await.as_deref(), Some("started"));
        drop(writer);
        drop(child);
        let end = tokio::task::spawn_blocking(move || std::io::Read::read(&mut { reader }, &mut [0])).await.unwrap();
        assert_eq!(end.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_conversation_ends_with_all_it_said() {
        let hello = vec![b'x'; 1 << 20];
        let child = shell("cat; echo bye >&2; exit 7").start().await.unwrap();
        let (status, said, last) = child.converse(&hello, 1 << 20).await.unwrap();
        assert_eq!((status.code(), said == hello, last.0), (Some(7), true, vec!["bye".to_owned()]));
        let child = shell("cat; cat").start().await.unwrap();
        let error = child.converse(&hello, (1 << 20) - 1).await.unwrap_err();
        assert!(matches!(error, ChildError::TooMuch { most: 1_048_575, .. }), "{error}");
        // Neither reading nor closing is asked of it, and what it starts in the background does not hold us up.
        let child = shell("sleep 1000 & echo done").start().await.unwrap();
        let (status, said, _) = child.converse(&hello, 10).await.unwrap();
        assert!(status.success() && said == b"done\n");
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_killed() {
        let mut child = shell("trap '' TERM; echo ready; exec sleep 1000").start().await.unwrap();
        assert_eq!(child.next_line().await.as_deref(), Some("ready"));
        let process = child.group.unwrap();
        child.stop(Duration::ZERO).await;
        assert_eq!(nix::sys::signal::kill(process, None), Err(nix::errno::Errno::ESRCH));
    }
}
