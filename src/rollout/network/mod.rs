//! Whether a failed call to a miner was the miner's doing or that of this machine's own network.
//!
//! `evidence.rs` decides and is pure. This module is its memory, one for all requests to a server. Calls to miners are reported
//! here, canaries are probed while episodes are played, and undecided failures wait here for their verdict. No slot is held
//! meanwhile.

mod evidence;
mod stranger;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::Canary;
use crate::address::{Place, place};
use crate::cycle::{Condition, EpisodeReport, InfraFault, Outcome, plain_text};
use crate::host::has_default_route;

use evidence::{Evidence, Failure, Found, Manner, Span, Verdict, WINDOW};

pub use stranger::{Neighbourhood, Who};

/// How often the evidence is looked at again while a verdict is awaited. Every call of every miner changes it; to be woken by
/// each would cost more.
const LOOK: Duration = Duration::from_millis(50);

/// Time for connections that began before a failure to fail as well.
const DIALLING: Duration = Duration::from_secs(2);

/// A failure whose party is not known yet.
#[derive(Debug)]
pub struct Undecided(Failure);

impl Undecided {
    fn new(who: Who, span: Span, condition: Condition) -> Self {
        let manner = if condition == Condition::NameLookup { Manner::Lookup } else { Manner::Connection };
        Self(Failure { who, span, manner })
    }
}

/// Who answers for a failure, in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// The miner.
    Miner,
    /// This machine's network, with the evidence.
    Network(String),
}

impl Blame {
    /// The report of an episode that ended in an undecided fault. It says the miner's fault until it is known to be the network's.
    pub fn settle(self, mut report: EpisodeReport) -> EpisodeReport {
        if let Self::Network(evidence) = self {
            let detail = report.detail.take().unwrap_or_default();
            report.detail = Some(plain_text(&format!("our network failed: {evidence}; {detail}")));
            report.outcome = Outcome::InfraFault(InfraFault::Network);
            report.score = None;
        }
        report
    }
}

/// The memory of a server.
#[derive(Debug)]
pub struct Network {
    began: Instant,
    state: Mutex<State>,
    /// A verdict is awaited from now on.
    alert: Notify,
}

#[derive(Debug, Default)]
struct State {
    evidence: Evidence,
    /// Verdicts that are awaited.
    awaited: usize,
    /// Canaries that are being probed, by number.
    probing: Vec<usize>,
}

impl Network {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), state: Mutex::default(), alert: Notify::new() })
    }

    /// A call to a miner begins.
    pub fn begin(self: &Arc<Self>, who: Who) -> Call {
        let from = self.now();
        self.lock().evidence.sent(&who, from);
        Call { network: self.clone(), who, from, is_open: true }
    }

    /// A third-party server has heard from a miner, and not longer than `ago` before now.
    pub fn heard(&self, who: &Who, ago: Duration) {
        let to = self.now();
        self.lock().evidence.answered(who, Span { from: to.saturating_sub(ago), to });
    }

    /// A third-party server could not reach a miner, and its call took no longer than `took`.
    pub fn undecided(&self, who: Who, condition: Condition, took: Duration) -> Undecided {
        let to = self.now();
        Undecided::new(who, Span { from: to.saturating_sub(took), to }, condition)
    }

    /// Probe a canary for as long as somebody asks it to. Several requests that name the same one share its probes.
    pub async fn watch(self: Arc<Self>, canary: Canary) {
        let name = canary.to_string();
        let number = self.lock().evidence.canary(&name, canary.is_named());
        loop {
            let Some(turn) = Turn::take(&self, number) else {
                let _ = timeout(self.pause(number), self.alert.notified()).await;
                continue;
            };
            let from = self.now();
            let found = match canary.probe().await {
                Ok(address) => Found::Works { is_local: matches!(place(address.ip()), Place::Local(_)) },
                Err(error) => {
                    tracing::debug!(%canary, %error, "the canary does not answer");
                    Found::Fails
                }
            };
            self.lock().evidence.probed(number, Span { from, to: self.now() }, found);
            drop(turn);
        }
    }

    /// How long until a canary is due. Never nothing: another request may be probing it.
    fn pause(&self, canary: usize) -> Duration {
        let state = self.lock();
        let due = state.evidence.is_due_at(canary, state.awaited > 0);
        due.saturating_sub(self.now()).max(LOOK)
    }

    /// Wait until it is known who answers for a failure; `patience` is the longest that a call may take.
    pub async fn judge(self: Arc<Self>, Undecided(failure): Undecided, patience: Duration) -> Blame {
        let _awaited = Awaited::new(&self);
        let until = failure.span.to + WINDOW.max(patience + DIALLING);
        loop {
            let verdict = self.lock().evidence.judge(&failure, self.now(), until);
            match verdict {
                Verdict::Wait => sleep(LOOK).await,
                Verdict::Miner => return Blame::Miner,
                Verdict::Network(evidence) => return Blame::Network(evidence),
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Network {
    /// A canary was probed just now.
    pub(crate) fn probed(&self, works: bool) {
        let at = self.now();
        let found = if works { Found::Works { is_local: false } } else { Found::Fails };
        let mut state = self.lock();
        let canary = state.evidence.canary("1.1.1.1:443", false);
        state.evidence.probed(canary, Span { from: at, to: at }, found);
    }
}

/// The right to probe a canary that is due.
struct Turn<'a> {
    network: &'a Network,
    canary: usize,
}

impl<'a> Turn<'a> {
    fn take(network: &'a Network, canary: usize) -> Option<Self> {
        let mut state = network.lock();
        let is_due = state.evidence.is_due_at(canary, state.awaited > 0) <= network.now();
        if !is_due || state.probing.contains(&canary) {
            return None;
        }
        state.probing.push(canary);
        drop(state);
        Some(Self { network, canary })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.network.lock().probing.retain(|canary| *canary != self.canary);
    }
}

/// A verdict that is awaited: canaries are probed more often meanwhile.
struct Awaited<'a>(&'a Network);

impl<'a> Awaited<'a> {
    fn new(network: &'a Network) -> Self {
        network.lock().awaited += 1;
        network.alert.notify_waiters();
        Self(network)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.lock().awaited -= 1;
    }
}

/// A call that is on its way. One that is dropped was given up.
#[derive(Debug)]
pub struct Call {
    network: Arc<Network>,
    who: Who,
    from: Duration,
    is_open: bool,
}

impl Call {
    /// The miner answered.
    pub fn answered(mut self) {
        self.is_open = false;
        let span = self.span();
        self.network.lock().evidence.answered(&self.who, span);
    }

    /// The call failed in a way that a dead network explains; `who` as far as it is known by now.
    pub fn failed(mut self, who: Who, condition: Condition) -> Undecided {
        self.is_open = false;
        let span = self.span();
        self.network.lock().evidence.failed(&who, span);
        Undecided::new(who, span, condition)
    }

    fn span(&self) -> Span {
        Span { from: self.from, to: self.network.now() }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_open {
            let now = self.network.now();
            self.network.lock().evidence.ended_otherwise(&self.who, now);
        }
    }
}

/// Whether this machine cannot reach any public address, which this miner's is, or which its name would have to be looked up
/// at. A miner cannot bring that about.
pub fn is_stranded(who: &Who, condition: Option<Condition>) -> bool {
    let needs_a_route = matches!(condition, Some(Condition::Unreachable | Condition::NameLookup));
    needs_a_route && !who.at.is_local() && !has_default_route()
}
