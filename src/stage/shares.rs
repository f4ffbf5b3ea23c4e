//! One server's part of a round of episodes: what it was asked for, what it has begun, what became of the rest.
//!
//! A miner's episodes all go to one server of a pool, which so keeps its connections to it. How many of them are played at a
//! time is a matter of [`Permits`](super::permits::Permits).

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    chain,
    overload::{Overload, ServerStalls},
    permits::Member,
    servers::Ready,
};
use crate::cycle::{EnvironmentId, EpisodeReport, Hotkey, InfraFault, PendingEpisode, Salt, Seen};
use crate::rollout::{self, protocol::ServerMessage};

/// Episodes as they are asked for: each miner's in its secret order, and the miners side by side.
pub(super) fn in_order(salt: &Salt, mut pending: Vec<PendingEpisode>, episodes: u32) -> Vec<PendingEpisode> {
    let mut places: HashMap<(EnvironmentId, Hotkey), Vec<u32>> = HashMap::new();
    pending.sort_by_cached_key(|PendingEpisode { key, .. }| {
        let of_miner = places
            .entry((key.environment.clone(), key.hotkey.clone()))
            .or_insert_with(|| salt.places(&key.environment, key.hotkey.as_str(), episodes));
        of_miner.get(key.seed_index as usize).copied().unwrap_or(key.seed_index)
    });
    pending
}

/// How many of these episodes each miner has.
pub(super) fn by_miner(pending: &[PendingEpisode]) -> HashMap<Hotkey, u32> {
    let mut episodes: HashMap<Hotkey, u32> = HashMap::new();
    for episode in pending {
        *episodes.entry(episode.key.hotkey.clone()).or_default() += 1;
    }
    episodes
}

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
    /// The simulators have gone on, and the server was stalled for so long since it was started.
    Steps {
        /// In all.
        stalled: Duration,
    },
    /// A miner has kept the server waiting for so long.
    Spent(Hotkey, Duration),
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
    /// Its part in the permits, until it says no more.
    permits: Option<Member>,
    steps: u64,
    overload: Overload,
    /// How its answer broke off, if it did.
    cut: Option<String>,
}

impl<'a> Share<'a> {
    /// A server that was asked for these, numbered from 0, and that begins them by these permits.
    pub(super) fn new(server: &'a Ready, episodes: Vec<PendingEpisode>, permits: Member) -> Self {
        let open: HashMap<u32, PendingEpisode> = (0..).zip(episodes).collect();
        Self {
            server,
            asked: open.len(),
            open,
            begun: HashSet::new(),
            permits: Some(permits),
            steps: 0,
            overload: Overload::default(),
            cut: None,
        }
    }

    /// Steps that its simulators have taken.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Take in what it says.
    pub(super) fn hear(&mut self, message: Result<ServerMessage, rollout::Error>) -> Heard {
        match message {
            Ok(ServerMessage::Started { order }) => {
                if let Some(episode) = self.open.get(&order)
                    && self.begun.insert(order)
                {
                    self.tell(|permits| permits.started(&episode.key.hotkey));
                }
            }
            Ok(ServerMessage::Returned { order, not_ready_ms }) => {
                if let Some(episode) = self.open.get(&order)
                    && self.begun.remove(&order)
                {
                    let not_ready = Duration::from_millis(not_ready_ms);
                    self.tell(|permits| permits.returned(&episode.key.hotkey, not_ready));
                }
            }
            Ok(ServerMessage::Episode { order, report }) => {
                if let Some(episode) = self.open.remove(&order) {
                    let hotkey = &episode.key.hotkey;
                    let had_begun = self.begun.remove(&order);
                    self.tell(|permits| if had_begun { permits.ended(hotkey) } else { permits.skipped(hotkey) });
                    return Heard::Episode(Box::new((episode, report)));
                }
            }
            Ok(ServerMessage::Unused { miners }) => {
                self.tell(|permits| miners.iter().for_each(|(hotkey, count)| permits.unused(hotkey, *count)));
            }
            Ok(ServerMessage::Progress { steps, stalled_ms }) => {
                self.steps = steps;
                return Heard::Steps { stalled: Duration::from_millis(stalled_ms) };
            }
            Ok(ServerMessage::Spent { hotkey, ms }) => return Heard::Spent(hotkey, Duration::from_millis(ms)),
            Ok(ServerMessage::Miner { hotkey, seen, max_concurrency }) => {
                self.tell(|permits| permits.open(&hotkey, max_concurrency));
                return Heard::Miner(hotkey, Box::new(seen));
            }
            Ok(ServerMessage::End) => {}
            Err(error) => self.cut = Some(chain(&error)),
        }
        Heard::Nothing
    }

    /// The server was stalled for so long in all. It counts, and an operator is told when that is much.
    pub(super) fn was_stalled(&mut self, stalled: Duration, stalls: &ServerStalls) {
        stalls.note(self.server.lent.start(), stalled);
        if let Some((lost, span)) = self.overload.hear(Instant::now(), stalled) {
            let server = &self.server.lent.address().description;
            warn!(
                stalled_ms = lost.as_millis(),
                "this machine is overloaded: the environment server ({server}) did not get the processor for {:.1} of the last {:.0} seconds; calls that are disturbed are played again",
                lost.as_secs_f64(),
                span.as_secs_f64()
            );
        }
    }

    fn tell(&self, tell: impl FnOnce(&Member)) {
        if let Some(permits) = &self.permits {
            tell(permits);
        }
    }

    /// It says no more: what it held is free for others.
    pub(super) fn leave(&mut self) {
        self.permits = None;
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
    fn each_miner_gets_its_own_order_and_a_resume_goes_on_in_it() {
        let salt: Salt = "5a".repeat(32).parse().unwrap();
        let all = in_order(&salt, pending(3, 40), 40);
        let environment = all[0].key.environment.clone();
        let of = |episodes: &[PendingEpisode], miner: &str| -> Vec<u32> {
            let mine = episodes.iter().filter(|episode| episode.key.hotkey.as_str() == miner);
            mine.map(|episode| episode.key.seed_index).collect()
        };
        let miners: std::collections::BTreeSet<String> = all.iter().map(|it| it.key.hotkey.to_string()).collect();
        for miner in &miners {
            assert_eq!(of(&all, miner), salt.order(&environment, miner, 40));
        }
        // All miners are equally far at any time.
        let firsts: Vec<&str> = all[..3].iter().map(|episode| episode.key.hotkey.as_str()).collect();
        assert_eq!(firsts.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        // Whatever has ended before: the rest comes in the same order.
        let left: Vec<PendingEpisode> =
            pending(3, 40).into_iter().filter(|episode| !episode.key.seed_index.is_multiple_of(3)).collect();
        let resumed = in_order(&salt, left, 40);
        for miner in &miners {
            let mut rest = salt.order(&environment, miner, 40);
            rest.retain(|index| !index.is_multiple_of(3));
            assert_eq!(of(&resumed, miner), rest);
        }
    }

    #[test]
    fn there_are_no_empty_parts() {
        assert_eq!(split(pending(2, 4), 8).len(), 2);
        assert_eq!(split(pending(3, 1), 1).len(), 1);
        assert!(split(Vec::new(), 4).is_empty());
    }
}
