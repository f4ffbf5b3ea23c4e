//! One `POST /episodes`: starts its episodes as places and miners allow, reports each the moment it ends.
//!
//! Owns the tasks of its episodes: when the reader of the answer goes away, they go as well.
//!
//! When a worker dies, an episode that kills workers must not cost others a try. Those that were with their miners start
//! again. Of several that the worker owed an answer one may be the killer: each of these is played again with no other
//! episode of this request beside it, and only one that takes a worker along once more is reported as lost. Where every
//! episode ends that way, it is not the episode: then all are reported, as nobody could wait for each of them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
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
use tokio_util::sync::CancellationToken;

use crate::cycle::{EpisodeReport, Hotkey, InfraFault, MinerFault, MinerStatus, Outcome, Seen};
use crate::rollout::{
    network::Blame,
    protocol::{EpisodeOrder, Grant, ServerMessage},
};

use super::{
    episode::{Episode, Played, Stage, lost},
    guest::{Guest, Waited},
    scheduler::{Ended, Limit, Scheduler, Start},
    slots::{Lease, Slots},
    witness::Witness,
};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);

/// How long a miner rests that has broken an episode, for each that it broke in a row, and up to how many count. One that
/// breaks all of them at once takes less of the simulator than one that plays.
const REST: Duration = Duration::from_millis(100);
const RESTS: u32 = 10;

/// Faults in a row, with no good episode between them, after which no suspect is played alone any more.
const HOPELESS: u32 = 2;

/// The reader of the answer has gone.
struct Gone;

/// A request that is being answered.
pub(super) struct Run {
    stage: Arc<Stage>,
    orders: Vec<EpisodeOrder>,
    /// By the miner's number.
    guests: Vec<Guest>,
    number: HashMap<Hotkey, usize>,
    scheduler: Scheduler,
    slots: Arc<Slots>,
    lines: mpsc::Sender<Bytes>,
    controls: Controls,
    playing: JoinSet<Played>,
    /// Miners whose episodes must wait: for the answer to `/health`, or because they rest.
    waiting: JoinSet<(usize, Waited)>,
    /// Episodes whose verdict is awaited. The scheduler counts them as in flight; they hold no slot.
    judging: JoinSet<(Start, EpisodeReport, Blame)>,
    /// Who probes the canaries.
    watching: JoinSet<()>,
    started: HashMap<Id, Start>,
    /// To be played alone, each with its report in case that makes no sense. The scheduler counts them as in flight.
    suspects: VecDeque<(Start, EpisodeReport)>,
    /// Faults of ours since an episode has ended well.
    faults: u32,
    /// The suspect that is being played.
    alone: Option<Id>,
}

/// What a run is told while it plays.
pub(super) struct Controls {
    /// Cancelled: what has not begun does not begin any more.
    pub(super) drain: CancellationToken,
    /// Permits to begin episodes.
    pub(super) grants: mpsc::UnboundedReceiver<Vec<Grant>>,
}

impl Run {
    /// A run of these orders that writes its lines to `lines`.
    pub(super) fn new(
        stage: Stage,
        (orders, limit): (Vec<EpisodeOrder>, Limit),
        slots: Arc<Slots>,
        (lines, controls): (mpsc::Sender<Bytes>, Controls),
    ) -> Self {
        let miner = |order: &EpisodeOrder| {
            // Permits are a hotkey's, wherever it answers.
            let endpoint = (limit != Limit::Permits).then(|| order.endpoint.clone());
            (order.hotkey.clone(), endpoint)
        };
        let scheduler = Scheduler::new(orders.iter().map(miner), limit);
        let guests: Vec<Guest> =
            scheduler.first_episodes().map(|episode| Guest::new(&orders[episode], &stage)).collect();
        let number = guests.iter().enumerate().map(|(number, guest)| (guest.hotkey.clone(), number)).collect();
        Self {
            stage: Arc::new(stage),
            orders,
            guests,
            number,
            scheduler,
            slots,
            lines,
            controls,
            playing: JoinSet::new(),
            waiting: JoinSet::new(),
            judging: JoinSet::new(),
            watching: JoinSet::new(),
            started: HashMap::new(),
            suspects: VecDeque::new(),
            faults: 0,
            alone: None,
        }
    }

    /// Run all episodes, or those that have begun once it is drained, or until nobody reads the answer any more.
    pub(super) async fn run(mut self) {
        // Dropping the episodes gives them up.
        let _ = self.run_to_end().await;
    }

    async fn run_to_end(&mut self) -> Result<(), Gone> {
        self.watch_canaries();
        self.warm_up();
        let slots = self.slots.clone();
        // Kept over the turns of the loop, so that we do not lose our place among those who wait.
        let mut place = pin!(slots.acquire());
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lines = self.lines.clone();
        let drain = self.controls.drain.clone();
        // Whether we stand in the line for a place. A place may come when nothing can start any more: then it goes to the next.
        let mut is_in_line = false;
        loop {
            if drain.is_cancelled() {
                // Again and again: what a dying worker gives back begins no more either.
                self.give_up();
            }
            if self.scheduler.is_done() {
                break;
            }
            is_in_line |= self.can_start();
            tokio::select! {
                () = drain.cancelled(), if !drain.is_cancelled() => {}
                () = lines.closed() => return Err(Gone),
                // A wait that panicked has its miner's number no more; it cannot, it only waits.
                Some(Ok((miner, waited))) = self.waiting.join_next() => self.waited(miner, waited).await?,
                Some(Ok(judged)) = self.judging.join_next() => self.judged(judged).await?,
                Some(ended) = self.playing.join_next_with_id() => self.ended(ended).await?,
                Some(grants) = self.controls.grants.recv() => self.granted(&grants),
                lease = &mut place, if is_in_line => {
                    place.set(slots.acquire());
                    is_in_line = false;
                    match lease {
                        Ok(lease) if self.can_start() => self.start(lease).await?,
                        Ok(_) => {}
                        Err(_) => self.give_up(),
                    }
                }
                _ = progress.tick() => self.tick().await?,
            }
        }
        for guest in &self.guests {
            let ms = u64::try_from(guest.budget.spent().as_millis()).unwrap_or(u64::MAX);
            self.say(&ServerMessage::Spent { hotkey: guest.hotkey.clone(), ms }).await?;
        }
        self.say(&ServerMessage::End).await
    }

    /// Ask every miner for its health, all at the same time, outside of their clocks and of our slots.
    fn warm_up(&mut self) {
        for (miner, guest) in self.guests.iter().enumerate() {
            let woken = guest.wake(&self.stage.client, self.stage.cold_start);
            self.waiting.spawn(async move { (miner, woken.await) });
        }
    }

    /// A miner's episodes may start: those of one that was not ready begin all the same, one at a time, since what it answers
    /// to `/reset` and `/act` is what counts.
    async fn waited(&mut self, miner: usize, waited: Waited) -> Result<(), Gone> {
        if let Waited::Woken(found) = waited {
            if let Ok(route) = &self.guests[miner].route {
                let witness = Witness::new(&self.stage.network, &self.guests[miner].hotkey, route);
                witness.found(found.as_ref().map_err(|not_ready| &not_ready.fault));
            }
            let seen = self.guests[miner].woken(found, &self.stage);
            match seen.status {
                MinerStatus::Cold | MinerStatus::Unreachable => self.scheduler.doubt(miner),
                MinerStatus::Active | MinerStatus::Refused => {}
            }
            self.tell(miner, seen).await?;
        }
        self.scheduler.warm(miner);
        Ok(())
    }

    async fn tell(&self, miner: usize, seen: Seen) -> Result<(), Gone> {
        let Guest { hotkey, max_concurrency, .. } = &self.guests[miner];
        let (hotkey, max_concurrency) = (hotkey.clone(), *max_concurrency);
        self.say(&ServerMessage::Miner { hotkey, seen, max_concurrency }).await
    }

    /// More episodes may begin.
    fn granted(&mut self, grants: &[Grant]) {
        for Grant { hotkey, total, patience_ms } in grants {
            let Some(miner) = self.number.get(hotkey) else { continue };
            self.scheduler.grant(*miner, *total);
            if let Some(left) = patience_ms {
                self.guests[*miner].has_left(Duration::from_millis(*left));
            }
        }
    }

    /// Say how far we are, and let others have the permits for which there is no place here.
    async fn tick(&mut self) -> Result<(), Gone> {
        let steps = self.stage.steps.load(Ordering::Relaxed);
        let stalled_ms = u64::try_from(self.stage.stalls.total().as_millis()).unwrap_or(u64::MAX);
        self.say(&ServerMessage::Progress { steps, stalled_ms }).await?;
        let mut miners: BTreeMap<Hotkey, u32> = BTreeMap::new();
        for (miner, count) in self.scheduler.give_back() {
            miners.insert(self.guests[miner].hotkey.clone(), u32::try_from(count).unwrap_or(u32::MAX));
        }
        if miners.is_empty() { Ok(()) } else { self.say(&ServerMessage::Unused { miners }).await }
    }

    /// The next suspect that may be played.
    fn suspect(&self) -> Option<usize> {
        self.suspects.iter().position(|(start, _)| self.scheduler.has_permit(start.miner))
    }

    /// Suspects wait until everything else has ended, and nothing starts beside one.
    fn can_start(&self) -> bool {
        match (self.alone, self.suspects.is_empty()) {
            (Some(_), _) => false,
            (None, true) => self.scheduler.can_start(),
            (None, false) => self.playing.is_empty() && self.suspect().is_some(),
        }
    }

    async fn start(&mut self, lease: Lease) -> Result<(), Gone> {
        let suspect = self.suspect().and_then(|place| self.suspects.remove(place)).map(|(start, _)| start);
        if let Some(start) = suspect {
            self.scheduler.take_permit(start.miner);
        }
        let Some(start) = suspect.or_else(|| self.scheduler.start()) else { return Ok(()) };
        self.say(&ServerMessage::Started { order: self.orders[start.episode].order }).await?;
        let episode = Episode {
            stage: self.stage.clone(),
            order: self.orders[start.episode].clone(),
            route: self.guests[start.miner].route.clone(),
            budget: self.guests[start.miner].budget.clone(),
            encoding: self.guests[start.miner].encoding,
        };
        let task = self.playing.spawn(episode.play(lease));
        self.alone = suspect.map(|_| task.id());
        self.started.insert(task.id(), start);
        Ok(())
    }

    async fn ended(&mut self, ended: Result<(Id, Played), tokio::task::JoinError>) -> Result<(), Gone> {
        let (id, played) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Played::Ended(lost("the environment server failed inside"))),
        };
        let Some(start) = self.started.remove(&id) else { return Ok(()) };
        let was_alone = self.alone == Some(id);
        if was_alone {
            self.alone = None;
        }
        match played {
            Played::Suspect(report) if !was_alone && !self.is_hopeless() => {
                self.suspects.push_back((start, report));
                self.take_back(start, Duration::ZERO).await
            }
            Played::Disturbed => {
                self.scheduler.put_back(start);
                self.take_back(start, Duration::ZERO).await
            }
            Played::Undecided(report, undecided) => {
                let patience = self.stage.timeouts.reset.max(self.stage.timeouts.action);
                let verdict = self.stage.network.clone().judge(undecided, patience);
                self.judging.spawn(async move { (start, report, verdict.await) });
                Ok(())
            }
            Played::Ended(report) if self.guests[start.miner].may_wait(&report) => {
                self.scheduler.put_back(start);
                self.scheduler.doubt(start.miner);
                let rest = self.rest(start.miner);
                let not_ready = self.guests[start.miner].wait(&report, rest);
                self.take_back(start, not_ready).await
            }
            Played::Ended(report) | Played::Suspect(report) => self.conclude(start, report).await,
        }
    }

    /// Probe the canaries while episodes are played.
    fn watch_canaries(&mut self) {
        for canary in &self.stage.canary {
            self.watching.spawn(self.stage.network.clone().watch(canary.clone()));
        }
    }

    /// It is known who answers for an episode.
    async fn judged(&mut self, (start, report, blame): (Start, EpisodeReport, Blame)) -> Result<(), Gone> {
        self.conclude(start, blame.settle(report)).await
    }

    /// An episode has come to its report.
    async fn conclude(&mut self, start: Start, report: EpisodeReport) -> Result<(), Gone> {
        if report.outcome == Outcome::InfraFault(InfraFault::Network) {
            // No more episodes begin, since they would be lost as well. The fault says nothing about the simulator, whose faults
            // in a row are counted.
            self.give_up();
            self.scheduler.ended(start.miner, Ended::Otherwise);
            return self.report(start.episode, report).await;
        }
        if let Some(seen) = self.guests[start.miner].news() {
            self.tell(start.miner, seen).await?;
        }
        self.count(&report);
        self.release(start.miner, &report);
        self.report(start.episode, report).await?;
        if self.is_hopeless() { self.report_suspects().await } else { Ok(()) }
    }

    /// Let a miner's next episode start, at once or after a rest.
    fn release(&mut self, miner: usize, report: &EpisodeReport) {
        let how = match report.outcome {
            Outcome::Success | Outcome::Failure => Ended::Well,
            Outcome::MinerFault(fault) if fault != MinerFault::BudgetExhausted && self.guests[miner].route.is_ok() => {
                Ended::ByFault
            }
            // Nobody was asked anything.
            Outcome::MinerFault(_) | Outcome::InfraFault(_) => Ended::Otherwise,
        };
        self.scheduler.ended(miner, how);
        if how == Ended::ByFault {
            self.rest(miner);
        }
    }

    /// How long it rests.
    fn rest(&mut self, miner: usize) -> Duration {
        let rest = REST * self.scheduler.faults(miner).min(RESTS);
        self.waiting.spawn(async move {
            tokio::time::sleep(rest).await;
            (miner, Waited::Rested)
        });
        rest
    }

    fn count(&mut self, report: &EpisodeReport) {
        match report.outcome {
            Outcome::InfraFault(InfraFault::Overloaded) => self.slots.disturbed(),
            // They say nothing of the simulator.
            Outcome::InfraFault(InfraFault::Network | InfraFault::ResourcesExhausted) => {}
            Outcome::InfraFault(_) => {
                self.faults += 1;
                self.slots.faults.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                self.faults = 0;
                self.slots.faults.store(0, Ordering::Relaxed);
                self.slots.undisturbed();
            }
        }
    }

    /// Whether nothing has ended well for too long, in this request or on the whole server.
    fn is_hopeless(&self) -> bool {
        self.faults >= HOPELESS || self.slots.faults.load(Ordering::Relaxed) > HOPELESS
    }

    /// The simulator fails whatever it runs.
    async fn report_suspects(&mut self) -> Result<(), Gone> {
        while let Some((start, report)) = self.suspects.pop_front() {
            self.scheduler.ended(start.miner, Ended::Otherwise);
            self.report(start.episode, report).await?;
        }
        Ok(())
    }

    /// Nothing more begins: no worker is left, or we were told so. What has not begun has lost nothing.
    fn give_up(&mut self) {
        self.scheduler.give_up();
        for (suspect, _) in self.suspects.drain(..) {
            self.scheduler.ended(suspect.miner, Ended::Otherwise);
        }
    }

    /// Say that an episode is as if it had not begun, after its miner was not ready for so long.
    async fn take_back(&self, start: Start, not_ready: Duration) -> Result<(), Gone> {
        let not_ready_ms = u64::try_from(not_ready.as_millis()).unwrap_or(u64::MAX);
        self.say(&ServerMessage::Returned { order: self.orders[start.episode].order, not_ready_ms }).await
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
