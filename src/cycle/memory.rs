//! A journal in memory, for tests of whatever drives a cycle: it keeps the contract of [`Journal`] and forgets with its process.
//!
//! It talks to nothing and never waits. `src/tests/store.rs` runs one contract over this journal and the one on Postgres.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Duration, Utc};
use uuid::Uuid;

use super::{
    Appended, CycleId, CycleRecord, CycleStatus, Discovery, Entry, Episode, EpisodeKey, Heartbeat, Hotkey, Journal,
    JournalError, LastFault, Lease, Outcome, PendingEpisode, Pin, Publication, Role, Sighting, Standing, TaskKey,
    TaskState,
};

/// How long a lease lasts without a heartbeat.
const LEASE: Duration = Duration::seconds(15);

/// A journal in memory. Clones share what is written.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    cycles: BTreeMap<CycleId, Kept>,
    publications: Vec<(CycleId, Publication)>,
    /// By chain, subnet and hotkey, with the block at which each was seen last.
    standings: Standings,
}

type Standings = BTreeMap<(String, u16, Hotkey), (u64, Standing)>;

#[derive(Debug)]
struct Kept {
    record: CycleRecord,
    reason: Option<String>,
    epoch: i64,
    held: Option<(Uuid, DateTime<Utc>)>,
    entries: Vec<Entry>,
    /// Where each task stands in the record.
    places: HashMap<TaskKey, usize>,
    /// What makes a line the same as another one: task, attempt, kind, epoch.
    written: HashSet<(TaskKey, u32, &'static str, i64)>,
    /// Pools that running attempts have a place in.
    claims: HashMap<TaskKey, String>,
    episodes: BTreeMap<EpisodeKey, Planned>,
    sightings: Vec<Sighting>,
    /// What is published when the cycle completes.
    draft: Option<Publication>,
}

#[derive(Debug, Clone)]
struct Planned {
    task: TaskKey,
    attempt: u32,
    /// Attempts that a person has forgiven.
    forgiven: u32,
    last: Option<Episode>,
}

/// What takes one line back.
struct Undo {
    place: usize,
    before: TaskState,
    claim: Option<String>,
    drafted: bool,
    /// For a discovery: the pin and the standings before it.
    discovered: Option<(Option<Pin>, Standings)>,
}

impl Shelf {
    fn append(&mut self, lease: &Lease, entry: &Entry) -> Result<(Appended, Option<Undo>), JournalError> {
        let full = entry.pool.as_ref().is_some_and(|pool| self.occupancy(&pool.name) >= pool.limit as usize);
        let kept = self.cycles.get_mut(&lease.cycle).ok_or(JournalError::Unknown(lease.cycle))?;
        kept.check(lease)?;
        let same = (entry.task.clone(), entry.attempt, entry.event.word(), lease.epoch);
        if kept.written.contains(&same) {
            return Ok((Appended::AlreadyRecorded, None));
        }
        let place = kept.places.get(&entry.task).copied();
        let place = place.ok_or_else(|| storage(format!("there is no task `{}`", entry.task)))?;
        let next = kept.record.tasks[place].record(entry.attempt, &entry.event)?;
        if full {
            return Ok((Appended::Full, None));
        }
        if let Some(publication) = &entry.publication {
            if kept.draft.is_some() {
                return Err(storage(format!("cycle `{}` has something to publish already", lease.cycle)));
            }
            kept.draft = Some(publication.clone());
        }
        let discovered = entry.discovery.as_ref().map(|discovery| {
            let pin = kept.record.pin.replace(discovery.pin.clone());
            let before = self.standings.clone();
            take_over(&mut self.standings, discovery);
            (pin, before)
        });
        let before = std::mem::replace(&mut kept.record.tasks[place], next);
        let claim = match &entry.pool {
            Some(pool) => kept.claims.insert(entry.task.clone(), pool.name.clone()),
            None => kept.claims.remove(&entry.task),
        };
        kept.written.insert(same);
        kept.entries.push(entry.clone());
        let undo = Undo { place, before, claim, drafted: entry.publication.is_some(), discovered };
        Ok((Appended::Recorded, Some(undo)))
    }

    /// Take back the lines that a transaction had written before it failed, the last one first.
    fn roll_back(&mut self, lease: &Lease, done: Vec<Undo>) {
        for undo in done.into_iter().rev() {
            let Some(kept) = self.cycles.get_mut(&lease.cycle) else { continue };
            if undo.drafted {
                kept.draft = None;
            }
            if let Some((pin, standings)) = undo.discovered {
                kept.record.pin = pin;
                self.standings = standings;
            }
            if let Some(entry) = kept.entries.pop() {
                kept.written.remove(&(entry.task, entry.attempt, entry.event.word(), lease.epoch));
            }
            match undo.claim {
                Some(claim) => drop(kept.claims.insert(undo.before.key.clone(), claim)),
                None => drop(kept.claims.remove(&undo.before.key)),
            }
            kept.record.tasks[undo.place] = undo.before;
        }
    }

    /// Tasks that run in a pool, of cycles whose lease is live.
    fn occupancy(&self, pool: &str) -> usize {
        let live = self.cycles.values().filter(|kept| kept.held.is_some_and(|(_, until)| until > Utc::now()));
        live.map(|kept| kept.claims.values().filter(|name| *name == pool).count()).sum()
    }
}

/// Keep what was found at a block, but for hotkeys that a later one has been looked at for.
fn take_over(standings: &mut Standings, discovery: &Discovery) {
    let Pin { genesis, netuid, block, .. } = &discovery.pin;
    for (hotkey, standing) in &discovery.standings {
        let key = (genesis.clone(), *netuid, hotkey.clone());
        if standings.get(&key).is_none_or(|(seen, _)| seen <= block) {
            standings.insert(key, (*block, standing.clone()));
        }
    }
}

impl Planned {
    fn last_fault(&self) -> Option<LastFault> {
        let report = &self.last.as_ref()?.report;
        let Outcome::InfraFault(fault) = report.outcome else { return None };
        Some(LastFault { fault, steps: report.steps, detail: report.detail.clone() })
    }

    fn scored(&self) -> Option<&Episode> {
        self.last.as_ref().filter(|episode| episode.report.outcome.is_scored())
    }
}

impl Kept {
    /// The fence: whoever writes must hold the lease of a cycle that is still open.
    fn check(&self, lease: &Lease) -> Result<(), JournalError> {
        let holds = self.held.is_some_and(|(owner, _)| owner == lease.owner) && self.epoch == lease.epoch;
        if holds && self.record.status == CycleStatus::Open {
            Ok(())
        } else {
            Err(JournalError::LeaseLost(lease.cycle))
        }
    }

    fn add(&mut self, key: TaskKey) {
        if !self.places.contains_key(&key) {
            self.places.insert(key.clone(), self.record.tasks.len());
            self.record.tasks.push(TaskState::new(key));
        }
    }

    /// What [`Journal::reopen`] makes of the cycle.
    fn reopen(&mut self, tasks: &[TaskKey]) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        for key in tasks {
            let place = self.places.get(key).copied().ok_or_else(|| storage(format!("there is no task `{key}`")))?;
            let state = &self.record.tasks[place];
            if let Some((event, next)) = state.reopen(Role::of(&self.record.definition, &key.stage))? {
                lines.push((place, next, event));
            }
        }
        for planned in self.episodes.values_mut().filter(|planned| tasks.contains(&planned.task)) {
            planned.forgiven = planned.attempt;
        }
        self.epoch += 1;
        self.held = None;
        self.reason = None;
        // Whoever gives up an open cycle means it; a person who opens an ended one again means the opposite.
        self.record.cancel_requested &= self.record.status == CycleStatus::Open;
        self.record.status = CycleStatus::Open;
        self.record.paused = false;
        for (place, next, event) in lines {
            self.written.insert((next.key.clone(), next.attempt, event.word(), self.epoch));
            self.entries.push(Entry::new(next.key.clone(), next.attempt, event));
            self.record.tasks[place] = next;
        }
        Ok(())
    }

    /// Whether `lease` was the last one and has been given back: what a repeated farewell finds.
    fn has_left(&self, lease: &Lease) -> bool {
        self.held.is_none() && self.epoch == lease.epoch
    }

    /// Give the lease back with the cycle open.
    fn leave_open(&mut self, lease: &Lease, paused: bool) -> Result<(), JournalError> {
        if self.has_left(lease) && self.record.status == CycleStatus::Open {
            return Ok(());
        }
        self.check(lease)?;
        self.held = None;
        self.record.paused = paused;
        Ok(())
    }
}

impl MemoryJournal {
    /// A journal without cycles.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keep a new cycle with its tasks. A record with that id is replaced.
    pub fn create(&self, record: CycleRecord, tasks: Vec<TaskKey>) {
        let mut kept = Kept {
            record: CycleRecord { tasks: vec![], ..record },
            reason: None,
            epoch: 0,
            held: None,
            entries: vec![],
            places: HashMap::new(),
            written: HashSet::new(),
            claims: HashMap::new(),
            episodes: BTreeMap::new(),
            sightings: vec![],
            draft: None,
        };
        for task in tasks {
            kept.add(task);
        }
        self.shelf().cycles.insert(kept.record.id, kept);
    }

    /// As if the holder of the cycle had fallen silent for longer than its lease.
    pub fn expire_lease(&self, cycle: CycleId) {
        if let Some(kept) = self.shelf().cycles.get_mut(&cycle) {
            kept.held = kept.held.map(|(owner, _)| (owner, Utc::now() - LEASE));
        }
    }

    /// Ask for the cycle to stop.
    pub fn request_cancel(&self, cycle: CycleId) {
        if let Some(kept) = self.shelf().cycles.get_mut(&cycle) {
            kept.record.cancel_requested = true;
        }
    }

    /// What has been published, oldest first.
    pub fn publications(&self) -> Vec<(CycleId, Publication)> {
        self.shelf().publications.clone()
    }

    /// How miners were found, each way once.
    pub fn sightings(&self, cycle: CycleId) -> Vec<Sighting> {
        self.shelf().cycles.get(&cycle).map(|kept| kept.sightings.clone()).unwrap_or_default()
    }

    /// Every line of a cycle's journal, oldest first.
    pub fn entries(&self, cycle: CycleId) -> Vec<Entry> {
        self.shelf().cycles.get(&cycle).map(|kept| kept.entries.clone()).unwrap_or_default()
    }

    /// Why the cycle ended as it did.
    pub fn reason(&self, cycle: CycleId) -> Option<String> {
        self.shelf().cycles.get(&cycle)?.reason.clone()
    }

    /// Everything under one lock. A panic elsewhere leaves whole values behind, so a poisoned lock is used as it is.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do something to a cycle, or say that there is none.
    fn with<T>(
        &self,
        cycle: CycleId,
        act: impl FnOnce(&mut Kept) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        act(self.shelf().cycles.get_mut(&cycle).ok_or(JournalError::Unknown(cycle))?)
    }
}

impl Journal for MemoryJournal {
    async fn load(&self, cycle: CycleId) -> Result<CycleRecord, JournalError> {
        self.with(cycle, |kept| Ok(kept.record.clone()))
    }

    async fn acquire(&self, cycle: CycleId) -> Result<Lease, JournalError> {
        self.with(cycle, |kept| {
            if kept.record.status != CycleStatus::Open {
                return Err(JournalError::LeaseLost(cycle));
            }
            if let Some((_, until)) = kept.held.filter(|(_, until)| *until > Utc::now()) {
                return Err(JournalError::Leased(cycle, until));
            }
            let owner = Uuid::new_v4();
            kept.epoch += 1;
            kept.held = Some((owner, Utc::now() + LEASE));
            kept.record.paused = false;
            Ok(Lease { cycle, owner, epoch: kept.epoch })
        })
    }

    async fn heartbeat(&self, lease: &Lease) -> Result<Heartbeat, JournalError> {
        self.with(lease.cycle, |kept| {
            kept.check(lease)?;
            kept.held = Some((lease.owner, Utc::now() + LEASE));
            Ok(Heartbeat { cancel_requested: kept.record.cancel_requested })
        })
    }

    async fn append_all(&self, lease: &Lease, entries: &[Entry]) -> Result<Vec<Appended>, JournalError> {
        let mut shelf = self.shelf();
        let (mut answers, mut done) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        for entry in entries {
            match shelf.append(lease, entry) {
                Ok((appended, undo)) => {
                    answers.push(appended);
                    done.extend(undo);
                }
                Err(error) => {
                    shelf.roll_back(lease, done);
                    return Err(error);
                }
            }
        }
        Ok(answers)
    }

    async fn expand(&self, lease: &Lease, tasks: &[TaskKey]) -> Result<(), JournalError> {
        self.with(lease.cycle, |kept| {
            kept.check(lease)?;
            for key in tasks {
                kept.add(key.clone());
            }
            Ok(())
        })
    }

    async fn plan_episodes(&self, lease: &Lease, task: &TaskKey, keys: &[EpisodeKey]) -> Result<(), JournalError> {
        self.with(lease.cycle, |kept| {
            kept.check(lease)?;
            if !kept.places.contains_key(task) {
                return Err(storage(format!("there is no task `{task}`")));
            }
            for key in keys {
                let planned = || Planned { task: task.clone(), attempt: 0, forgiven: 0, last: None };
                kept.episodes.entry(key.clone()).or_insert_with(planned);
            }
            Ok(())
        })
    }

    async fn pending_episodes(&self, cycle: CycleId, task: &TaskKey) -> Result<Vec<PendingEpisode>, JournalError> {
        self.with(cycle, |kept| {
            let open = kept.episodes.iter().filter(|(_, planned)| planned.task == *task && planned.scored().is_none());
            let mut pending: Vec<_> = open
                .map(|(key, planned)| PendingEpisode {
                    key: key.clone(),
                    attempt: planned.attempt,
                    counted: planned.attempt - planned.forgiven,
                    last: planned.last_fault(),
                })
                .collect();
            pending.sort_by(|a, b| (a.key.seed_index, &a.key.hotkey).cmp(&(b.key.seed_index, &b.key.hotkey)));
            Ok(pending)
        })
    }

    async fn record_episode(&self, lease: &Lease, episode: &Episode) -> Result<Appended, JournalError> {
        self.with(lease.cycle, |kept| {
            kept.check(lease)?;
            let planned = kept.episodes.get_mut(&episode.key);
            let planned = planned.ok_or_else(|| storage("an episode that was never planned"))?;
            let is_late = !episode.report.outcome.is_scored() && episode.attempt <= planned.attempt;
            if planned.scored().is_some() || is_late {
                return Ok(Appended::AlreadyRecorded);
            }
            planned.attempt = planned.attempt.max(episode.attempt);
            planned.last = Some(Episode { attempt: planned.attempt, ..episode.clone() });
            Ok(Appended::Recorded)
        })
    }

    async fn record_sighting(&self, lease: &Lease, sighting: &Sighting) -> Result<(), JournalError> {
        self.with(lease.cycle, |kept| {
            kept.check(lease)?;
            if !kept.sightings.contains(sighting) {
                kept.sightings.push(sighting.clone());
            }
            Ok(())
        })
    }

    async fn standings(&self, genesis: &str, netuid: u16) -> Result<BTreeMap<Hotkey, Standing>, JournalError> {
        let shelf = self.shelf();
        let ours = shelf.standings.iter().filter(|((chain, subnet, _), _)| chain == genesis && *subnet == netuid);
        Ok(ours.map(|((.., hotkey), (_, standing))| (hotkey.clone(), standing.clone())).collect())
    }

    async fn scored_episodes(&self, cycle: CycleId) -> Result<Vec<Episode>, JournalError> {
        // The keys' order is that of the contract: environment, seed index, hotkey.
        self.with(cycle, |kept| Ok(kept.episodes.values().filter_map(Planned::scored).cloned().collect()))
    }

    async fn finish(
        &self,
        lease: &Lease,
        status: CycleStatus,
        reason: Option<&str>,
    ) -> Result<CycleStatus, JournalError> {
        if status == CycleStatus::Open {
            return self.release(lease).await.map(|()| status);
        }
        let mut shelf = self.shelf();
        let kept = shelf.cycles.get_mut(&lease.cycle).ok_or(JournalError::Unknown(lease.cycle))?;
        let ended = match status {
            CycleStatus::Completed if kept.record.cancel_requested => CycleStatus::Cancelled,
            _ => status,
        };
        if kept.has_left(lease) && kept.record.status == ended {
            return Ok(ended);
        }
        kept.check(lease)?;
        kept.record.status = ended;
        kept.reason = reason.map(str::to_owned);
        kept.held = None;
        if let Some(draft) = kept.draft.take_if(|_| ended == CycleStatus::Completed) {
            shelf.publications.push((lease.cycle, draft));
        }
        Ok(ended)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.with(lease.cycle, |kept| kept.leave_open(lease, false))
    }

    async fn pause(&self, lease: &Lease) -> Result<(), JournalError> {
        self.with(lease.cycle, |kept| kept.leave_open(lease, true))
    }

    async fn reopen(&self, cycle: CycleId, tasks: &[TaskKey]) -> Result<(), JournalError> {
        self.with(cycle, |kept| {
            if kept.record.status == CycleStatus::Completed {
                return Err(JournalError::Completed(cycle));
            }
            if let Some((_, until)) = kept.held.filter(|(_, until)| *until > Utc::now()) {
                return Err(JournalError::Leased(cycle, until));
            }
            kept.reopen(tasks)
        })
    }
}

fn storage(message: impl Into<String>) -> JournalError {
    JournalError::Storage(message.into().into())
}
