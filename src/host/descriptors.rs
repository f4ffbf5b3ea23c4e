//! How many files and sockets this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Fewer may be open than are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have {allowed} files open and needs {needed}: raise the limit (`ulimit -n`, `LimitNOFILE=` of a systemd unit, `--ulimit nofile=` of a container)"
)]
pub struct TooFew {
    /// The limit that the system sets.
    pub allowed: u64,
    /// What is needed.
    pub needed: u64,
}

/// Let this process have so many open, within the hard limit.
///
/// # Errors
/// [`TooFew`] when the hard limit is lower. The soft limit is then as high as it gets.
pub fn allow(needed: u64) -> Result<(), TooFew> {
    // A system that does not tell sets no limit that we could raise.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let wanted = needed.min(hard);
    let allowed = if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        soft.max(wanted)
    } else {
        soft
    };
    if allowed < needed { Err(TooFew { allowed, needed }) } else { Ok(()) }
}

/// How many may be open now.
pub fn allowed() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_granted_and_what_is_not_is_told_with_the_remedy() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(allow(16), Ok(()));
        let Some(needed) = hard.checked_add(1) else { return };
        let refused = allow(needed).unwrap_err();
        assert_eq!(refused.needed, needed);
        assert!(refused.to_string().contains("LimitNOFILE"), "{refused}");
        assert!(allowed() <= hard);
    }
}
