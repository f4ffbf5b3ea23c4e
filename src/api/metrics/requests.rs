//! Requests that this process has answered. By the template of an address, never by the address itself: anybody may ask for
//! anything, and each would be a metric of its own.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, proto::MetricFamily};

use super::{Metrics, names};

/// Upper bounds of the buckets of an answer's time, in seconds.
const BOUNDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// What is said of an address that nothing is at.
const NOWHERE: &str = "unmatched";

/// Requests so far.
#[derive(Debug)]
pub(super) struct Requests {
    registry: Registry,
    answered: IntCounterVec,
    took: HistogramVec,
}

impl Requests {
    /// None so far.
    ///
    /// # Errors
    /// What the library says of names that it does not take.
    pub(super) fn new() -> prometheus::Result<Self> {
        let (requests, duration) = (&names::REQUESTS, &names::REQUEST_DURATION);
        let answered = IntCounterVec::new(Opts::new(requests.name, requests.help), requests.labels)?;
        let options = HistogramOpts::new(duration.name, duration.help).buckets(BOUNDS.to_vec());
        let took = HistogramVec::new(options, duration.labels)?;
        let registry = Registry::new();
        registry.register(Box::new(answered.clone()))?;
        registry.register(Box::new(took.clone()))?;
        Ok(Self { registry, answered, took })
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// Let a request pass, and count it.
pub(in super::super) async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(NOWHERE, MatchedPath::as_str);
    let requests = &metrics.0.requests;
    requests.answered.with_label_values(&[route, response.status().as_str()]).inc();
    requests.took.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
    response
}
