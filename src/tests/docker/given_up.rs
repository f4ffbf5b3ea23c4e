//! What an engine was asked for cannot be taken back: given up while it is being made, it is removed all the same.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures::future::BoxFuture;
use robo::{
    host::ledger::{Ledger, LedgerError, Resource},
    runtime::{
        Runtime,
        docker::{Command, Docker, Once},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};
use uuid::Uuid;

use super::{order, runtime};
use crate::support::engine::{SOCKET, docker, engine, well};

/// The real engine behind a port, with one kind of request held back.
struct Holding {
    url: String,
    gate: Arc<Gate>,
    _serving: JoinSet<()>,
}

/// Each semaphore counts how often something has happened.
struct Gate {
    /// How the request begins that is held back, up to its version and after.
    request: (&'static str, &'static str),
    asked: Semaphore,
    open: Semaphore,
    answered: Semaphore,
}

impl Gate {
    fn concerns(&self, bytes: &[u8]) -> bool {
        let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
        line.starts_with(self.request.0) && line.contains(self.request.1)
    }

    async fn pass(&self, client: TcpStream) {
        let (mut from, mut to) = client.into_split();
        let (mut answers, mut engine) = UnixStream::connect(SOCKET).await.unwrap().into_split();
        let mut bytes = vec![0; 1 << 16];
        let mut is_held = false;
        let mut more = vec![0; 1 << 16];
        loop {
            tokio::select! {
                read = from.read(&mut bytes) => {
                    let Ok(count @ 1..) = read else { return };
                    if self.concerns(&bytes[..count]) {
                        is_held = true;
                        self.asked.add_permits(1);
                        self.open.acquire().await.unwrap().forget();
                    }
                    engine.write_all(&bytes[..count]).await.unwrap();
                    if is_held {
                        // Whoever asked may have gone: the engine answers all the same.
                        let count = answers.read(&mut more).await.unwrap();
                        is_held = false;
                        self.answered.add_permits(1);
                        let _ = to.write_all(&more[..count]).await;
                    }
                }
                read = answers.read(&mut more) => {
                    let Ok(count @ 1..) = read else { return };
                    if to.write_all(&more[..count]).await.is_err() { return }
                }
            }
        }
    }
}

impl Holding {
    async fn back(method: &'static str, path: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let [asked, open, answered] = [0; 3].map(Semaphore::new);
        let gate = Arc::new(Gate { request: (method, path), asked, open, answered });
        let mut serving = JoinSet::new();
        let shared = Arc::clone(&gate);
        serving.spawn(async move {
            let mut joined = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let gate = Arc::clone(&shared);
                joined.spawn(async move { gate.pass(client).await });
            }
        });
        Self { url, gate, _serving: serving }
    }
}

/// A ledger that tells when a row is taken out.
#[derive(Debug)]
struct Rows {
    left: Semaphore,
    entered: Mutex<Vec<Uuid>>,
}

impl Ledger for Rows {
    fn enter<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Result<(), LedgerError>> {
        self.entered.lock().unwrap().push(resource.id);
        Box::pin(async { Ok(()) })
    }

    fn leave(&self, resource: Uuid) -> BoxFuture<'_, ()> {
        assert!(self.entered.lock().unwrap().contains(&resource));
        self.left.add_permits(1);
        Box::pin(async {})
    }
}

/// Everything on the engine that is ours.
fn ours() -> BTreeSet<String> {
    let all = ["ps --all --no-trunc", "network ls --no-trunc"].map(|list| {
        let arguments = format!("{list} --quiet --filter label=robo.resource");
        docker(&arguments.split(' ').collect::<Vec<_>>())
    });
    all.iter().flat_map(|ids| ids.lines()).map(str::to_owned).collect()
}

async fn nothing_stays<F>(request: (&'static str, &'static str), begin: impl FnOnce(Docker) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let before = ours();
    let held = Holding::back(request.0, request.1).await;
    let rows = Arc::new(Rows { left: Semaphore::new(0), entered: Mutex::default() });
    let docker = runtime(&[&format!("{}=64", held.url)]).with_ledger(Arc::clone(&rows) as Arc<dyn Ledger>);
    let begun = tokio::spawn(begin(docker));
    held.gate.asked.acquire().await.unwrap().forget();
    begun.abort();
    assert!(begun.await.unwrap_err().is_cancelled());
    held.gate.open.add_permits(1);
    held.gate.answered.acquire().await.unwrap().forget();
    rows.left.acquire().await.unwrap().forget();
    assert!(ours().is_subset(&before), "{request:?}");
}

#[tokio::test]
async fn what_is_given_up_while_it_is_being_made_is_removed_all_the_same() {
    let _turn = engine();
    let mut server = order(Some(well()));
    server.server.resources.network = robo::manifest::Network::Full;
    for request in [("POST", "/networks/create"), ("POST", "/containers/create")] {
        let server = server.clone();
        nothing_stays(request, |docker| async move { drop(docker.start(&server).await) }).await;
    }
    nothing_stays(("POST", "/containers/create"), |docker| async move {
        let command = Command {
            image: "debian:bookworm-slim".into(),
            command: vec!["true".into()],
            env: Vec::new(),
            input: Vec::new(),
            max_bytes: 1000,
        };
        drop(Arc::new(Once::new(docker)).run(command).await);
    })
    .await;
}
