//! One integration binary: `robo` as its users meet it.

mod children;
mod envserver;
mod miner;

/// The TLS provider that `main` installs.
fn install_tls() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
