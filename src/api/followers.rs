//! Cycles that clients follow: one look at the journal a second for each of them, however many follow, and nobody looks when
//! nobody follows.
//!
//! Who follows gets the last lines from memory and older ones from the database, so that it may come late, go away and come back,
//! or read slowly: nothing is lost and nothing is kept for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ask, problem::Problem};
use crate::cycle::{CycleId, CycleStatus};
use crate::store::{FollowedEvent, Store};

/// How often the journal of a cycle is looked at.
const ROUND: Duration = Duration::from_secs(1);
/// Lines that are read at a time.
const PAGE: u32 = 500;
/// Lines that are kept in memory for each cycle.
const KEPT: usize = 1000;

/// The last lines of a cycle's journal.
#[derive(Debug, Clone)]
struct Window {
    /// All lines behind this one are here.
    from: i64,
    lines: VecDeque<Arc<FollowedEvent>>,
    /// How the cycle ended, when all its lines are here or before.
    ended: Option<CycleStatus>,
}

type Watched = HashMap<CycleId, watch::Sender<Window>>;

/// All who follow.
#[derive(Clone)]
pub(super) struct Followers {
    store: Store,
    places: Arc<Semaphore>,
    watched: Arc<Mutex<Watched>>,
    looking: TaskTracker,
    stop: CancellationToken,
}

/// One who follows.
pub(super) struct Follower {
    store: Store,
    cycle: CycleId,
    /// The last line it has.
    last: i64,
    window: watch::Receiver<Window>,
    next: VecDeque<Arc<FollowedEvent>>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// What comes next for one who follows.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// A line.
    Line(Arc<FollowedEvent>),
    /// The cycle has ended so.
    End(CycleStatus),
    /// Nothing more from here: come back and go on.
    Away,
}

impl Followers {
    /// Nobody yet, and at most `most` at a time, until `stop`.
    pub(super) fn new(store: &Store, most: usize, stop: CancellationToken) -> Self {
        Self {
            store: store.clone(),
            places: Arc::new(Semaphore::new(most)),
            watched: Arc::default(),
            looking: TaskTracker::new(),
            stop,
        }
    }

    /// Somebody follows a cycle from behind a line. None when too many follow already.
    pub(super) async fn follow(&self, cycle: CycleId, last: i64) -> Result<Option<Follower>, Problem> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Ok(None) };
        let window = match self.joined(cycle) {
            Some(window) => window,
            None => self.begin(cycle, ask(self.store.last_event(cycle)).await?),
        };
        let (store, stop) = (self.store.clone(), self.stop.clone());
        Ok(Some(Follower { store, cycle, last, window, next: VecDeque::new(), stop, _place: place }))
    }

    /// The window of a cycle that is looked at.
    fn joined(&self, cycle: CycleId) -> Option<watch::Receiver<Window>> {
        Some(self.watched.lock().unwrap_or_else(PoisonError::into_inner).get(&cycle)?.subscribe())
    }

    /// Look at a cycle from now on, unless somebody else has begun meanwhile.
    fn begin(&self, cycle: CycleId, from: i64) -> watch::Receiver<Window> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&cycle) {
            return sender.subscribe();
        }
        let (sender, window) = watch::channel(Window { from, lines: VecDeque::new(), ended: None });
        watched.insert(cycle, sender);
        let all = self.clone();
        self.looking.spawn(async move {
            all.stop.run_until_cancelled(all.look(cycle, from)).await;
        });
        window
    }

    /// Look at a cycle until it has ended or nobody follows it.
    async fn look(&self, cycle: CycleId, mut last: i64) {
        let mut clock = interval(ROUND);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let (events, ended) = match ask(self.store.events_after(cycle, last, PAGE)).await {
                Ok(Some(found)) => {
                    let is_all = found.events.len() < PAGE as usize;
                    (found.events, Some(found.status).filter(|status| *status != CycleStatus::Open && is_all))
                }
                // What fails now is tried again with the next round.
                Ok(None) | Err(_) => (Vec::new(), None),
            };
            last = events.last().map_or(last, |line| line.id);
            if !self.show(cycle, events, ended) {
                return;
            }
        }
    }

    /// Show lines to all who follow. Whether there is anything more to look for.
    fn show(&self, cycle: CycleId, lines: Vec<FollowedEvent>, ended: Option<CycleStatus>) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = watched.get(&cycle) else { return false };
        if !lines.is_empty() || ended.is_some() {
            sender.send_modify(|window| window.add(lines, ended));
        }
        // Under the lock: who comes now either is counted here or begins anew.
        let goes_on = ended.is_none() && sender.receiver_count() > 0;
        if !goes_on {
            watched.remove(&cycle);
        }
        goes_on
    }
}

impl Window {
    fn add(&mut self, lines: Vec<FollowedEvent>, ended: Option<CycleStatus>) {
        self.lines.extend(lines.into_iter().map(Arc::new));
        while self.lines.len() > KEPT {
            self.from = self.lines.pop_front().map_or(self.from, |line| line.id);
        }
        self.ended = ended;
    }
}

impl Follower {
    /// What comes next, when it has come.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Some(line) = self.next.pop_front() {
                self.last = line.id;
                return Next::Line(line);
            }
            let (from, ended) = {
                let window = self.window.borrow_and_update();
                if self.last >= window.from {
                    self.next.extend(window.lines.iter().filter(|line| line.id > self.last).cloned());
                }
                (window.from, window.ended)
            };
            if self.last < from {
                if !self.read(from).await {
                    return Next::Away;
                }
            } else if self.next.is_empty() {
                if let Some(status) = ended {
                    return Next::End(status);
                }
                let changed = self.stop.run_until_cancelled(self.window.changed()).await;
                if !matches!(changed, Some(Ok(()))) {
                    return Next::Away;
                }
            }
        }
    }

    /// Read lines that are older than those in memory. Whether they could be read.
    async fn read(&mut self, from: i64) -> bool {
        let Ok(Some(found)) = ask(self.store.events_after(self.cycle, self.last, PAGE)).await else { return false };
        if found.events.is_empty() {
            // They have aged out.
            self.last = from;
        }
        self.next.extend(found.events.into_iter().map(Arc::new));
        true
    }
}
