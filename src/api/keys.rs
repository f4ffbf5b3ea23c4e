//! The keys of the API, kept in memory: showing one costs the database nothing, and those that were known go on working while it
//! is away.
//!
//! The database is looked at every second, so a revoked key is good for that much longer at most. For a key that is not known it
//! is looked at once more, since it may have been made a moment ago, but never more often than a few times a second, whatever
//! strangers send.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use subtle::ConstantTimeEq;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use uuid::Uuid;

use super::{ask, problem::Problem, token::Token};
use crate::store::{ApiKey, Store};

/// How often the database is looked at.
const ROUND: Duration = Duration::from_secs(1);

/// The least time between two looks for the sake of unknown keys.
const REST: Duration = Duration::from_millis(200);

/// How coarsely it is noted when a key was last used.
const COARSE: TimeDelta = TimeDelta::minutes(1);

/// The keys as they were when the database last said.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    known: watch::Sender<Known>,
    /// When the last look began. Whoever holds it is looking.
    looked: tokio::sync::Mutex<Option<Instant>>,
    used: Mutex<BTreeSet<Uuid>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    keys: Arc<[ApiKey]>,
    /// Whether the database said so when it was last asked.
    is_current: bool,
}

impl Keys {
    /// None known yet.
    pub(super) fn of(store: &Store) -> Self {
        let shared = Shared {
            store: store.clone(),
            known: watch::Sender::default(),
            looked: tokio::sync::Mutex::default(),
            used: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// 401 when it is nobody's, 503 when that cannot be known.
    pub(super) async fn holder(&self, token: &Token) -> Result<ApiKey, Problem> {
        let asked = Instant::now();
        if let Some(key) = self.find(token) {
            return Ok(key);
        }
        if self.shared.known.borrow().is_current {
            self.look_after(asked).await;
        }
        match self.find(token) {
            Some(key) => Ok(key),
            None if self.shared.known.borrow().is_current => Err(Problem::wrong_key()),
            None => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the database is unreachable, and this key was not known before",
            )),
        }
    }

    /// Keep looking, for ever.
    pub(super) async fn keep(&self) {
        let mut clock = interval(ROUND);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let mut looked = self.shared.looked.lock().await;
            self.look(&mut looked).await;
            drop(looked);
            self.note_use().await;
        }
    }

    /// Look now: the keys are known before the first client asks, if the database answers.
    pub(super) async fn look_now(&self) {
        self.look(&mut *self.shared.looked.lock().await).await;
    }

    /// Make sure that a look has begun after this moment. Many who wait share one.
    async fn look_after(&self, moment: Instant) {
        let mut looked = self.shared.looked.lock().await;
        if looked.is_some_and(|looked| looked >= moment) {
            return;
        }
        if let Some(last) = *looked {
            // No more than a few looks a second are worth what strangers send.
            sleep_until(last + REST).await;
        }
        self.look(&mut looked).await;
    }

    async fn look(&self, looked: &mut Option<Instant>) {
        *looked = Some(Instant::now());
        let found = ask(self.shared.store.standing_api_keys()).await;
        self.shared.known.send_if_modified(|known| {
            let next = match found {
                Ok(keys) => Known { keys: keys.into(), is_current: true },
                Err(_) => Known { is_current: false, ..known.clone() },
            };
            *known != next && {
                *known = next;
                true
            }
        });
    }

    /// Whose key this is, if that is known.
    pub(super) fn find(&self, token: &Token) -> Option<ApiKey> {
        let (digest, now) = (token.sha256(), Utc::now());
        let known = Arc::clone(&self.shared.known.borrow().keys);
        // Every key is compared, and every byte of it: how long that takes tells nothing.
        let matching = known.iter().filter(|key| bool::from(key.sha256.ct_eq(&digest))).fold(None, |_, key| Some(key));
        let found = matching.filter(|key| key.is_good(now)).cloned()?;
        if is_noted_long_ago(&found, now) {
            self.used().insert(found.id);
        }
        Some(found)
    }

    /// Write down which keys have been used. What cannot be is left out: it is for people to see which key nobody needs.
    async fn note_use(&self) {
        let used: Vec<Uuid> = mem::take(&mut *self.used()).into_iter().collect();
        if !used.is_empty() {
            let _ = ask(self.shared.store.note_use_of_api_keys(&used)).await;
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, BTreeSet<Uuid>> {
        self.shared.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_noted_long_ago(key: &ApiKey, now: DateTime<Utc>) -> bool {
    key.last_used_at.is_none_or(|last| now - last >= COARSE)
}
