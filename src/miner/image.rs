//! Images on their way to a miner: as lists of numbers, as raw bytes, or as PNG. Pure; each form carries the same pixels.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, Crc, write::ZlibEncoder};

use crate::manifest::simulation::ImageEncoding;

/// An RGB image of 8 bits, rows from top to bottom.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Image {
    /// Pixels in a column.
    pub fn height(&self) -> usize {
        self.rgb.len() / (self.width * 3).max(3)
    }

    /// Write the image as JSON text.
    pub(super) fn write(&self, encoding: ImageEncoding, text: &mut Vec<u8>) {
        match encoding {
            ImageEncoding::List => self.write_lists(text),
            ImageEncoding::Base64 => self.write_bytes("base64", &self.rgb, text),
            ImageEncoding::Png => self.write_bytes("png", &self.png(), text),
        }
    }

    /// Write the image as JSON text of the canonical dialect: the raw bytes with the shape of their array.
    pub(super) fn write_shaped(&self, text: &mut Vec<u8>) {
        let (width, height) = (self.width, self.height());
        // Writing to memory cannot fail.
        let _ =
            write!(text, r#"{{"data":"{}","shape":[{height},{width},3],"dtype":"uint8"}}"#, STANDARD.encode(&self.rgb));
    }

    fn write_bytes(&self, encoding: &str, bytes: &[u8], text: &mut Vec<u8>) {
        let (width, height) = (self.width, self.height());
        // Writing to memory cannot fail.
        let _ = write!(
            text,
            r#"{{"encoding":"{encoding}","width":{width},"height":{height},"data":"{}"}}"#,
            STANDARD.encode(bytes)
        );
    }

    fn write_lists(&self, text: &mut Vec<u8>) {
        let table = &*BYTES;
        let number = |text: &mut Vec<u8>, byte: u8, from: usize| {
            let (digits, length) = &table[usize::from(byte)];
            text.extend_from_slice(&digits[from..*length]);
        };
        text.push(b'[');
        for (index, row) in self.rgb.chunks_exact((self.width * 3).max(3)).enumerate() {
            text.extend_from_slice(if index == 0 { b"[" } else { b",[" });
            for (index, pixel) in row.chunks_exact(3).enumerate() {
                text.extend_from_slice(if index == 0 { b"[" } else { b",[" });
                number(text, pixel[0], 1);
                number(text, pixel[1], 0);
                number(text, pixel[2], 0);
                text.push(b']');
            }
            text.push(b']');
        }
        text.push(b']');
    }

    /// The image as a PNG file of 8-bit RGB.
    pub fn png(&self) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX).to_be_bytes();
        let header = [&side(self.width)[..], &side(self.height()), &[8, 2, 0, 0, 0]].concat();
        chunk(&mut file, b"IHDR", &header);
        // Writing to memory cannot fail.
        chunk(&mut file, b"IDAT", &self.deflated().unwrap_or_default());
        chunk(&mut file, b"IEND", &[]);
        file
    }

    fn deflated(&self) -> io::Result<Vec<u8>> {
        let mut encoder = ZlibEncoder::new(Vec::with_capacity(self.rgb.len() / 3), Compression::fast());
        let stride = (self.width * 3).max(3);
        let mut row = vec![0; stride + 1];
        for pixels in self.rgb.chunks_exact(stride) {
            // Each pixel as its difference from the one to its left (filter 1): areas of one colour become zeros.
            row[0] = 1;
            row[1..4].copy_from_slice(&pixels[..3]);
            for at in 3..stride {
                row[at + 1] = pixels[at].wrapping_sub(pixels[at - 3]);
            }
            encoder.write_all(&row)?;
        }
        encoder.finish()
    }
}

/// A part of a PNG file: length, name, content, checksum.
fn chunk(file: &mut Vec<u8>, name: &[u8; 4], content: &[u8]) {
    let mut checksum = Crc::new();
    checksum.update(name);
    checksum.update(content);
    file.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    file.extend_from_slice(name);
    file.extend_from_slice(content);
    file.extend_from_slice(&checksum.sum().to_be_bytes());
}

/// The encodings that a `/health` says it accepts. What else it may say, or say wrongly, is no fault.
pub(super) fn accepted(health: &[u8]) -> Vec<ImageEncoding> {
    let answer: serde_json::Value = serde_json::from_slice(health).unwrap_or_default();
    let words = answer["accepts"].as_array().into_iter().flatten();
    words.filter_map(|word| serde_json::from_value(word.clone()).ok()).take(MOST_WORDS).collect()
}

/// A miner need not name an encoding more than once.
const MOST_WORDS: usize = 16;

/// Decimal texts of all bytes, each with a comma in front: an image is mostly copies of these.
static BYTES: LazyLock<Vec<([u8; 4], usize)>> = LazyLock::new(|| {
    (0..=255u8)
        .map(|byte| {
            let mut text = [0; 4];
            let mut rest = &mut text[..];
            // Four bytes hold a comma and any number below 256.
            let _ = write!(rest, ",{byte}");
            let length = 4 - rest.len();
            (text, length)
        })
        .collect()
});

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// The pixels of a PNG file as this module writes them.
    fn pixels(file: &[u8], width: usize) -> Vec<u8> {
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        let mut rest = &file[8..];
        let mut rgb = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let (name, content) = (&rest[4..8], &rest[8..8 + length]);
            let mut checksum = Crc::new();
            checksum.update(&rest[4..8 + length]);
            assert_eq!(rest[8 + length..12 + length], checksum.sum().to_be_bytes());
            if name == b"IDAT" {
                let mut rows = Vec::new();
                flate2::read::ZlibDecoder::new(content).read_to_end(&mut rows).unwrap();
                for row in rows.chunks_exact(width * 3 + 1) {
                    assert_eq!(row[0], 1);
                    let mut left = [0u8; 3];
                    for pixel in row[1..].chunks_exact(3) {
                        left = std::array::from_fn(|colour| left[colour].wrapping_add(pixel[colour]));
                        rgb.extend(left);
                    }
                }
            }
            rest = &rest[12 + length..];
        }
        rgb
    }

    proptest! {
        #[test]
        fn every_form_carries_the_same_pixels(width in 1usize..9, height in 1usize..9, noise in prop::collection::vec(any::<u8>(), 192)) {
            let image = Image { width, rgb: noise[..width * height * 3].to_vec() };
            prop_assert_eq!(image.height(), height);
            let read = |encoding| {
                let mut text = Vec::new();
                image.write(encoding, &mut text);
                serde_json::from_slice::<serde_json::Value>(&text).unwrap()
            };
            let lists: Vec<Vec<[u8; 3]>> = serde_json::from_value(read(ImageEncoding::List)).unwrap();
            prop_assert_eq!(lists.concat().concat(), image.rgb.clone());
            let raw = read(ImageEncoding::Base64);
            prop_assert_eq!((raw["width"].as_u64(), raw["height"].as_u64()), (Some(width as u64), Some(height as u64)));
            prop_assert_eq!(STANDARD.decode(raw["data"].as_str().unwrap()).unwrap(), image.rgb.clone());
            let png = read(ImageEncoding::Png);
            prop_assert_eq!(png["encoding"].as_str(), Some("png"));
            prop_assert_eq!(pixels(&STANDARD.decode(png["data"].as_str().unwrap()).unwrap(), width), image.rgb);
        }
    }

    #[test]
    fn a_health_may_say_what_it_accepts_or_anything_else() {
        use ImageEncoding::{Base64, List, Png};
        assert_eq!(
            accepted(br#"{"status": "ok", "accepts": ["png", "webp", 7, "base64", "list"]}"#),
            [Png, Base64, List]
        );
        for other in [&b"ok"[..], b"", b"[]", b"{\"accepts\": \"png\"}", b"\xff", b"{}"] {
            assert_eq!(accepted(other), []);
        }
    }
}
