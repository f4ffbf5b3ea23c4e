//! Episodes whose faults are their miner's, and the last attempts of those that were lost with a server.

use super::{Work, not_played};
use crate::cycle::{
    Episode, EpisodeReport, Evidence, Hotkey, InfraFault, Journal, LastFault, MinerFault, Outcome, PendingEpisode,
    unexplained,
};
use crate::plan::Environment;
use crate::stage::Error;

impl<J: Journal> Work<'_, J> {
    /// Record the episodes that failed again and again for their miner alone as its failures, and give back the others. The
    /// rows decide: see [`unexplained`].
    pub(super) async fn blame(&mut self, pending: Vec<PendingEpisode>) -> Result<Vec<PendingEpisode>, Error> {
        if !pending.iter().any(|episode| episode.last.as_ref().is_some_and(LastFault::may_be_caused)) {
            return Ok(pending);
        }
        let scored: Vec<Episode> = self.context.journal.scored_episodes(self.context.lease.cycle).await?;
        let blamed = unexplained(&self.settings.environment, &scored, &pending, self.settings.attempts);
        let mut rest = Vec::with_capacity(pending.len());
        for episode in pending {
            let key: (Hotkey, u32) = (episode.key.hotkey.clone(), episode.key.seed_index);
            match (blamed.get(&key), &episode.last) {
                (Some(evidence), Some(last)) => {
                    let report = report(evidence, last, self.environment);
                    self.record(episode, report).await?;
                }
                _ => rest.push(episode),
            }
        }
        Ok(rest)
    }
}

/// The report of an episode that counts as its miner's failure.
fn report(evidence: &Evidence, last: &LastFault, environment: &Environment) -> EpisodeReport {
    let Evidence { attempts, played, others } = evidence;
    let mut detail = format!(
        "{attempts} attempts failed and {played} of {others} other miners played this seed; the last fault was {}",
        Outcome::InfraFault(last.fault)
    );
    if let Some(text) = &last.detail {
        detail = format!("{detail}: {text}");
    }
    not_played(Outcome::MinerFault(MinerFault::Unexplained), &detail, environment)
}

/// The episodes of the next round. A third-party server that dies loses every episode that it plays at that moment. The last
/// attempt at such an episode therefore comes at the end, in a round with no other miner: a miner that kills the server then
/// loses its own episodes alone.
pub(super) fn apart(pending: Vec<PendingEpisode>, attempts: u32, environment: &Environment) -> Vec<PendingEpisode> {
    if !environment.server.is_foreign() {
        return pending;
    }
    alone(pending, attempts)
}

fn alone(mut pending: Vec<PendingEpisode>, attempts: u32) -> Vec<PendingEpisode> {
    use InfraFault::*;
    let is_last = |episode: &PendingEpisode| {
        let lost_with_server = episode
            .last
            .as_ref()
            .is_some_and(|last| matches!(last.fault, ServerLost | OutOfMemory | SimulatorTimeout | Unhealthy));
        lost_with_server && episode.counted + 1 >= attempts
    };
    if pending.iter().any(|episode| !is_last(episode)) {
        pending.retain(|episode| !is_last(episode));
    } else if let Some(hotkey) = pending.first().map(|episode| episode.key.hotkey.clone()) {
        pending.retain(|episode| episode.key.hotkey == hotkey);
    }
    pending
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::EpisodeKey;

    fn episode(hotkey: &str, seed_index: u32, counted: u32, fault: Option<InfraFault>) -> PendingEpisode {
        let key = EpisodeKey { environment: "a/b".parse().unwrap(), seed_index, hotkey: hotkey.parse().unwrap() };
        let last = fault.map(|fault| LastFault { fault, steps: 0, detail: None });
        PendingEpisode { key, attempt: counted, counted, last }
    }

    #[test]
    fn the_last_attempt_at_an_episode_that_was_lost_with_a_server_is_played_beside_no_other_miner() {
        let lost = Some(InfraFault::ServerLost);
        let (fresh, twice) = (episode("a", 0, 0, None), episode("b", 0, 2, lost));
        let (last_a, last_b) = (episode("a", 1, 4, lost), episode("b", 1, 4, lost));
        let all = vec![fresh.clone(), twice.clone(), last_a.clone(), last_b.clone()];
        assert_eq!(alone(all, 5), [fresh, twice]);
        assert_eq!(alone(vec![last_a.clone(), last_b.clone()], 5), [last_a]);
        assert_eq!(alone(vec![last_b.clone()], 5), [last_b]);
        // A fault that the server survived took nothing from anybody else.
        let own = vec![
            episode("a", 0, 4, Some(InfraFault::SimulatorError)),
            episode("b", 0, 4, Some(InfraFault::SimulatorError)),
        ];
        assert_eq!(alone(own.clone(), 5), own);
        assert!(alone(Vec::new(), 5).is_empty());
    }
}
