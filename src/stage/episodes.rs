//! `episodes/run`: every miner's episodes in one environment.
//!
//! All episodes stand in the journal before the first one runs. Each outcome is written down as it arrives; our own
//! faults are run again on a server that answers, up to the declared number of tries.

mod closing;
mod unexplained;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    Context, EpisodeProgress, Error, Invocation, Output, chain, config,
    outage::{Brought, Outage},
    permits::{Asked, Member},
    sealed::{self, Hidden},
    servers::{self, Ready},
    shares::{self, Heard, Share},
};
use crate::cycle::{
    EnvironmentId, Episode, EpisodeKey, EpisodeReport, FailureClass, Hotkey, InfraFault, Journal, Keep, Miner,
    MinerFault, MinerStatus, Outcome, PendingEpisode, Seen, Sighting, TaskFailure,
};
use crate::plan::{Environment, closing_time, wall_budget};
use crate::rollout::{
    self, Canary, Control,
    protocol::{EpisodeOrder, EpisodesRequest, Origin, ServerMessage},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    miners: Vec<Miner>,
    episodes: u32,
    environment: EnvironmentId,
    per_miner: u32,
    budget_seconds: Option<u64>,
    attempts: u32,
    #[serde(default)]
    keep_actions: Retention,
    #[serde(default = "some")]
    keep_share: f64,
}

/// Which episodes keep their actions, as the pipeline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Retention {
    #[default]
    Nothing,
    Failures,
    Sample,
    All,
}

/// The share of a sample that says none.
fn some() -> f64 {
    0.01
}

impl Settings {
    /// Whether the episode of this id keeps its actions. A sample follows from the id, which nobody chooses: the same
    /// episodes are kept whoever runs them, and however often.
    fn keep(&self, episode_id: &str) -> Keep {
        match self.keep_actions {
            Retention::Nothing => Keep::Nothing,
            Retention::Failures => Keep::Failures,
            Retention::All => Keep::All,
            Retention::Sample => {
                let draw = episode_id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let is_drawn = draw.is_some_and(|draw| f64::from(draw) < self.keep_share * f64::from(u32::MAX));
                if is_drawn { Keep::All } else { Keep::Nothing }
            }
        }
    }
}

pub(super) async fn run<J: Journal>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, Error> {
    let mut settings: Settings = invocation.settings()?;
    let hidden = sealed::open(&mut settings.miners, context.subnet.secret.as_ref())?;
    if settings.miners.is_empty() {
        return Err(config("No miners found: the list of miners is empty").into());
    }
    let environment = context
        .definition
        .environment(&settings.environment)
        .ok_or_else(|| config(format!("`{}` is not among the pipeline's environments", settings.environment)))?;
    context.journal.plan_episodes(&context.lease, invocation.task, &fan_out(&settings)).await?;
    let mut work = Work {
        context,
        invocation,
        settings: &settings,
        hidden,
        environment,
        progress: progress(context, &settings).await?,
        spent: BTreeMap::new(),
        fault: None,
        network_faults: 0,
        closes: environment.server.is_foreign().then(|| Instant::now() + closing_time(invocation.stage)),
        outage: Outage::none(context, Duration::from_millis(invocation.stage.timeout_ms)),
    };
    work.outage.advise(settings.miners.iter().filter(|miner| !servers::is_demo(&miner.endpoint)).count());
    (context.watcher)(work.progress.clone());
    work.until_done().await?;
    let progress = &work.progress;
    if !invocation.stage.expect.is_met(progress.scored, progress.planned) {
        let mut message = format!(
            "only {} of {} episodes in `{}` could be scored, after {} tries each; the rest are faults of ours, not the miners'",
            progress.scored, progress.planned, settings.environment, settings.attempts
        );
        if let Some(fault) = &work.fault {
            message = format!("{message}. The last one was {fault}");
        }
        // An outage is nobody's score: a pipeline that goes on below its quorum must not go on with this.
        let class = if work.network_faults > 0 { FailureClass::Infra } else { FailureClass::BelowQuorum };
        return Err(TaskFailure { class, message }.into());
    }
    Ok(json!({ "environment": settings.environment, "planned": progress.planned, "scored": progress.scored }).into())
}

/// Every episode of the task, seed by seed. Each miner plays its own in an order that it does not know: [`shares::in_order`].
fn fan_out(settings: &Settings) -> Vec<EpisodeKey> {
    let miners = &settings.miners;
    (0..settings.episodes)
        .flat_map(|seed_index| miners.iter().map(move |miner| (seed_index, miner)))
        .map(|(seed_index, miner)| EpisodeKey {
            environment: settings.environment.clone(),
            seed_index,
            hotkey: miner.hotkey.clone(),
        })
        .collect()
}

/// Where the task stands: earlier attempts may have finished episodes.
async fn progress<J: Journal>(context: &Context<J>, settings: &Settings) -> Result<EpisodeProgress, Error> {
    let tally = context.journal.tally(context.lease.cycle, &settings.environment).await?;
    Ok(EpisodeProgress {
        environment: settings.environment.clone(),
        planned: settings.episodes as usize * settings.miners.len(),
        scored: tally.scored,
        successes: tally.successes,
        infra_faults: 0,
        steps: 0,
    })
}

struct Work<'a, J> {
    context: &'a Context<J>,
    invocation: Invocation<'a>,
    settings: &'a Settings,
    /// Endpoints that nobody is told of.
    hidden: Hidden,
    environment: &'a Environment,
    progress: EpisodeProgress,
    /// How long each miner has kept us waiting in the rounds so far.
    spent: BTreeMap<Hotkey, Duration>,
    /// What the last fault of ours was.
    fault: Option<String>,
    /// Episodes that our network has cost.
    network_faults: usize,
    outage: Outage,
    /// From when on miners may be out of budget on a third-party server.
    closes: Option<Instant>,
}

impl<J: Journal> Work<'_, J> {
    /// Run what is pending, again and again, until nothing is or the tries are used up.
    async fn until_done(&mut self) -> Result<(), Error> {
        loop {
            let pending = self.context.journal.pending_episodes(self.context.lease.cycle, self.invocation.task).await?;
            let pending = self.blame(pending).await?;
            let pending = self.close(pending).await?;
            let pending: Vec<PendingEpisode> =
                pending.into_iter().filter(|episode| episode.counted < self.settings.attempts).collect();
            let pending = self.refuse(pending).await?;
            if pending.is_empty() {
                return Ok(());
            }
            let (faults_before, before) = (self.progress.infra_faults, self.stand());
            let begun = self.context.drain.begin().await;
            let pending = unexplained::apart(pending, self.settings.attempts, self.environment);
            let round = self.round(pending).await;
            drop(begun);
            // Whatever became of the round: what is left is played when the cycle is taken up again.
            self.context.drain.hold().await;
            round?;
            let faults = self.progress.infra_faults - faults_before;
            if let (1.., Some(fault)) = (faults, &self.fault) {
                // Once for all of them: when a server dies, hundreds are lost for one reason.
                let environment = &self.settings.environment;
                warn!(faults, "{faults} episodes in `{environment}` were lost to faults of ours: {fault}");
            }
            let after = self.stand();
            let brought = Brought { scored: after.scored - before.scored, lost: after.lost - before.lost };
            self.outage.after(brought, &self.settings.environment).await?;
        }
    }

    /// What all rounds have brought so far.
    fn stand(&self) -> Brought {
        Brought { scored: self.progress.scored, lost: self.network_faults }
    }

    /// The canaries as a server reaches them: a container's wall is opened for them as it is for miners. A third-party server
    /// probes none, so this process does.
    async fn canaries(&self, server: &Ready) -> Vec<Canary> {
        if self.environment.server.is_foreign() {
            return self.outage.canaries.clone();
        }
        let mut reached = Vec::new();
        for canary in &self.outage.canaries {
            match server.lent.reach(&[canary.to_url()]).await {
                Ok(urls) => reached.extend(urls.iter().filter_map(|url| Canary::of_url(url))),
                Err(error) => debug!(%canary, %error, "the environment server cannot be let to the canary"),
            }
        }
        reached
    }

    /// Take those out whose miners announce an endpoint that may not be called. They are told so before anything else is
    /// done: no server is started for them, no wall opened, no name looked up.
    async fn refuse(&mut self, pending: Vec<PendingEpisode>) -> Result<Vec<PendingEpisode>, Error> {
        let rules = &self.context.definition.miners.rules;
        let strangers = self.settings.miners.iter().filter(|miner| !servers::is_demo(&miner.endpoint));
        let refused =
            strangers.filter_map(|miner| Some((&miner.hotkey, rules.check(&miner.endpoint).err()?.to_string())));
        let refused: HashMap<&Hotkey, String> = refused.collect();
        for (hotkey, why) in &refused {
            let seen = Seen { detail: Some(why.clone()), ..Seen::new(MinerStatus::Refused) };
            if pending.iter().any(|episode| episode.key.hotkey == **hotkey) {
                self.saw((*hotkey).clone(), seen).await?;
            }
        }
        let mut rest = Vec::with_capacity(pending.len());
        for episode in pending {
            match refused.get(&episode.key.hotkey) {
                Some(why) => {
                    let outcome = Outcome::MinerFault(MinerFault::EndpointAddressForbidden);
                    self.record(episode, not_played(outcome, why, self.environment)).await?;
                }
                None => rest.push(episode),
            }
        }
        Ok(rest)
    }

    /// Write down how a miner was found.
    async fn saw(&self, hotkey: Hotkey, mut seen: Seen) -> Result<(), Error> {
        self.hidden.hide_sighting(&hotkey, &mut seen);
        match seen.status {
            MinerStatus::Active => debug!(%hotkey, "the miner answers"),
            status => info!(%hotkey, "the miner is {}", status.word()),
        }
        let sighting = Sighting { environment: self.settings.environment.clone(), hotkey, seen };
        Ok(self.context.journal.record_sighting(&self.context.lease, &sighting).await?)
    }

    /// One request to every environment server that can be had. Episodes that a server had begun and did not report are
    /// faults of ours; those it had not begun have lost nothing and stay as they are.
    async fn round(&mut self, pending: Vec<PendingEpisode>) -> Result<(), Error> {
        let ready = self.context.servers.environment(&self.context.definition, self.environment).await?;
        let endpoints = self.endpoints().await?;
        let drain = self.context.drain.asked().child_token();
        let mut closes = self.closes.filter(|closes| *closes > Instant::now());
        let (mut shares, mut streams, mut problem) = (Vec::new(), Vec::new(), None);
        let pending = shares::in_order(&self.context.record.salt, pending, self.settings.episodes);
        for (server, episodes) in ready.iter().zip(shares::split(pending, ready.len())) {
            match self.ask(server, &episodes, &endpoints, &drain).await {
                Ok((messages, permits)) => {
                    let index = shares.len();
                    let tagged = messages.map(Some).chain(stream::once(async { None })).map(move |it| (index, it));
                    streams.push(Box::pin(tagged));
                    shares.push(Share::new(server, episodes, permits));
                }
                // What is not accepted has not begun: another round asks again.
                Err(error) => problem = Some(error),
            }
        }
        if let Some(error) = problem.filter(|_| shares.is_empty()) {
            return Err(error);
        }
        let steps_before = self.progress.steps;
        let mut messages = stream::select_all(streams);
        let (mut moved, mut cut) = (false, String::new());
        loop {
            let next = tokio::select! {
                next = messages.next() => next,
                () = sleep_until(closes.unwrap_or_else(Instant::now)), if closes.is_some() => {
                    // The episodes that have begun end first. Then the next round knows which miners are out of budget.
                    drain.cancel();
                    (closes, moved) = (None, true);
                    continue;
                }
            };
            let Some((index, message)) = next else { break };
            let Some(message) = message else {
                let share = &mut shares[index];
                share.leave();
                moved |= share.has_moved();
                let (fault, text) = share.conclude().await;
                self.give_up(share.lost(), fault, &text).await?;
                cut = text;
                continue;
            };
            match shares[index].hear(message) {
                Heard::Nothing => {}
                Heard::Steps { stalled } => {
                    shares[index].was_stalled(stalled, &self.context.stalls);
                    self.progress.steps = steps_before + shares.iter().map(Share::steps).sum::<u64>();
                    (self.context.watcher)(self.progress.clone());
                }
                Heard::Spent(hotkey, time) => *self.spent.entry(hotkey).or_default() += time,
                Heard::Miner(hotkey, seen) => self.saw(hotkey, *seen).await?,
                Heard::Episode(ended) => {
                    let (episode, report) = *ended;
                    self.record(episode, report).await?;
                }
            }
        }
        // Not one step forward: without a limit on such rounds they would go on for ever.
        if moved { Ok(()) } else { Err(TaskFailure { class: FailureClass::Infra, message: cut }.into()) }
    }

    /// Where every miner answers that may be called.
    async fn endpoints(&self) -> Result<Vec<(&Miner, String)>, Error> {
        let rules = &self.context.definition.miners.rules;
        let mut endpoints = Vec::with_capacity(self.settings.miners.len());
        for miner in &self.settings.miners {
            if servers::is_demo(&miner.endpoint) || rules.check(&miner.endpoint).is_ok() {
                endpoints.push((miner, self.context.servers.endpoint(&miner.endpoint).await?));
            }
        }
        Ok(endpoints)
    }

    /// Ask a server for episodes, whose miners answer at `miners`.
    async fn ask(
        &self,
        server: &Ready,
        pending: &[PendingEpisode],
        miners: &[(&Miner, String)],
        drain: &CancellationToken,
    ) -> Result<(BoxStream<'static, Result<ServerMessage, rollout::Error>>, Member), Error> {
        let (miners, endpoints): (Vec<&Miner>, Vec<String>) = miners.iter().cloned().unzip();
        let endpoints = server.lent.reach(&endpoints).await.map_err(servers::Error::Start)?;
        let mut request = self.request(pending, miners.into_iter().zip(endpoints))?;
        request.canary = self.canaries(server).await;
        let (permits, grants) = self.context.permits.enter(Asked {
            cycle: self.context.lease.cycle,
            per_miner: self.settings.per_miner,
            patience: Duration::from_millis(self.context.definition.miners.cold_start_ms),
            episodes: shares::by_miner(pending),
        });
        let control = Control { drain: drain.clone(), grants };
        let messages = server.client.episodes(self.environment, request, control).await.map_err(|error| {
            if error.has_forgotten() {
                self.context.servers.forget(server);
            }
            refused(&error)
        })?;
        server.lent.count(pending.len());
        if !server.client.tells_of_miners() {
            pending.iter().for_each(|episode| permits.open(&episode.key.hotkey, None));
        }
        Ok((messages, permits))
    }

    fn request<'m>(
        &self,
        pending: &[PendingEpisode],
        miners: impl Iterator<Item = (&'m Miner, String)>,
    ) -> Result<EpisodesRequest, Error> {
        let salt = &self.context.record.salt;
        let mut episodes = Vec::with_capacity(pending.len());
        let miners: HashMap<&str, (&Miner, String)> =
            miners.map(|(miner, endpoint)| (miner.hotkey.as_str(), (miner, endpoint))).collect();
        for (order, PendingEpisode { key, .. }) in (0..).zip(pending) {
            let (miner, endpoint) = miners.get(key.hotkey.as_str()).ok_or_else(|| {
                config(format!("the journal has episodes of `{}`, who is not among the miners", key.hotkey))
            })?;
            let origin = if servers::is_demo(&miner.endpoint) { Origin::Ourselves } else { Origin::Stranger };
            let episode_id = salt.episode_id(&key.environment, key.seed_index, key.hotkey.as_str());
            episodes.push(EpisodeOrder {
                order,
                seed: salt.seed(&key.environment, key.seed_index),
                keep: self.settings.keep(&episode_id),
                episode_id,
                hotkey: key.hotkey.clone(),
                endpoint: endpoint.clone(),
                origin,
            });
        }
        Ok(EpisodesRequest {
            run: Uuid::new_v4(),
            environment: self.settings.environment.clone(),
            action_timeout_ms: self.environment.action_timeout_ms,
            reset_timeout_ms: self.environment.reset_timeout_ms,
            per_miner: self.settings.per_miner,
            permits: true,
            budget_ms: Some(self.budget_ms()),
            spent_ms: self.spent.iter().map(|(hotkey, time)| (hotkey.clone(), time.as_millis() as u64)).collect(),
            cold_start_ms: self.context.definition.miners.cold_start_ms,
            rules: self.context.definition.miners.rules.clone(),
            canary: Vec::new(),
            episodes,
        })
    }

    /// How long each miner may keep us waiting in this task.
    fn budget_ms(&self) -> u64 {
        let derived = wall_budget(self.invocation.stage, self.environment, self.settings.episodes.into());
        let chosen = self.settings.budget_seconds.map(Duration::from_secs);
        chosen.map_or(derived, |chosen| chosen.min(derived)).as_millis() as u64
    }

    async fn record(&mut self, pending: PendingEpisode, mut report: EpisodeReport) -> Result<(), Error> {
        self.hidden.hide_report(&pending.key.hotkey, &mut report);
        let outcome = report.outcome;
        let episode = Episode { key: pending.key, attempt: pending.attempt + 1, report };
        let _ = self.context.journal.record_episode(&self.context.lease, &episode).await?;
        match outcome {
            Outcome::InfraFault(fault) => {
                self.network_faults += usize::from(fault == InfraFault::Network);
                let detail = episode.report.detail.as_deref().unwrap_or_default();
                let Episode { key: EpisodeKey { hotkey, seed_index, .. }, attempt, .. } = &episode;
                debug!(%hotkey, seed_index, try = attempt, %outcome, detail, "a fault of ours: the episode is not scored");
                self.fault = Some(format!("{outcome}: {detail}"));
                self.progress.infra_faults += 1;
            }
            _ => {
                let key = &episode.key;
                debug!(hotkey = %key.hotkey, seed_index = key.seed_index, %outcome, "an episode has ended");
                self.progress.scored += 1;
                self.progress.successes += usize::from(outcome == Outcome::Success);
            }
        }
        (self.context.watcher)(self.progress.clone());
        Ok(())
    }

    async fn give_up(&mut self, lost: Vec<PendingEpisode>, fault: InfraFault, cut: &str) -> Result<(), Error> {
        for episode in lost {
            self.record(episode, not_played(Outcome::InfraFault(fault), cut, self.environment)).await?;
        }
        Ok(())
    }
}

/// The report of an episode that was not played.
fn not_played(outcome: Outcome, why: &str, environment: &Environment) -> EpisodeReport {
    EpisodeReport {
        outcome,
        detail: Some(why.chars().take(500).collect()),
        steps: 0,
        total_reward: 0.0,
        // As for every fault of a miner: where a score is declared, it is the lowest.
        score: environment.simulation.score.filter(|_| outcome.is_scored()).map(|_| 0.0),
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms: 0.0,
    }
}

/// The failure of a task whose request was not accepted.
fn refused(error: &rollout::Error) -> TaskFailure {
    let helps = error.is_retryable() || error.has_forgotten();
    let class = if helps { FailureClass::Infra } else { FailureClass::Config };
    TaskFailure { class, message: chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_share_of_all_episodes_and_always_the_same_one() {
        let settings = |retention: &str, share: f64| -> Settings {
            serde_json::from_value(json!({
                "miners": [], "episodes": 1, "environment": "a/b", "per_miner": 1, "attempts": 1,
                "keep_actions": retention, "keep_share": share,
            }))
            .unwrap()
        };
        let salt: crate::cycle::Salt = "5a".repeat(32).parse().unwrap();
        let ids: Vec<String> = (0..2000).map(|index| salt.episode_id(&"a/b".parse().unwrap(), index, "m")).collect();
        let kept = |share| ids.iter().filter(|id| settings("sample", share).keep(id) == Keep::All).count();
        assert!((150..250).contains(&kept(0.1)), "{}", kept(0.1));
        assert_eq!((kept(0.1), kept(1.0)), (kept(0.1), 2000));
        assert_eq!(settings("failures", 0.1).keep(&ids[0]), Keep::Failures);
        assert_eq!(settings("nothing", 1.0).keep(&ids[0]), Keep::Nothing);
    }
}
