//! `robo`: the evaluation backend of a robotics-generalization subnet.
//!
//! # The map of the house
//!
//! A module uses only lower levels, and those of L1 never use each other (`src/tests/architecture.rs` holds this).
//!
//! | level | module | what it is |
//! |---|---|---|
//! | L0 | [`cycle`] | ids, episodes, task states, the journal's contract |
//! | L0 | [`manifest`] | YAML to validated pipeline and environment types, every error located |
//! | L0 | [`plan`] | pipeline and manifests to an immutable, hashed graph |
//! | L0 | [`schedule`] | due times, and what becomes of each |
//! | L0 | [`scoring`] | pure functions from success rates to weights |
//! | L0 | [`evidence`] | canonical JSON and digests |
//! | L0 | [`address`] | which addresses a miner may announce |
//! | L0 | [`shipped`] | the pipelines and environments that robo carries |
//! | L0 | [`config`] | flags and environment |
//! | L0 | [`host`] | this machine: data directory, child processes, pinned downloads |
//! | L0 | [`telemetry`] | log lines and traces |
//! | L1 | [`chain`] | what stands on the chain, and what is written there |
//! | L1 | [`store`] | all SQL; the embedded server; the journal on Postgres |
//! | L1 | [`miner`] | the safe client for endpoints that strangers control; the demo miner |
//! | L1 | [`rollout`] | the protocol with an environment server |
//! | L1 | [`runtime`] | where environment servers run |
//! | L2 | [`envserver`] | `robo env-server`: workers, slots, episodes in flight |
//! | L2 | [`stage`] | one file per stage kind |
//! | L2 | [`validator`] | puts a backend's weights on chain |
//! | L3 | [`engine`] | decides what runs next, runs it, survives crashes |
//! | L4 | [`api`] | HTTP: reads for everybody, writes for operators |
//! | L4 | [`backend`] | starts cycles by the clock and runs what nobody runs |
//! | L5 | [`cli`] | one file per verb |
//!
//! Reading order: README, this page, `pipelines/quickstart.yaml`, [`manifest`], [`plan`], [`cycle`], `engine/dispatcher.rs`,
//! `stage/episodes.rs`, `store/journal.rs`.

pub mod address;
pub mod api;
pub mod backend;
pub mod chain;
pub mod cli;
pub mod config;
pub mod cycle;
pub mod engine;
pub mod envserver;
pub mod evidence;
pub mod host;
pub mod manifest;
pub mod miner;
pub mod plan;
pub mod rollout;
pub mod runtime;
pub mod schedule;
pub mod scoring;
pub mod shipped;
pub mod stage;
pub mod store;
pub mod telemetry;
pub mod validator;
