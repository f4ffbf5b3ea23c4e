//! One episode from `/reset` to its report. Guarantees a report whatever happens, and that the slot is free afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::cycle::{EpisodeReport, InfraFault, MinerFault, Outcome};
use crate::manifest::simulation::Simulation;
use crate::miner::{Client, Endpoint, Fault, Frame, Image, InvalidEndpoint, Session, TaskConfig, Timeouts, plain_text};
use crate::rollout::protocol::EpisodeOrder;

use super::{
    budget::Budget,
    frame::{Ending, Request, View},
    latency,
    slots::Lease,
    worker::{CallError, Fate, Part, Worker},
};

/// What the episodes of a request have in common.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) simulation: Simulation,
    pub(super) timeouts: Timeouts,
    /// What each miner may take in this request.
    pub(super) budget: Option<Duration>,
    /// Steps of the request so far.
    pub(super) steps: AtomicU64,
}

/// An episode that can be played.
#[derive(Debug)]
pub(super) struct Episode {
    pub(super) stage: Arc<Stage>,
    pub(super) order: EpisodeOrder,
    pub(super) endpoint: Result<Endpoint, InvalidEndpoint>,
    /// Of its miner.
    pub(super) budget: Arc<Budget>,
}

/// What an episode has come to so far.
#[derive(Default)]
struct Tally {
    steps: u32,
    total_reward: f64,
    latencies: Vec<Duration>,
}

/// Why an episode broke off.
enum Broken {
    Miner(Fault),
    Infra(InfraFault, String),
    /// The worker is gone, and this is what the episode had to do with it.
    Gone(Part, InfraFault, String),
}

/// What came of playing an episode.
#[derive(Debug)]
pub(super) enum Played {
    /// It has ended.
    Ended(EpisodeReport),
    /// Its worker died, and it may have been the reason. The report is for the case that it was.
    Suspect(EpisodeReport),
    /// Its worker died while the episode was with its miner: it has nothing to do with that.
    Disturbed,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Miner(fault)
    }
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => Self::Infra(InfraFault::SimulatorError, refusal.message),
            CallError::Gone(Fate::Hung, part) => {
                Self::Gone(part, InfraFault::SimulatorTimeout, Fate::Hung.describe().to_owned())
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
        let report = tally.report(result, started.elapsed());
        match part {
            Part::Culprit => Played::Ended(report),
            Part::Suspect => Played::Suspect(report),
            Part::Bystander => Played::Disturbed,
        }
    }

    async fn drive(&self, lease: &mut Lease, tally: &mut Tally) -> Result<Ending, Broken> {
        let endpoint =
            self.endpoint.as_ref().map_err(|error| Fault::new(MinerFault::ConnectionError, error.to_string()))?;
        self.budget.check()?;
        let environment = &self.stage.simulation.environment;
        let (worker, slot) = {
            let (worker, slot) = lease.at();
            (worker.clone(), slot)
        };
        let task = TaskConfig::new(environment, &self.order.episode_id);
        let session = self.stage.client.session(endpoint, task, self.stage.timeouts);
        // First the miner, which is cheap: one that is down costs the simulator nothing.
        let asked = Instant::now();
        let told = session.reset().await;
        self.budget.spend(asked.elapsed());
        told?;
        lease.begin();
        let view = worker.call(&Request::Reset { slot, environment, seed: self.order.seed }).await?;
        let ending = self.act(&session, (&worker, slot), view, tally).await?;
        lease.end();
        Ok(ending)
    }

    async fn act(
        &self,
        session: &Session<'_>,
        (worker, slot): (&Worker, u32),
        first: View,
        tally: &mut Tally,
    ) -> Result<Ending, Broken> {
        let mut view = first;
        loop {
            let frame = self.frame(&mut view)?;
            let asked = Instant::now();
            let answer = session.act(&frame, &self.stage.simulation.action).await;
            self.budget.spend(answer.as_ref().map_or_else(|_| asked.elapsed(), |answer| answer.latency));
            let answer = answer?;
            tally.latencies.push(answer.latency);
            self.budget.check()?;
            view = worker.call(&Request::Step { slot, action: &answer.action }).await?;
            self.stage.steps.fetch_add(1, Ordering::Relaxed);
            tally.steps += 1;
            tally.total_reward += view.reward;
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
        let mut images = std::collections::BTreeMap::new();
        for (name, camera) in &self.stage.simulation.observation.cameras {
            let rgb = view.images.remove(name).unwrap_or_default().into_vec();
            let (width, height) = (camera.width as usize, camera.height as usize);
            if rgb.len() != width * height * 3 {
                let detail = format!("the simulator's image `{name}` has {} bytes", rgb.len());
                return Err(Broken::Infra(InfraFault::SimulatorError, detail));
            }
            images.insert(name.clone(), Image { width, rgb });
        }
        Ok(Frame { observation, images })
    }
}

impl Tally {
    fn report(self, result: Result<Ending, Broken>, wall: Duration) -> EpisodeReport {
        let latency = latency::summary(self.latencies);
        let (outcome, detail, ending) = match result {
            Ok(ending) if ending.total_reward.is_finite() => {
                (if ending.success { Outcome::Success } else { Outcome::Failure }, None, Some(ending))
            }
            Ok(ending) => {
                let detail = format!("the simulator's return is {}", ending.total_reward);
                (Outcome::InfraFault(InfraFault::SimulatorError), Some(detail), None)
            }
            Err(Broken::Miner(fault)) => (Outcome::MinerFault(fault.reason), Some(fault.detail), None),
            Err(Broken::Infra(fault, detail) | Broken::Gone(_, fault, detail)) => {
                (Outcome::InfraFault(fault), Some(plain_text(&detail)), None)
            }
        };
        EpisodeReport {
            outcome,
            detail,
            steps: ending.as_ref().map_or(self.steps, |ending| ending.steps),
            total_reward: match &ending {
                Some(ending) => ending.total_reward,
                None if self.total_reward.is_finite() => self.total_reward,
                None => 0.0,
            },
            trajectory_hash: ending.map(|ending| ending.trajectory_hash),
            latency,
            wall_ms: wall.as_secs_f64() * 1000.0,
        }
    }
}

/// The report of an episode that never got to run.
pub(super) fn lost(detail: &str) -> EpisodeReport {
    let broken = Broken::Infra(InfraFault::ServerLost, detail.to_owned());
    Tally::default().report(Err(broken), Duration::ZERO)
}
