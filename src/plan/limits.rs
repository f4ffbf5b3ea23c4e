//! How often a stage is tried, how long it may take and wait, how complete it has to be: the built-in limits, changed by
//! the pipeline's `defaults`, changed by the stage.

use crate::cycle::FailureClass;
use crate::manifest::document::Document;
use crate::manifest::located::Located;
use crate::manifest::pipeline::{Defaults, ExpectWire, Pipeline, RetryOn, RetryWire};
use crate::manifest::{Diagnostic, Diagnostics};

use super::draft::Draft;
use super::{Expect, Phase, Retry, Then, retryable};

const DEFAULT_TIMEOUT_MS: u64 = 60 * 60 * 1000;

/// The limits of one stage.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) retry: Retry,
    pub(super) timeout_ms: u64,
    pub(super) queue_timeout_ms: Option<u64>,
    pub(super) expect: Expect,
    pub(super) pool: Option<String>,
}

impl Limits {
    /// The limits of a stage; what is wrong with them is reported.
    pub(super) fn of(document: &Document, pipeline: &Pipeline, draft: &Draft<'_>, found: &mut Diagnostics) -> Self {
        let (defaults, wire) = (&pipeline.defaults, draft.wire);
        let mut reader = Reader { document, found };
        let timeout = wire.timeout.as_ref().or(defaults.timeout.as_ref());
        // What cleans up must not wait behind what it cleans up after: there only what the stage says itself counts.
        let nothing = Defaults::default();
        let shared = if draft.phase == Phase::Main { defaults } else { &nothing };
        let queue_timeout = wire.queue_timeout.as_ref().or(shared.queue_timeout.as_ref());
        let pool = wire.pool.as_ref().or(shared.pool.as_ref());
        if let Some(pool) = pool {
            reader.check_pool(pool, pipeline);
        }
        Self {
            retry: reader.retry(draft, defaults),
            timeout_ms: timeout.map_or(DEFAULT_TIMEOUT_MS, |timeout| timeout.value.milliseconds()),
            queue_timeout_ms: queue_timeout.map(|timeout| timeout.value.milliseconds()),
            expect: reader.expect(wire.expect.as_ref().or(defaults.expect.as_ref())),
            pool: pool.map(|pool| pool.value.clone()),
        }
    }
}

/// Check the declared pools.
pub(super) fn check_pools(document: &Document, pipeline: &Pipeline, found: &mut Diagnostics) {
    for (name, limit) in &pipeline.pools.0 {
        if !super::compile::is_name(&name.value) {
            let message =
                format!("`{}` is not a pool name (a-z, 0-9, `-` and `_`, starting with a letter)", name.value);
            found.push(document.error(name.at, message));
        }
        if limit.value == 0 {
            found.push(document.error(limit.at, "a pool has at least 1 place"));
        }
    }
}

struct Reader<'a> {
    document: &'a Document,
    found: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn check_pool(&mut self, pool: &Located<String>, pipeline: &Pipeline) {
        if pipeline.pools.names().any(|name| name == pool.value) {
            return;
        }
        let problem = self.document.error(pool.at, format!("there is no pool `{}`", pool.value));
        self.found.push(match crate::manifest::suggest::closest(&pool.value, pipeline.pools.names()) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("declare it at the top of the pipeline: `pools: {{ {}: 2 }}`", pool.value)),
        });
    }

    fn retry(&mut self, draft: &Draft<'_>, defaults: &Defaults) -> Retry {
        let mut retry = built_in();
        for layer in [defaults.retry.as_ref(), draft.wire.retry.as_ref()].into_iter().flatten() {
            let problems = change(&mut retry, layer, self.document);
            problems.into_iter().for_each(|problem| self.found.push(problem));
        }
        if draft.phase != Phase::Main {
            let own = draft.wire.retry.as_ref().filter(|retry| retry.value.then == Some(Then::Pause));
            if let Some(own) = own {
                let message =
                    "a stage of `on_failure` or `finally` cannot pause the cycle: cleaning up waits for nobody";
                self.found.push(self.document.error(self.document.locate(own.at, &["then"]), message));
            }
            retry.then = Then::Fail;
        }
        retry
    }

    fn expect(&mut self, wire: Option<&Located<ExpectWire>>) -> Expect {
        match wire.map(|expect| (expect.at, expect.value)) {
            None | Some((_, ExpectWire::Complete)) => Expect::Complete,
            Some((at, ExpectWire::Quorum(share))) => {
                if !(0.0..=1.0).contains(&share) {
                    let at = self.document.locate(at, &["quorum"]);
                    let message = format!("a quorum is a share from 0 to 1, not {share}");
                    self.found.push(self.document.error(at, message));
                }
                Expect::Quorum(share)
            }
        }
    }
}

fn built_in() -> Retry {
    Retry {
        max_attempts: 3,
        initial_interval_ms: 2_000,
        backoff: 2.0,
        max_interval_ms: 60_000,
        jitter: 0.2,
        on: retryable(),
        then: Then::Fail,
    }
}

/// Change what a layer says.
fn change(retry: &mut Retry, layer: &Located<RetryWire>, document: &Document) -> Vec<Diagnostic> {
    let RetryWire { max_attempts, initial_interval, backoff, max_interval, jitter, on, then } = &layer.value;
    retry.max_attempts = max_attempts.unwrap_or(retry.max_attempts);
    retry.initial_interval_ms = initial_interval.map_or(retry.initial_interval_ms, |span| span.milliseconds());
    retry.backoff = backoff.unwrap_or(retry.backoff);
    retry.max_interval_ms = max_interval.map_or(retry.max_interval_ms, |span| span.milliseconds());
    retry.jitter = jitter.unwrap_or(retry.jitter);
    retry.then = then.unwrap_or(retry.then);
    let mut problems = Vec::new();
    let mut check = |holds: bool, key: &str, message: &str| {
        if !holds {
            problems.push(document.error(document.locate(layer.at, &[key]), message));
        }
    };
    let attempts = "`max_attempts` is from 1 to 100: it counts the first attempt, too";
    check((1..=100).contains(&retry.max_attempts), "max_attempts", attempts);
    check((1.0..=100.0).contains(&retry.backoff), "backoff", "`backoff` is from 1 to 100");
    check((0.0..=1.0).contains(&retry.jitter), "jitter", "`jitter` is from 0 to 1");
    if let Some(on) = on {
        let none = "nothing would be tried again: write `max_attempts: 1` for that";
        check(!on.is_empty(), "on", none);
        // In one order, since in which a file lists them says nothing.
        let named = |class: RetryOn| on.iter().any(|named| named.value == class);
        retry.on = [
            (RetryOn::Infra, FailureClass::Infra),
            (RetryOn::Timeout, FailureClass::Timeout),
            (RetryOn::BelowQuorum, FailureClass::BelowQuorum),
        ]
        .into_iter()
        .filter(|(word, _)| named(*word))
        .map(|(_, class)| class)
        .collect();
    }
    problems
}
