//! Messages between the engine and an environment server: `POST /open` once, then `POST /episodes` per task,
//! answered by NDJSON lines as episodes end; `POST /permits` to let more of them begin; `POST /drain` to have none begin any
//! more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::address::Rules;
use crate::cycle::{EnvironmentId, EpisodeReport, Hotkey, Keep, Seen};
use crate::manifest::simulation::Simulation;

use super::Canary;

/// Body of `POST /open`: start the workers and load these environments. Sent again, it must say the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Environments this server will run, all of one family.
    pub simulations: Vec<Simulation>,
    /// Worker processes; 0 for one per core that the server may use.
    pub workers: u32,
    /// Episodes in flight per worker.
    pub slots_per_worker: u32,
}

/// Answer to `POST /open`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Version of the Python that simulates.
    pub python: String,
    /// Versions of the packages whose change would change results, by name.
    pub packages: BTreeMap<String, String>,
    /// How images are drawn: `egl`, `osmesa`, or none without cameras.
    pub renderer: Option<String>,
    /// Version of the server's program, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 in hex of what simulates, if it says so; of a server of others, of the methods that it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Answer to `GET /health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the server's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 in hex of the requirements lock and the sources that simulate, when it was told which lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Body of `POST /episodes`: run these, in any order, and stream a [`ServerMessage`] per line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodesRequest {
    /// What this request is called when it is to begin no more of its episodes.
    #[serde(default)]
    pub run: Uuid,
    /// The environment, one of those opened.
    pub environment: EnvironmentId,
    /// From the last byte of `/act` sent to the last byte received.
    pub action_timeout_ms: u64,
    /// The same for `/reset`.
    pub reset_timeout_ms: u64,
    /// Episodes one miner is given at a time, where `permits` does not say otherwise.
    pub per_miner: u32,
    /// Whether an episode starts only by a permit ([`Grants`]), since others ask the same miners.
    #[serde(default)]
    pub permits: bool,
    /// Wall time for which a miner may keep the server waiting, all of this request together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ms: Option<u64>,
    /// How much of that each miner has used up in earlier requests, in milliseconds. A miner that is not named has used nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent_ms: BTreeMap<Hotkey, u64>,
    /// How long a miner may take to be ready before its first episode, outside of its clock.
    #[serde(default = "cold_start")]
    pub cold_start_ms: u64,
    /// Where the endpoints of strangers may lead.
    #[serde(default)]
    pub rules: Rules,
    /// What answers whenever the server's own network works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<Canary>,
    /// What to run.
    pub episodes: Vec<EpisodeOrder>,
}

/// `POST /drain`: begin no more episodes of a request. It ends when those that have begun do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Drain {
    /// [`EpisodesRequest::run`].
    pub run: Uuid,
}

/// `POST /permits`: let more episodes of a request begin. Sent again, it must not say less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// [`EpisodesRequest::run`].
    pub run: Uuid,
    /// By miner.
    pub grants: Vec<Grant>,
}

/// How many episodes of a miner may begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The miner.
    pub hotkey: Hotkey,
    /// Permits granted since the request began, used ones included.
    pub total: u64,
    /// How long the miner may still say "not ready" to `/reset`. Without it, `cold_start_ms` in this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_ms: Option<u64>,
}

/// How long a miner may take to be ready when nobody says otherwise.
pub const COLD_START_MS: u64 = 10_000;

fn cold_start() -> u64 {
    COLD_START_MS
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Who has chosen an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Its miner: it has to keep to the rules.
    #[default]
    Stranger,
    /// We or our operator: robo serves it itself, or it was typed by hand.
    Ourselves,
}

/// One episode to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeOrder {
    /// Number that the answer carries; unique in the request.
    pub order: u32,
    /// The simulator's seed. Never sent to the miner.
    pub seed: u32,
    /// What the miner sees in its place.
    pub episode_id: String,
    /// Whose policy.
    pub hotkey: Hotkey,
    /// Where it answers: `http(s)://host:port[/prefix]`.
    pub endpoint: String,
    /// Who has chosen that.
    #[serde(default)]
    pub origin: Origin,
    /// Whether its report brings its actions.
    #[serde(default, skip_serializing_if = "Keep::is_nothing")]
    pub keep: Keep,
}

/// One line of the answer to `POST /episodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// An episode has begun. If the stream is cut, it is lost; one that has not begun is as it was.
    Started {
        /// The number it was ordered under.
        order: u32,
    },
    /// How a miner was found, before its episodes and whenever that changes.
    Miner {
        /// Which one.
        hotkey: Hotkey,
        /// What was seen.
        seen: Seen,
        /// Episodes that it can play at a time, once it has answered `/health`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_concurrency: Option<u32>,
    },
    /// An episode that had begun lost its worker through no fault of its own, or its miner was not ready for it: it is as if
    /// it had not begun. It begins again unless the answer ends before.
    Returned {
        /// The number it was ordered under.
        order: u32,
        /// How long its miner was not ready for it, the rest that follows included.
        #[serde(default, skip_serializing_if = "is_zero")]
        not_ready_ms: u64,
    },
    /// Permits that could not be used for a while. They are given back.
    Unused {
        /// How many, by miner.
        miners: BTreeMap<Hotkey, u32>,
    },
    /// An episode has ended.
    Episode {
        /// The number it was ordered under.
        order: u32,
        /// How.
        report: EpisodeReport,
    },
    /// How long a miner has kept the server waiting in this request, told at its end.
    Spent {
        /// Which one.
        hotkey: Hotkey,
        /// Wall time.
        ms: u64,
    },
    /// Sent about twice a second while episodes run.
    Progress {
        /// Simulator steps of this request so far, unfinished episodes included.
        steps: u64,
        /// How long the server did not get the processor since it was started.
        #[serde(default)]
        stalled_ms: u64,
    },
    /// No more will come: every ordered episode was reported, or no worker is left for the others. A stream that stops
    /// without it was cut.
    End,
}
