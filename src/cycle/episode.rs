//! The unit of evidence: one miner, one environment, one seed index, one outcome.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Actions, EnvironmentId, Hotkey};

/// A participant as a cycle sees it: who, and where its policy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Miner {
    /// Slot on the subnet at the pinned block. Two miners of a cycle never share one.
    pub uid: u16,
    /// Identity. Everything is keyed by it.
    pub hotkey: Hotkey,
    /// `http(s)://host:port[/prefix]`, or `demo:POLICY` for a demo miner that robo starts itself.
    pub endpoint: String,
    /// Block of the miner's first commitment; none counts as the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_block: Option<u64>,
}

/// Which episode of a cycle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpisodeKey {
    /// The environment.
    pub environment: EnvironmentId,
    /// Position in the paired list of seeds, from 0.
    pub seed_index: u32,
    /// The miner.
    pub hotkey: Hotkey,
}

/// What a miner did wrong. Scored as a failure; each reason is shown to the miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerFault {
    /// No connection, or it broke before an answer.
    ConnectionError,
    /// The announced endpoint may not be called; nothing was sent.
    EndpointAddressForbidden,
    /// TLS could not be agreed on: the certificate has expired, is self-signed, is for another name.
    TlsError,
    /// It still answered 429 or 503 to `/reset` when the time to wake up had passed.
    NotReady,
    /// No complete answer to `/act` within the action time-out.
    ActionTimeout,
    /// No complete answer to `/reset` within the reset time-out.
    ResetTimeout,
    /// A status other than 200.
    HttpError,
    /// A redirect, which is never followed.
    RedirectNotAllowed,
    /// An answer above the size limit.
    ResponseTooLarge,
    /// A content encoding nobody asked for.
    UnsupportedEncoding,
    /// Not the JSON the protocol asks for.
    MalformedResponse,
    /// Numbers the environment does not take: wrong size, not finite, out of range where the manifest refuses it.
    InvalidAction,
    /// Its answers took longer, all together, than the pipeline grants a miner.
    BudgetExhausted,
    /// Its episodes failed again and again without a known cause, while the same seeds were played for other miners.
    Unexplained,
}

impl MinerFault {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::ConnectionError,
        Self::EndpointAddressForbidden,
        Self::TlsError,
        Self::NotReady,
        Self::ActionTimeout,
        Self::ResetTimeout,
        Self::HttpError,
        Self::RedirectNotAllowed,
        Self::ResponseTooLarge,
        Self::UnsupportedEncoding,
        Self::MalformedResponse,
        Self::InvalidAction,
        Self::BudgetExhausted,
        Self::Unexplained,
    ];

    /// Whether only a miner that answered at least one call of the episode can have it: its `/reset` comes before an action
    /// that is late.
    pub fn shows_an_answer(self) -> bool {
        match self {
            Self::NotReady
            | Self::ActionTimeout
            | Self::HttpError
            | Self::RedirectNotAllowed
            | Self::ResponseTooLarge
            | Self::UnsupportedEncoding
            | Self::MalformedResponse
            | Self::InvalidAction => true,
            Self::ConnectionError
            | Self::EndpointAddressForbidden
            | Self::TlsError
            | Self::ResetTimeout
            | Self::BudgetExhausted
            | Self::Unexplained => false,
        }
    }
}

/// What our side did wrong. Never scored; the episode is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InfraFault {
    /// The environment server or one of its workers died or closed the connection.
    ServerLost,
    /// The simulator raised an error.
    SimulatorError,
    /// The simulator did not answer in time.
    SimulatorTimeout,
    /// The environment server's image is not where it was to run.
    ImageMissing,
    /// The environment server or one of its workers used more memory than it may.
    OutOfMemory,
    /// The environment server did not answer in time after it was started.
    StartTimeout,
    /// The environment server runs and does not answer as it should.
    Unhealthy,
    /// The machine that runs environment servers does not answer.
    HostUnreachable,
    /// No room is left on its disk.
    DiskFull,
    /// No machine has room for one more environment server.
    NoCapacity,
    /// The network of the environment server's machine failed.
    Network,
    /// The environment server or the simulator did not get the processor in time.
    Overloaded,
    /// The environment server's machine ran out of file descriptors or of memory for sockets.
    ResourcesExhausted,
}

/// How an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// The environment's success rule held.
    Success,
    /// It did not.
    Failure,
    /// The miner's fault: scored as a failure.
    MinerFault(MinerFault),
    /// Our fault: not scored, run again.
    InfraFault(InfraFault),
}

impl Outcome {
    /// Whether this outcome counts: everything but our own faults.
    pub fn is_scored(self) -> bool {
        !matches!(self, Self::InfraFault(_))
    }

    /// The word stored and shown: `success`, `failure`, `miner_fault`, `infra_fault`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::MinerFault(_) => "miner_fault",
            Self::InfraFault(_) => "infra_fault",
        }
    }

    /// The reason of a fault, as stored and shown.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Success | Self::Failure => None,
            Self::MinerFault(fault) => Some(match fault {
                MinerFault::ConnectionError => "connection_error",
                MinerFault::EndpointAddressForbidden => "endpoint_address_forbidden",
                MinerFault::TlsError => "tls_error",
                MinerFault::NotReady => "not_ready",
                MinerFault::ActionTimeout => "action_timeout",
                MinerFault::ResetTimeout => "reset_timeout",
                MinerFault::HttpError => "http_error",
                MinerFault::RedirectNotAllowed => "redirect_not_allowed",
                MinerFault::ResponseTooLarge => "response_too_large",
                MinerFault::UnsupportedEncoding => "unsupported_encoding",
                MinerFault::MalformedResponse => "malformed_response",
                MinerFault::InvalidAction => "invalid_action",
                MinerFault::BudgetExhausted => "budget_exhausted",
                MinerFault::Unexplained => "unexplained",
            }),
            Self::InfraFault(fault) => Some(match fault {
                InfraFault::ServerLost => "server_lost",
                InfraFault::SimulatorError => "simulator_error",
                InfraFault::SimulatorTimeout => "simulator_timeout",
                InfraFault::ImageMissing => "image_missing",
                InfraFault::OutOfMemory => "out_of_memory",
                InfraFault::StartTimeout => "start_timeout",
                InfraFault::Unhealthy => "unhealthy",
                InfraFault::HostUnreachable => "host_unreachable",
                InfraFault::DiskFull => "disk_full",
                InfraFault::NoCapacity => "no_capacity",
                InfraFault::Network => "network",
                InfraFault::Overloaded => "overloaded",
                InfraFault::ResourcesExhausted => "resources_exhausted",
            }),
        }
    }

    /// The outcome that [`Outcome::word`] and [`Outcome::reason`] name, if they name one.
    pub fn from_words(word: &str, reason: Option<&str>) -> Option<Self> {
        let value = match reason {
            None => serde_json::json!({ "outcome": word }),
            Some(reason) => serde_json::json!({ "outcome": word, "reason": reason }),
        };
        serde_json::from_value(value).ok()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            None => f.write_str(self.word()),
            Some(reason) => write!(f, "{}({reason})", self.word()),
        }
    }
}

/// Latency of a miner's `/act` answers over an episode, in milliseconds, last byte sent to last byte received.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Median (nearest rank).
    pub p50_ms: f64,
    /// 95th percentile (nearest rank).
    pub p95_ms: f64,
    /// Slowest answer.
    pub max_ms: f64,
}

/// What an environment server says of an episode it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeReport {
    /// How it ended.
    pub outcome: Outcome,
    /// What exactly went wrong, for the miner to read. At most 500 characters, no control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Steps the simulator took.
    pub steps: u32,
    /// Sum of the rewards of those steps (undiscounted).
    #[serde(rename = "return")]
    pub total_reward: f64,
    /// What the episode is worth, 0 to 1, when its environment declares a score; none for faults of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What the miner answered, when it was asked for and the episode came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Actions>,
    /// SHA-256 in hex over the seed, each action and what the simulator made of it; none when no step was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trajectory_hash: Option<String>,
    /// None when no action was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySummary>,
    /// Wall time of the episode in milliseconds.
    pub wall_ms: f64,
}

/// An episode that has ended, as the journal gives it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Which one.
    pub key: EpisodeKey,
    /// Attempts so far; more than one only after our own faults.
    pub attempt: u32,
    /// Its last report.
    pub report: EpisodeReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_reasons_round_trip() {
        use {InfraFault::*, MinerFault::*};
        let miner = [
            ConnectionError,
            EndpointAddressForbidden,
            TlsError,
            NotReady,
            ActionTimeout,
            ResetTimeout,
            HttpError,
            RedirectNotAllowed,
            ResponseTooLarge,
            UnsupportedEncoding,
            MalformedResponse,
            InvalidAction,
            BudgetExhausted,
            Unexplained,
        ];
        let infra = [
            ServerLost,
            SimulatorError,
            SimulatorTimeout,
            ImageMissing,
            OutOfMemory,
            StartTimeout,
            Unhealthy,
            HostUnreachable,
            DiskFull,
            NoCapacity,
            Network,
            Overloaded,
            ResourcesExhausted,
        ];
        let all = [Outcome::Success, Outcome::Failure]
            .into_iter()
            .chain(miner.map(Outcome::MinerFault))
            .chain(infra.map(Outcome::InfraFault));
        for outcome in all {
            assert_eq!(Outcome::from_words(outcome.word(), outcome.reason()), Some(outcome));
        }
        assert_eq!(Outcome::from_words("success", Some("x")), None);
        assert_eq!(Outcome::from_words("won", None), None);
    }
}
