//! What a stage does when this machine's own network has failed: it waits until the network works again, and only then plays
//! on, so that an outage does not use up the tries of episodes.
//!
//! Opens connections to canaries and nothing else. Which canaries there are changes no result, so it is no part of a
//! definition: it depends on the machine.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Context;
use crate::chain::Network;
use crate::cycle::{EnvironmentId, FailureClass, TaskFailure};
use crate::plan::{Definition, kinds::DISCOVERY};
use crate::rollout::Canary;

/// The pause before the first look and the longest one; each is three times as long as the one before.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// How this machine tells an outage of its own network, and how long it waits for the end of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outages {
    /// The canaries that the operator has named; none for the chain's nodes.
    pub canary: Vec<Canary>,
    /// How long a stage waits for the network.
    pub patience: Duration,
}

impl Default for Outages {
    fn default() -> Self {
        Self { canary: Vec::new(), patience: Duration::from_secs(300) }
    }
}

impl Outages {
    /// The canaries of a cycle: those that were named, else the nodes of the chain that it reads, else none.
    fn canaries(&self, definition: &Definition, network: &Network) -> Vec<Canary> {
        if !self.canary.is_empty() {
            return self.canary.clone();
        }
        let Some(discovery) = definition.stages.iter().find(|stage| stage.uses == DISCOVERY) else { return Vec::new() };
        let named = discovery.with.get("network").and_then(|name| name.as_str()?.parse::<Network>().ok());
        let nodes = named.as_ref().unwrap_or(network).urls().iter();
        nodes.filter_map(|url| Canary::of_url(url)).collect()
    }
}

/// One task's way through an outage.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) canaries: Vec<Canary>,
    backoff: Backoff,
}

/// The pauses of an outage. Pure.
#[derive(Debug)]
struct Backoff {
    patience: Duration,
    /// Since when nothing could be scored.
    since: Option<Instant>,
    pause: Duration,
}

/// What a round brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brought {
    /// Episodes that count.
    pub(super) scored: usize,
    /// Episodes that the network cost.
    pub(super) lost: usize,
}

impl Outage {
    /// None yet.
    pub(super) fn none<J>(context: &Context<J>, timeout: Duration) -> Self {
        let Outages { patience, .. } = *context.outages;
        let canaries = context.outages.canaries(&context.definition, &context.subnet.network);
        // A tenth of the stage's time is left to say why it failed.
        Self { canaries, backoff: Backoff::new(patience.min(timeout.mul_f64(0.9))) }
    }

    /// Say what to configure where nothing could show an outage.
    pub(super) fn advise(&self, strangers: usize) {
        if self.canaries.is_empty() && (1..=2).contains(&strangers) {
            info!(
                "with so few miners only a canary can show an outage of our network: name one with --canary HOST:PORT"
            );
        }
    }

    /// After a round of episodes: wait for the network, if it cost any of them.
    ///
    /// # Errors
    /// An infrastructure failure when the network has not come back in time.
    pub(super) async fn after(&mut self, brought: Brought, environment: &EnvironmentId) -> Result<(), TaskFailure> {
        let backoff = &mut self.backoff;
        if brought.scored > 0 {
            *backoff = Backoff::new(backoff.patience);
        }
        let lost = brought.lost;
        if lost == 0 {
            return Ok(());
        }
        warn!(lost, "our network failed: {lost} episodes in `{environment}` wait until it works again");
        loop {
            let Some(pause) = backoff.next(Instant::now()) else {
                let seconds = backoff.patience.as_secs();
                let message = format!(
                    "our network failed and did not come back within {seconds} s: the episodes in `{environment}` could not be played"
                );
                return Err(TaskFailure { class: FailureClass::Infra, message });
            };
            sleep(pause).await;
            // Without canaries, or with some that never answer, the next round is the probe.
            if self.canaries.is_empty() || pause >= LONGEST || any_answers(&self.canaries).await {
                info!("playing the episodes in `{environment}` again that our network cost");
                return Ok(());
            }
        }
    }
}

impl Backoff {
    fn new(patience: Duration) -> Self {
        Self { patience, since: None, pause: FIRST }
    }

    /// The pause to be made now, or none when all of the patience is used up.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let left = self.patience.saturating_sub(now.saturating_duration_since(since));
        let pause = self.pause.min(left);
        self.pause = (self.pause * 3).min(LONGEST);
        (!pause.is_zero()).then_some(pause)
    }
}

/// Whether one of the canaries answers.
async fn any_answers(canaries: &[Canary]) -> bool {
    let mut probes: FuturesUnordered<_> = canaries.iter().map(Canary::probe).collect();
    while let Some(found) = probes.next().await {
        if found.is_ok() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_do_not_follow_each_other_at_once_and_patience_ends() {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(300));
        let (mut now, mut pauses) = (began, Vec::new());
        while let Some(pause) = backoff.next(now) {
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [5, 15, 45, 60, 60, 60, 55]);
        assert_eq!(Backoff::new(Duration::ZERO).next(began), None);
    }

    #[tokio::test]
    async fn a_round_that_loses_nothing_is_not_waited_for() {
        let mut outage = Outage { canaries: Vec::new(), backoff: Backoff::new(Duration::ZERO) };
        let environment = "a/b".parse().unwrap();
        outage.after(Brought { scored: 4, lost: 0 }, &environment).await.unwrap();
        let failure = outage.after(Brought { scored: 0, lost: 4 }, &environment).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Infra);
        assert!(failure.message.contains("did not come back within 0 s"), "{failure}");
    }

    #[tokio::test]
    async fn a_canary_that_answers_ends_the_wait() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let canary: Canary = listener.local_addr().unwrap().to_string().parse().unwrap();
        assert!(any_answers(&["no-such-host.invalid:1".parse().unwrap(), canary]).await);
        assert!(!any_answers(&["no-such-host.invalid:1".parse().unwrap()]).await);
    }
}
