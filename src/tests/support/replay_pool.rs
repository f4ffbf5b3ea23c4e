//! The submitting side of the node that replays: it takes every extrinsic that sets or commits weights, puts it into the next
//! block at once, and keeps in its storage what the runtime would. It checks no signature and no rule.

use std::sync::{Arc, Mutex};

use jsonrpsee::{
    RpcModule,
    types::{ErrorObjectOwned, Params},
};
use serde_json::{Value, json};
use subxt::ext::codec::{Compact, Decode, Encode};

use super::replay_node::{State, hash, number};

/// The pallet and its calls in the runtime that is replayed (spec 461).
const SUBTENSOR: u8 = 7;
const SET_WEIGHTS: u8 = 0;
const COMMIT: u8 = 118;
const SET_MECHANISM_WEIGHTS: u8 = 119;
/// Bytes before the call: version, address and signature; extensions follow.
const BEFORE: usize = 1 + 33 + 65;
/// The events of a block with one extrinsic that did well: `System.ExtrinsicSuccess`.
const WENT_WELL: [u8; 13] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Weights in the open.
    Weights { uids: Vec<u16>, values: Vec<u16>, version_key: u64 },
    /// Weights for later.
    Commit { payload: Vec<u8>, round: u64, version: u16 },
}

/// What the node does with what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Deed {
    /// What it should.
    #[default]
    Right,
    /// It says so, and keeps something else.
    Wrong,
}

/// Where the runtime keeps what comes of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    pub(crate) weights: String,
    pub(crate) last_update: String,
    pub(crate) commits: String,
    pub(crate) events: String,
    /// The account that signs.
    pub(crate) signer: [u8; 32],
}

#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) keys: Mutex<Keys>,
    pub(crate) deed: Mutex<Deed>,
    taken: Mutex<Vec<Taken>>,
    /// Blocks that hold an extrinsic.
    blocks: Mutex<Vec<(u64, String)>>,
}

impl Pool {
    /// What was submitted so far, the first first.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

pub(super) fn register(module: &mut RpcModule<Arc<State>>) {
    module
        .register_async_method("chain_getBlock", |parameters, state, _| async move { block(&state, parameters) })
        .unwrap();
    module
        .register_subscription(
            "author_submitAndWatchExtrinsic",
            "author_extrinsicUpdate",
            "author_unwatchExtrinsic",
            |parameters, pending, state, _| async move {
                let extrinsic: String = parameters.sequence().next().unwrap();
                let Some(block) = take(&state, &extrinsic) else {
                    let error = ErrorObjectOwned::owned(1010, "Invalid Transaction", Some("Custom error: 255"));
                    pending.reject(error).await;
                    return;
                };
                let sink = pending.accept().await.unwrap();
                for status in [json!("ready"), json!({ "inBlock": hash(block) }), json!({ "finalized": hash(block) })] {
                    let message = serde_json::value::to_raw_value(&status).unwrap();
                    // A client that has gone away does not wait for the rest.
                    let _ = sink.send(message).await;
                }
            },
        )
        .unwrap();
}

fn block(state: &State, parameters: Params<'_>) -> Result<Value, ErrorObjectOwned> {
    let asked: String = parameters.sequence().next()?;
    let number = number(&asked);
    let blocks = state.pool.blocks.lock().unwrap();
    let extrinsics: Vec<&String> = blocks.iter().filter(|(block, _)| *block == number).map(|(_, text)| text).collect();
    Ok(json!({
        "block": {
            "header": {
                "parentHash": hash(number - 1), "number": format!("0x{number:x}"), "stateRoot": hash(0),
                "extrinsicsRoot": hash(0), "digest": { "logs": [] },
            },
            "extrinsics": extrinsics,
        },
        "justifications": null,
    }))
}

/// Put an extrinsic into the next block, if it is one that is known here.
fn take(state: &State, extrinsic: &str) -> Option<u64> {
    let bytes = hex::decode(extrinsic.trim_start_matches("0x")).ok()?;
    let taken = read(&bytes)?;
    let block = state.next_block();
    let pool = &state.pool;
    let keys = pool.keys.lock().unwrap().clone();
    match (&taken, *pool.deed.lock().unwrap()) {
        (Taken::Weights { uids, values, .. }, Deed::Right) => {
            let row: Vec<(u16, u16)> = uids.iter().copied().zip(values.iter().copied()).collect();
            state.put(&keys.weights, Some(&row.encode()));
        }
        (Taken::Commit { payload, round, .. }, Deed::Right) => {
            state.put(&keys.commits, Some(&vec![(keys.signer, block, payload, round)].encode()));
        }
        (_, Deed::Wrong) => state.put(&keys.weights, Some(&vec![(9_u16, 65535_u16)].encode())),
    }
    let stored = hex::decode(state.value(&keys.last_update).unwrap().trim_start_matches("0x")).unwrap();
    let mut updates = Vec::<u64>::decode(&mut &stored[..]).unwrap();
    updates[0] = block;
    state.put(&keys.last_update, Some(&updates.encode()));
    state.put(&keys.events, Some(&WENT_WELL));
    pool.taken.lock().unwrap().push(taken);
    pool.blocks.lock().unwrap().push((block, extrinsic.to_owned()));
    Some(block)
}

/// The call of an extrinsic: the one place where what is left reads as one, to its end.
fn read(bytes: &[u8]) -> Option<Taken> {
    let mut rest = bytes;
    Compact::<u32>::decode(&mut rest).ok()?;
    (BEFORE..rest.len()).find_map(|at| call(&rest[at..]))
}

fn call(bytes: &[u8]) -> Option<Taken> {
    let (head, mut rest) = bytes.split_at_checked(2)?;
    let rest = &mut rest;
    let taken = match head {
        [SUBTENSOR, SET_WEIGHTS] => {
            let (_, uids, values, version_key) = <(u16, Vec<u16>, Vec<u16>, u64)>::decode(rest).ok()?;
            Taken::Weights { uids, values, version_key }
        }
        [SUBTENSOR, SET_MECHANISM_WEIGHTS] => {
            let (_, _, uids, values, version_key) = <(u16, u8, Vec<u16>, Vec<u16>, u64)>::decode(rest).ok()?;
            Taken::Weights { uids, values, version_key }
        }
        [SUBTENSOR, COMMIT] => {
            let (_, _, payload, round, version) = <(u16, u8, Vec<u8>, u64, u16)>::decode(rest).ok()?;
            Taken::Commit { payload, round, version }
        }
        _ => return None,
    };
    rest.is_empty().then_some(taken)
}
