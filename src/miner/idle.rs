//! Connections that wait for the next call, by where they lead.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{endpoint::Origin, line::Line, route::Route};

/// How long a connection is worth keeping. Usual servers close theirs after 5 s without a request; a request that meets such an end on
/// its way costs the miner time.
const KEPT: Duration = Duration::from_secs(4);

/// Idle connections.
#[derive(Debug)]
pub(super) struct Idle(Mutex<Shelf>);

#[derive(Debug)]
struct Shelf {
    /// With the moment each was put here, oldest first.
    lines: HashMap<Origin, Vec<(Instant, Line)>>,
    cleared: Instant,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Shelf { lines: HashMap::new(), cleared: Instant::now() }))
    }

    /// A connection that seems to be open still, and leads where a new one would: one that was opened to an address that the
    /// name has left is not used.
    pub(super) async fn take(&self, route: &Route) -> Option<Line> {
        loop {
            let (since, mut line) = self.lock().lines.get_mut(&route.endpoint.origin)?.pop()?;
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
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Nothing between lock and unlock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
