//! One server's part of a round of episodes: what it was asked for, what it has begun, what became of the rest.
//!
//! A miner's episodes all go to one server of a pool, so that the limit on how many of them it plays at a time holds.

use std::collections::{HashMap, HashSet};

use super::{chain, servers::Ready};
use crate::cycle::{EpisodeReport, Hotkey, InfraFault, PendingEpisode, Seen};
use crate::rollout::{self, protocol::ServerMessage};

/// Episodes as parts for so many servers; fewer parts when there are fewer miners.
pub(super) fn split(pending: Vec<PendingEpisode>, servers: usize) -> Vec<Vec<PendingEpisode>> {
    let mut parts: Vec<Vec<PendingEpisode>> = Vec::new();
    let mut part_of = HashMap::new();
    for episode in pending {
        let next = part_of.len() % servers.max(1);
        let part = *part_of.entry(episode.key.hotkey.clone()).or_insert(next);
        if part == parts.len() {
            parts.push(Vec::new());
        }
        parts[part].push(episode);
    }
    parts
}

/// What a message comes to.
pub(super) enum Heard {
    /// Nothing to be done.
    Nothing,
    /// The simulators have gone on.
    Steps,
    /// A miner was seen.
    Miner(Hotkey, Box<Seen>),
    /// An episode has ended.
    Episode(Box<(PendingEpisode, EpisodeReport)>),
}

/// What one server was asked for.
pub(super) struct Share<'a> {
    server: &'a Ready,
    asked: usize,
    open: HashMap<u32, PendingEpisode>,
    begun: HashSet<u32>,
    steps: u64,
    /// How its answer broke off, if it did.
    cut: Option<String>,
}

impl<'a> Share<'a> {
    /// A server that was asked for these, numbered from 0.
    pub(super) fn new(server: &'a Ready, episodes: Vec<PendingEpisode>) -> Self {
        let open: HashMap<u32, PendingEpisode> = (0..).zip(episodes).collect();
        Self { server, asked: open.len(), open, begun: HashSet::new(), steps: 0, cut: None }
    }

    /// Steps that its simulators have taken.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Take in what it says.
    pub(super) fn hear(&mut self, message: Result<ServerMessage, rollout::Error>) -> Heard {
        match message {
            Ok(ServerMessage::Started { order }) => drop(self.begun.insert(order)),
            Ok(ServerMessage::Returned { order }) => drop(self.begun.remove(&order)),
            Ok(ServerMessage::Episode { order, report }) => {
                if let Some(episode) = self.open.remove(&order) {
                    return Heard::Episode(Box::new((episode, report)));
                }
            }
            Ok(ServerMessage::Progress { steps }) => {
                self.steps = steps;
                return Heard::Steps;
            }
            Ok(ServerMessage::Miner { hotkey, seen }) => return Heard::Miner(hotkey, Box::new(seen)),
            Ok(ServerMessage::End) => {}
            Err(error) => self.cut = Some(chain(&error)),
        }
        Heard::Nothing
    }

    /// Whether anything has become of what it was asked for.
    pub(super) fn has_moved(&self) -> bool {
        self.open.len() < self.asked || !self.begun.is_empty()
    }

    /// Why episodes are missing, now that it says no more.
    pub(super) async fn conclude(&self) -> (InfraFault, String) {
        let Some(cut) = &self.cut else {
            let text = "the environment server ended without running the episode: its simulators died too often";
            return (InfraFault::ServerLost, text.to_owned());
        };
        match self.server.lent.check().await {
            Ok(()) => (InfraFault::ServerLost, cut.clone()),
            Err(error) => (error.reason(), format!("{cut}: {}", error.explain()).replace(char::is_control, " ")),
        }
    }

    /// Those that it had begun and did not report, in the order in which they were asked for.
    pub(super) fn lost(&mut self) -> Vec<PendingEpisode> {
        let mut lost: Vec<_> = self.open.drain().filter(|(order, _)| self.begun.contains(order)).collect();
        lost.sort_by_key(|(order, _)| *order);
        lost.into_iter().map(|(_, episode)| episode).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::EpisodeKey;

    fn pending(miners: u32, each: u32) -> Vec<PendingEpisode> {
        let key = |seed_index, miner| EpisodeKey {
            environment: "metaworld/push-v3".parse().unwrap(),
            seed_index,
            hotkey: format!("miner-{miner}").parse().unwrap(),
        };
        let episode = |key| PendingEpisode { key, attempt: 0, counted: 0, last: None };
        (0..each).flat_map(|seed| (0..miners).map(move |miner| episode(key(seed, miner)))).collect()
    }

    #[test]
    fn a_miner_stays_with_one_server_and_nothing_is_lost() {
        let parts = split(pending(5, 3), 2);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [9, 6]);
        let miners = |part: &[PendingEpisode]| {
            part.iter().map(|episode| episode.key.hotkey.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(miners(&parts[0]).is_disjoint(&miners(&parts[1])));
        // The order of seeds stays: all miners of a part meet a seed together.
        assert!(parts[0].is_sorted_by_key(|episode| episode.key.seed_index));
    }

    #[test]
    fn there_are_no_empty_parts() {
        assert_eq!(split(pending(2, 4), 8).len(), 2);
        assert_eq!(split(pending(3, 1), 1).len(), 1);
        assert!(split(Vec::new(), 4).is_empty());
    }
}
