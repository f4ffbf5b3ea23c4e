//! Connections that wait for the next call, by where they lead.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{endpoint::Origin, line::Line, route::Route};
use crate::host::descriptors;

/// How long a connection is worth keeping. Usual servers close theirs after 5 s without a request; a request that meets such an end on
/// its way costs the miner time.
const KEPT: Duration = Duration::from_secs(4);

/// Idle connections.
#[derive(Debug)]
pub(super) struct Idle {
    shelf: Mutex<Shelf>,
    /// Most that are kept.
    most: usize,
}

#[derive(Debug)]
struct Shelf {
    /// With the moment each was put here, oldest first.
    lines: HashMap<Origin, Vec<(Instant, Line)>>,
    count: usize,
    cleared: Instant,
}

impl Idle {
    /// Keep as many as half of the files that this process may have open: the other half is for calls that are made.
    pub(super) fn new() -> Self {
        let shelf = Mutex::new(Shelf { lines: HashMap::new(), count: 0, cleared: Instant::now() });
        Self { shelf, most: usize::try_from(descriptors::allowed() / 2).unwrap_or(usize::MAX) }
    }

    /// A connection that seems to be open still, and leads where a new one would: one that was opened to an address that the
    /// name has left is not used.
    pub(super) async fn take(&self, route: &Route) -> Option<Line> {
        loop {
            let (since, mut line) = self.lock().pop(&route.endpoint.origin)?;
            if since.elapsed() < KEPT && route.leads_to(line.peer.address) && line.is_usable().await {
                return Some(line);
            }
        }
    }

    /// Keep a connection for another call, if it can take one.
    pub(super) async fn put(&self, origin: &Origin, mut line: Line) {
        if !line.is_usable().await {
            return;
        }
        let now = Instant::now();
        let mut shelf = self.lock();
        if shelf.count >= self.most {
            return;
        }
        shelf.count += 1;
        match shelf.lines.get_mut(origin) {
            Some(lines) => lines.push((now, line)),
            None => drop(shelf.lines.insert(origin.clone(), vec![(now, line)])),
        }
        if now.duration_since(shelf.cleared) > KEPT {
            shelf.cleared = now;
            shelf.lines.retain(|_, lines| {
                lines.retain(|(since, _)| now.duration_since(*since) < KEPT);
                !lines.is_empty()
            });
            shelf.count = shelf.lines.values().map(Vec::len).sum();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Nothing between lock and unlock can panic half-way.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn pop(&mut self, origin: &Origin) -> Option<(Instant, Line)> {
        let kept = self.lines.get_mut(origin)?.pop()?;
        self.count -= 1;
        Some(kept)
    }
}
