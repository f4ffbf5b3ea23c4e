//! How long the environment servers of this process were stalled, and when an operator is told that a machine is overloaded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

/// The stalls of all environment servers that this process has used, by their starts.
#[derive(Debug, Default)]
pub struct ServerStalls(Mutex<HashMap<Uuid, Duration>>);

impl ServerStalls {
    /// A server says how long it was stalled in all. Several of its streams say so, and none may count twice.
    pub(super) fn note(&self, server: Uuid, stalled: Duration) {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = servers.entry(server).or_default();
        *longest = stalled.max(*longest);
    }

    /// All of them together. It never gets less.
    pub fn total(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// Over which time the share of stalls is measured.
const SPAN: Duration = Duration::from_secs(10);

/// The share from which on a machine is called overloaded.
const SHARE: f64 = 0.1;

/// How long an operator is not told again.
const PAUSE: Duration = Duration::from_secs(60);

/// The stalls of one server while it answers a request. Pure.
#[derive(Debug, Default)]
pub(super) struct Overload {
    /// When the span that is measured began, and how long the server had been stalled by then.
    since: Option<(Instant, Duration)>,
    told: Option<Instant>,
}

impl Overload {
    /// The server says how long it was stalled in all. The answer is what to tell the operator of: the stalls of the last span, and
    /// how long that was.
    pub(super) fn hear(&mut self, now: Instant, stalled: Duration) -> Option<(Duration, Duration)> {
        let (begin, before) = *self.since.get_or_insert((now, stalled));
        let span = now.saturating_duration_since(begin);
        if span < SPAN {
            return None;
        }
        self.since = Some((now, stalled));
        let lost = stalled.saturating_sub(before);
        let is_told = self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE);
        if is_told || lost.as_secs_f64() < SHARE * span.as_secs_f64() {
            return None;
        }
        self.told = Some(now);
        Some((lost, span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn stalls_add_up_over_servers_and_count_once_for_each() {
        let (stalls, [a, b]) = (ServerStalls::default(), [Uuid::from_u128(1), Uuid::from_u128(2)]);
        for (server, stalled) in [(a, 3), (b, 1), (a, 2), (a, 3), (b, 4)] {
            stalls.note(server, s(stalled));
        }
        assert_eq!(stalls.total(), s(7));
    }

    #[test]
    fn an_operator_is_told_of_an_overload_once_in_a_while() {
        let (start, mut overload) = (Instant::now(), Overload::default());
        let told: Vec<u64> = (0..150)
            .filter(|second| overload.hear(start + s(*second), s(100) + Duration::from_millis(200 * second)).is_some())
            .collect();
        assert_eq!(told, [10, 70, 130]);
    }

    #[test]
    fn stalls_now_and_then_are_no_overload() {
        let (start, mut overload) = (Instant::now(), Overload::default());
        let told = (0..100).filter_map(|second| overload.hear(start + s(second), Duration::from_millis(90 * second)));
        assert_eq!(told.count(), 0);
    }
}
