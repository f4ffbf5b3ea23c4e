//! Which episode is called for next, and what is told of it. Owns the calls that are on their way.
//!
//! A server that is lost ends the stream, as that of our own servers does: what had begun is then a fault of ours, and
//! what had not is as it was.

use std::collections::{HashMap, VecDeque};

use futures::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tokio_util::sync::CancellationToken;

use super::call::{Call, Called};
use crate::rollout::{
    Error,
    protocol::{EpisodeOrder, EpisodesRequest, ServerMessage},
};

/// The orders of a request, and those that are being played.
pub(super) struct Queue {
    call: Call,
    miners: Vec<Line>,
    at_a_time: usize,
    drain: CancellationToken,
    per_miner: usize,
    playing: FuturesUnordered<BoxFuture<'static, (usize, u32, Called)>>,
    /// Steps of the episodes that have ended.
    steps: u64,
    /// What is told next.
    said: VecDeque<Result<ServerMessage, Error>>,
    is_over: bool,
}

/// A miner's episodes that have not begun, in the order of the request.
#[derive(Default)]
struct Line {
    waiting: VecDeque<(usize, EpisodeOrder)>,
    in_flight: usize,
}

impl Queue {
    pub(super) fn new(call: Call, request: EpisodesRequest, at_a_time: usize, drain: CancellationToken) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let mut number: HashMap<String, usize> = HashMap::new();
        for (place, order) in request.episodes.into_iter().enumerate() {
            let line = *number.entry(order.hotkey.to_string()).or_insert_with(|| {
                lines.push(Line::default());
                lines.len() - 1
            });
            lines[line].waiting.push_back((place, order));
        }
        Self {
            call,
            miners: lines,
            at_a_time,
            drain,
            per_miner: request.per_miner.max(1) as usize,
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
            match self.playing.next().await {
                Some((miner, order, called)) => self.take(miner, order, called),
                None => {
                    self.is_over = true;
                    return Some(Ok(ServerMessage::End));
                }
            }
        }
    }

    /// Call for as many episodes as there is room for.
    fn begin(&mut self) {
        while self.playing.len() < self.at_a_time && !self.drain.is_cancelled() {
            let Some(miner) = self.turn() else { return };
            let Some((_, order)) = self.miners[miner].waiting.pop_front() else { return };
            self.miners[miner].in_flight += 1;
            self.said.push_back(Ok(ServerMessage::Started { order: order.order }));
            let call = self.call.clone();
            self.playing.push(Box::pin(async move { (miner, order.order, call.play(&order).await) }));
        }
    }

    /// Whose turn it is: of the miners with the fewest episodes in flight, the one who comes first in the request. So a slow
    /// one does not take every place.
    fn turn(&self) -> Option<usize> {
        let may = self.miners.iter().enumerate().filter(|(_, line)| line.in_flight < self.per_miner);
        let waits = may.filter_map(|(miner, line)| Some((line.in_flight, line.waiting.front()?.0, miner)));
        waits.min().map(|(_, _, miner)| miner)
    }

    fn take(&mut self, miner: usize, order: u32, called: Called) {
        self.miners[miner].in_flight -= 1;
        match called {
            Called::Ended(report) => {
                self.steps += u64::from(report.steps);
                self.said.push_back(Ok(ServerMessage::Episode { order, report: *report }));
                self.said.push_back(Ok(ServerMessage::Progress { steps: self.steps }));
            }
            Called::Abandoned(report) => {
                let reason = "the server does not end what it has begun".to_owned();
                self.said.push_back(Ok(ServerMessage::Episode { order, report: *report }));
                self.end(Error::Cut { reason });
            }
            Called::NotBegun(error) => {
                self.said.push_back(Ok(ServerMessage::Returned { order }));
                self.end(error);
            }
            Called::Lost(error) => self.end(error),
        }
    }

    fn end(&mut self, error: Error) {
        self.is_over = true;
        self.playing.clear();
        self.said.push_back(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::Rules,
        cycle::{InfraFault, Keep, Outcome},
        manifest::simulation::Simulation,
        rollout::{
            affinetes::{call::Http, verdict},
            protocol::Origin,
        },
    };

    fn queue(miners: &[&str], per_miner: u32, at_a_time: usize) -> Queue {
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
            budget_ms: None,
            cold_start_ms: 1000,
            rules: Rules::none(),
            canary: Vec::new(),
            episodes: (0..).zip(miners).map(order).collect(),
        };
        let http = Http::new("http://127.0.0.1:9", "").unwrap();
        Queue::new(Call::new(http, simulation, 100).unwrap(), request, at_a_time, CancellationToken::new())
    }

    fn begun(queue: &mut Queue) -> Vec<u32> {
        queue.begin();
        let started = queue.said.drain(..).map(|said| match said {
            Ok(ServerMessage::Started { order }) => order,
            other => panic!("{other:?}"),
        });
        started.collect()
    }

    #[test]
    fn one_at_a_time_goes_by_the_order_of_the_request() {
        let mut queue = queue(&["a", "b", "a", "b"], 4, 1);
        assert_eq!(begun(&mut queue), [0]);
        assert_eq!(begun(&mut queue), [0; 0]);
    }

    #[test]
    fn a_miner_takes_no_more_places_than_others_or_than_it_may() {
        assert_eq!(begun(&mut queue(&["a", "a", "a", "b", "b", "b"], 4, 4)), [0, 3, 1, 4]);
        assert_eq!(begun(&mut queue(&["a", "a", "a", "b"], 1, 4)), [0, 3]);
    }

    #[tokio::test]
    async fn nothing_more_is_called_for_once_it_is_drained_and_the_rest_is_as_it_was() {
        let mut queue = queue(&["a", "b", "c"], 1, 1);
        assert_eq!(begun(&mut queue), [0]);
        queue.drain.cancel();
        queue.playing.clear();
        assert_eq!(begun(&mut queue), [0; 0]);
        assert!(matches!(queue.next().await, Some(Ok(ServerMessage::End))));
        assert!(queue.next().await.is_none());
    }

    #[test]
    fn a_lost_server_ends_the_stream_and_what_never_began_is_given_back() {
        let mut queue = queue(&["a", "b"], 1, 1);
        assert_eq!(begun(&mut queue), [0]);
        queue.take(0, 0, Called::NotBegun(Error::Cut { reason: "gone".into() }));
        assert!(matches!(queue.said.pop_front(), Some(Ok(ServerMessage::Returned { order: 0 }))));
        assert!(matches!(queue.said.pop_front(), Some(Err(Error::Cut { .. }))));
        assert!(queue.is_over && queue.said.is_empty());
    }

    #[test]
    fn a_call_that_does_not_end_is_reported_and_nothing_more_is_asked_of_that_server() {
        let mut queue = queue(&["a", "b", "c"], 1, 2);
        assert_eq!(begun(&mut queue), [0, 1]);
        let report =
            verdict::broken(&queue.call.simulation, Outcome::InfraFault(InfraFault::SimulatorTimeout), "late", 1.0);
        queue.take(0, 0, Called::Abandoned(Box::new(report)));
        assert!(matches!(queue.said.pop_front(), Some(Ok(ServerMessage::Episode { order: 0, .. }))));
        assert!(matches!(queue.said.pop_front(), Some(Err(Error::Cut { .. }))));
        assert!(queue.is_over && queue.playing.is_empty());
    }
}
