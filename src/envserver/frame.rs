//! The messages of the simulator's pipe (docs/protocols.md), as types. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use crate::cycle::EnvironmentId;
use crate::manifest::simulation::Simulation;
use crate::rollout::protocol::Opened;

/// What a worker is asked.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Request<'a> {
    Open { simulations: &'a [Simulation] },
    Reset { slot: u32, environment: &'a EnvironmentId, seed: u32 },
    Step { slot: u32, action: &'a [f64] },
    Close { slot: u32 },
}

/// A refusal: the worker goes on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Refusal {
    pub(super) kind: String,
    pub(super) message: String,
}

/// An answer that may be a refusal.
pub(super) trait Answer: DeserializeOwned {
    fn refusal(&mut self) -> Option<Refusal>;
}

/// Answer to `open`.
#[derive(Debug, Deserialize)]
pub(super) struct OpenAnswer {
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    python: String,
    #[serde(default)]
    packages: BTreeMap<String, String>,
    #[serde(default)]
    renderer: Option<String>,
}

impl Answer for OpenAnswer {
    fn refusal(&mut self) -> Option<Refusal> {
        self.error.take()
    }
}

impl From<OpenAnswer> for Opened {
    fn from(answer: OpenAnswer) -> Self {
        let OpenAnswer { python, packages, renderer, .. } = answer;
        // The rest the server knows better than its workers.
        Self { python, packages, renderer, version: None, digest: None }
    }
}

/// Answer to `reset` and `step`: what the miner may see, and after a step what came of it.
#[derive(Debug, Deserialize)]
pub(super) struct View {
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    pub(super) observation: Vec<f64>,
    #[serde(default)]
    pub(super) images: BTreeMap<String, ByteBuf>,
    #[serde(default)]
    pub(super) reward: f64,
    #[serde(default)]
    pub(super) end: Option<Ending>,
}

impl Answer for View {
    fn refusal(&mut self) -> Option<Refusal> {
        self.error.take()
    }
}

/// How the simulator says an episode ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Ending {
    pub(super) steps: u32,
    #[serde(rename = "return")]
    pub(super) total_reward: f64,
    pub(super) success: bool,
    /// Whether the simulator itself ended it.
    pub(super) terminated: bool,
    pub(super) trajectory_hash: String,
}

impl Request<'_> {
    /// The request as a frame: its length, then its content.
    pub(super) fn to_frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 4];
        rmp_serde::encode::write_named(&mut frame, self).expect("requests hold nothing MessagePack cannot say");
        let length = u32::try_from(frame.len() - 4).expect("a request is far smaller than 4 GiB");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_length_and_a_map() {
        let frame = Request::Step { slot: 3, action: &[0.5, -1.0] }.to_frame();
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let value: serde_json::Value = rmp_serde::from_slice(&frame[4..]).unwrap();
        assert_eq!(value, serde_json::json!({"op": "step", "slot": 3, "action": [0.5, -1.0]}));
    }

    #[test]
    fn refusals_and_views_are_told_apart() {
        let refused = rmp_serde::to_vec_named(
            &serde_json::json!({"slot": 1, "error": {"kind": "simulator", "message": "broke"}}),
        );
        let mut view: View = rmp_serde::from_slice(&refused.unwrap()).unwrap();
        assert_eq!(view.refusal().unwrap().message, "broke");
        let seen = serde_json::json!({"slot": 1, "observation": [1.0, 2.0], "images": {}, "reward": 0.5, "end": null});
        let mut view: View = rmp_serde::from_slice(&rmp_serde::to_vec_named(&seen).unwrap()).unwrap();
        assert_eq!((view.refusal(), view.observation, view.reward), (None, vec![1.0, 2.0], 0.5));
    }
}
