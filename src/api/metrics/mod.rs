//! `GET /metrics`: how the backend is, for Prometheus.
//!
//! What has to survive this process, and to be right with several of them, is asked of the database: by one at a time, and not
//! more often than every few seconds, however many ask us. While the database is away the page shows what it said last, and
//! says so. What belongs to this process is counted here. Nothing is decided by any of it.

mod names;
mod page;
mod requests;
mod seen;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use prometheus::TextEncoder;

use super::{Api, problem::Problem};
use crate::stage::ServerStalls;
use crate::store::{Counters, Store};

pub(super) use requests::count;

use page::Page;
use requests::Requests;
use seen::Seen;

/// For how long what the database has said is good enough.
const FRESH: Duration = Duration::from_secs(4);

/// How long the database may take: Prometheus itself gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// What this process knows of how it is. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: DateTime<Utc>,
    requests: Requests,
    /// Whether each Docker host answers, as far as anybody has looked.
    docker: Mutex<BTreeMap<String, bool>>,
    counters: Counters,
    failures: AtomicU64,
    stalls: Mutex<Arc<ServerStalls>>,
    database: tokio::sync::Mutex<Database>,
}

/// What is known of the database.
#[derive(Debug, Default)]
struct Database {
    asked: Option<Instant>,
    /// Whether it answered; none before the first time.
    answers: Option<bool>,
    seen: Option<(Instant, Seen)>,
}

impl Metrics {
    /// Nothing has happened yet.
    ///
    /// # Errors
    /// What the library says of names that it does not take; there are none.
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self(Arc::new(Inner {
            started: Utc::now(),
            requests: Requests::new()?,
            docker: Mutex::default(),
            counters: Counters::default(),
            failures: AtomicU64::default(),
            stalls: Mutex::default(),
            database: tokio::sync::Mutex::default(),
        })))
    }

    /// A Docker host was asked whether it is there.
    pub fn docker_host(&self, host: &str, answers: bool) {
        self.0.docker.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), answers);
    }

    /// The environment servers whose stalls are shown are these.
    pub fn watch_stalls(&self, stalls: Arc<ServerStalls>) {
        *self.0.stalls.lock().unwrap_or_else(PoisonError::into_inner) = stalls;
    }

    async fn text(&self, store: &Store) -> prometheus::Result<String> {
        let mut page = Page::default();
        self.process(&mut page, store);
        let mut database = self.0.database.lock().await;
        self.look(&mut database, store).await;
        page.set(&names::DATABASE_UP, &[], f64::from(u8::from(database.answers == Some(true))));
        page.set(&names::DATABASE_FAILURES, &[], self.0.failures.load(Ordering::Relaxed) as f64);
        if let Some((at, seen)) = &database.seen {
            page.set(&names::DATABASE_AGE, &[], at.elapsed().as_secs_f64());
            seen.show(&mut page, (Utc::now(), self.0.started));
        }
        drop(database);
        let mut families = page.into_families();
        families.extend(self.0.requests.families());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families)
    }

    /// Ask the database, unless somebody just has.
    async fn look(&self, database: &mut Database, store: &Store) {
        if database.asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return;
        }
        let before = database.seen.as_ref().map(|(_, seen)| seen);
        let answer = tokio::time::timeout(PATIENCE, Seen::ask(store, &self.0.counters, before)).await;
        let answer = answer.unwrap_or(Err(crate::store::Error::Timeout));
        database.asked = Some(Instant::now());
        match answer {
            Ok(seen) => (database.answers, database.seen) = (Some(true), Some((Instant::now(), seen))),
            Err(error) => {
                if database.answers != Some(false) {
                    tracing::error!("Database connection failed: {:#}", anyhow::Error::from(error));
                }
                database.answers = Some(false);
                self.0.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What is of this process.
    fn process(&self, page: &mut Page, store: &Store) {
        page.set(&names::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        let stalls = self.0.stalls.lock().unwrap_or_else(PoisonError::into_inner).total();
        page.set(&names::STALLS, &[], stalls.as_secs_f64());
        let pool = store.pool_state();
        page.set(&names::POOL_SIZE, &[], pool.size.into());
        page.set(&names::POOL, &["idle"], pool.idle.into());
        page.set(&names::POOL, &["in_use"], (pool.size - pool.idle).into());
        for (host, answers) in &*self.0.docker.lock().unwrap_or_else(PoisonError::into_inner) {
            page.set(&names::DOCKER, &[host], f64::from(u8::from(*answers)));
        }
    }
}

pub(super) async fn show(State(api): State<Api>) -> Result<Response, Problem> {
    let text = api.metrics.text(&api.store).await.map_err(|error| {
        tracing::error!("metrics cannot be written: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")
    })?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, text).into_response())
}
