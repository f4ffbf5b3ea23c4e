//! The episodes a demo miner is playing: one player each, the least recently used forgotten first.

use std::{collections::HashMap, sync::Mutex};

use super::policy::{Hand, Motion, Player, Policy};

/// Episodes remembered. An environment server keeps far fewer in flight at one miner.
const CAPACITY: usize = 4096;

/// All episodes of a miner.
pub(super) struct Episodes {
    policy: Policy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    players: HashMap<String, Entry>,
    /// The episode of the last `/reset`, for callers that send no episode id.
    latest: String,
    clock: u64,
}

struct Entry {
    player: Player,
    used: u64,
}

impl Episodes {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, state: Mutex::default() }
    }

    /// Begin an episode, or begin it again.
    pub(super) fn reset(&self, episode_id: &str, task: &str) {
        let player = self.policy.start(task, episode_id);
        let mut guard = self.lock();
        let state = &mut *guard;
        state.clock += 1;
        if state.players.len() >= CAPACITY && !state.players.contains_key(episode_id) {
            let oldest = state.players.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone());
            oldest.and_then(|id| state.players.remove(&id));
        }
        state.players.insert(episode_id.to_owned(), Entry { player, used: state.clock });
        episode_id.clone_into(&mut state.latest);
    }

    /// The next action of an episode, or of the latest; none when there was no `/reset` for it.
    pub(super) fn act(&self, episode_id: Option<&str>, hand: Hand) -> Option<Motion> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.clock += 1;
        let entry = state.players.get_mut(episode_id.unwrap_or(&state.latest))?;
        entry.used = state.clock;
        Some(entry.player.act(hand))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A player that panicked has left nothing half-done that another episode could see.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn episodes_do_not_disturb_each_other() {
        let (one, two) = (Episodes::new(Policy::Random), Episodes::new(Policy::Random));
        one.reset("a", "push-v3");
        two.reset("a", "push-v3");
        one.reset("b", "push-v3");
        for _ in 0..10 {
            one.act(Some("b"), [0.0; 4]);
            assert_eq!(one.act(Some("a"), [0.0; 4]), two.act(None, [0.0; 4]));
        }
        assert_eq!(one.act(Some("c"), [0.0; 4]), None);
    }

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let episodes = Episodes::new(Policy::Noop);
        for index in 0..CAPACITY {
            episodes.reset(&index.to_string(), "x");
        }
        episodes.act(Some("0"), [0.0; 4]);
        episodes.reset("new", "x");
        assert!(episodes.act(Some("0"), [0.0; 4]).is_some());
        assert!(episodes.act(Some("1"), [0.0; 4]).is_none());
        assert!(episodes.act(Some("2"), [0.0; 4]).is_some());
    }
}
