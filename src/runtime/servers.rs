//! A pool of servers per kind for all tasks of a cycle: started when first needed, replaced when they died or have played
//! enough episodes, ended together.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::join_all;
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Address, Error, Order, Running, Runtime};
use crate::{evidence, plan};

/// The environment servers of a cycle. Cheap to clone; dropping the last clone ends them the hard way.
#[derive(Clone)]
pub struct Servers {
    runtime: Arc<dyn Runtime>,
    root: PathBuf,
    pools: Arc<Mutex<HashMap<String, Arc<Pool>>>>,
    /// Servers that wait for their last user.
    retiring: TaskTracker,
}

/// Servers of one kind.
struct Pool {
    order: Order,
    /// As many as there was room for when the first one was wanted.
    slots: OnceCell<Vec<Slot>>,
}

/// A place for one server. Tasks that want the same one wait here while the first of them starts it.
type Slot = tokio::sync::Mutex<Option<Arc<Member>>>;

/// A server that runs.
struct Member {
    /// Tells it from every other, also from one that had its address before.
    start: Uuid,
    address: Address,
    running: tokio::sync::Mutex<Option<Box<dyn Running>>>,
    /// Held by everybody who uses it.
    users: Arc<RwLock<()>>,
    /// Episodes after which a fresh one takes its place.
    most: Option<u32>,
    /// Episodes that it was given.
    episodes: std::sync::atomic::AtomicU64,
}

/// A server to work with. It is not recycled before this is dropped.
#[derive(Clone)]
pub struct Lent {
    member: Arc<Member>,
    _use: Arc<OwnedRwLockReadGuard<()>>,
}

impl Lent {
    /// How it is reached.
    pub fn address(&self) -> &Address {
        &self.member.address
    }

    /// What tells this start of a server from every other.
    pub fn start(&self) -> Uuid {
        self.member.start
    }

    /// Note that it is given so many episodes: after a number that its manifest declares it is replaced.
    pub fn count(&self, episodes: usize) {
        self.member.episodes.fetch_add(episodes as u64, std::sync::atomic::Ordering::Relaxed);
    }

    /// Let it reach these miners; how they are to be addressed from there, in the same order.
    ///
    /// # Errors
    /// [`Error`] when it cannot be let.
    pub async fn reach(&self, miners: &[String]) -> Result<Vec<String>, Error> {
        match self.member.running.lock().await.as_mut() {
            Some(running) => running.reach(miners).await,
            // Ended meanwhile: whoever asks it for episodes is told so.
            None => Ok(miners.to_vec()),
        }
    }

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// [`Error`]: what is wrong.
    pub async fn check(&self) -> Result<(), Error> {
        match self.member.running.lock().await.as_mut() {
            Some(running) => running.check().await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("address", self.address()).finish_non_exhaustive()
    }
}

impl Member {
    fn lend(self: &Arc<Self>) -> Option<Lent> {
        // Only who is about to end it holds it alone.
        let guard = Arc::clone(&self.users).try_read_owned().ok()?;
        Some(Lent { member: Arc::clone(self), _use: Arc::new(guard) })
    }

    fn is_used_up(&self) -> bool {
        let played = self.episodes.load(std::sync::atomic::Ordering::Relaxed);
        self.most.is_some_and(|most| played >= most.into())
    }

    async fn stop(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.stop().await;
        }
    }
}

impl Servers {
    /// No servers yet. Paths in what is asked for start from `root`.
    pub fn new(runtime: Arc<dyn Runtime>, root: PathBuf) -> Self {
        Self { runtime, root, pools: Arc::default(), retiring: TaskTracker::new() }
    }

    /// The servers for `family` as `server` describes it, started where they do not run or do not answer. At least one; the
    /// others of its pool only where they could be had.
    ///
    /// `kinds` is how many kinds of servers the cycle needs, among which the place is shared out.
    ///
    /// A server that was replaced has another address and remembers nothing of what the old one was told.
    ///
    /// # Errors
    /// [`Error`] when none can be started. The next call tries again.
    pub async fn get(&self, family: &str, server: &plan::Server, kinds: usize) -> Result<Vec<Lent>, Error> {
        let pool = self.pool(Order {
            family: family.to_owned(),
            server: server.clone(),
            root: self.root.clone(),
            kinds: kinds.max(1),
        });
        let slots = pool
            .slots
            .get_or_init(|| async {
                let size = self.runtime.room(&pool.order).await.max(1);
                std::iter::repeat_with(Slot::default).take(size).collect()
            })
            .await;
        let started = join_all(slots.iter().map(|slot| self.member(slot, &pool.order))).await;
        let mut lent = Vec::new();
        let mut problem = None;
        for started in started {
            match started {
                Ok(server) => lent.push(server),
                Err(error) => {
                    tracing::warn!(family, "one environment server less: {}", error.explain());
                    problem.get_or_insert(error);
                }
            }
        }
        match problem {
            Some(error) if lent.is_empty() => Err(error),
            _ => Ok(lent),
        }
    }

    /// End all of them. Those that are just being started are ended as soon as they run.
    pub async fn stop(&self) {
        let pools: Vec<_> =
            self.pools.lock().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, pool)| pool).collect();
        let slots = pools.iter().filter_map(|pool| pool.slots.get()).flatten();
        join_all(slots.map(|slot| async {
            if let Some(member) = slot.lock().await.take() {
                member.stop().await;
            }
        }))
        .await;
        // Nobody uses servers any more when they are to be ended.
        self.retiring.close();
        self.retiring.wait().await;
        self.retiring.reopen();
    }

    /// The server of a slot.
    async fn member(&self, slot: &Slot, order: &Order) -> Result<Lent, Error> {
        let family = &order.family;
        let mut slot = slot.lock().await;
        if let Some(member) = slot.take() {
            if member.is_used_up() {
                tracing::info!(family, "{} has played its episodes; starting a fresh one", member.address.description);
                self.retiring.spawn(retire(member));
            } else {
                let checked = match member.running.lock().await.as_mut() {
                    Some(running) => running.check().await,
                    None => Ok(()),
                };
                match (checked, member.lend()) {
                    (Ok(()), Some(lent)) => {
                        *slot = Some(member);
                        return Ok(lent);
                    }
                    (Err(error), _) => {
                        tracing::warn!(family, "starting another environment server: {}", error.explain());
                        member.stop().await;
                    }
                    (Ok(()), None) => {}
                }
            }
        }
        let running = self.runtime.start(order).await?;
        let address = running.address().clone();
        tracing::info!(family, "environment server runs as {}", address.description);
        let member = Arc::new(Member {
            start: Uuid::new_v4(),
            most: order.server.recycle_after.filter(|_| running.can_be_recycled()),
            address,
            running: tokio::sync::Mutex::new(Some(running)),
            users: Arc::default(),
            episodes: 0.into(),
        });
        let guard = Arc::new(Arc::clone(&member.users).read_owned().await);
        *slot = Some(Arc::clone(&member));
        Ok(Lent { member, _use: guard })
    }

    fn pool(&self, order: Order) -> Arc<Pool> {
        let description = serde_json::to_value(&order.server).expect("a server's description has string keys only");
        let key = format!("{} {}", order.family, evidence::digest(&description));
        let new = || Arc::new(Pool { order, slots: OnceCell::new() });
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(new).clone()
    }
}

/// End a server when its last user has let go. Should the cycle end before, dropping the server ends it.
async fn retire(member: Arc<Member>) {
    let alone = Arc::clone(&member.users).write_owned().await;
    member.stop().await;
    drop(alone);
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("root", &self.root).finish_non_exhaustive()
    }
}
