//! A miner as one request knows it: the way to it, what it may take, and how long it may still be getting ready.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::address::Rules;
use crate::cycle::{EpisodeReport, Hotkey, MinerFault, MinerStatus, Outcome, Seen};
use crate::manifest::simulation::ImageEncoding;
use crate::miner::{Client, Fault, Health, NotReady, Peer, Route};
use crate::rollout::protocol::{EpisodeOrder, Origin};

use super::{budget::Budget, episode::Stage};

/// A miner of a request.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) hotkey: Hotkey,
    /// None to an endpoint that may not be called.
    pub(super) route: Result<Arc<Route>, Fault>,
    pub(super) budget: Arc<Budget>,
    /// How images travel; lists until its `/health` has said what it accepts.
    pub(super) encoding: ImageEncoding,
    /// Episodes that it can play at a time, once it has answered `/health`.
    pub(super) max_concurrency: Option<u32>,
    /// What it said its model is.
    model: Option<String>,
    /// How long it may still say to an episode that it is not ready.
    patience: Duration,
    /// Time up to here was taken from its patience already.
    counted_to: Option<Instant>,
}

/// What a miner's episodes waited for.
#[derive(Debug)]
pub(super) enum Waited {
    /// It was asked for its health.
    Woken(Result<Health, NotReady>),
    /// It rested.
    Rested,
}

impl Guest {
    /// The miner of an order.
    pub(super) fn new(order: &EpisodeOrder, stage: &Stage) -> Self {
        let rules = match order.origin {
            Origin::Stranger => stage.rules.clone(),
            Origin::Ourselves => Rules::none(),
        };
        Self {
            hotkey: order.hotkey.clone(),
            route: Route::new(&order.endpoint, rules).map(Arc::new),
            budget: Arc::new(Budget::new(stage.budget, stage.spent.get(&order.hotkey).copied().unwrap_or_default())),
            encoding: ImageEncoding::default(),
            max_concurrency: None,
            model: None,
            patience: stage.cold_start,
            counted_to: None,
        }
    }

    /// Wake it up, outside of its clock.
    pub(super) fn wake(&self, client: &Client, patience: Duration) -> impl Future<Output = Waited> + Send + use<> {
        let (client, route) = (client.clone(), self.route.clone());
        async move {
            Waited::Woken(match route {
                Ok(route) => client.health(&route, patience).await,
                Err(fault) => Err(NotReady { status: MinerStatus::Refused, fault }),
            })
        }
    }

    /// Take in how it was found; what is to be told of that.
    pub(super) fn woken(&mut self, found: Result<Health, NotReady>, stage: &Stage) -> Seen {
        match found {
            Ok(health) => {
                self.encoding = stage.adapter.observation.encoding(&health.accepts);
                self.max_concurrency = Some(health.max_concurrency.unwrap_or(1));
                self.model = health.model;
                self.seen(MinerStatus::Active, None)
            }
            Err(NotReady { status, fault }) => {
                if status == MinerStatus::Refused {
                    self.route = Err(fault.clone());
                }
                self.seen(status, Some(fault.detail))
            }
        }
    }

    /// What is to be told of a miner that answers from elsewhere, or as somebody else, than it did before.
    pub(super) fn news(&self) -> Option<Seen> {
        let peer = self.route.as_ref().ok()?.news()?;
        Some(self.seen_at(Some(peer), MinerStatus::Active, None))
    }

    /// The engine says what is left of its patience, in all environments of the cycle together.
    pub(super) fn has_left(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether an episode that ended so is to wait until the miner is ready: it has said so before it knew anything of the
    /// episode, and has not had all of the time it may take.
    pub(super) fn may_wait(&self, report: &EpisodeReport) -> bool {
        report.outcome == Outcome::MinerFault(MinerFault::NotReady) && !self.patience.is_zero()
    }

    /// It was not ready for an episode, and rests now: how much of its patience that takes. What several episodes lose at the
    /// same time counts once.
    pub(super) fn wait(&mut self, report: &EpisodeReport, rest: Duration) -> Duration {
        let lost = Duration::try_from_secs_f64(report.wall_ms / 1000.0).unwrap_or_default() + rest;
        let now = Instant::now();
        let from = self.counted_to.map_or(now, |counted_to| counted_to.max(now));
        let new = (now + lost).saturating_duration_since(from);
        self.counted_to = Some(from + new);
        self.patience = self.patience.saturating_sub(new);
        lost
    }

    fn seen(&self, status: MinerStatus, detail: Option<String>) -> Seen {
        let peer = self.route.as_ref().ok().and_then(|route| route.news());
        self.seen_at(peer, status, detail)
    }

    fn seen_at(&self, peer: Option<Peer>, status: MinerStatus, detail: Option<String>) -> Seen {
        Seen {
            detail,
            address: peer.as_ref().map(|peer| peer.address.ip().to_string()),
            certificate: peer.and_then(|peer| peer.certificate),
            model: self.model.clone(),
            ..Seen::new(status)
        }
    }
}
