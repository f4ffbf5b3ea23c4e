//! What a container costs: the same episodes by a server on this machine and by one in a container, in turns.
//!
//! More episodes are in flight than the workers can serve, so that whatever a container takes is missing from the steps per
//! second. `ROBO_BENCH_IMAGE` names the image (`robo build-eval-env metaworld --tag IMAGE`).

use std::time::Duration;

use super::{
    mock::Mock,
    play::{Kind, Load, Table},
    round::{Round, watch},
};

const LOAD: Load = Load { miner: Duration::from_millis(20), of_each: 18 };
const ROUNDS: u32 = 9;

/// One turn of each.
pub(crate) struct Pair {
    pub(crate) process: Round,
    pub(crate) container: Round,
}

pub(crate) async fn measure(workers: u32) -> Vec<Pair> {
    let image = std::env::var("ROBO_BENCH_IMAGE").unwrap_or_else(|_| "robo-subnet/eval-env:v1".into());
    let mock = Mock::start(LOAD.miner);
    let process = Table::set(LOAD, workers, Kind::Quick).await;
    let container = Table::in_container(LOAD, workers, &image).await;
    for table in [&process, &container] {
        // Once for the environments to be made.
        table.play_many(LOAD, &mock, 0).await;
    }
    let mut pairs = Vec::new();
    for round in 1..=ROUNDS {
        let process = turn(&process, &mock, 1000 * round).await;
        pairs.push(Pair { process, container: turn(&container, &mock, 1000 * round).await });
    }
    pairs
}

async fn turn(table: &Table, mock: &Mock, first_seed: u32) -> Round {
    tokio::join!(table.play_many(LOAD, mock, first_seed), watch(LOAD, mock, table.process)).1
}
