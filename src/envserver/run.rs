//! One `POST /episodes`: starts its episodes as places and miners allow, reports each the moment it ends.
//!
//! Owns the tasks of its episodes: when the reader of the answer goes away, they go as well.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
    time::{Instant, MissedTickBehavior},
};

use crate::cycle::EpisodeReport;
use crate::miner::{Endpoint, InvalidEndpoint};
use crate::rollout::protocol::{EpisodeOrder, ServerMessage};

use super::{
    episode::{Episode, Stage, lost},
    scheduler::{Scheduler, Start},
    slots::{Lease, Slots},
};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);

/// The reader of the answer has gone.
struct Gone;

/// A request that is being answered.
pub(super) struct Run {
    stage: Arc<Stage>,
    orders: Vec<EpisodeOrder>,
    /// By the miner's number.
    endpoints: Vec<Result<Endpoint, InvalidEndpoint>>,
    scheduler: Scheduler,
    slots: Arc<Slots>,
    lines: mpsc::Sender<Bytes>,
    playing: JoinSet<EpisodeReport>,
    started: HashMap<Id, Start>,
}

impl Run {
    /// A run of these orders that writes its lines to `lines`.
    pub(super) fn new(
        stage: Stage,
        orders: Vec<EpisodeOrder>,
        per_miner: u32,
        slots: Arc<Slots>,
        lines: mpsc::Sender<Bytes>,
    ) -> Self {
        let scheduler = Scheduler::new(orders.iter().map(|order| (&order.hotkey, &order.endpoint)), per_miner);
        let endpoints = scheduler.first_episodes().map(|episode| orders[episode].endpoint.parse()).collect();
        Self {
            stage: Arc::new(stage),
            orders,
            endpoints,
            scheduler,
            slots,
            lines,
            playing: JoinSet::new(),
            started: HashMap::new(),
        }
    }

    /// Run all episodes, or until nobody reads the answer any more.
    pub(super) async fn run(mut self) {
        // Dropping the episodes gives them up.
        let _ = self.run_to_end().await;
    }

    async fn run_to_end(&mut self) -> Result<(), Gone> {
        let mut warming = self.warm_up();
        let slots = self.slots.clone();
        // Kept over the turns of the loop, so that we do not lose our place among those who wait.
        let mut place = pin!(slots.acquire());
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lines = self.lines.clone();
        while !self.scheduler.is_done() {
            tokio::select! {
                () = lines.closed() => return Err(Gone),
                Some(miner) = warming.join_next() => {
                    // A warm-up that panicked has its miner's number no more; it cannot, it only waits.
                    if let Ok(miner) = miner {
                        self.scheduler.warm(miner);
                    }
                }
                Some(ended) = self.playing.join_next_with_id() => self.ended(ended).await?,
                lease = &mut place, if self.scheduler.can_start() => {
                    place.set(slots.acquire());
                    match lease {
                        Ok(lease) => self.start(lease).await?,
                        Err(_) => self.give_up().await?,
                    }
                }
                _ = progress.tick() => {
                    let steps = self.stage.steps.load(Ordering::Relaxed);
                    self.say(&ServerMessage::Progress { steps }).await?;
                }
            }
        }
        self.say(&ServerMessage::End).await
    }

    /// Ask every miner for its health once, all at the same time, outside of their clocks and of our slots.
    fn warm_up(&mut self) -> JoinSet<usize> {
        let mut warming = JoinSet::new();
        for (miner, endpoint) in self.endpoints.iter().enumerate() {
            match endpoint {
                Ok(endpoint) => {
                    let (client, endpoint) = (self.stage.client.clone(), endpoint.clone());
                    warming.spawn(async move {
                        // No fault by itself: `/reset` and `/act` are what counts.
                        if let Err(fault) = client.health(&endpoint).await {
                            tracing::debug!("warm-up of a miner failed: {fault}");
                        }
                        miner
                    });
                }
                Err(_) => self.scheduler.warm(miner),
            }
        }
        warming
    }

    async fn start(&mut self, lease: Lease) -> Result<(), Gone> {
        let Some(start) = self.scheduler.start() else { return Ok(()) };
        self.say(&ServerMessage::Started { order: self.orders[start.episode].order }).await?;
        let episode = Episode {
            stage: self.stage.clone(),
            order: self.orders[start.episode].clone(),
            endpoint: self.endpoints[start.miner].clone(),
        };
        let task = self.playing.spawn(episode.play(lease));
        self.started.insert(task.id(), start);
        Ok(())
    }

    async fn ended(&mut self, ended: Result<(Id, EpisodeReport), tokio::task::JoinError>) -> Result<(), Gone> {
        let (id, report) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), lost("the environment server failed inside")),
        };
        let Some(start) = self.started.remove(&id) else { return Ok(()) };
        self.scheduler.ended(start.miner);
        self.report(start.episode, report).await
    }

    /// No worker is left: what has not started cannot run here.
    async fn give_up(&mut self) -> Result<(), Gone> {
        let waiting: Vec<usize> = self.scheduler.give_up().collect();
        for episode in waiting {
            self.report(episode, lost("the simulator's workers are gone and do not come back")).await?;
        }
        Ok(())
    }

    async fn report(&self, episode: usize, report: EpisodeReport) -> Result<(), Gone> {
        self.say(&ServerMessage::Episode { order: self.orders[episode].order, report }).await
    }

    async fn say(&self, message: &ServerMessage) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(message).map_err(|_| Gone)?;
        line.push(b'\n');
        self.lines.send(line.into()).await.map_err(|_| Gone)
    }
}
