//! Any bytes that a stranger writes as a commitment end in a value or in a reason, and never in a panic.
#![no_main]

#[path = "../../src/chain/commitment.rs"]
mod commitment;

use commitment::{Commitment, Place, deployed_at};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let found = match Commitment::parse(bytes) {
        Ok(found) => found,
        Err(reason) => return assert!(!reason.to_string().is_empty()),
    };
    assert!(!found.model.is_empty() && !found.revision.is_empty());
    assert!(!found.model.contains(char::is_control) && !found.revision.contains(char::is_control));
    if let Place::Deployment(id) = &found.place
        && let Ok(address) = deployed_at("https://{id}.example", id)
    {
        let host = address.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".example"));
        assert!(host.is_some_and(|host| host.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())));
    }
    // What is written as a line is read again as it was, unless a name of the JSON form holds what separates a line's parts.
    let has_separators = found.model.contains(':') || found.revision.contains(':') || found.docker_image.is_some();
    let is_plain = match &found.place {
        Place::Deployment(id) => !id.contains(':') && !id.starts_with("e:"),
        Place::Url(_) | Place::Sealed(_) => true,
    };
    let line = found.line();
    if !has_separators && is_plain && line.trim() == line && !line.starts_with('{') {
        assert_eq!(Commitment::parse(line.as_bytes()), Ok(found));
    }
});
