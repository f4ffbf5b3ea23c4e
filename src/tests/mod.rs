//! The integration tests, one binary: each file tests an area through the doors that others use.

mod abuse;
mod affinetes;
mod api;
mod api_document;
mod api_events;
mod api_keys;
mod api_limits;
mod api_reads;
mod api_tls;
mod architecture;
mod bad_input;
mod broken_files;
mod chain;
mod chain_faults;
mod chain_runtime;
mod chain_submit;
mod chaos;
mod children;
mod command_line;
mod custom_queries;
mod custom_stages;
mod cycle;
mod database_faults;
mod deploy;
mod dialect;
mod discovery;
mod docker;
mod doctor;
mod drain;
mod embedded;
mod endpoints;
mod envserver;
mod envserver_abuse;
mod episodes;
mod examples;
mod families;
mod faults;
mod guides;
mod host;
mod images;
mod inheritance;
mod language;
mod ledger;
mod lessons_durability;
mod lessons_language;
mod lessons_verbs;
mod lone;
mod manifest;
mod metrics;
mod miner;
mod network;
mod page;
mod permits;
mod places;
mod runtime;
mod schedules;
mod score;
mod stallers;
mod store;
mod support;
mod swarm;
mod telemetry;
mod turns;
mod two_backends;
mod upgrade;
mod urls;
mod validate;
mod webhooks;
mod weights;

/// The TLS provider that `main` installs.
fn install_tls() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
