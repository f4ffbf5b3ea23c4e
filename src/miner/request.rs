//! What a miner is sent: bodies written straight to JSON text. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::cycle::EnvironmentId;
use crate::manifest::simulation::ImageEncoding;

use super::{canonical, image::Image};

/// Body of `/reset`. It holds all a miner is told of an episode, and nothing that changes with its seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskConfig {
    /// `family/task`.
    pub env_id: String,
    /// The family.
    pub env_name: String,
    /// The task.
    pub task_name: String,
    /// Opaque; differs between miners.
    pub episode_id: String,
}

impl TaskConfig {
    /// What the miner is told about an episode in this environment.
    pub fn new(environment: &EnvironmentId, episode_id: &str) -> Self {
        Self {
            env_id: environment.as_str().to_owned(),
            env_name: environment.family().to_owned(),
            task_name: environment.task().to_owned(),
            episode_id: episode_id.to_owned(),
        }
    }

    pub(super) fn to_body(&self) -> Bytes {
        Bytes::from(serde_json::json!({ "task_config": self }).to_string())
    }
}

/// What a miner sees at one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frame {
    /// Numbers.
    pub observation: Vec<f64>,
    /// The same by channel; the frame is written in the canonical dialect then.
    pub channels: Option<BTreeMap<String, Vec<f64>>>,
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// How the images travel.
    pub encoding: ImageEncoding,
}

impl Frame {
    /// Body of `/act`.
    pub(super) fn to_body(&self) -> Bytes {
        match &self.channels {
            Some(channels) => canonical::body(channels, &self.images),
            None => self.native(),
        }
    }

    fn native(&self) -> Bytes {
        let pixels: usize = self.images.values().map(|image| image.rgb.len()).sum();
        let mut text = Vec::with_capacity(64 + self.observation.len() * 24 + pixels * 5);
        text.extend_from_slice(b"{\"observation\":[");
        for (index, number) in self.observation.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            write_number(&mut text, *number);
        }
        text.push(b']');
        if !self.images.is_empty() {
            text.extend_from_slice(b",\"images\":{");
            for (index, (name, image)) in self.images.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                text.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
                text.push(b':');
                image.write(self.encoding, &mut text);
            }
            text.push(b'}');
        }
        text.push(b'}');
        Bytes::from(text)
    }
}

/// The shortest text that reads back as the same float; `null` for what JSON cannot say.
pub(super) fn write_number(text: &mut Vec<u8>, number: f64) {
    // Writing to memory cannot fail, and neither can a float.
    let _ = serde_json::to_writer(text, &number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_reads_back_bit_by_bit() {
        let observation = vec![0.1 + 0.2, -0.0, 1e-300, 5.0, f64::MAX];
        let body = Frame { observation: observation.clone(), ..Frame::default() }.to_body();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let back: Vec<f64> = serde_json::from_value(value["observation"].clone()).unwrap();
        assert_eq!(
            back.iter().map(|n| n.to_bits()).collect::<Vec<_>>(),
            observation.iter().map(|n| n.to_bits()).collect::<Vec<_>>()
        );
        assert!(value.get("images").is_none());
    }

    #[test]
    fn images_are_rows_of_pixels() {
        let rgb: Vec<u8> = vec![0, 9, 10, 99, 100, 255, 1, 2, 3, 4, 5, 6];
        let images = BTreeMap::from([
            ("corner".to_owned(), Image { width: 2, rgb: rgb.clone() }),
            ("gripper".to_owned(), Image { width: 1, rgb }),
        ]);
        let body = Frame { images, ..Frame::default() }.to_body();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"observation": [], "images": {
                "corner": [[[0, 9, 10], [99, 100, 255]], [[1, 2, 3], [4, 5, 6]]],
                "gripper": [[[0, 9, 10]], [[99, 100, 255]], [[1, 2, 3]], [[4, 5, 6]]],
            }})
        );
    }

    #[test]
    fn a_task_config_has_four_keys_and_no_seed() {
        let task = TaskConfig::new(&"metaworld/push-v3".parse().unwrap(), "e1");
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&task.to_body()).unwrap(),
            serde_json::json!({"task_config": {
                "env_id": "metaworld/push-v3", "env_name": "metaworld", "task_name": "push-v3", "episode_id": "e1",
            }})
        );
    }
}
