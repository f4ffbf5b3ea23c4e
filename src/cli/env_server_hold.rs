//! `robo env-server-hold`: run an environment server for as long as somebody far away wants it (started by robo itself, in a
//! container of a swarm).
//!
//! A container whose engine we cannot speak to has no standard input that we could hold. This program listens for one
//! connection, takes that for the hold, and ends the server when it breaks or falls silent. Over it come the rules of the
//! container's network, which this program may put up and the server, another user without any right, may not change.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::{
    demo_miner::{duration, listen},
    exit::{Exit, Failure, Result},
    render,
};
use crate::host::environment::{self, Role};
use crate::runtime::docker::{Heard, OUT_OF_MEMORY, Told};

/// How long the server may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Where the kernel counts what it has killed for its memory: control groups of version 2 and 1.
const COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address at which the server is taken hold of. The first line of output says which: {"listening": "HOST:PORT"}
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,

    /// Number of the user and group that the server runs as [default: those of this program]
    #[arg(long, value_name = "UID")]
    user: Option<u32>,

    /// How long it may take until somebody takes hold of the server
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "120s")]
    patience: Duration,

    /// How long whoever holds it may say nothing
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    silence: Duration,

    /// The server's program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(args: Args) -> Result {
    // Of this thread, from which the server will be started: nothing that it runs gets more rights than it has.
    nix::sys::prctl::set_no_new_privs().context("the right to more rights cannot be given up")?;
    let (from, mut to) = holder(&args).await?.into_split();
    let mut lines = BufReader::new(from).lines();
    let mut server: Option<(Child, Option<ChildStdin>)> = None;
    loop {
        tokio::select! {
            line = timeout(args.silence, lines.next_line()) => {
                // Let go of, or silent for too long.
                let Ok(Ok(Some(line))) = line else { break };
                let heard = match obey(&line).await {
                    Ok(()) => Heard::default(),
                    Err(error) => Heard { problem: Some(format!("{error:#}")) },
                };
                if server.is_none() && heard.problem.is_none() {
                    server = Some(start(&args)?);
                }
                let mut answer = serde_json::to_vec(&heard)?;
                answer.push(b'\n');
                if to.write_all(&answer).await.is_err() {
                    break;
                }
            }
            ended = end_of(&mut server) => return report(ended),
        }
    }
    if let Some((mut server, input)) = server {
        drop(input);
        // What does not end in time ends with this program, which is the first of its container.
        let _ = timeout(GRACE, server.wait()).await;
    }
    Ok(Exit::Ok)
}

/// The one connection that counts. Nobody listens any more when the server starts.
async fn holder(args: &Args) -> Result<TcpStream> {
    let listener = listen(args.listen).await?;
    render::line(serde_json::json!({ "listening": listener.local_addr()?.to_string() }).to_string());
    match timeout(args.patience, listener.accept()).await {
        Ok(accepted) => Ok(accepted?.0),
        Err(_) => {
            Err(Failure::new(Exit::Failed, anyhow::anyhow!("nobody came for {} seconds", args.patience.as_secs())))
        }
    }
}

/// Do what a line says.
async fn obey(line: &str) -> anyhow::Result<()> {
    let told: Told = serde_json::from_str(line).context("what was said is not of the protocol")?;
    let Some(rules) = told.rules else { return Ok(()) };
    let put_up = Command::from(environment::command(Role::Tool, Path::new("nft")))
        .arg(rules)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .await
        .context("`nft` cannot be run")?;
    anyhow::ensure!(put_up.status.success(), "`nft`: {}", String::from_utf8_lossy(&put_up.stderr).trim());
    Ok(())
}

/// Start the server, whose standard input stays open until we let go of it.
fn start(args: &Args) -> anyhow::Result<(Child, Option<ChildStdin>)> {
    let (program, arguments) = args.command.split_first().context("no command was given")?;
    // The environment of the container is that of the server: its image and whoever made the container have set it.
    let mut command = Command::from(environment::command(Role::Whole, Path::new(program)));
    command.args(arguments).stdin(Stdio::piped()).kill_on_drop(true);
    if let Some(user) = args.user {
        // Nobody else's groups and, not being root, none of our rights either.
        command.uid(user).gid(user);
    }
    let mut server = command.spawn().with_context(|| format!("`{program}` cannot be started"))?;
    // Waiting for the server's end would close what it still has of its input.
    let input = server.stdin.take();
    Ok((server, input))
}

async fn end_of(server: &mut Option<(Child, Option<ChildStdin>)>) -> std::io::Result<std::process::ExitStatus> {
    match server {
        Some((server, _)) => server.wait().await,
        None => std::future::pending().await,
    }
}

/// Tell the log why the server ended by itself.
fn report(ended: std::io::Result<std::process::ExitStatus>) -> Result {
    if COUNTERS.iter().any(|file| fs::read_to_string(file).is_ok_and(|text| has_killed(&text))) {
        render::note(OUT_OF_MEMORY);
    }
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("the environment server ended ({})", ended?)))
}

/// Whether the kernel counts a process that it has killed.
fn has_killed(counters: &str) -> bool {
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.is_some_and(|count| count.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_read() {
        assert!(has_killed("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n"));
        assert!(has_killed("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"));
        assert!(!has_killed("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"));
        assert!(!has_killed("low 0\n"));
    }

    #[tokio::test]
    async fn what_is_not_of_the_protocol_is_refused_and_a_bare_line_is_a_sign_of_life() {
        assert!(obey("{}").await.is_ok());
        let problem = format!("{:#}", obey("hello").await.unwrap_err());
        assert!(problem.contains("not of the protocol"), "{problem}");
    }
}
