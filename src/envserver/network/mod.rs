//! Whether a failed call to a miner was the miner's doing or that of this machine's own network.
//!
//! `evidence.rs` decides and is pure; this is its memory, one for all requests of a server. Every call to a miner is reported
//! here, canaries are probed while episodes are played, and whoever has an undecided failure waits here for the verdict. No
//! slot is held meanwhile.

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

use crate::address::{Place, place};
use crate::cycle::{Condition, Hotkey, MinerFault, Party};
use crate::host::has_default_route;
use crate::miner::{Fault, Route};
use crate::rollout::Canary;

use evidence::{Evidence, Failure, Found, Manner, Span, Verdict, WINDOW};
use stranger::{Neighbourhood, Who};

/// How often the evidence is looked at again while a verdict is awaited. Every call of every miner changes it; to be woken by
/// each would cost more.
const LOOK: Duration = Duration::from_millis(50);

/// Time for connections that began before a failure to fail as well.
const DIALLING: Duration = Duration::from_secs(2);

/// A failure whose party is not known yet.
#[derive(Debug)]
pub(super) struct Undecided(Failure);

/// Who answers for a failure, in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blame {
    /// The miner.
    Miner,
    /// This machine's network, with the evidence.
    Network(String),
}

/// The memory of a server.
#[derive(Debug)]
pub(super) struct Network {
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
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), state: Mutex::default(), alert: Notify::new() })
    }

    /// A miner's side of what is reported here.
    pub(super) fn witness(self: &Arc<Self>, hotkey: &Hotkey, route: &Arc<Route>) -> Witness {
        Witness { network: self.clone(), hotkey: hotkey.clone(), route: route.clone() }
    }

    /// Probe a canary for as long as somebody asks it to. Several requests that name the same one share its probes.
    pub(super) async fn watch(self: Arc<Self>, canary: Canary) {
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
    pub(super) async fn judge(self: Arc<Self>, Undecided(failure): Undecided, patience: Duration) -> Blame {
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

/// Reports the calls to one miner.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    network: Arc<Network>,
    hotkey: Hotkey,
    route: Arc<Route>,
}

/// What a failed call comes to at once.
#[derive(Debug)]
pub(super) enum Seen {
    /// What the fault itself says.
    Decided(Fault),
    /// Nobody knows yet whose it is.
    Undecided(Fault, Undecided),
}

impl Seen {
    /// What went wrong.
    pub(super) fn fault(&self) -> &Fault {
        match self {
            Self::Decided(fault) | Self::Undecided(fault, _) => fault,
        }
    }
}

/// A call that is on its way. One that is dropped was given up.
struct Call {
    network: Arc<Network>,
    who: Who,
    from: Duration,
    is_open: bool,
}

impl Witness {
    /// Make a call to the miner and report what came of it.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Seen> {
        let begun = Call::begin(self);
        match call.await {
            Ok(answer) => {
                begun.answered();
                Ok(answer)
            }
            Err(fault) => Err(self.failed(begun, fault)),
        }
    }

    /// Report how a miner was found before its episodes.
    pub(super) fn found<T>(&self, found: Result<T, &Fault>) {
        let begun = Call::begin(self);
        match found {
            Ok(_) => begun.answered(),
            Err(fault) => drop(self.failed(begun, fault.clone())),
        }
    }

    fn failed(&self, mut begun: Call, fault: Fault) -> Seen {
        if fault.reason.shows_an_answer() && fault.reason != MinerFault::ActionTimeout {
            begun.answered();
            return Seen::Decided(fault);
        }
        // No network leads to this machine itself.
        let who = self.who();
        if fault.party != Party::Undecided || who.at == Neighbourhood::Here {
            let party = if fault.party == Party::Undecided { Party::Miner } else { fault.party };
            return Seen::Decided(Fault { party, ..fault });
        }
        if is_stranded(&who, &fault) {
            begun.failed(&who);
            let party = Condition::NoRoute.party();
            let detail = format!("this machine has no default route: {}", fault.detail);
            return Seen::Decided(Fault { party, ..Fault::new(fault.reason, detail) });
        }
        let span = begun.failed(&who);
        let manner = match fault.condition {
            Some(Condition::NameLookup) => Manner::Lookup,
            _ => Manner::Connection,
        };
        Seen::Undecided(fault, Undecided(Failure { who, span, manner }))
    }

    fn who(&self) -> Who {
        Who::new(&self.hotkey, self.route.host(), self.route.address())
    }
}

/// Whether the machine cannot reach any public address, which this miner's is, or which its name would have to be looked up
/// at. A miner cannot bring that about.
fn is_stranded(who: &Who, fault: &Fault) -> bool {
    let needs_a_route = matches!(fault.condition, Some(Condition::Unreachable | Condition::NameLookup));
    needs_a_route && !who.at.is_local() && !has_default_route()
}

impl Call {
    fn begin(witness: &Witness) -> Self {
        let (network, who) = (witness.network.clone(), witness.who());
        let from = network.now();
        network.lock().evidence.sent(&who, from);
        Self { network, who, from, is_open: true }
    }

    fn answered(mut self) {
        self.is_open = false;
        let span = self.span();
        self.network.lock().evidence.answered(&self.who, span);
    }

    fn failed(&mut self, who: &Who) -> Span {
        self.is_open = false;
        let span = self.span();
        self.network.lock().evidence.failed(who, span);
        span
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
