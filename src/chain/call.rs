//! Calls that robo makes, encoded by what the runtime says of itself: names and shapes are looked up in its own description, and
//! a runtime that knows no such call is told so before anything is signed.

use subxt::dynamic::{self, Value};

use super::submit::SubmitError;

/// The most bytes of a commitment: `BigRaw` of the commitments pallet.
const LONGEST: usize = 512;
/// The most bytes of a commitment for which the runtime has a variant of each length.
const LONGEST_RAW: usize = 128;
/// The only mechanism of a subnet that has not been split.
const MECHANISM: u8 = 0;

/// What is asked of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Write a hotkey's commitment on a subnet.
    SetCommitment {
        /// The subnet.
        netuid: u16,
        /// The commitment.
        text: String,
    },
    /// Set a validator's weights in the open.
    SetWeights {
        /// The subnet.
        netuid: u16,
        /// Who gets a weight.
        uids: Vec<u16>,
        /// As much as this, in the same order.
        values: Vec<u16>,
        /// At least the subnet's `WeightsVersionKey`.
        version_key: u64,
    },
    /// Commit a validator's weights, encrypted until a round of the randomness beacon.
    CommitTimelocked {
        /// The subnet.
        netuid: u16,
        /// The encrypted weights.
        payload: Vec<u8>,
        /// The round in which they can be read.
        reveal_round: u64,
        /// Version of the format.
        version: u16,
    },
}

/// A call as the library takes it.
pub(super) type Payload = subxt::transactions::DynamicPayload<Value>;

impl Call {
    /// Pallet and name.
    pub(super) fn name(&self) -> (&'static str, &'static str) {
        match self {
            Self::SetCommitment { .. } => ("Commitments", "set_commitment"),
            Self::SetWeights { .. } => ("SubtensorModule", "set_weights"),
            Self::CommitTimelocked { .. } => ("SubtensorModule", "commit_timelocked_mechanism_weights"),
        }
    }

    /// The error for a commitment that needs the newer, longer form, where the runtime has only the older one.
    pub(super) fn too_long(&self) -> Option<SubmitError> {
        match self {
            Self::SetCommitment { text, .. } if text.len() > LONGEST_RAW => {
                Some(SubmitError::TooLong { length: text.len(), most: LONGEST_RAW })
            }
            _ => None,
        }
    }

    pub(super) fn payload(&self) -> Result<Payload, SubmitError> {
        // By name and not by position: a runtime that orders or names them otherwise must refuse, not misunderstand.
        let arguments = match self {
            Self::SetCommitment { netuid, text } => {
                Value::named_composite([("netuid", Value::from(*netuid)), ("info", info(text)?)])
            }
            Self::SetWeights { netuid, uids, values, version_key } => Value::named_composite([
                ("netuid", Value::from(*netuid)),
                ("dests", Value::from(uids.clone())),
                ("weights", Value::from(values.clone())),
                ("version_key", Value::from(*version_key)),
            ]),
            Self::CommitTimelocked { netuid, payload, reveal_round, version } => Value::named_composite([
                ("netuid", Value::from(*netuid)),
                ("mecid", Value::from(MECHANISM)),
                ("commit", Value::from_bytes(payload)),
                ("reveal_round", Value::from(*reveal_round)),
                ("commit_reveal_version", Value::from(*version)),
            ]),
        };
        let (pallet, name) = self.name();
        Ok(dynamic::transaction(pallet, name, arguments))
    }
}

/// What a commitment is on the chain: one field that holds the text.
fn info(text: &str) -> Result<Value, SubmitError> {
    let variant = match text.len() {
        length @ 0..=LONGEST_RAW => format!("Raw{length}"),
        0..=LONGEST => "BigRaw".to_owned(),
        length => return Err(SubmitError::TooLong { length, most: LONGEST }),
    };
    let field = Value::unnamed_variant(variant, [Value::from_bytes(text)]);
    Ok(Value::named_composite([("fields", Value::unnamed_composite([field]))]))
}
