//! Has an environment tried against its manifest: spaces, determinism, seeds, speed (`python -m robo_eval_env test`).
//!
//! Runs a program to its end and reads what it found. No server, no miner and no database have a part in it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, interpreter};
use crate::host::child::ChildError;
use crate::manifest::simulation::Simulation;

/// The most that findings may take.
const LARGEST: usize = 4 << 20;

/// What was found about an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its id.
    pub environment: String,
    /// What was tried, in order.
    pub checks: Vec<Check>,
    /// Steps per second of processor time on one core, images included; none when it cannot be stepped.
    pub steps_per_second: Option<f64>,
    /// How images are drawn, when it has cameras.
    #[serde(default)]
    pub renderer: Option<String>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `spaces`, `determinism` or `seeds`.
    pub check: String,
    /// What is wrong; none when nothing is.
    pub problem: Option<String>,
    /// What was seen when nothing is wrong.
    #[serde(default)]
    pub note: String,
}

impl Finding {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
    }
}

/// How thoroughly environments are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All of it.
    Full,
    /// Without the test of determinism, which takes most of the time.
    Quick,
}

/// Try these environments with an interpreter that has their simulators, for so many steps each.
///
/// # Errors
/// When the program cannot be run to its end. An environment that is wrong is no error but a finding.
pub async fn examine(
    python: &Path,
    package: &Path,
    simulations: &[&Simulation],
    (steps, depth): (u32, Depth),
) -> Result<Vec<Finding>, Error> {
    let input = serde_json::to_vec(simulations).expect("simulations are JSON");
    let quick = ["--skip-determinism"].into_iter().filter(|_| depth == Depth::Quick);
    let child = interpreter::simulator("the test of environments", python, package)
        .args(["test", "--simulations", "/dev/stdin", "--steps", &steps.to_string()])
        .args(quick)
        .start()
        .await?;
    let name = "the test of environments".to_owned();
    let (status, output, last_words) = child.converse(&input, LARGEST).await?;
    let lines = String::from_utf8_lossy(&output);
    let findings: Option<Vec<Finding>> = lines.lines().map(|line| serde_json::from_str(line).ok()).collect();
    match findings {
        Some(findings) if findings.len() == simulations.len() => Ok(findings),
        _ => Err(ChildError::Ended { name, status, last_words }.into()),
    }
}
