//! The way from us to a server in a container: a port on our loopback address, each connection of which becomes a program
//! in the container that joins its standard input and output with the server's port.
//!
//! So no port of a container is published anywhere, and what we say travels as the engine's own connection does: over a
//! socket, TLS or SSH.

use std::net::SocketAddr;

use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::engine::Engine;
use crate::runtime::Error;

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;

/// A port of ours that leads into a container. Dropping it cuts every connection.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) address: SocketAddr,
    _listening: JoinSet<()>,
}

impl Tunnel {
    /// Open a port whose connections are served by `command` in the container.
    pub(super) async fn open(engine: &Engine, container: &str, command: Vec<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (engine, container) = (engine.clone(), container.to_owned());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut joined = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (engine, container, command) = (engine.clone(), container.clone(), command.clone());
                joined.spawn(async move {
                    // Whoever called finds its connection closed, and asks how the container is.
                    if let Err(error) = join(&engine, &container, command, connection).await {
                        tracing::debug!("a connection into {container} failed: {error}");
                    }
                });
                while joined.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _listening: listening })
    }
}

async fn join(engine: &Engine, container: &str, command: Vec<String>, connection: TcpStream) -> Result<(), Error> {
    let refused = |error| engine.fault("speaking to a container", &error);
    let client = engine.client().await?;
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command),
        ..ExecConfig::default()
    };
    let id = client.create_exec(container, config).await.map_err(refused)?.id;
    let options = StartExecOptions { output_capacity: Some(CHUNK), ..StartExecOptions::default() };
    let started = client.start_exec(&id, Some(options)).await.map_err(refused)?;
    let StartExecResults::Attached { mut output, mut input } = started else { return Ok(()) };
    // Only a matter of speed.
    let _ = connection.set_nodelay(true);
    let (mut from, mut to) = connection.into_split();
    let inwards = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            if input.write_all(&chunk[..length]).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
        // The other end has ended as well, or hears it now.
        let _ = input.shutdown().await;
    };
    let outwards = async {
        while let Some(Ok(piece)) = output.next().await {
            match piece {
                LogOutput::StdErr { message } => {
                    tracing::debug!("{container}: {}", String::from_utf8_lossy(&message).trim_end());
                }
                piece => {
                    if to.write_all(&piece.into_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    // When the server closes, that is all; when we close, it may still have something to say, and then closes.
    tokio::select! {
        () = outwards => {}
        () = async { inwards.await; std::future::pending().await } => {}
    }
    Ok(())
}
