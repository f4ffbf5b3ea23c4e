//! Where the environment servers of this process run, as its operator has chosen. One for all cycles, which share its hosts.

use std::{path::PathBuf, sync::Arc};

use crate::config::{Place, RuntimeKind};
use crate::host::{Progress, ledger::Ledger};
use crate::runtime::{
    Error, Process, Runtime,
    docker::{Defaults, Docker, HostSpec, Hosts, Once, Overlay, Swarm},
};

/// What cycles are run with on this machine.
#[derive(Debug, Clone)]
pub struct Machine {
    data_dir: PathBuf,
    kind: RuntimeKind,
    hosts: Arc<Hosts>,
    defaults: Defaults,
    overlay: Overlay,
}

impl Machine {
    /// The machine as an operator has described it. Nothing is started or asked yet.
    ///
    /// # Errors
    /// What is wrong with the address of a host.
    pub fn new(data_dir: PathBuf, place: &Place) -> Result<Self, String> {
        let hosts: Vec<HostSpec> =
            place.engines.hosts().iter().map(|host| host.parse()).collect::<Result<_, String>>()?;
        let defaults = Defaults { image: place.eval_image.clone(), memory: place.eval_mem_limit };
        let overlay = if place.swarm_encrypt { Overlay::Encrypted } else { Overlay::Plain };
        Ok(Self { data_dir, kind: place.runtime, hosts: Arc::new(Hosts::new(&hosts)), defaults, overlay })
    }

    /// Where a cycle's environment servers run.
    ///
    /// # Errors
    /// [`Error::Executable`].
    pub(super) fn runtime(&self, progress: Progress, ledger: Arc<dyn Ledger>) -> Result<Arc<dyn Runtime>, Error> {
        Ok(match self.kind {
            RuntimeKind::Process => {
                Arc::new(Process::with_defaults(self.data_dir.clone(), progress)?.with_ledger(ledger))
            }
            RuntimeKind::Docker => Arc::new(self.docker(ledger)),
            RuntimeKind::Swarm => Arc::new(Swarm::new(self.docker(ledger), self.overlay)),
        })
    }

    /// Where a cycle's own programs run that come as images, whatever environment servers run as.
    pub(super) fn programs(&self, ledger: Arc<dyn Ledger>) -> Once {
        Once::new(self.docker(ledger))
    }

    fn docker(&self, ledger: Arc<dyn Ledger>) -> Docker {
        Docker::new(Arc::clone(&self.hosts), self.defaults.clone()).with_ledger(ledger)
    }
}
