//! A node of the chain as tests need it: the real description of a real runtime and the real storage of a subnet, over the
//! protocol that nodes speak. What it should do wrong can be told it.
//!
//! The runtime's description (spec 461) is in the source distribution of `bittensor` on PyPI; the storage is in
//! `../shared/chain`, or where `ROBO_CHAIN_DATA` says.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::GzDecoder;
use jsonrpsee::{
    RpcModule,
    server::{Server, ServerConfig, ServerHandle},
    types::{ErrorObjectOwned, Params},
};
use robo::host::{
    Progress,
    download::{WheelPin, wheel},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::replay_pool::{self as pool, Pool};

const SOURCES: WheelPin = WheelPin {
    project: "bittensor",
    file: "bittensor-11.3.0.tar.gz",
    sha256: "8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3",
};
const SPEC: u32 = 461;
const FINALIZED: u64 = 100;
/// Blocks from the last finalized to the best one.
const BEST_AHEAD: u64 = 2;

/// What the node does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It makes blocks and finalizes none.
    Stalled,
    /// It never answers this method.
    Silent(&'static str),
    /// It answers this method with an error, from its second call on.
    Broken(&'static str),
    /// The same after so many calls that it has answered.
    BrokenAfter(&'static str, usize),
    /// Values are cut short.
    Garbage,
}

/// How a method is answered.
type Answer = fn(&State, Params<'_>) -> Result<Value, ErrorObjectOwned>;

pub(super) struct State {
    /// Version of the runtime.
    spec: u32,
    metadata: Vec<u8>,
    storage: Mutex<BTreeMap<String, String>>,
    fault: Fault,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    finalized: AtomicU64,
    /// What was submitted, if the node takes it.
    pub(super) pool: Pool,
}

/// A node that answers until it is dropped.
pub(crate) struct ReplayNode {
    /// `ws://127.0.0.1:PORT`.
    pub(crate) url: String,
    state: Arc<State>,
    server: ServerHandle,
}

impl ReplayNode {
    pub(crate) async fn start(fault: Fault) -> Self {
        let (metadata, storage) = recorded().await;
        Self::of((SPEC, metadata, storage), fault).await
    }

    /// One that replays another runtime, by its description and the file with its storage.
    pub(crate) async fn older(spec: u32, metadata: Vec<u8>, file: &str) -> Self {
        Self::of((spec, metadata, storage(file)), Fault::None).await
    }

    async fn of((spec, metadata, storage): (u32, Vec<u8>, BTreeMap<String, String>), fault: Fault) -> Self {
        crate::install_tls();
        let state = Arc::new(State {
            spec,
            metadata,
            storage: Mutex::new(storage),
            fault,
            calls: Mutex::default(),
            finalized: AtomicU64::new(FINALIZED),
            pool: Pool::default(),
        });
        let config = ServerConfig::builder().max_response_body_size(64 << 20).build();
        let server = Server::builder().set_config(config).build("127.0.0.1:0").await.expect("a port is free");
        let url = format!("ws://{}", server.local_addr().expect("it is bound"));
        let server = server.start(methods(state.clone()));
        Self { url, state, server }
    }

    /// From now on its last finalized block is this one; what is stored stays the same.
    pub(crate) fn finalize(&self, block: u64) {
        self.state.finalized.store(block, Ordering::SeqCst);
    }

    /// From now on this stands in its storage; nothing takes the entry away.
    pub(crate) fn put(&self, key: &str, value: Option<&[u8]>) {
        self.state.put(key, value);
    }

    /// What was submitted to it.
    pub(crate) fn pool(&self) -> &Pool {
        &self.state.pool
    }

    /// Change what is stored, from now on and for every block.
    pub(crate) fn store(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        change(&mut self.state.storage.lock().unwrap());
    }

    /// How often each method was called.
    pub(crate) fn calls(&self, method: &str) -> usize {
        self.state.calls.lock().unwrap().get(method).copied().unwrap_or_default()
    }
}

impl Drop for ReplayNode {
    fn drop(&mut self) {
        let _ = self.server.stop();
    }
}

/// The runtime's description and the subnet's storage, read once for all tests.
async fn recorded() -> (Vec<u8>, BTreeMap<String, String>) {
    static READ: OnceCell<(Vec<u8>, BTreeMap<String, String>)> = OnceCell::const_new();
    READ.get_or_init(|| async { (metadata(&golden().await), storage("net7_pairs_v461.json.gz")) }).await.clone()
}

/// Calls, extrinsics and the runtime's description, made by the reference client against a real node.
pub(crate) async fn golden() -> Value {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = wheel(&SOURCES, &directory, &Progress::silent()).await.expect("it is on PyPI");
    let mut sources = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
    for entry in sources.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("tests/fixtures/golden.json") {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            return serde_json::from_str(&text).unwrap();
        }
    }
    panic!("`{}` has no golden.json", SOURCES.file);
}

fn metadata(golden: &Value) -> Vec<u8> {
    let hex = golden["metadata"]["v14_hex"].as_str().unwrap();
    hex::decode(hex.trim_start_matches("0x")).unwrap()
}

fn storage(file: &str) -> BTreeMap<String, String> {
    let path = data(file);
    let file = File::open(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; ROBO_CHAIN_DATA names the folder that has it", path.display());
    });
    let pairs: Vec<(String, String)> = serde_json::from_reader(GzDecoder::new(file)).unwrap();
    pairs.into_iter().collect()
}

/// A file of the recorded chain.
pub(crate) fn data(name: &str) -> PathBuf {
    let folder = std::env::var_os("ROBO_CHAIN_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/chain"), PathBuf::from);
    folder.join(name)
}

pub(super) fn hash(block: u64) -> String {
    format!("0x{:064x}", 0xabc0_0000 + block)
}

pub(super) fn number(hash: &str) -> u64 {
    u64::from_str_radix(&hash[hash.len() - 16..], 16).unwrap() - 0xabc0_0000
}

fn methods(state: Arc<State>) -> RpcModule<Arc<State>> {
    let mut module = RpcModule::new(state);
    let known: [(&'static str, Answer); 10] = [
        ("rpc_methods", |_, _| Ok(json!({ "methods": [] }))),
        ("system_chain", |_, _| Ok(json!("replay"))),
        ("chain_getBlockHash", |state, parameters| {
            let number: Option<u64> = parameters.sequence().optional_next()?;
            Ok(json!(hash(number.unwrap_or(state.best()))))
        }),
        ("chain_getFinalizedHead", |state, _| Ok(json!(hash(state.finalized())))),
        ("chain_getHeader", header),
        ("state_call", call),
        ("state_getRuntimeVersion", |state, _| Ok(version(state.spec))),
        ("state_getMetadata", |state, _| Ok(json!(format!("0x{}", hex::encode(&state.metadata))))),
        ("state_getKeysPaged", keys),
        ("state_queryStorageAt", values),
    ];
    for (name, answer) in known {
        module
            .register_async_method(name, move |parameters, state, _| async move {
                let state: &State = &state;
                let call = {
                    let mut calls = state.calls.lock().unwrap();
                    *calls.entry(name).and_modify(|calls| *calls += 1).or_insert(1)
                };
                let pruned = || Err(ErrorObjectOwned::owned(-32000, "the state of that block is pruned", None::<()>));
                match state.fault {
                    Fault::Silent(method) if method == name => std::future::pending().await,
                    Fault::Broken(method) if method == name && call > 1 => pruned(),
                    Fault::BrokenAfter(method, good) if method == name && call > good => pruned(),
                    _ => answer(state, parameters),
                }
            })
            .unwrap();
    }
    pool::register(&mut module);
    module
        .register_async_method("state_getStorage", |parameters, state, _| async move {
            let key: String = parameters.sequence().next()?;
            Ok::<_, ErrorObjectOwned>(state.value(&key))
        })
        .unwrap();
    module
}

impl State {
    pub(super) fn finalized(&self) -> u64 {
        self.finalized.load(Ordering::SeqCst)
    }

    fn best(&self) -> u64 {
        self.finalized() + if self.fault == Fault::Stalled { 1000 } else { BEST_AHEAD }
    }

    /// Make and finalize the next block.
    pub(super) fn next_block(&self) -> u64 {
        self.finalized.fetch_add(BEST_AHEAD + 1, Ordering::SeqCst) + BEST_AHEAD + 1
    }

    pub(super) fn put(&self, key: &str, value: Option<&[u8]>) {
        let mut storage = self.storage.lock().unwrap();
        match value {
            Some(value) => storage.insert(key.to_owned(), format!("0x{}", hex::encode(value))),
            None => storage.remove(key),
        };
    }

    pub(super) fn value(&self, key: &str) -> Option<String> {
        let value = self.storage.lock().unwrap().get(key)?.clone();
        let cut = if self.fault == Fault::Garbage { value.len().min(4) } else { value.len() };
        Some(value[..cut].to_owned())
    }
}

fn header(state: &State, parameters: Params<'_>) -> Result<Value, ErrorObjectOwned> {
    let asked: Option<String> = parameters.sequence().optional_next()?;
    let block = asked.map_or(state.best(), |asked| number(&asked));
    Ok(json!({
        "parentHash": hash(block.saturating_sub(1)), "number": format!("0x{block:x}"), "stateRoot": hash(0),
        "extrinsicsRoot": hash(0), "digest": { "logs": [] },
    }))
}

fn version(spec: u32) -> Value {
    json!({
        "specName": "node-subtensor", "implName": "node-subtensor", "authoringVersion": 1, "specVersion": spec,
        "implVersion": 1, "apis": [], "transactionVersion": 1, "stateVersion": 1,
    })
}

/// Calls into the runtime: which descriptions of itself there are, and this one. All in SCALE.
fn call(state: &State, parameters: Params<'_>) -> Result<Value, ErrorObjectOwned> {
    let mut parameters = parameters.sequence();
    let (name, input): (String, String) = (parameters.next()?, parameters.next()?);
    let held = u32::from(state.metadata[4]);
    let bytes = match name.as_str() {
        "Core_version" => core_version(state.spec),
        "AccountNonceApi_account_nonce" => vec![0; 4],
        "Metadata_metadata_versions" => [&[4][..], &held.to_le_bytes()].concat(),
        "Metadata_metadata_at_version" if input == format!("0x{}", hex::encode(held.to_le_bytes())) => {
            let length = (state.metadata.len() as u32) << 2 | 2;
            [&[1][..], &length.to_le_bytes(), &state.metadata].concat()
        }
        "Metadata_metadata_at_version" => vec![0],
        _ => return Err(ErrorObjectOwned::owned(4003, format!("no call `{name}`"), None::<()>)),
    };
    Ok(json!(format!("0x{}", hex::encode(bytes))))
}

fn core_version(spec: u32) -> Vec<u8> {
    let name = [&[14 << 2][..], b"node-subtensor"].concat();
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    [name.clone(), name, numbers(&[1, spec, 1]), vec![0], numbers(&[1]), vec![1]].concat()
}

fn keys(state: &State, parameters: Params<'_>) -> Result<Value, ErrorObjectOwned> {
    let mut parameters = parameters.sequence();
    let (prefix, count): (String, usize) = (parameters.next()?, parameters.next()?);
    let after: Option<String> = parameters.optional_next()?;
    let from = after.map_or(Bound::Included(prefix.clone()), Bound::Excluded);
    let storage = state.storage.lock().unwrap();
    let keys = storage.range((from, Bound::Unbounded)).map(|(key, _)| key);
    Ok(json!(keys.take_while(|key| key.starts_with(&prefix)).take(count).collect::<Vec<_>>()))
}

fn values(state: &State, parameters: Params<'_>) -> Result<Value, ErrorObjectOwned> {
    let keys: Vec<String> = parameters.sequence().next()?;
    let changes: Vec<(String, Option<String>)> = keys.into_iter().map(|key| (key.clone(), state.value(&key))).collect();
    Ok(json!([{ "block": hash(state.finalized()), "changes": changes }]))
}
