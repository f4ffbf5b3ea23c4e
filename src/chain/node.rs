//! A connection to a node, taken from a list of nodes: the first that answers in time, is on the right chain and is up to
//! date. A reading is short, so a connection is made for it and dropped with it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use subxt::{
    OnlineClient, SubstrateConfig,
    backend::LegacyBackend,
    client::{ClientAtBlock, OnlineClientAtBlockImpl},
    dynamic,
    rpcs::{RpcClient, client::rpc_params},
};

use super::{Network, network::shown};
use crate::cycle::{plain_text, with_causes};

/// A client that reads at one block.
pub(super) type AtBlock = ClientAtBlock<SubstrateConfig, OnlineClientAtBlockImpl<SubstrateConfig>>;

/// Entries of a map that come in one answer.
const PAGE: u32 = 512;
/// Blocks that the finalized head may be behind the best one: finality that has stopped is an outage.
const MOST_BEHIND: u64 = 50;
/// How old the finalized head of a public network may be.
const MOST_AGE: Duration = Duration::from_secs(300);
/// Pauses between rounds over all nodes.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// Longest times to wait for a node.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection and the first answers.
    pub connect: Duration,
    /// For all of a reading.
    pub read: Duration,
    /// Whether all nodes are asked again when none was good.
    pub rounds: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), read: Duration::from_secs(60), rounds: 1 + PAUSES.len() }
    }
}

/// What is wrong with a node.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// No connection, or an error in place of an answer.
    #[error("{0}")]
    Rpc(String),
    /// Another chain.
    #[error("it is on another chain: its genesis block is {found}, not {wanted}")]
    Genesis {
        /// What it has.
        found: String,
        /// What the network's is.
        wanted: &'static str,
    },
    /// Blocks are made and not finalized.
    #[error("its finalized block {finalized} is far behind its best block {best}")]
    Stalled {
        /// The last finalized block.
        finalized: u64,
        /// The last block.
        best: u64,
    },
    /// The node does not keep up, or the chain has stopped.
    #[error("its finalized block {block} is {age} s old")]
    Old {
        /// The last finalized block.
        block: u64,
        /// Its age by our clock.
        age: u64,
    },
    /// What came is not what the runtime's own description says.
    #[error("it answers what cannot be read: {0}")]
    Unreadable(String),
}

impl Problem {
    pub(super) fn unreadable(error: impl Into<subxt::Error>) -> Self {
        Self::Unreadable(chain_of(&error.into()))
    }
}

impl<E: Into<subxt::Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Rpc(chain_of(&error.into()))
    }
}

/// An error with its causes in one line, which is safe to print: nodes have a say in it.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    plain_text(&with_causes(error.to_string(), error))
}

/// No node of a network is any good.
#[derive(Debug)]
pub struct Unreachable {
    network: String,
    /// What was wrong with each, in the order of the last round.
    pub problems: Vec<(String, Problem)>,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no node of the network `{}` can be read", self.network)?;
        for (url, problem) in &self.problems {
            write!(f, "; {}: {problem}", shown(url))?;
        }
        Ok(())
    }
}

impl std::error::Error for Unreachable {}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The node that was asked.
    pub node: String,
    /// Hash of block 0.
    pub genesis: String,
    /// Number of the last finalized block.
    pub block: u64,
    /// Its hash.
    pub hash: String,
    /// When the finalized one was made, where the chain keeps the time.
    pub made: Option<DateTime<Utc>>,
    /// Number of the last block.
    pub best: u64,
    /// Version of the runtime.
    pub spec_version: u32,
}

impl Head {
    /// Ask the first good node.
    ///
    /// # Errors
    /// [`Unreachable`], with what was wrong with each.
    pub async fn read(network: &Network, patience: Patience) -> Result<Self, Unreachable> {
        Node::with(network, patience, |node| async move {
            let at = node.finalized(network).await?;
            Ok(Self {
                node: node.url.clone(),
                genesis: format!("{:?}", node.api.genesis_hash()),
                block: at.block_number(),
                hash: format!("{:?}", at.block_hash()),
                made: made(&at).await.ok(),
                best: node.best().await?,
                spec_version: at.spec_version(),
            })
        })
        .await
    }
}

/// A node that answers.
pub struct Node {
    pub(super) api: OnlineClient<SubstrateConfig>,
    pub(super) rpc: RpcClient,
    url: String,
}

impl Node {
    /// Do `work` with the first good node of a network; a node that fails in the middle is left for the next one, where
    /// the work begins anew.
    ///
    /// # Errors
    /// [`Unreachable`] when none was good, `patience.rounds` times.
    pub async fn with<T, F>(
        network: &Network,
        patience: Patience,
        work: impl Fn(Arc<Self>) -> F,
    ) -> Result<T, Unreachable>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut problems = Vec::new();
        for round in 0..patience.rounds.max(1) {
            problems.clear();
            if let Some(pause) = round.checked_sub(1).and_then(|pause| PAUSES.get(pause).or(PAUSES.last())) {
                tokio::time::sleep(*pause).await;
            }
            for url in network.urls() {
                match Self::attempt(network, url, patience, &work).await {
                    Ok(done) => return Ok(done),
                    Err(problem) => {
                        tracing::warn!(node = shown(url), %problem, "a node of the chain is left for the next one");
                        problems.push((url.clone(), problem));
                    }
                }
            }
        }
        Err(Unreachable { network: network.to_string(), problems })
    }

    /// The first good node, to submit calls to: connected, on the right chain and up to date.
    ///
    /// # Errors
    /// [`Unreachable`] when none was good.
    pub async fn reach(network: &Network, patience: Patience) -> Result<Arc<Self>, Unreachable> {
        Self::with(network, patience, |node| async move {
            node.finalized(network).await?;
            Ok(node)
        })
        .await
    }

    async fn attempt<T, F>(
        network: &Network,
        url: &str,
        patience: Patience,
        work: impl Fn(Arc<Self>) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let node = within(patience.connect, Self::connect(network, url)).await?;
        within(patience.read, work(Arc::new(node))).await
    }

    async fn connect(network: &Network, url: &str) -> Result<Self, Problem> {
        let rpc = RpcClient::from_insecure_url(url).await.map_err(|error| Problem::Rpc(chain_of(&error)))?;
        let backend = LegacyBackend::builder().storage_page_size(PAGE).build(rpc.clone());
        let api = OnlineClient::<SubstrateConfig>::from_backend(Arc::new(backend)).await?;
        let found = format!("{:?}", api.genesis_hash());
        match network.genesis() {
            Some(wanted) if wanted != found => return Err(Problem::Genesis { found, wanted }),
            _ => {}
        }
        Ok(Self { api, rpc, url: url.to_owned() })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The last finalized block, if the node keeps up with the chain.
    pub(super) async fn finalized(&self, network: &Network) -> Result<AtBlock, Problem> {
        let at = self.api.at_current_block().await?;
        let (finalized, best) = (at.block_number(), self.best().await?);
        if best.saturating_sub(finalized) > MOST_BEHIND {
            return Err(Problem::Stalled { finalized, best });
        }
        if network.is_public() {
            let age = (Utc::now() - made(&at).await?).num_seconds();
            if age > MOST_AGE.as_secs() as i64 {
                return Err(Problem::Old { block: finalized, age: age.unsigned_abs() });
            }
        }
        Ok(at)
    }

    /// The best block, finalized or not, if the node keeps up with the chain.
    pub(super) async fn latest(&self, network: &Network) -> Result<AtBlock, Problem> {
        self.finalized(network).await?;
        self.at_best().await
    }

    /// The number of the best block, finalized or not.
    async fn best(&self) -> Result<u64, Problem> {
        #[derive(serde::Deserialize)]
        struct Header {
            number: String,
        }
        let header: Header =
            self.rpc.request("chain_getHeader", rpc_params![]).await.map_err(|error| Problem::Rpc(chain_of(&error)))?;
        u64::from_str_radix(header.number.trim_start_matches("0x"), 16)
            .map_err(|_| Problem::Unreadable(format!("`{}` is no block number", header.number)))
    }
}

/// When a block was made.
async fn made(at: &AtBlock) -> Result<DateTime<Utc>, Problem> {
    let moment = dynamic::storage::<(), u64>("Timestamp", "Now");
    let millis = at.storage().fetch(moment, ()).await?.decode().map_err(Problem::unreadable)?;
    let moment = i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis);
    moment.ok_or_else(|| Problem::Unreadable(format!("`{millis}` is no moment in milliseconds")))
}

pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(Problem::Silent(patience)))
}
