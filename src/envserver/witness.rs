//! What the calls to one miner tell of this machine's network.

use std::sync::Arc;

use crate::cycle::{Condition, Hotkey, MinerFault, Party};
use crate::miner::{Fault, Route};
use crate::rollout::network::{Call, Neighbourhood, Network, Undecided, Who, is_stranded};

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

impl Witness {
    /// The witness of a miner's calls.
    pub(super) fn new(network: &Arc<Network>, hotkey: &Hotkey, route: &Arc<Route>) -> Self {
        Self { network: network.clone(), hotkey: hotkey.clone(), route: route.clone() }
    }

    /// Make a call to the miner and report what came of it.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Seen> {
        let begun = self.network.begin(self.who());
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
        let begun = self.network.begin(self.who());
        match found {
            Ok(_) => begun.answered(),
            Err(fault) => drop(self.failed(begun, fault.clone())),
        }
    }

    fn failed(&self, begun: Call, fault: Fault) -> Seen {
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
        let is_stranded = is_stranded(&who, fault.condition);
        let undecided = begun.failed(who, fault.condition.unwrap_or(Condition::Silence));
        if is_stranded {
            let party = Condition::NoRoute.party();
            let detail = format!("this machine has no default route: {}", fault.detail);
            return Seen::Decided(Fault { party, ..Fault::new(fault.reason, detail) });
        }
        Seen::Undecided(fault, undecided)
    }

    fn who(&self) -> Who {
        Who::new(&self.hotkey, self.route.host(), self.route.address())
    }
}
