//! What a miner that misbehaves costs the others: seven miners play all tasks beside an eighth, which is polite in one turn
//! and hostile in the next.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use robo::rollout::protocol::{EpisodesRequest, ServerMessage};

use super::{
    cpu::resident_bytes,
    mock::Mock,
    play::{HERE, Kind, Load, STEPS, TASKS, Table, order_of},
    round::median,
};
use crate::abuse::Abuse;

const LOAD: Load = Load { miner: Duration::from_millis(20), of_each: 8 };
const ROUNDS: u32 = 3;
/// The others.
const GOOD: u32 = LOAD.of_each - 1;
/// More than a miner can break while the others play.
const TRIES: u32 = 500;

/// What came of it.
pub(crate) struct Damage {
    /// The others' steps per second beside each kind, against those beside a polite miner.
    pub(crate) kept: Vec<(Abuse, f64)>,
    /// The server's memory after each round, in MiB.
    pub(crate) memory: Vec<f64>,
}

/// Play all kinds.
pub(crate) async fn measure(workers: u32) -> Damage {
    let (good, polite) = (Mock::start(LOAD.miner), Mock::start(LOAD.miner));
    let table = Table::set(LOAD, workers, Kind::Quick).await;
    let mut urls = Vec::new();
    for abuse in Abuse::ALL {
        urls.push(abuse.start().await);
    }
    // Once for the environments to be made.
    beside(&table, &good, &polite.url(HERE), 1).await;
    let (mut rates, mut memory) = (vec![Vec::new(); Abuse::ALL.len()], Vec::new());
    for _ in 0..ROUNDS {
        for (rates, url) in rates.iter_mut().zip(&urls) {
            // The machine's speed drifts: each has its own turn of comparison.
            let quiet = beside(&table, &good, &polite.url(HERE), 1).await;
            rates.push(beside(&table, &good, url, TRIES).await / quiet);
        }
        memory.push(resident_bytes(table.process) as f64 / f64::from(1 << 20));
    }
    Damage { kept: Abuse::ALL.into_iter().zip(rates.into_iter().map(median)).collect(), memory }
}

/// Steps per second of the seven beside an eighth that has this many episodes of each task.
async fn beside(table: &Table, good: &Mock, eighth: &str, tries: u32) -> f64 {
    let requests: Vec<EpisodesRequest> = TASKS.iter().map(|task| request(task, good, eighth, tries)).collect();
    let plays = join_all(requests.iter().map(|request| play(table, request)));
    let (_, rate) = tokio::join!(plays, rate(good));
    rate
}

fn request(task: &str, good: &Mock, eighth: &str, tries: u32) -> EpisodesRequest {
    let miners = (0..GOOD).map(|miner| order_of(task, &format!("good-{miner}"), &good.url(HERE), miner, miner));
    let more = (0..tries).map(|order| order_of(task, "eighth", eighth, GOOD + order, GOOD + order));
    EpisodesRequest {
        run: uuid::Uuid::nil(),
        environment: format!("metaworld/{task}").parse().expect("it is an id"),
        action_timeout_ms: 200,
        reset_timeout_ms: 10_000,
        per_miner: 1,
        permits: false,
        budget_ms: None,
        spent_ms: std::collections::BTreeMap::default(),
        cold_start_ms: 10_000,
        rules: robo::address::Rules::default(),
        canary: Vec::new(),
        episodes: miners.chain(more).collect(),
    }
}

/// Until the seven have ended; what the eighth has left is given up.
async fn play(table: &Table, request: &EpisodesRequest) {
    let mut left = GOOD;
    let mut messages = std::pin::pin!(table.ask(request).await);
    while left > 0 {
        let message = messages.next().await.expect("they have not ended");
        if let ServerMessage::Episode { order, .. } = message {
            left -= u32::from(order < GOOD);
        }
    }
}

/// Steps per second in the middle of a run.
async fn rate(good: &Mock) -> f64 {
    let all = f64::from(STEPS * GOOD * TASKS.len() as u32);
    let base = good.acts();
    let at = async |share: f64| {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while ((good.acts() - base) as f64) < share * all {
            ticks.tick().await;
        }
        (Instant::now(), good.acts())
    };
    let (began, acts) = at(0.15).await;
    let (ended, acts_then) = at(0.85).await;
    (acts_then - acts) as f64 / (ended - began).as_secs_f64()
}
