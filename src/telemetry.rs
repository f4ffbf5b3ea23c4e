//! What a process tells of its work: log lines, for people or for programs, and traces for whoever collects them (OTLP).
//!
//! A cycle is one trace, whose id is the cycle's: whoever takes it up again adds to it. Log lines inside a cycle carry
//! `cycle` and `pipeline`, inside an attempt `stage`, `task`, `environment` and `attempt`, and `hotkey` where it is about a miner.

use std::{cell::Cell, io::IsTerminal, time::SystemTime};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::Targets, fmt::time::SystemTime as Clock, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::cycle::CycleId;
use crate::evidence;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people at a terminal; for verbs that serve, JSON everywhere else.
    #[default]
    Auto,
    /// A line of text.
    Text,
    /// A line with a JSON object.
    Json,
}

impl LogFormat {
    /// Whether lines are JSON, in a process that serves or one that does not.
    pub fn is_json(self, serves: bool) -> bool {
        match self {
            Self::Auto => serves && !std::io::stderr().is_terminal(),
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Ends what tells of this process when it is dropped: the last traces are sent.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0 {
            // Who collects traces may be gone; they are no part of the result.
            let _ = provider.shutdown();
        }
    }
}

/// Begin to tell, once a process. `filter` is what `RUST_LOG` may replace; traces go where `OTEL_EXPORTER_OTLP_ENDPOINT` says,
/// if it is set and `traces` are wanted.
pub fn start(filter: EnvFilter, is_json: bool, traces: bool) -> Telemetry {
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if is_json {
        let mut lines = json_subscriber::JsonLayer::stderr();
        lines.with_timer("time", Clock);
        lines.with_level("level");
        lines.with_target("target");
        lines.with_top_level_flattened_span_list();
        lines.with_flattened_event();
        Box::new(lines.with_filter(filter))
    } else {
        let lines = tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal());
        Box::new(lines.with_writer(std::io::stderr).with_filter(filter))
    };
    let provider = if traces && crate::config::collects_traces() { provider() } else { Ok(None) };
    let (provider, problem) = match provider {
        Ok(provider) => (provider, None),
        Err(problem) => (None, Some(problem)),
    };
    let spans = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("robo"));
        layer.with_filter(Targets::new().with_target("robo", tracing::Level::INFO))
    });
    tracing_subscriber::registry().with(lines).with(spans).init();
    if let Some(problem) = problem {
        tracing::warn!("traces are not sent: {problem}");
    }
    if let Some(provider) = &provider {
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    Telemetry(provider)
}

fn provider() -> Result<Option<SdkTracerProvider>, opentelemetry_otlp::ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder()
        .with_service_name(crate::config::service_name())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let provider = SdkTracerProvider::builder().with_id_generator(Ids::default()).with_resource(resource.build());
    Ok(Some(provider.with_batch_exporter(exporter).build()))
}

/// The span of one run of a cycle: part of the cycle's trace.
pub fn run_span(cycle: CycleId, pipeline: &str) -> Span {
    let span = tracing::info_span!(target: "robo", "run", cycle = %cycle, pipeline);
    // Where no traces are collected there is nothing to be part of.
    let _ = span.set_parent(Context::new().with_remote_span_context(root(cycle)));
    span
}

/// Close a cycle's trace: the span that all of its runs are parts of, from its creation to now.
pub fn cycle_ended(cycle: CycleId, pipeline: &str, created: SystemTime, status: &'static str) {
    let (context, tracer) = (root(cycle), opentelemetry::global::tracer("robo"));
    CHOSEN.set(Some((context.trace_id(), context.span_id())));
    let mut span = tracer.span_builder("cycle").with_start_time(created).start_with_context(&tracer, &Context::new());
    CHOSEN.set(None);
    let facts = [("cycle", cycle.to_string()), ("pipeline", pipeline.to_owned()), ("status", status.to_owned())];
    span.set_attributes(facts.map(|(name, value)| KeyValue::new(name, value)));
    if status == "failed" {
        span.set_status(Status::error("the cycle failed"));
    }
    span.end();
}

/// What every run of a cycle is part of, the same for all processes.
fn root(cycle: CycleId) -> SpanContext {
    let trace = TraceId::from_bytes(*cycle.as_uuid().as_bytes());
    let digest = evidence::digest(&serde_json::json!(cycle));
    // Sixteen digits out of a SHA-256 in hex: not all zero.
    let span = SpanId::from_hex(&digest[..16]).unwrap_or(SpanId::INVALID);
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}

thread_local! {
    /// The ids of the next span of this thread, where they are not to be random.
    static CHOSEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random ids, but for those that were chosen.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        CHOSEN.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        CHOSEN.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_one_trace_and_another_cycle_another() {
        let (one, other) = (CycleId::generate(), CycleId::generate());
        assert_eq!(root(one), root(one));
        assert_eq!(root(one).trace_id().to_string(), one.to_string().replace('-', ""));
        assert_ne!(root(one).span_id(), root(other).span_id());
        assert!(root(one).is_valid() && root(one).is_sampled());
    }

    #[test]
    fn lines_are_json_where_a_program_that_serves_is_not_at_a_terminal() {
        assert!(LogFormat::Json.is_json(false) && !LogFormat::Text.is_json(true));
        assert!(!LogFormat::Auto.is_json(false));
    }
}
