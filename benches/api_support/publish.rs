//! A vector of a full subnet, published as any other.

use robo::{
    cycle::{CycleStatus, Entry, Journal, Pin, Publication, PublishGuard, Salt, TaskEvent, TaskKey},
    store::{NewCycle, Store},
};
use serde_json::{Map, Value, json};

const MINERS: u16 = 256;

pub(crate) async fn weights_of_256_miners(store: &Store) {
    let task = TaskKey { stage: "publish".parse().expect("it is a name"), cell: String::new() };
    let pin = Pin { genesis: "0x00".into(), netuid: 1, block: 4_321_000, hash: "0x07".into() };
    let new = NewCycle {
        pipeline: "subnet".into(),
        definition: json!({}),
        definition_hash: "00".repeat(32),
        root: "/".into(),
        salt: Salt::random(),
        pin: Some(pin.clone()),
        tasks: vec![task.clone()],
    };
    let cycle = store.create_cycle(&new).await.expect("the database takes it");
    let lease = store.acquire(cycle).await.expect("nobody else has it");
    let _ = store.append(&lease, &Entry::new(task.clone(), 1, TaskEvent::Started)).await.expect("it is ours");
    let done = Entry::new(task, 1, TaskEvent::Succeeded { output: json!({}) });
    let done = Entry { publication: Some(publication(&pin)), ..done };
    let _ = store.append(&lease, &done).await.expect("it is ours");
    store.finish(&lease, CycleStatus::Completed, None).await.expect("it is ours");
}

fn publication(pin: &Pin) -> Publication {
    let hotkey = |uid: u16| format!("5{uid:047}");
    let weight = |uid: u16| f64::from(uid + 1) / (f64::from(MINERS) * f64::from(MINERS + 1) / 2.0);
    let value = |uid: u16| 255 * (uid + 1);
    let entries: Vec<Value> = (0..MINERS)
        .map(|uid| json!({"uid": uid, "hotkey": hotkey(uid), "weight": weight(uid), "weight_u16": value(uid)}))
        .collect();
    let shares: Map<String, Value> = (0..MINERS).map(|uid| (uid.to_string(), json!(weight(uid)))).collect();
    let values: Vec<u16> = (0..MINERS).map(value).collect();
    let weights = json!({
        "pin": pin, "entries": entries, "weights": shares,
        "weights_u16": { "uids": (0..MINERS).collect::<Vec<_>>(), "values": values },
    });
    Publication {
        scores: json!({ "environments": [], "entries": [] }).to_string(),
        weights: weights.to_string(),
        digest: robo::evidence::digest(&weights),
        guard: PublishGuard::default(),
    }
}
