//! Writes that kill their process: the testing aid behind `robo chaos`.
//!
//! Counts the writes that pass through to the real journal and, at the one it was told, ends the process with SIGKILL right
//! before it or right after it was committed. A death in the middle of a write is one of the two: a transaction that was not
//! committed never was.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::cycle::{Guard, JournalError};

/// Which side of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Nothing of it is in the database.
    Before,
    /// All of it is in the database, and nobody in the process has learnt of that.
    After,
}

/// When to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DieAt {
    /// Never: count the writes and say how many there were.
    Never,
    /// At a write, the first being 1.
    Write(u64, Side),
}

impl fmt::Display for DieAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::Write(number, Side::Before) => write!(f, "{number}:before"),
            Self::Write(number, Side::After) => write!(f, "{number}:after"),
        }
    }
}

impl FromStr for DieAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write `never`, `NUMBER:before` or `NUMBER:after`";
        if text == "never" {
            return Ok(Self::Never);
        }
        let (number, side) = text.split_once(':').ok_or(FORM)?;
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(FORM),
        };
        Ok(Self::Write(number.parse().map_err(|_| FORM)?, side))
    }
}

/// When to die, and how many writes there were.
pub(super) struct Mortal {
    die_at: Option<DieAt>,
    writes: AtomicU64,
}

impl Mortal {
    /// Nothing happens unless it is told when to die.
    pub(super) fn new(die_at: Option<DieAt>) -> Self {
        Self { die_at, writes: AtomicU64::new(0) }
    }

    /// The writes so far, if somebody wants to know.
    pub(super) fn asked_to_count(&self) -> Option<u64> {
        self.die_at.map(|_| self.writes.load(Ordering::Relaxed))
    }

    async fn die_if(&self, here: DieAt) {
        if self.die_at == Some(here) {
            // Nobody survives this to see an error.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::future::pending::<()>().await;
        }
    }
}

impl Guard for Mortal {
    async fn write<T: Send>(
        &self,
        work: impl Future<Output = Result<T, JournalError>> + Send,
    ) -> Result<T, JournalError> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.die_if(DieAt::Write(number, Side::Before)).await;
        let done = work.await;
        self.die_if(DieAt::Write(number, Side::After)).await;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_die_is_read_as_it_is_written() {
        for text in ["never", "1:before", "12:after"] {
            assert_eq!(text.parse::<DieAt>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1:during", "x:after", "-1:before"] {
            assert!(text.parse::<DieAt>().is_err(), "{text}");
        }
    }
}
