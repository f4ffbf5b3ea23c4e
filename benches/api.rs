//! How fast validators are answered: the latest weights of 256 miners, from the program as it is run, beside a real database.
//!
//! Measured in one run against the same JSON from a minimal `FastAPI` application on uvicorn, in turns with it, because the machine is
//! shared and what it gives changes by the minute. `scripts/bench-api` installs what is needed and runs this; it prints each figure
//! next to its target and fails when one is missed.
#![expect(clippy::print_stdout, reason = "a bench is there to print")]

mod api_support;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../src/tests/support/database.rs"]
mod database;
#[expect(dead_code, reason = "another bench uses all of it")]
#[path = "engine_support/memory.rs"]
mod memory;
#[expect(dead_code, reason = "another bench uses all of it")]
#[path = "engine_support/server.rs"]
mod server;

use std::{process::ExitCode, time::Duration};

use api_support::{
    pollers::{self, Latencies},
    processes::{Backend, Baseline},
    publish,
    wrk::{self, Figures},
};

/// Turns that each of the two takes.
const ROUNDS: usize = 5;

/// Keep-alive connections that ask as fast as they are answered.
const CONNECTIONS: usize = 32;

/// Validators that poll once a second each.
const POLLERS: usize = 1000;

/// For how long they do.
const POLLED: Duration = Duration::from_secs(20);

/// The TLS provider that `main` of the program installs.
fn install_tls() {
    // The tests' support files may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn main() -> ExitCode {
    install_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(measure())
}

async fn measure() -> ExitCode {
    let place = server::Place::start().await;
    println!("\n{}\nload of the machine at the start: {}", place.server(), memory::load());
    publish::weights_of_256_miners(&place.store).await;
    let backend = Backend::start(&place.url).await;
    let (body, tag) = backend.latest().await;
    let baseline = Baseline::start(&body).await;
    println!("the document has {} bytes; {ROUNDS} rounds of {} s each, medians\n", body.len(), wrk::SECONDS);

    let [mut ours, mut known, mut theirs, mut encoded] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        ours.push(wrk::run(&backend.url, CONNECTIONS, None).await);
        theirs.push(wrk::run(&baseline.url, CONNECTIONS, None).await);
        encoded.push(wrk::run(&baseline.encoded, CONNECTIONS, None).await);
        known.push(wrk::run(&backend.url, CONNECTIONS, Some(&tag)).await);
    }
    let [ours, known, theirs, encoded] = [ours, known, theirs, encoded].map(Figures::median);
    for (what, figures) in [
        ("robo, 200", &ours),
        ("robo, 304", &known),
        ("FastAPI and uvicorn", &theirs),
        ("the same, from bytes", &encoded),
    ] {
        println!("{what:<21} {:>9.0} requests/s   p99 {:>7.2} ms under saturation", figures.rate, figures.p99_ms);
    }
    drop(baseline);

    let polled = pollers::run(backend.address, (POLLERS, POLLED), None).await;
    let polled_known = pollers::run(backend.address, (POLLERS, POLLED), Some(&tag)).await;
    for (what, latencies) in [("200", &polled), ("304", &polled_known)] {
        println!("{POLLERS} keep-alive pollers, one request a second each, {what}: {latencies}");
    }
    let memory = backend.peak_mb();
    println!("memory of the backend at its peak: {memory:.0} MB\nload of the machine at the end: {}\n", memory::load());
    backend.stop();
    place.stop().await;
    verdict(&[
        ("requests per second, in those of FastAPI", ours.rate / theirs.rate, Relation::AtLeast, 20.0),
        ("304s per second, in 200s", known.rate / ours.rate, Relation::AtLeast, 1.0),
        ("ms, 99th percentile of the pollers", Latencies::p99_ms(&polled), Relation::AtMost, 5.0),
        ("ms, the same with 304", Latencies::p99_ms(&polled_known), Relation::AtMost, 5.0),
        ("MB at most", memory, Relation::AtMost, 100.0),
    ])
}

/// On which side of its target a figure has to be.
#[derive(Clone, Copy)]
enum Relation {
    AtLeast,
    AtMost,
}

fn verdict(checks: &[(&str, f64, Relation, f64)]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (what, found, relation, target) in checks {
        let (is_met, word) = match relation {
            Relation::AtLeast => (found >= target, "at least"),
            Relation::AtMost => (found <= target, "at most"),
        };
        println!("{} {found:.2} {what} (target: {word} {target})", if is_met { "met:   " } else { "MISSED:" });
        if !is_met {
            code = ExitCode::FAILURE;
        }
    }
    code
}
