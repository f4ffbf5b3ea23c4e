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
    /// What it said its model is.
    model: Option<String>,
    /// How long it may say that it is not ready, once it has said so to an episode.
    patience: Option<Instant>,
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
            model: None,
            patience: None,
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

    /// Whether an episode that ended so is to wait until the miner is ready: it has said so before it knew anything of the
    /// episode, and has not had all of the time it may take.
    pub(super) fn may_wait(&mut self, report: &EpisodeReport, cold_start: Duration) -> bool {
        if report.outcome != Outcome::MinerFault(MinerFault::NotReady) {
            return false;
        }
        let now = Instant::now();
        now < *self.patience.get_or_insert(now + cold_start)
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
