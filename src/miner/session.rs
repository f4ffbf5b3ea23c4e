//! An episode as its miner sees it: `/reset`, then `/act` until it ends.

use std::{sync::atomic::AtomicU32, time::Duration};

use hyper::header::HeaderValue;

use crate::cycle::MinerFault;
use crate::manifest::simulation::Action;

use super::{Client, Fault, Frame, Route, TaskConfig, action, answer, client::Call};

/// How long a miner may take, from the last byte of the first request to the arrival of the last byte of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For `/reset`.
    pub reset: Duration,
    /// For `/act`.
    pub action: Duration,
}

/// An action that was answered in time and that the environment takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Numbers for the simulator.
    pub action: Vec<f64>,
    /// From the last byte of the first request to the arrival of the last byte of the answer.
    pub latency: Duration,
    /// From the beginning of the call, dialling included, to the same moment.
    pub wall: Duration,
}

/// An episode of one miner.
#[derive(Debug)]
pub struct Session<'a> {
    client: &'a Client,
    route: &'a Route,
    task: TaskConfig,
    episode_id: HeaderValue,
    timeouts: Timeouts,
    resends: AtomicU32,
}

/// How often an episode may send a request again: servers close idle connections at the same moment now and then.
const RESENDS: u32 = 3;

impl Client {
    /// An episode at the end of a route. Nothing is sent yet.
    pub fn session<'a>(&'a self, route: &'a Route, task: TaskConfig, timeouts: Timeouts) -> Session<'a> {
        // Episode ids are ours: hexadecimal words, which a header can always carry.
        let episode_id = HeaderValue::from_str(&task.episode_id).unwrap_or_else(|_| HeaderValue::from_static(""));
        Session { client: self, route, task, episode_id, timeouts, resends: AtomicU32::new(RESENDS) }
    }
}

impl Session<'_> {
    /// Tell the miner that the episode begins.
    ///
    /// # Errors
    /// The miner's fault.
    pub async fn reset(&self) -> Result<(), Fault> {
        let reply = self
            .client
            .post(&Call {
                route: self.route,
                target: &self.route.endpoint.targets.reset,
                episode_id: &self.episode_id,
                body: self.task.to_body(),
                deadline: self.timeouts.reset,
                late: MinerFault::ResetTimeout,
                // Nothing of the episode is known to it yet: it may say so without harm.
                busy: MinerFault::NotReady,
                resends: &self.resends,
            })
            .await?;
        answer::acknowledgement(&reply.body)
    }

    /// Show the miner a frame and ask what to do.
    ///
    /// # Errors
    /// The miner's fault.
    pub async fn act(&self, frame: &Frame, space: &Action) -> Result<Answer, Fault> {
        let reply = self
            .client
            .post(&Call {
                route: self.route,
                target: &self.route.endpoint.targets.act,
                episode_id: &self.episode_id,
                body: frame.to_body(),
                deadline: self.timeouts.action,
                late: MinerFault::ActionTimeout,
                busy: MinerFault::HttpError,
                resends: &self.resends,
            })
            .await?;
        // A space with channels is one of the canonical dialect.
        let numbers = match &space.channels[..] {
            [] => answer::action(&reply.body)?,
            channels => answer::channels(&reply.body, channels)?,
        };
        Ok(Answer { action: action::check(numbers, space)?, latency: reply.latency, wall: reply.wall })
    }
}
