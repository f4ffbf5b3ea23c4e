//! Which episode is called for next, and what is told of it. Owns the calls that are on their way.
//!
//! A server that is lost ends the stream, as that of our own servers does: what had begun is then a fault of ours, and
//! what had not is as it was.
//!
//! Miners share the server fairly: of those with the fewest episodes in flight, the one that has had the least of the server's
//! time comes next. So a miner that makes its episodes long delays the end of its own episodes and not those of others.
//!
//! The server gives no evidence of its network. Canaries that this process probes do, so only they can turn an undecided fault
//! into an infrastructure fault. The share of other miners that failed says nothing here: with few episodes at a time and no
//! answers in between, a few dead miners in a row would look like an outage.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::call::{Call, Called};
use crate::cycle::{Condition, EpisodeReport, Hotkey, InfraFault, MinerFault, Outcome};
use crate::rollout::{
    Control, Error,
    network::{Blame, Neighbourhood, Network, Who, is_stranded},
    permits::Permits,
    protocol::{EpisodeOrder, EpisodesRequest, Grant, ServerMessage},
};

/// How long a permit is kept that cannot be used.
const KEEP: Duration = Duration::from_millis(500);

/// The orders of a request, and those that are being played.
pub(super) struct Queue {
    call: Call,
    miners: Vec<Line>,
    at_a_time: usize,
    control: Control,
    /// Most that a miner has in flight; none where permits say it.
    per_miner: Option<usize>,
    number: HashMap<Hotkey, usize>,
    clock: Interval,
    playing: FuturesUnordered<BoxFuture<'static, (usize, u32, Called, Duration)>>,
    network: Arc<Network>,
    /// Probes of the canaries. They never end.
    watching: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Episodes whose fault is undecided.
    judging: FuturesUnordered<BoxFuture<'static, (u32, Box<EpisodeReport>, Blame)>>,
    /// How long ago a miner that answers may have answered last, and how long a call to a miner may take.
    action_timeout: Duration,
    patience: Duration,
    /// Whether the network is known to have failed: what begins now would be lost as well.
    is_cut_off: bool,
    /// Steps of the episodes that have ended.
    steps: u64,
    /// What is told next.
    said: VecDeque<Result<ServerMessage, Error>>,
    is_over: bool,
}

/// A miner's episodes that have not begun, in the order of the request.
struct Line {
    hotkey: Hotkey,
    endpoint: String,
    waiting: VecDeque<(usize, EpisodeOrder)>,
    in_flight: usize,
    permits: Permits,
    /// How long its episodes have kept the server busy, in earlier requests too.
    spent: Duration,
}

impl Line {
    fn who(&self) -> Who {
        let url = reqwest::Url::parse(&self.endpoint).ok();
        let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Who::new(&self.hotkey, host, host.parse().ok())
    }
}

impl Queue {
    pub(super) fn new(
        call: Call,
        request: EpisodesRequest,
        at_a_time: usize,
        control: Control,
        network: Arc<Network>,
    ) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let mut number: HashMap<Hotkey, usize> = HashMap::new();
        for (place, order) in request.episodes.into_iter().enumerate() {
            let line = *number.entry(order.hotkey.clone()).or_insert_with(|| {
                lines.push(Line {
                    hotkey: order.hotkey.clone(),
                    endpoint: order.endpoint.clone(),
                    waiting: VecDeque::new(),
                    in_flight: 0,
                    permits: Permits::default(),
                    spent: Duration::from_millis(request.spent_ms.get(&order.hotkey).copied().unwrap_or_default()),
                });
                lines.len() - 1
            });
            lines[line].waiting.push_back((place, order));
        }
        let mut clock = interval_at(Instant::now() + KEEP, KEEP);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = |canary| -> BoxFuture<'static, ()> { Box::pin(network.clone().watch(canary)) };
        Self {
            watching: request.canary.into_iter().map(watch).collect(),
            judging: FuturesUnordered::new(),
            action_timeout: Duration::from_millis(request.action_timeout_ms),
            patience: Duration::from_millis(request.action_timeout_ms.max(request.reset_timeout_ms)),
            is_cut_off: false,
            network,
            call,
            miners: lines,
            at_a_time,
            control,
            per_miner: (!request.permits).then_some(request.per_miner.max(1) as usize),
            number,
            clock,
            playing: FuturesUnordered::new(),
            steps: 0,
            said: VecDeque::new(),
            is_over: false,
        }
    }

    /// Everything that happens, in the words of our own servers.
    pub(super) fn messages(self) -> impl Stream<Item = Result<ServerMessage, Error>> + Send {
        stream::unfold(self, |mut queue| async move {
            let message = queue.next().await?;
            Some((message, queue))
        })
    }

    async fn next(&mut self) -> Option<Result<ServerMessage, Error>> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            if self.is_over {
                return None;
            }
            self.begin();
            if !self.said.is_empty() {
                continue;
            }
            if self.playing.is_empty() && self.judging.is_empty() && !self.is_waiting() {
                self.is_over = true;
                return Some(Ok(ServerMessage::End));
            }
            tokio::select! {
                Some((miner, order, called, took)) = self.playing.next() => {
                    self.spent(miner, took);
                    self.take(miner, order, called);
                }
                Some((order, report, blame)) = self.judging.next() => self.ended(order, blame.settle(*report)),
                Some(()) = self.watching.next() => {}
                Some(grant) = self.control.grants.recv() => self.granted(&grant),
                () = self.control.drain.cancelled(), if !self.control.drain.is_cancelled() => {}
                _ = self.clock.tick() => self.give_back(),
            }
        }
    }

    /// Call for as many episodes as there is room for.
    fn begin(&mut self) {
        while self.playing.len() < self.at_a_time && self.may_begin() {
            let Some(miner) = self.turn() else { return };
            let Some((_, order)) = self.miners[miner].waiting.pop_front() else { return };
            self.miners[miner].in_flight += 1;
            self.miners[miner].permits.take();
            self.said.push_back(Ok(ServerMessage::Started { order: order.order }));
            let call = self.call.clone();
            self.playing.push(Box::pin(async move {
                let begun = Instant::now();
                let called = call.play(&order).await;
                (miner, order.order, called, begun.elapsed())
            }));
        }
    }

    fn may_begin(&self) -> bool {
        !self.is_cut_off && !self.control.drain.is_cancelled()
    }

    /// The miner whose turn it is: of those with the fewest episodes in flight the one that has had the least of the server's
    /// time, and of several the one that comes first in the request.
    fn turn(&self) -> Option<usize> {
        let may = self.miners.iter().enumerate().filter(|(_, line)| match self.per_miner {
            Some(most) => line.in_flight < most,
            None => line.permits.left() > 0,
        });
        let waits = may.filter_map(|(miner, line)| Some((line.in_flight, line.spent, line.waiting.front()?.0, miner)));
        waits.min().map(|(.., miner)| miner)
    }

    /// Whether there is anything that may begin some time.
    fn is_waiting(&self) -> bool {
        self.may_begin() && self.miners.iter().any(|line| !line.waiting.is_empty())
    }

    fn granted(&mut self, grant: &Grant) {
        if let Some(miner) = self.number.get(&grant.hotkey) {
            self.miners[*miner].permits.grant(grant.total);
        }
    }

    /// Let others have the permits for which there is no room here.
    fn give_back(&mut self) {
        let miners: BTreeMap<Hotkey, u32> = self
            .number
            .iter()
            .map(|(hotkey, miner)| (hotkey.clone(), self.miners[*miner].permits.give_back() as u32))
            .filter(|(_, count)| *count > 0)
            .collect();
        if !miners.is_empty() {
            self.said.push_back(Ok(ServerMessage::Unused { miners }));
        }
    }

    fn spent(&mut self, miner: usize, took: Duration) {
        let line = &mut self.miners[miner];
        line.spent += took;
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.said.push_back(Ok(ServerMessage::Spent { hotkey: line.hotkey.clone(), ms }));
    }

    fn take(&mut self, miner: usize, order: u32, called: Called) {
        self.miners[miner].in_flight -= 1;
        match called {
            Called::Ended(report) => {
                if shows_an_answer(report.outcome) {
                    self.network.heard(&self.miners[miner].who(), self.action_timeout);
                }
                self.ended(order, *report);
            }
            Called::Undecided(report, condition) => self.judge(miner, order, report, condition),
            Called::Abandoned(report) => {
                let reason = "the server does not end what it has begun".to_owned();
                self.said.push_back(Ok(ServerMessage::Episode { order, report: *report }));
                self.end(Error::Cut { reason });
            }
            Called::NotBegun(error) => {
                self.said.push_back(Ok(ServerMessage::Returned { order, not_ready_ms: 0 }));
                self.end(error);
            }
            Called::Lost(error) => self.end(error),
        }
    }

    /// Wait for the canaries to say whose fault it was. The server's place is free meanwhile.
    fn judge(&mut self, miner: usize, order: u32, report: Box<EpisodeReport>, condition: Condition) {
        let who = self.miners[miner].who();
        if who.at == Neighbourhood::Here {
            return self.ended(order, *report);
        }
        if is_stranded(&who, Some(condition)) {
            let blame = Blame::Network("this machine has no default route".to_owned());
            return self.ended(order, blame.settle(*report));
        }
        let took = self.patience.min(Duration::from_secs_f64((report.wall_ms / 1000.0).max(0.0)));
        let undecided = self.network.undecided(who, condition, took);
        let blame = self.network.clone().judge(undecided, self.patience);
        self.judging.push(Box::pin(async move { (order, report, blame.await) }));
    }

    fn ended(&mut self, order: u32, report: EpisodeReport) {
        self.is_cut_off |= report.outcome == Outcome::InfraFault(InfraFault::Network);
        self.steps += u64::from(report.steps);
        self.said.push_back(Ok(ServerMessage::Episode { order, report }));
        self.said.push_back(Ok(ServerMessage::Progress { steps: self.steps, stalled_ms: 0 }));
    }

    fn end(&mut self, error: Error) {
        self.is_over = true;
        self.playing.clear();
        self.judging.clear();
        self.said.push_back(Err(error));
    }
}

/// Whether a miner was heard in an episode that ended so, towards its end.
fn shows_an_answer(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Success | Outcome::Failure => true,
        Outcome::MinerFault(fault) => fault.shows_an_answer() && fault != MinerFault::ActionTimeout,
        Outcome::InfraFault(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        address::Rules,
        cycle::Keep,
        manifest::simulation::Simulation,
        rollout::{
            affinetes::{call::Http, verdict},
            protocol::Origin,
        },
    };

    fn queue(miners: &[&str], per_miner: u32, at_a_time: usize) -> Queue {
        queue_with(miners, (per_miner, at_a_time), None)
    }

    fn queue_with(
        miners: &[&str],
        (per_miner, at_a_time): (u32, usize),
        grants: Option<UnboundedReceiver<Grant>>,
    ) -> Queue {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulation: Simulation = serde_json::from_value(serde_json::json!({
            "environment": "m/a", "determinism": "none", "max_steps": 5, "stop_on_success": false,
            "affinetes": { "env_id": "m/a", "use_images": false, "timeout_ms": 1000 },
        }))
        .unwrap();
        let order = |(order, miner): (u32, &&str)| EpisodeOrder {
            order,
            seed: order,
            episode_id: order.to_string(),
            hotkey: miner.parse().unwrap(),
            endpoint: "http://127.0.0.1:9".into(),
            origin: Origin::default(),
            keep: Keep::Nothing,
        };
        let request = EpisodesRequest {
            run: uuid::Uuid::nil(),
            environment: "m/a".parse().unwrap(),
            action_timeout_ms: 100,
            reset_timeout_ms: 5000,
            per_miner,
            permits: grants.is_some(),
            budget_ms: None,
            spent_ms: BTreeMap::default(),
            cold_start_ms: 1000,
            rules: Rules::none(),
            canary: Vec::new(),
            episodes: (0..).zip(miners).map(order).collect(),
        };
        let http = Http::new("http://127.0.0.1:9", "").unwrap();
        let drain = CancellationToken::new();
        let control = match grants {
            Some(grants) => Control { drain, grants },
            None => drain.into(),
        };
        Queue::new(Call::new(http, simulation, 100).unwrap(), request, at_a_time, control, Network::new())
    }

    fn begun(queue: &mut Queue) -> Vec<u32> {
        queue.begin();
        let started = queue.said.drain(..).map(|said| match said {
            Ok(ServerMessage::Started { order }) => order,
            other => panic!("{other:?}"),
        });
        started.collect()
    }

    #[tokio::test]
    async fn one_at_a_time_goes_by_the_order_of_the_request() {
        let mut queue = queue(&["a", "b", "a", "b"], 4, 1);
        assert_eq!(begun(&mut queue), [0]);
        assert_eq!(begun(&mut queue), [0; 0]);
    }

    #[tokio::test]
    async fn a_miner_takes_no_more_places_than_others_or_than_it_may() {
        assert_eq!(begun(&mut queue(&["a", "a", "a", "b", "b", "b"], 4, 4)), [0, 3, 1, 4]);
        assert_eq!(begun(&mut queue(&["a", "a", "a", "b"], 1, 4)), [0, 3]);
    }

    #[tokio::test]
    async fn with_permits_an_episode_is_called_for_once_there_is_one() {
        let (grants, receiver) = unbounded_channel();
        let mut queue = queue_with(&["a", "a", "b"], (16, 4), Some(receiver));
        assert_eq!(begun(&mut queue), [0; 0]);
        let grant = |hotkey: &str, total| {
            grants.send(Grant { hotkey: hotkey.parse().unwrap(), total, patience_ms: None }).unwrap();
        };
        grant("a", 1);
        grant("c", 5);
        assert!(matches!(queue.next().await, Some(Ok(ServerMessage::Started { order: 0 }))));
        grant("a", 2);
        grant("b", 1);
        for order in [1, 2] {
            let message = queue.next().await;
            assert!(matches!(message, Some(Ok(ServerMessage::Started { order: it })) if it == order), "{message:?}");
        }
    }

    #[tokio::test]
    async fn a_permit_for_which_there_is_no_room_goes_back() {
        let (_grants, receiver) = unbounded_channel();
        let mut queue = queue_with(&["a", "b"], (16, 1), Some(receiver));
        for miner in 0..2 {
            queue.miners[miner].permits.grant(1);
        }
        assert_eq!(begun(&mut queue), [0]);
        queue.give_back();
        assert!(queue.said.is_empty(), "it has only just come");
        queue.give_back();
        let said = queue.said.pop_front();
        let Some(Ok(ServerMessage::Unused { miners })) = said else { panic!("{said:?}") };
        assert_eq!(miners, [("b".parse().unwrap(), 1)].into());
    }

    #[tokio::test]
    async fn nothing_more_is_called_for_once_it_is_drained_and_the_rest_is_as_it_was() {
        let mut queue = queue(&["a", "b", "c"], 1, 1);
        assert_eq!(begun(&mut queue), [0]);
        queue.control.drain.cancel();
        queue.playing.clear();
        assert_eq!(begun(&mut queue), [0; 0]);
        assert!(matches!(queue.next().await, Some(Ok(ServerMessage::End))));
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn a_lost_server_ends_the_stream_and_what_never_began_is_given_back() {
        let mut queue = queue(&["a", "b"], 1, 1);
        assert_eq!(begun(&mut queue), [0]);
        queue.take(0, 0, Called::NotBegun(Error::Cut { reason: "gone".into() }));
        assert!(matches!(queue.said.pop_front(), Some(Ok(ServerMessage::Returned { order: 0, .. }))));
        assert!(matches!(queue.said.pop_front(), Some(Err(Error::Cut { .. }))));
        assert!(queue.is_over && queue.said.is_empty());
    }

    #[tokio::test]
    async fn a_call_that_does_not_end_is_reported_and_nothing_more_is_asked_of_that_server() {
        let mut queue = queue(&["a", "b", "c"], 1, 2);
        assert_eq!(begun(&mut queue), [0, 1]);
        let report =
            verdict::broken(&queue.call.simulation, Outcome::InfraFault(InfraFault::SimulatorTimeout), "late", 1.0);
        queue.take(0, 0, Called::Abandoned(Box::new(report)));
        assert!(matches!(queue.said.pop_front(), Some(Ok(ServerMessage::Episode { order: 0, .. }))));
        assert!(matches!(queue.said.pop_front(), Some(Err(Error::Cut { .. }))));
        assert!(queue.is_over && queue.playing.is_empty());
    }

    #[tokio::test]
    async fn the_miner_that_had_the_least_of_the_servers_time_comes_next() {
        let mut queue = queue(&["slow", "quick", "slow", "quick"], 1, 1);
        assert_eq!(begun(&mut queue), [0]);
        queue.playing.clear();
        for (miner, seconds) in [(0, 60), (1, 1)] {
            queue.miners[miner].in_flight = 0;
            queue.spent(miner, Duration::from_secs(seconds));
        }
        queue.said.clear();
        assert_eq!(begun(&mut queue), [1], "although the other has waited longer");
    }

    /// What becomes of an episode that timed out after a canary was probed with these results, the last one after the episode.
    async fn judged(before: bool, after: bool) -> Outcome {
        let mut queue = queue(&["a", "b"], 1, 1);
        queue.miners[0].endpoint = "http://8.8.8.8:9".into();
        assert_eq!(begun(&mut queue), [0]);
        queue.playing.clear();
        queue.network.probed(before);
        let late = Outcome::MinerFault(MinerFault::ActionTimeout);
        let report = verdict::broken(&queue.call.simulation, late, "Miner action timeout at step 3", 0.0);
        queue.take(0, 0, Called::Undecided(Box::new(report), Condition::Silence));
        queue.network.probed(after);
        let Some((order, report, blame)) = queue.judging.next().await else { panic!("it was decided at once") };
        queue.ended(order, blame.settle(*report));
        let Some(Ok(ServerMessage::Episode { report, .. })) = queue.said.pop_front() else { panic!("no report") };
        assert_eq!(queue.may_begin(), report.outcome.is_scored(), "nothing more begins without a network");
        report.outcome
    }

    #[tokio::test]
    async fn a_canary_tells_an_outage_from_a_miner_that_is_down() {
        let (ours, theirs) = (Outcome::InfraFault(InfraFault::Network), Outcome::MinerFault(MinerFault::ActionTimeout));
        assert_eq!(judged(true, false).await, ours);
        assert_eq!(judged(true, true).await, theirs);
        assert_eq!(judged(false, false).await, theirs, "a canary that never worked accuses nobody");
    }
}
