//! Has an episode played again from its seed and actions, and filmed (`python -m robo_eval_env replay`).
//!
//! Runs a program to its end. No miner takes part, and nothing is judged here.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, interpreter};
use crate::host::{child::ChildError, environment::from_anywhere};
use crate::manifest::simulation::Simulation;

/// The most that an ending may take.
const LARGEST: usize = 64 << 10;

const NAME: &str = "the replay of the episode";

/// What is played again.
#[derive(Debug, Serialize)]
pub struct Script<'a> {
    /// The environment.
    pub simulation: &'a Simulation,
    /// The simulator's seed.
    pub seed: u32,
    /// What the miner answered, step by step.
    pub actions: &'a [Vec<f64>],
}

/// A film of it.
#[derive(Debug)]
pub struct Film<'a> {
    /// Where it goes: a GIF, or by its name an MP4, which needs `ffmpeg`.
    pub path: &'a Path,
    /// The simulator's name of a camera; none for the first one.
    pub camera: Option<&'a str>,
}

/// How the episode ended this time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Steps taken.
    pub steps: u32,
    /// Sum of the rewards.
    #[serde(rename = "return")]
    pub total_reward: f64,
    /// Whether the simulator itself ended it.
    pub terminated: bool,
    /// As docs/protocols.md has it.
    pub trajectory_hash: String,
}

/// Play it with an interpreter that has its simulator. None when the actions did not bring it to its end.
///
/// # Errors
/// When it cannot be played or filmed; the program's words say why.
pub async fn replay(
    python: &Path,
    package: &Path,
    script: &Script<'_>,
    film: Option<&Film<'_>>,
) -> Result<Option<Ending>, Error> {
    #[derive(Deserialize)]
    struct Answer {
        end: Option<Ending>,
    }
    let input = serde_json::to_vec(script).expect("an episode is JSON");
    let mut program = interpreter::simulator(NAME, python, package).args(["replay", "--episode", "/dev/stdin"]);
    if let Some(film) = film {
        program = program.arg("--film").arg(from_anywhere(film.path));
        program = film.camera.into_iter().fold(program, |program, camera| program.args(["--camera", camera]));
    }
    let (status, output, last_words) = program.start().await?.converse(&input, LARGEST).await?;
    match serde_json::from_slice::<Answer>(&output) {
        Ok(answer) if status.success() => Ok(answer.end),
        _ => Err(ChildError::Ended { name: NAME.to_owned(), status, last_words }.into()),
    }
}
