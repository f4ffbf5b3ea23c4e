//! How a running validator is: what it tells the log once, what `/health` and `/metrics` show. Holds no secret, and nothing
//! here decides anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use prometheus::{Gauge, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use serde_json::{Value, json};

use super::{document::Document, emission::Done, pace::Watchdog, trouble::Trouble};

/// What something is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Where documents come from.
    Backend,
    /// Where weights go.
    Chain,
    /// What the two come to.
    Weights,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Chain => "chain",
            Self::Weights => "weights",
        }
    }
}

/// How a validator is, shared with those who ask.
#[derive(Debug, Clone)]
pub struct Report(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    watchdog: Watchdog,
    was_well: bool,
    /// What is wrong with a part, and since when; a part that has not been asked is not here.
    parts: BTreeMap<Part, Option<(String, Instant)>>,
    document: Option<Value>,
    document_block: Option<u64>,
    best: Option<u64>,
    due: Option<u64>,
    last: Option<Done>,
    set: u64,
    failed: BTreeMap<&'static str, u64>,
    burnt: f64,
}

impl Report {
    /// One of which nothing is known yet.
    pub fn new(watchdog: Watchdog) -> Self {
        Self(Arc::new(Mutex::new(State {
            watchdog,
            was_well: true,
            parts: BTreeMap::new(),
            document: None,
            document_block: None,
            best: None,
            due: None,
            last: None,
            set: 0,
            failed: BTreeMap::new(),
            burnt: 0.0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part has failed. It is logged when it begins and when it changes, not each time.
    pub(super) fn trouble(&self, part: Part, trouble: &Trouble) {
        let mut state = self.state();
        *state.failed.entry(trouble.word()).or_default() += 1;
        let text = trouble.told();
        let before = state.parts.get(&part).cloned().flatten();
        // Numbers of blocks and seconds change with each look at the chain: the kind of trouble is what counts.
        let is_known = before.as_ref().is_some_and(|(word, _)| word == trouble.word());
        let since = before.map_or_else(Instant::now, |(_, since)| since);
        state.parts.insert(part, Some((trouble.word().to_owned(), since)));
        if is_known {
            tracing::debug!(part = part.word(), kind = trouble.word(), "still no good: {text}");
        } else {
            let remedy = trouble.remedies().join("; ");
            tracing::warn!(part = part.word(), kind = trouble.word(), remedy, "{text}");
        }
    }

    /// A part works.
    pub(super) fn works(&self, part: Part) {
        if let Some(Some((_, since))) = self.state().parts.insert(part, None) {
            let seconds = since.elapsed().as_secs();
            tracing::info!(part = part.word(), "the {} works again, after {seconds} s", part.word());
        }
    }

    pub(super) fn has(&self, document: &Document) {
        let mut state = self.state();
        state.document_block = document.block;
        state.document = Some(json!({
            "cycle": document.cycle, "block": document.block, "status": document.status.word(), "digest": document.digest,
        }));
    }

    pub(super) fn saw(&self, best: u64, due: u64, look: impl FnOnce(&mut Watchdog)) {
        let mut state = self.state();
        (state.best, state.due) = (Some(best), Some(due));
        look(&mut state.watchdog);
    }

    pub(super) fn done(&self, done: &Done, burnt: f64, due: u64) {
        let mut state = self.state();
        state.set += 1;
        state.watchdog.succeeded(done.block, Instant::now());
        (state.last, state.burnt, state.due) = (Some(done.clone()), burnt, Some(due));
    }

    /// Look whether success is overdue; said once when it begins and once when it is over.
    pub(super) fn watch(&self) {
        let mut state = self.state();
        let is_well = state.watchdog.is_well(Instant::now());
        match (state.was_well, is_well) {
            (true, false) => tracing::error!("no weights were set for too long: /health says unhealthy until they are"),
            (false, true) => tracing::info!("weights are set again"),
            _ => {}
        }
        state.was_well = is_well;
    }

    /// Whether all is well, and what is shown of it.
    pub fn health(&self) -> (bool, Value) {
        let state = self.state();
        let is_well = state.watchdog.is_well(Instant::now());
        let part = |part: Part| match state.parts.get(&part) {
            None => json!("unknown"),
            Some(None) => json!("ok"),
            Some(Some((word, _))) => json!(word),
        };
        let last = state.last.as_ref().map(|done| json!({ "block": done.block, "extrinsic": done.extrinsic }));
        let value = json!({
            "status": if is_well { "healthy" } else { "unhealthy" }, "version": env!("CARGO_PKG_VERSION"),
            "backend": part(Part::Backend), "chain": part(Part::Chain), "weights": part(Part::Weights),
            "document": state.document, "best_block": state.best, "due_block": state.due, "last": last,
        });
        (is_well, value)
    }

    /// Metrics in the text format of Prometheus. What is not known yet is left out.
    ///
    /// # Errors
    /// What the library says of a name or a value that it cannot write.
    pub fn metrics(&self) -> prometheus::Result<String> {
        let (is_well, _) = self.health();
        let state = self.state();
        let works = |part| match state.parts.get(&part) {
            Some(None) => Some(1.0),
            Some(Some(_)) => Some(0.0),
            None => None,
        };
        let number = |number: Option<u64>| number.map(|number| number as f64);
        let last = number(state.last.as_ref().map(|done| done.block));
        let registry = Registry::new_custom(Some("robo_validator".into()), None)?;
        for (name, help, value) in [
            ("healthy", "Whether weights were set in time.", Some(f64::from(u8::from(is_well)))),
            ("backend_up", "Whether the backend answered the last time.", works(Part::Backend)),
            ("chain_up", "Whether a node answered the last time.", works(Part::Chain)),
            ("best_block", "The last block that was seen.", number(state.best)),
            ("due_block", "The block from which on weights are set again.", number(state.due)),
            ("document_block", "The block of the document in use.", number(state.document_block)),
            ("last_set_block", "The block that took the last weights.", last),
            ("burnt_share", "Share of the last weights that went to the burn slot.", Some(state.burnt)),
        ] {
            let Some(value) = value else { continue };
            let gauge = Gauge::new(name, help)?;
            gauge.set(value);
            registry.register(Box::new(gauge))?;
        }
        let set = IntCounter::new("set_total", "Weights that were set and read back.")?;
        set.inc_by(state.set);
        registry.register(Box::new(set))?;
        let failures = Opts::new("failures_total", "What kept weights from being set.");
        let failures = IntCounterVec::new(failures, &["reason"])?;
        for (word, count) in &state.failed {
            failures.with_label_values(&[word]).inc_by(*count);
        }
        registry.register(Box::new(failures))?;
        TextEncoder::new().encode_to_string(&registry.gather())
    }
}
