//! A validator that runs: asks the backend, looks at the chain, and sets weights when they are due. Whatever fails is told and
//! tried again; only being told to stop ends it.
//!
//! It remembers nothing that matters: when weights were last set, and which, stands on the chain, and the document is asked for
//! anew. Only weights that the chain has not revealed yet are known to the process alone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::{
    backend::{Answer, Backend},
    document::Document,
    emission::Done,
    pace::{Cadence, Watchdog, pause},
    plan::{Plan, Terms},
    report::{Part, Report},
    trouble::Trouble,
};
use crate::chain::{Network, Patience, Subnet, Wallet};

/// The longest time between two looks at the chain.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// How a validator works.
#[derive(Debug)]
pub struct Settings {
    /// The chain.
    pub network: Network,
    /// How long its nodes are waited for.
    pub patience: Patience,
    /// What documents have to be, and what is added to them.
    pub terms: Terms,
    /// How often weights are set.
    pub cadence: Cadence,
    /// How often the backend is asked.
    pub poll: Duration,
    /// Submissions that may be missed before it is unwell.
    pub missed: u32,
}

/// What a turn has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Weights were set.
    Set(Done),
    /// It is too early.
    NotDue {
        /// The best block.
        block: u64,
        /// The block from which on weights are set again.
        due: u64,
        /// How long until then.
        wait: Duration,
    },
}

/// A validator.
pub struct Validator {
    settings: Settings,
    wallet: Wallet,
    backend: Backend,
    document: Option<Document>,
    report: Report,
    failures: u32,
    /// The weights that this process set last, which the chain may not have revealed yet.
    last: Option<BTreeMap<u16, u16>>,
}

impl Validator {
    /// One that has done nothing yet.
    pub fn new(settings: Settings, wallet: Wallet, backend: Backend) -> Self {
        let report = Report::new(Watchdog::new(settings.missed, Instant::now()));
        Self { settings, wallet, backend, document: None, report, failures: 0, last: None }
    }

    /// How it is.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// The document in use.
    pub fn document(&self) -> Option<&Document> {
        self.document.as_ref()
    }

    /// Turn after turn, until it is told to stop. What is on its way to the chain then gets there or not without us: the
    /// next start sees it.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.turns() => {}
        }
    }

    async fn turns(&mut self) {
        loop {
            let rest = match self.turn().await {
                Ok(Turn::NotDue { wait, .. }) => wait.min(LONGEST_REST),
                Ok(Turn::Set(_)) => self.settings.poll,
                Err(_) => pause(LONGEST_REST, self.failures),
            };
            self.report.watch();
            self.rest(rest).await;
        }
    }

    /// Wait, and keep an eye on the backend meanwhile.
    async fn rest(&mut self, rest: Duration) {
        let end = Instant::now() + rest;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let poll = pause(self.settings.poll, 0);
            tokio::time::sleep(left.min(poll)).await;
            if left <= poll {
                return;
            }
            // What it comes to is told by the next turn.
            let _ = self.fetch().await;
            self.report.watch();
        }
    }

    /// Ask the backend, look at the chain, and set weights if they are due.
    ///
    /// # Errors
    /// [`Trouble`]: why weights that are due were not set. It has been told and counted.
    pub async fn turn(&mut self) -> Result<Turn, Trouble> {
        let fetched = self.fetch().await;
        let turn = self.attempt(fetched).await;
        self.failures = if turn.is_ok() { 0 } else { self.failures.saturating_add(1) };
        turn
    }

    async fn attempt(&mut self, fetched: Result<(), Trouble>) -> Result<Turn, Trouble> {
        let subnet = self.look().await?;
        let (block, due) = (subnet.block, self.settings.cadence.due(&subnet));
        if block < due {
            let blocks = u32::try_from(due - block).unwrap_or(u32::MAX);
            tracing::debug!(block, due, "weights are not due");
            return Ok(Turn::NotDue { block, due, wait: subnet.block_time.saturating_mul(blocks) });
        }
        // Without a document the backend's trouble is the trouble, and has been told; with an older one it is not.
        let Some(document) = self.document.clone() else { return Err(fetched.err().unwrap_or(Trouble::Nothing)) };
        let set = self.set(&document, subnet).await;
        if let Err(Trouble::Distrust(_)) = &set {
            // A later cycle that comes to the same vector may have the same `ETag`: ask for all of it.
            self.backend.keep(None);
        }
        match &set {
            Ok(done) => {
                self.report.works(Part::Weights);
                tracing::info!(block = done.block, extrinsic = done.extrinsic, "{done}");
            }
            Err(trouble) => self.report.trouble(Part::Weights, trouble),
        }
        set.map(Turn::Set)
    }

    async fn set(&mut self, document: &Document, mut subnet: Subnet) -> Result<Done, Trouble> {
        if let (Some(seat), Some(last)) = (&mut subnet.seat, &self.last) {
            seat.weights.clone_from(last);
        }
        let Settings { network, patience, cadence, .. } = &self.settings;
        let interval = cadence.blocks(&subnet);
        let plan = Plan::make(document, subnet, self.wallet.hotkey(), &self.settings.terms, Utc::now())?;
        for burnt in &plan.vector.burnt {
            tracing::info!(payee = burnt.payee, "{:.2} % is burnt: {}", 100.0 * burnt.share, burnt.why);
        }
        let done = plan.submit(network, &self.wallet, *patience).await?;
        let amounts = &plan.vector.amounts;
        self.last = Some(amounts.uids.iter().copied().zip(amounts.values.iter().copied()).collect());
        self.report.done(&done, plan.vector.burnt_share(), done.block + interval);
        Ok(done)
    }

    /// Look at the chain.
    async fn look(&self) -> Result<Subnet, Trouble> {
        let Settings { network, patience, terms, cadence, .. } = &self.settings;
        let read = Subnet::read(network, terms.demands.netuid, self.wallet.hotkey(), *patience).await;
        let subnet = read.map_err(Trouble::Chain).inspect_err(|trouble| self.report.trouble(Part::Chain, trouble))?;
        self.report.works(Part::Chain);
        let due = cadence.due(&subnet);
        self.report.saw(subnet.block, due, |watchdog| watchdog.saw(&subnet, *cadence, Instant::now()));
        Ok(subnet)
    }

    /// Ask the backend. A document that is not believed leaves the one before it in use, for as long as that is not too old.
    async fn fetch(&mut self) -> Result<(), Trouble> {
        let asked = self.ask().await;
        match &asked {
            Ok(()) => self.report.works(Part::Backend),
            Err(trouble) => self.report.trouble(Part::Backend, trouble),
        }
        asked
    }

    async fn ask(&mut self) -> Result<(), Trouble> {
        let (document, etag) = match self.backend.ask().await? {
            Answer::Unchanged => return Ok(()),
            Answer::Nothing => return Err(Trouble::Nothing),
            Answer::New(document, etag) => (document, etag),
        };
        self.settings.terms.demands.content(&document, etag.as_deref(), self.document.as_ref())?;
        let (cycle, status) = (document.cycle.as_deref().unwrap_or("-"), document.status.word());
        if self.document.as_ref() != Some(&*document) {
            let reason = document.reason.as_deref().unwrap_or_default();
            tracing::info!(cycle, status, reason, block = document.block, "the backend has a new document");
        }
        self.report.has(&document);
        self.backend.keep(etag);
        self.document = Some(*document);
        Ok(())
    }

    /// What would be submitted now, whether it is due or not. Nothing is signed.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn plan(&mut self) -> Result<(Document, Plan), Trouble> {
        self.ask().await?;
        let document = self.document.clone().ok_or(Trouble::Nothing)?;
        let Settings { network, patience, terms, .. } = &self.settings;
        let subnet = Subnet::read(network, terms.demands.netuid, self.wallet.hotkey(), *patience).await?;
        let plan = Plan::make(&document, subnet, self.wallet.hotkey(), terms, Utc::now())?;
        Ok((document, plan))
    }

    /// Set weights now, whether they are due or not.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn once(&mut self) -> Result<Done, Trouble> {
        let (_, plan) = self.plan().await?;
        plan.submit(&self.settings.network, &self.wallet, self.settings.patience).await
    }
}
