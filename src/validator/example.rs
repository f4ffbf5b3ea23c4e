//! A subnet for unit tests: slots in the order given, the first of them the owner's, and rules that refuse nothing.

use std::time::Duration;

use crate::chain::{Rules, Seat, Slot, Subnet};

/// Subnet 7 at a block; each slot with its hotkey and the block of its registration. The validator is `validator`.
pub(super) fn subnet(block: u64, slots: &[(&str, u64)]) -> Subnet {
    let slot = |(uid, (hotkey, at)): (usize, &(&str, u64))| {
        (uid as u16, Slot { hotkey: (*hotkey).to_owned(), registered_at: Some(*at) })
    };
    let slots: std::collections::BTreeMap<u16, Slot> = slots.iter().enumerate().map(slot).collect();
    let uid = slots.iter().find(|(_, slot)| slot.hotkey == "validator").map(|(uid, _)| *uid);
    Subnet {
        netuid: 7,
        block,
        hash: "0x07".into(),
        genesis: "0x00".into(),
        node: "ws://node".into(),
        block_time: Duration::from_secs(12),
        exists: true,
        owner: slots.get(&0).map(|slot| slot.hotkey.clone()),
        slots,
        rules: Rules {
            rate_limit: 100,
            version_key: 0,
            min_allowed: 0,
            max_limit: u16::MAX,
            tempo: 360,
            stake_threshold: 0,
            reveal: None,
        },
        seat: uid.map(|uid| Seat {
            uid,
            last_update: 0,
            has_permit: true,
            stake: Some(0.0),
            weights: std::collections::BTreeMap::new(),
        }),
    }
}
