//! Which run may start how many more episodes of a miner. Pure: no clock, no lock, no task.
//!
//! A run is one request to one environment server. Runs that have episodes of a miner left get its permits in turn, one at a
//! time. A permit is in use from its grant until the run says that the episode has ended or has been returned, gives the
//! permit back unused, or leaves.

use std::collections::{HashMap, VecDeque};

use crate::cycle::{CycleId, Hotkey};

/// Number of a run; never used again.
pub(super) type RunId = u64;

/// Permits that a run has got by now, in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) run: RunId,
    pub(super) hotkey: Hotkey,
    pub(super) total: u64,
}

/// The permits of all miners.
#[derive(Debug, Default)]
pub(super) struct Table {
    miners: HashMap<Hotkey, Line>,
    /// The miners of each run.
    runs: HashMap<RunId, Vec<Hotkey>>,
}

/// The runs that play one miner.
#[derive(Debug)]
struct Line {
    /// Episodes that the miner can play at a time.
    capacity: u32,
    accounts: HashMap<RunId, Account>,
    /// Runs that wait for a permit, next first.
    turn: VecDeque<RunId>,
}

/// A miner in a run.
#[derive(Debug)]
struct Account {
    cycle: CycleId,
    per_miner: u32,
    /// Episodes that have not ended.
    left: u32,
    /// Permits granted and neither used nor given back.
    unused: u32,
    playing: u32,
    /// Permits ever granted.
    granted: u64,
    /// Whether its episodes could start: not before the miner was asked for its health.
    is_open: bool,
}

impl Account {
    fn in_use(&self) -> u32 {
        self.unused + self.playing
    }

    fn is_waiting(&self) -> bool {
        self.is_open && self.left > self.in_use()
    }
}

impl Line {
    fn new() -> Self {
        Self { capacity: 1, accounts: HashMap::new(), turn: VecDeque::new() }
    }

    /// Whether this run may have one more.
    fn has_room_for(&self, run: RunId) -> bool {
        let Some(account) = self.accounts.get(&run) else { return false };
        let all: u32 = self.accounts.values().map(Account::in_use).sum();
        let of_cycle = self.accounts.values().filter(|other| other.cycle == account.cycle).map(Account::in_use);
        all < self.capacity && of_cycle.sum::<u32>() < account.per_miner
    }

    /// Hand out what is free, in turn.
    fn grant(&mut self) -> Vec<(RunId, u64)> {
        let mut waiting: Vec<RunId> =
            self.accounts.iter().filter(|(_, account)| account.is_waiting()).map(|(run, _)| *run).collect();
        waiting.sort_unstable();
        self.turn.retain(|run| waiting.contains(run));
        waiting.retain(|run| !self.turn.contains(run));
        self.turn.extend(waiting);
        let mut granted = Vec::new();
        while let Some(place) = self.turn.iter().position(|run| self.has_room_for(*run)) {
            let Some(run) = self.turn.remove(place) else { break };
            let Some(account) = self.accounts.get_mut(&run) else { continue };
            account.unused += 1;
            account.granted += 1;
            granted.push((run, account.granted));
            if account.is_waiting() {
                self.turn.push_back(run);
            }
        }
        granted
    }
}

impl Table {
    /// A run begins, with so many episodes of each miner. It is granted nothing for a miner before [`Table::open`].
    pub(super) fn enter(&mut self, run: RunId, (cycle, per_miner): (CycleId, u32), episodes: HashMap<Hotkey, u32>) {
        self.runs.insert(run, episodes.keys().cloned().collect());
        for (hotkey, left) in episodes {
            let account =
                Account { cycle, per_miner: per_miner.max(1), left, unused: 0, playing: 0, granted: 0, is_open: false };
            self.miners.entry(hotkey).or_insert_with(Line::new).accounts.insert(run, account);
        }
    }

    /// The run's episodes of this miner could start. The last capacity that a miner has told holds.
    pub(super) fn open(&mut self, run: RunId, hotkey: &Hotkey, capacity: Option<u32>) -> Vec<Granted> {
        if let (Some(line), Some(capacity)) = (self.miners.get_mut(hotkey), capacity) {
            line.capacity = capacity.max(1);
        }
        self.change(run, hotkey, |account| account.is_open = true)
    }

    /// The run has used a permit.
    pub(super) fn started(&mut self, run: RunId, hotkey: &Hotkey) -> Vec<Granted> {
        self.change(run, hotkey, |account| {
            account.unused = account.unused.saturating_sub(1);
            account.playing += 1;
        })
    }

    /// An episode that had started has ended.
    pub(super) fn ended(&mut self, run: RunId, hotkey: &Hotkey) -> Vec<Granted> {
        self.change(run, hotkey, |account| {
            account.playing = account.playing.saturating_sub(1);
            account.left = account.left.saturating_sub(1);
        })
    }

    /// An episode that had started waits again.
    pub(super) fn returned(&mut self, run: RunId, hotkey: &Hotkey) -> Vec<Granted> {
        self.change(run, hotkey, |account| account.playing = account.playing.saturating_sub(1))
    }

    /// An episode will not start any more.
    pub(super) fn skipped(&mut self, run: RunId, hotkey: &Hotkey) -> Vec<Granted> {
        self.change(run, hotkey, |account| account.left = account.left.saturating_sub(1))
    }

    /// The run gives permits back that it could not use.
    pub(super) fn unused(&mut self, run: RunId, hotkey: &Hotkey, count: u32) -> Vec<Granted> {
        if let Some(line) = self.miners.get_mut(hotkey) {
            // It had its turn: the others come first.
            line.turn.retain(|other| *other != run);
        }
        self.change(run, hotkey, |account| account.unused = account.unused.saturating_sub(count))
    }

    /// The run is over: all that it holds is free.
    pub(super) fn leave(&mut self, run: RunId) -> Vec<Granted> {
        let mut granted = Vec::new();
        for hotkey in self.runs.remove(&run).unwrap_or_default() {
            let Some(line) = self.miners.get_mut(&hotkey) else { continue };
            line.accounts.remove(&run);
            if line.accounts.is_empty() {
                self.miners.remove(&hotkey);
            } else {
                granted.extend(self.grant(&hotkey));
            }
        }
        granted
    }

    fn change(&mut self, run: RunId, hotkey: &Hotkey, change: impl FnOnce(&mut Account)) -> Vec<Granted> {
        let account = self.miners.get_mut(hotkey).and_then(|line| line.accounts.get_mut(&run));
        let Some(account) = account else { return Vec::new() };
        change(account);
        self.grant(hotkey)
    }

    fn grant(&mut self, hotkey: &Hotkey) -> Vec<Granted> {
        let granted = self.miners.get_mut(hotkey).map(Line::grant).unwrap_or_default();
        granted.into_iter().map(|(run, total)| Granted { run, hotkey: hotkey.clone(), total }).collect()
    }
}
