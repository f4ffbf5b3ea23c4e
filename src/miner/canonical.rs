//! The canonical dialect of the miner protocol: observations by named channel, images as raw bytes with their shape. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{image::Image, request::write_number};

/// Body of `/act`. Every key of the dialect is there, also one that robo has nothing for.
pub(super) fn body(channels: &BTreeMap<String, Vec<f64>>, images: &BTreeMap<String, Image>) -> Bytes {
    let numbers: usize = channels.values().map(|numbers| 32 + numbers.len() * 24).sum();
    let pixels: usize = images.values().map(|image| 96 + image.rgb.len().div_ceil(3) * 4).sum();
    let mut text = Vec::with_capacity(128 + numbers + pixels);
    text.extend_from_slice(b"{\"obs\":{\"rgb\":");
    object(&mut text, images, |text, image| image.write_shaped(text));
    text.extend_from_slice(b",\"depth\":{},\"proprio\":");
    object(&mut text, channels, |text, numbers| {
        text.push(b'[');
        for (index, number) in numbers.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            write_number(text, *number);
        }
        text.push(b']');
    });
    text.extend_from_slice(b",\"cam_intrinsics\":{},\"cam_extrinsics\":{},\"extra\":{}}}");
    Bytes::from(text)
}

fn object<T>(text: &mut Vec<u8>, entries: &BTreeMap<String, T>, write: impl Fn(&mut Vec<u8>, &T)) {
    text.push(b'{');
    for (index, (name, value)) in entries.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
        text.push(b':');
        write(text, value);
    }
    text.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_body_has_every_key_of_the_dialect() {
        let channels =
            BTreeMap::from([("ee_pos".to_owned(), vec![0.1 + 0.2, -0.0, 1e-300]), ("gripper".to_owned(), vec![1.0])]);
        let images = BTreeMap::from([("corner2".to_owned(), Image { width: 1, rgb: vec![1, 2, 3, 4, 5, 6] })]);
        let body: Value = serde_json::from_slice(&body(&channels, &images)).unwrap();
        assert_eq!(
            body,
            json!({ "obs": {
                "rgb": { "corner2": { "data": "AQIDBAUG", "shape": [2, 1, 3], "dtype": "uint8" } },
                "depth": {},
                "proprio": { "ee_pos": [0.1 + 0.2, -0.0, 1e-300], "gripper": [1.0] },
                "cam_intrinsics": {}, "cam_extrinsics": {}, "extra": {},
            } })
        );
    }

    #[test]
    fn nothing_to_see_is_still_an_observation() {
        let body: Value = serde_json::from_slice(&body(&BTreeMap::new(), &BTreeMap::new())).unwrap();
        assert_eq!((&body["obs"]["proprio"], &body["obs"]["rgb"]), (&json!({}), &json!({})));
    }
}
