//! One episode from `/reset` to its report. Guarantees a report whatever happens, and that the slot is free afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::address::Rules;
use crate::cycle::{Actions, EpisodeReport, Hotkey, InfraFault, Keep, MinerFault, Outcome, Party, plain_text};
use crate::host::Stalls;
use crate::manifest::simulation::{Adapter, Dialect, ImageEncoding, Simulation, SuccessRule};
use crate::manifest::summary::Summary;
use crate::miner::{Client, Fault, Frame, Image, Route, Session, TaskConfig, Timeouts};
use crate::rollout::{
    Canary,
    network::{Network, Undecided},
    protocol::EpisodeOrder,
};

use super::{
    budget::Budget,
    frame::{Ending, Request, View},
    latency,
    slots::Lease,
    witness::{Seen, Witness},
    worker::{CallError, Fate, Part, Worker},
};

/// What the episodes of a request have in common.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) client: Client,
    /// Who knows whether our own network works.
    pub(super) network: Arc<Network>,
    /// What that is told by.
    pub(super) canary: Vec<Canary>,
    pub(super) simulation: Simulation,
    /// How it is made, seen, acted in and judged.
    pub(super) adapter: Adapter,
    pub(super) timeouts: Timeouts,
    /// What each miner may take in this request.
    pub(super) budget: Option<Duration>,
    /// What miners took in earlier requests.
    pub(super) spent: BTreeMap<Hotkey, Duration>,
    /// How long each may take to be ready.
    pub(super) cold_start: Duration,
    /// Where their endpoints may lead.
    pub(super) rules: Rules,
    /// Steps of the request so far.
    pub(super) steps: AtomicU64,
    /// Of this process.
    pub(super) stalls: Arc<Stalls>,
}

/// An episode that can be played.
#[derive(Debug)]
pub(super) struct Episode {
    pub(super) stage: Arc<Stage>,
    pub(super) order: EpisodeOrder,
    pub(super) route: Result<Arc<Route>, Fault>,
    /// Of its miner.
    pub(super) budget: Arc<Budget>,
    /// How images travel to this miner.
    pub(super) encoding: ImageEncoding,
}

/// What an episode has come to so far.
#[derive(Default)]
struct Tally {
    steps: u32,
    total_reward: f64,
    last_reward: f64,
    /// Largest reward of a step; none before the first.
    best_reward: Option<f64>,
    latencies: Vec<Duration>,
    /// Numbers of all actions, when the order asks for them.
    actions: Vec<f64>,
}

/// Why an episode broke off.
enum Broken {
    Miner(Fault),
    /// The miner's fault, unless our network failed at the same time.
    Undecided(Fault, Undecided),
    Infra(InfraFault, String),
    /// The worker is gone, and this is what the episode had to do with it.
    Gone(Part, InfraFault, String),
}

/// What came of playing an episode.
#[derive(Debug)]
pub(super) enum Played {
    /// It has ended.
    Ended(EpisodeReport),
    /// It has ended in a fault that is the miner's unless our network failed at the same time.
    Undecided(EpisodeReport, Undecided),
    /// Its worker died, and it may have been the reason. The report is for the case that it was.
    Suspect(EpisodeReport),
    /// Its worker died while the episode was with its miner: it has nothing to do with that.
    Disturbed,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        match fault.party {
            Party::Miner | Party::Undecided => Self::Miner(fault),
            Party::Infrastructure(reason) => Self::Infra(reason, fault.detail),
        }
    }
}

impl From<Seen> for Broken {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Decided(fault) => fault.into(),
            Seen::Undecided(fault, undecided) => Self::Undecided(fault, undecided),
        }
    }
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => Self::Infra(InfraFault::SimulatorError, refusal.message),
            CallError::Gone(Fate::Hung, part) => {
                Self::Gone(part, InfraFault::SimulatorTimeout, Fate::Hung.describe().to_owned())
            }
            CallError::Gone(Fate::Starved, part) => {
                Self::Gone(part, InfraFault::Overloaded, Fate::Starved.describe().to_owned())
            }
            CallError::Gone(Fate::OutOfMemory(how), part) => {
                let detail = format!("the simulator's worker was killed for want of memory: {how}");
                Self::Gone(part, InfraFault::OutOfMemory, detail)
            }
            CallError::Gone(fate, part) => {
                let detail = format!("the simulator's worker is gone: {}", fate.describe());
                Self::Gone(part, InfraFault::ServerLost, detail)
            }
        }
    }
}

impl Episode {
    /// Play it to its end.
    pub(super) async fn play(self, mut lease: Lease) -> Played {
        let started = Instant::now();
        let mut tally = Tally::default();
        let result = self.drive(&mut lease, &mut tally).await;
        drop(lease);
        let part = match &result {
            Err(Broken::Gone(part, ..)) => *part,
            _ => Part::Culprit,
        };
        let (result, undecided) = match result {
            Err(Broken::Undecided(fault, undecided)) => (Err(Broken::Miner(fault)), Some(undecided)),
            result => (result, None),
        };
        let report = tally.report(&self.stage, self.order.keep, (result, started.elapsed()));
        if let Some(undecided) = undecided {
            return Played::Undecided(report, undecided);
        }
        match part {
            Part::Culprit => Played::Ended(report),
            Part::Suspect => Played::Suspect(report),
            Part::Bystander => Played::Disturbed,
        }
    }

    async fn drive(&self, lease: &mut Lease, tally: &mut Tally) -> Result<Ending, Broken> {
        let route = self.route.as_ref().map_err(Clone::clone)?;
        if !self.stage.client.can_verify(route) {
            let detail =
                "no CA certificates on the machine of the environment server: an https miner cannot be verified";
            return Err(Broken::Infra(InfraFault::Unhealthy, detail.to_owned()));
        }
        self.budget.check()?;
        let environment = &self.stage.simulation.environment;
        let (worker, slot) = {
            let (worker, slot) = lease.at();
            (worker.clone(), slot)
        };
        let task = TaskConfig::new(environment, &self.order.episode_id);
        let session = self.stage.client.session(route, task, self.stage.timeouts);
        // First the miner, which is cheap: one that is down costs the simulator nothing.
        let witness = Witness::new(&self.stage.network, &self.order.hotkey, route);
        let call = self.budget.begin();
        let told = witness.call(session.reset()).await;
        drop(call);
        told?;
        lease.begin();
        let view = worker.call(&Request::Reset { slot, environment, seed: self.order.seed }).await?;
        let ending = self.act((&session, &witness), (&worker, slot), view, tally).await?;
        lease.end();
        Ok(ending)
    }

    async fn act(
        &self,
        (session, witness): (&Session<'_>, &Witness),
        (worker, slot): (&Worker, u32),
        first: View,
        tally: &mut Tally,
    ) -> Result<Ending, Broken> {
        let mut view = first;
        loop {
            let frame = self.frame(&mut view)?;
            let call = self.budget.begin();
            let answer = witness.call(session.act(&frame, &self.stage.adapter.action)).await;
            drop(call);
            let answer = answer.inspect_err(|seen| {
                let fault = seen.fault();
                if fault.reason == MinerFault::ActionTimeout && !matches!(fault.party, Party::Infrastructure(_)) {
                    tally.latencies.push(self.stage.timeouts.action);
                }
            })?;
            tally.latencies.push(answer.latency);
            self.budget.check()?;
            view = worker.call(&Request::Step { slot, action: &answer.action }).await?;
            if self.order.keep != Keep::Nothing {
                tally.actions.extend_from_slice(&answer.action);
            }
            self.stage.steps.fetch_add(1, Ordering::Relaxed);
            tally.steps += 1;
            tally.total_reward += view.reward;
            tally.last_reward = view.reward;
            tally.best_reward = Some(tally.best_reward.map_or(view.reward, |best| best.max(view.reward)));
            if !tally.total_reward.is_finite() {
                let detail = format!("the simulator's reward is {}", view.reward);
                return Err(Broken::Infra(InfraFault::SimulatorError, detail));
            }
            if let Some(ending) = view.end {
                return Ok(ending);
            }
        }
    }

    /// What the miner sees of a view: the images must have the size the manifest says.
    fn frame(&self, view: &mut View) -> Result<Frame, Broken> {
        let observation = std::mem::take(&mut view.observation);
        let mut images = BTreeMap::new();
        for (name, camera) in &self.stage.adapter.observation.cameras {
            let rgb = view.images.remove(name).unwrap_or_default().into_vec();
            let (width, height) = (camera.width as usize, camera.height as usize);
            if rgb.len() != width * height * 3 {
                let detail = format!("the simulator's image `{name}` has {} bytes", rgb.len());
                return Err(Broken::Infra(InfraFault::SimulatorError, detail));
            }
            images.insert(name.clone(), Image { width, rgb });
        }
        let channels = match self.stage.adapter.dialect {
            Dialect::Native => None,
            Dialect::Canonical => Some(self.stage.adapter.observation.channels(&observation).ok_or_else(|| {
                let detail =
                    format!("the simulator's state has {} numbers, which the channels do not fit", observation.len());
                Broken::Infra(InfraFault::SimulatorError, detail)
            })?),
        };
        Ok(Frame { observation, channels, images, encoding: self.encoding })
    }
}

impl Tally {
    /// The episode in numbers, as its manifest judges it.
    fn summary(&self, simulation: &Simulation, ending: &Ending) -> Summary {
        Summary {
            steps: ending.steps,
            max_steps: simulation.max_steps,
            total_reward: ending.total_reward,
            best_reward: self.best_reward.unwrap_or(self.last_reward),
            last_reward: self.last_reward,
            terminated: ending.terminated,
        }
    }

    /// How an episode ended that came to its end: by the worker's word, or by an expression that it knows nothing of.
    fn judge(&self, stage: &Stage, ending: &Ending) -> Result<(Outcome, Option<f64>), String> {
        if !ending.total_reward.is_finite() {
            return Err(format!("the simulator's return is {}", ending.total_reward));
        }
        let summary = self.summary(&stage.simulation, ending);
        let success = match &stage.adapter.success.rule {
            SuccessRule::Expression(expression) => summary
                .holds(expression)
                .map_err(|error| format!("`success.rule.expression` says neither yes nor no: {error}"))?,
            _ => ending.success,
        };
        let outcome = if success { Outcome::Success } else { Outcome::Failure };
        Ok((outcome, stage.simulation.score.and_then(|score| score.of(&summary))))
    }

    fn report(self, stage: &Stage, keep: Keep, (result, wall): (Result<Ending, Broken>, Duration)) -> EpisodeReport {
        let infra = |fault, detail: &str| (Outcome::InfraFault(fault), Some(plain_text(detail)), None, None);
        let (outcome, detail, score, ending) = match result {
            Ok(ending) => match self.judge(stage, &ending) {
                Ok((outcome, score)) => (outcome, None, score, Some(ending)),
                Err(detail) => infra(InfraFault::SimulatorError, &detail),
            },
            // Where a fall costs reward, walking away in time must not pay.
            Err(Broken::Miner(fault) | Broken::Undecided(fault, _)) => {
                (Outcome::MinerFault(fault.reason), Some(fault.detail), stage.simulation.score.map(|_| 0.0), None)
            }
            Err(Broken::Infra(fault, detail) | Broken::Gone(_, fault, detail)) => infra(fault, &detail),
        };
        let is_kept = match keep {
            Keep::Nothing => false,
            Keep::Failures => outcome == Outcome::Failure,
            Keep::All => ending.is_some(),
        };
        EpisodeReport {
            outcome,
            detail,
            actions: is_kept.then(|| Actions::pack(&self.actions)).flatten(),
            steps: ending.as_ref().map_or(self.steps, |ending| ending.steps),
            total_reward: match &ending {
                Some(ending) => ending.total_reward,
                None if self.total_reward.is_finite() => self.total_reward,
                None => 0.0,
            },
            score,
            trajectory_hash: ending.map(|ending| ending.trajectory_hash),
            latency: latency::summary(self.latencies),
            wall_ms: wall.as_secs_f64() * 1000.0,
        }
    }
}

/// The report of an episode that never got to run.
pub(super) fn lost(detail: &str) -> EpisodeReport {
    EpisodeReport {
        outcome: Outcome::InfraFault(InfraFault::ServerLost),
        detail: Some(plain_text(detail)),
        steps: 0,
        total_reward: 0.0,
        score: None,
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms: 0.0,
    }
}
