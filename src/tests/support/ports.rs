//! Ports at which nobody listens, nor will by chance: below those that the system gives to whoever asks for any.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

const FIRST: u32 = 12_000;
const PLACES: u32 = 20_000;

/// One that is free, and that no other test of this process is given.
pub(crate) fn free() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other processes begin elsewhere.
        let place = std::process::id().wrapping_mul(101).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + place % PLACES).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
