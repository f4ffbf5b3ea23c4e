//! The integration tests, one binary: each file tests an area through the doors that others use.

mod api;
mod architecture;
mod bad_input;
mod children;
mod command_line;
mod cycle;
mod embedded;
mod envserver;
mod examples;
mod faults;
mod host;
mod lessons_verbs;
mod manifest;
mod miner;
mod runtime;
mod score;
mod store;
mod support;

/// The TLS provider that `main` installs.
fn install_tls() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
