//! Calls on their way into a block: written for the best head, signed by a hotkey, handed to a node and followed until they
//! are in. Every way in which that ends is told apart, above all whether the call can still get in.
//!
//! Nothing is submitted twice here. A caller that tries again gets the same nonce as long as the first call is not in, so
//! that of the two only one can be.

use std::time::Duration;

use subxt::{
    OnlineClient, SubstrateConfig,
    client::OnlineClientAtBlockImpl,
    config::{DefaultExtrinsicParamsBuilder, substrate::H256},
    error::{BackendError, ExtrinsicError, RpcError, TransactionEventsError},
    rpcs::{self, client::rpc_params},
    transactions::{SubmittableTransaction, TransactionInBlock, TransactionProgress, TransactionStatus},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    call::Call,
    node::{AtBlock, Node, Problem, chain_of, within},
    refusal::Refusal,
    wallet::Wallet,
};

/// For so many blocks from the head a signed call can get in: 13 minutes at 12 s a block, and never after.
const ERA: u64 = 64;

type Client = OnlineClientAtBlockImpl<SubstrateConfig>;
type Signed = SubmittableTransaction<SubstrateConfig, Client>;
type Followed = TransactionInBlock<SubstrateConfig, Client>;

/// A call that is in a block and has done what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// Number of the block.
    pub block: u64,
    /// Its hash, as `0x` and digits.
    pub hash: String,
    /// The extrinsic's hash.
    pub extrinsic: String,
    /// Whether the block is final. If not, finality was slow, and the block may yet be replaced.
    pub is_final: bool,
}

/// A call that was written and signed, and that the runtime would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// Number of the block at which the runtime was asked.
    pub block: u64,
    /// Length of the signed extrinsic in bytes.
    pub length: usize,
}

/// Longest times to wait for.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// What is read before the call is signed, and each answer after.
    pub answer: Duration,
    /// A block that has it.
    pub block: Duration,
    /// Finality of that block.
    pub finality: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(60), block: Duration::from_secs(240), finality: Duration::from_secs(120) }
    }
}

/// Why a call is not in, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A commitment that the runtime does not hold.
    #[error("the commitment has {length} bytes, and the chain holds {most} at most")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// As many as it may have.
        most: usize,
    },
    /// The runtime is another than this program knows how to call.
    #[error("the chain's runtime {spec_version} does not take `{call}` as it is written here: {reason}")]
    NoSuchCall {
        /// Pallet and name.
        call: String,
        /// Version of the runtime.
        spec_version: u32,
        /// What does not fit.
        reason: String,
    },
    /// The node failed before anything was handed to it.
    #[error("nothing was submitted: {0}")]
    NotSent(Problem),
    /// The node did not take it: it is in no block and will be in none.
    #[error("nothing was submitted: {0}")]
    Refused(Refusal),
    /// It is in a block and has changed nothing.
    #[error("the call is in block {block} and was refused there: {refusal}")]
    Failed {
        /// Number of the block.
        block: u64,
        /// The extrinsic's hash.
        extrinsic: String,
        /// Why.
        refusal: Refusal,
    },
    /// It was handed over, and no more is known.
    #[error(
        "it is unknown whether the call is in a block: {problem}. It is extrinsic {extrinsic}, and can get in until block {until}"
    )]
    Unknown {
        /// The extrinsic's hash.
        extrinsic: String,
        /// The last block that can have it.
        until: u64,
        /// What was the last that was heard.
        problem: String,
    },
}

impl SubmitError {
    /// What can be done about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "write it as `model:revision:deployment`, the shortest of the formats",
            Self::NoSuchCall { .. } => "the runtime is newer or older than this robo: update robo, or check --network",
            Self::NotSent(_) => "try again, or name other nodes with --network",
            Self::Refused(refusal) | Self::Failed { refusal, .. } => refusal.remedy(),
            Self::Unknown { .. } => {
                "look before you try again: `robo commitment show HOTKEY`, the last update in `robo miners ls --format json`, or the extrinsic's hash in a block explorer"
            }
        }
    }
}

impl Node {
    /// Sign a call and hand it to this node, and follow it until the block that has it is final.
    ///
    /// Call it on a node that [`Node::reach`] found, not within [`Node::with`], which would begin anew on the next node.
    ///
    /// # Errors
    /// [`SubmitError`], which has the remedy.
    pub async fn submit(&self, call: &Call, wallet: &Wallet) -> Result<Included, SubmitError> {
        self.submit_within(call, wallet, Waits::default()).await
    }

    /// The same, with other times to wait.
    ///
    /// # Errors
    /// [`SubmitError`], which has the remedy.
    pub async fn submit_within(&self, call: &Call, wallet: &Wallet, waits: Waits) -> Result<Included, SubmitError> {
        let (at, signed) = self.signed(call, wallet, waits).await?;
        let sent = Sent { extrinsic: format!("{:?}", signed.hash()), until: at.block_number() + ERA - 1, waits };
        let progress = match timeout(waits.answer, signed.submit_and_watch()).await {
            Ok(Ok(progress)) => progress,
            Ok(Err(error)) => return Err(refused(&error).unwrap_or_else(|| sent.unknown(chain_of(&error)))),
            Err(_) => return Err(sent.unknown(Problem::Silent(waits.answer))),
        };
        sent.follow(progress).await
    }

    /// Write and sign a call, and ask the runtime whether it would take it. Nothing is submitted.
    ///
    /// # Errors
    /// [`SubmitError`], as far as it can be told beforehand.
    pub async fn rehearse(&self, call: &Call, wallet: &Wallet) -> Result<Rehearsed, SubmitError> {
        use subxt::transactions::{TransactionInvalid, ValidationResult};
        let waits = Waits::default();
        let (at, signed) = self.signed(call, wallet, waits).await?;
        let asked = within(waits.answer, async { Ok(signed.validate().await?) }).await.map_err(SubmitError::NotSent)?;
        let refusal = match asked {
            ValidationResult::Valid(_) => {
                return Ok(Rehearsed { block: at.block_number(), length: signed.encoded().len() });
            }
            ValidationResult::Invalid(TransactionInvalid::Custom(number)) => {
                Refusal::by_pool(0, &format!("Custom error: {number}"))
            }
            ValidationResult::Invalid(other) => Refusal::by_runtime(&format!("{other:?}")),
            ValidationResult::Unknown(other) => Refusal::by_runtime(&format!("{other:?}")),
        };
        Err(SubmitError::Refused(refusal))
    }

    /// A call, written by the runtime's description and signed at the best head with the hotkey's next nonce.
    async fn signed(&self, call: &Call, wallet: &Wallet, waits: Waits) -> Result<(AtBlock, Signed), SubmitError> {
        let payload = call.payload()?;
        let at = within(waits.answer, self.at_best()).await.map_err(SubmitError::NotSent)?;
        at.transactions().call_data(&payload).map_err(|error| {
            let (pallet, name) = call.name();
            let other = SubmitError::NoSuchCall {
                call: format!("{pallet}.{name}"),
                spec_version: at.spec_version(),
                reason: chain_of(&error),
            };
            call.too_long().unwrap_or(other)
        })?;
        let parameters = DefaultExtrinsicParamsBuilder::new().mortal(ERA).build();
        let signing = async { Ok(at.transactions().create_signed(&payload, wallet.pair(), parameters).await?) };
        let signed = within(waits.answer, signing).await.map_err(SubmitError::NotSent)?;
        Ok((at, signed))
    }

    /// A client at the best head: a call is signed for it, and rate limits are counted from it.
    pub(super) async fn at_best(&self) -> Result<AtBlock, Problem> {
        let hash: H256 = self
            .rpc
            .request("chain_getBlockHash", rpc_params![])
            .await
            .map_err(|error| Problem::Rpc(chain_of(&error)))?;
        let api: &OnlineClient<SubstrateConfig> = &self.api;
        Ok(api.at_block(hash).await?)
    }
}

/// What is known of a call that was handed over.
struct Sent {
    extrinsic: String,
    until: u64,
    waits: Waits,
}

impl Sent {
    async fn follow(
        &self,
        mut progress: TransactionProgress<SubstrateConfig, Client>,
    ) -> Result<Included, SubmitError> {
        let mut best: Option<Followed> = None;
        let mut end = Instant::now() + self.waits.block;
        loop {
            let next = match timeout_at(end, progress.next()).await {
                Ok(Some(next)) => next.map_err(|error| self.unknown(chain_of(&error)))?,
                Ok(None) => return Err(self.unknown("the node ended the connection")),
                Err(_) => {
                    return match best {
                        Some(block) => self.outcome(&block, false).await,
                        None => Err(self.unknown(format!("it was in none after {} s", self.waits.block.as_secs()))),
                    };
                }
            };
            match next {
                TransactionStatus::InFinalizedBlock(block) => return self.outcome(&block, true).await,
                TransactionStatus::InBestBlock(block) => {
                    best = Some(block);
                    end = Instant::now() + self.waits.finality;
                }
                TransactionStatus::NoLongerInBestBlock => {
                    best = None;
                    end = Instant::now() + self.waits.block;
                }
                TransactionStatus::Error { message }
                | TransactionStatus::Invalid { message }
                | TransactionStatus::Dropped { message } => {
                    return match best {
                        Some(block) => self.outcome(&block, false).await,
                        None => Err(self.unknown(format!("the node says: {message}"))),
                    };
                }
                TransactionStatus::Validated | TransactionStatus::Broadcasted => {}
            }
        }
    }

    /// What became of the call in its block.
    async fn outcome(&self, block: &Followed, is_final: bool) -> Result<Included, SubmitError> {
        let hash = format!("{:?}", block.block_hash());
        let unreadable =
            |what: String| self.unknown(format!("it is said to be in block {hash}, which cannot be read: {what}"));
        let read = async {
            let number = block.at().await.map_err(|error| unreadable(chain_of(&error)))?.block_number();
            Ok((number, block.wait_for_success().await))
        };
        let silent = |_| unreadable(Problem::Silent(self.waits.answer).to_string());
        match timeout(self.waits.answer, read).await.map_err(silent)?? {
            (number, Ok(_)) => Ok(Included { block: number, hash, extrinsic: self.extrinsic.clone(), is_final }),
            (number, Err(TransactionEventsError::ExtrinsicFailed(error))) => Err(SubmitError::Failed {
                block: number,
                extrinsic: self.extrinsic.clone(),
                refusal: by_runtime(&error),
            }),
            (_, Err(error)) => Err(unreadable(chain_of(&error))),
        }
    }

    fn unknown(&self, problem: impl ToString) -> SubmitError {
        SubmitError::Unknown { extrinsic: self.extrinsic.clone(), until: self.until, problem: problem.to_string() }
    }
}

fn by_runtime(error: &subxt::error::DispatchError) -> Refusal {
    match error {
        subxt::error::DispatchError::Module(error) => Refusal::by_runtime(&error.details_string()),
        other => Refusal::by_runtime(&format!("{other:?}")),
    }
}

/// An error in place of the call's acceptance: the node has judged it and not taken it. Anything else may be a connection that
/// broke after the call had arrived.
fn refused(error: &ExtrinsicError) -> Option<SubmitError> {
    let ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(RpcError::ClientError(rpcs::Error::User(error)))) =
        error
    else {
        return None;
    };
    let data = error.data.as_ref().map(|data| data.get()).unwrap_or_default();
    let data = data.trim_matches('"');
    let text = if data.is_empty() { error.message.clone() } else { format!("{}: {data}", error.message) };
    Some(SubmitError::Refused(Refusal::by_pool(error.code, &text)))
}
