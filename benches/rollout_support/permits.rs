//! What permits cost: the same episodes of many miners without them, with miners that play one episode at a time, and with
//! miners that announce sixteen.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use robo::{
    cycle::{CycleId, Hotkey, Outcome},
    rollout::{
        Control,
        protocol::{EpisodesRequest, ServerMessage},
    },
    stage::{Asked, Permits},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    mock::Mock,
    play::{Kind, Load, STEPS, TASKS, Table, order_of},
};

/// What miners announce; none for requests without permits.
pub(crate) const ANNOUNCED: [Option<u32>; 3] = [None, Some(1), Some(16)];

/// How many miners play at a time.
pub(crate) const MINERS: [u32; 3] = [1, 16, 64];

/// Episodes per miner and task.
const EPISODES: [u32; 3] = [1, 1, 1];

/// Steps per second by number of miners and by what they announce.
pub(crate) type Rates = [[f64; 3]; 3];

pub(crate) async fn measure(workers: u32, miner: Duration) -> Rates {
    let load = Load { miner, of_each: 8 };
    let (mock, table) = (Mock::start(miner), Table::set(load, workers, Kind::Quick).await);
    // Once for the environments to be made.
    table.play_many(load, &mock, 0).await;
    let mut rates = Rates::default();
    for ((rates, miners), episodes) in rates.iter_mut().zip(MINERS).zip(EPISODES) {
        for (rate, announced) in rates.iter_mut().zip(ANNOUNCED) {
            *rate = play(&table, &mock, (miners, episodes), announced).await;
        }
    }
    rates
}

/// All tasks at once, as the tasks of one cycle.
async fn play(table: &Table, mock: &Mock, (miners, episodes): (u32, u32), announced: Option<u32>) -> f64 {
    let (permits, cycle, began) = (Permits::default(), CycleId::generate(), Instant::now());
    let plays = TASKS.map(|task| {
        let request = request(task, &mock.url(table.host()), (miners, episodes), announced.is_some());
        let asked = Asked {
            cycle,
            per_miner: 16,
            patience: Duration::from_secs(10),
            episodes: miner_names(miners).map(|hotkey| (hotkey, episodes)).collect(),
        };
        let permits = permits.clone();
        async move {
            let (member, grants) = permits.enter(asked);
            let control = Control { drain: CancellationToken::new(), grants };
            let stream = table.client().episodes_with(&request, control).await.expect("it is accepted");
            let mut messages = std::pin::pin!(stream);
            let hotkey = |order: u32| &request.episodes[order as usize].hotkey;
            let mut steps = 0;
            while let Some(message) = messages.next().await {
                match message.expect("the stream is whole") {
                    ServerMessage::Miner { hotkey, .. } => member.open(&hotkey, announced),
                    ServerMessage::Started { order } => member.started(hotkey(order)),
                    ServerMessage::Unused { miners } => {
                        miners.iter().for_each(|(hotkey, count)| member.unused(hotkey, *count));
                    }
                    ServerMessage::Episode { order, report } => {
                        assert!(matches!(report.outcome, Outcome::Success | Outcome::Failure), "{report:?}");
                        member.ended(hotkey(order));
                        steps += report.steps;
                    }
                    _ => {}
                }
            }
            steps
        }
    });
    let steps: u32 = join_all(plays).await.into_iter().sum();
    assert_eq!(steps, miners * episodes * STEPS * TASKS.len() as u32);
    f64::from(steps) / began.elapsed().as_secs_f64()
}

fn miner_names(miners: u32) -> impl Iterator<Item = Hotkey> {
    (0..miners).map(|miner| format!("mock{miner}").parse().expect("it is a hotkey"))
}

fn request(task: &str, endpoint: &str, (miners, episodes): (u32, u32), permits: bool) -> EpisodesRequest {
    let orders = (0..episodes).flat_map(|seed| (0..miners).map(move |miner| (seed, miner)));
    EpisodesRequest {
        run: Uuid::new_v4(),
        environment: format!("metaworld/{task}").parse().expect("it is an id"),
        action_timeout_ms: 10_000,
        reset_timeout_ms: 10_000,
        per_miner: 16,
        permits,
        budget_ms: None,
        spent_ms: std::collections::BTreeMap::default(),
        canary: Vec::new(),
        cold_start_ms: 10_000,
        rules: robo::address::Rules::default(),
        episodes: (0..)
            .zip(orders)
            .map(|(order, (seed, miner))| order_of(task, &format!("mock{miner}"), endpoint, order, seed))
            .collect(),
    }
}

/// Microseconds that the table of permits takes for one episode, with 256 miners and a run for each of 16 environments.
pub(crate) fn bookkeeping() -> f64 {
    const ROUNDS: u32 = 200;
    let names: Vec<Hotkey> = miner_names(256).collect();
    let (permits, cycle) = (Permits::default(), CycleId::generate());
    let asked = Asked {
        cycle,
        per_miner: 16,
        patience: Duration::from_secs(10),
        episodes: names.iter().map(|hotkey| (hotkey.clone(), u32::MAX)).collect::<HashMap<_, _>>(),
    };
    let mut runs: Vec<_> = (0..16).map(|_| permits.enter(asked.clone())).collect();
    for (member, _) in &runs {
        names.iter().for_each(|hotkey| member.open(hotkey, Some(1)));
    }
    let (began, mut episodes) = (Instant::now(), 0u32);
    for _ in 0..ROUNDS {
        for (member, grants) in &mut runs {
            while let Ok(grant) = grants.try_recv() {
                member.started(&grant.hotkey);
                member.ended(&grant.hotkey);
                episodes += 1;
            }
        }
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(episodes)
}
