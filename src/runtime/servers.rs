//! One server per kind for all tasks of a cycle: started when first needed, replaced when it died, ended together.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::join_all;

use super::{Address, Error, Order, Running, Runtime};
use crate::{evidence, plan};

/// A place for one server. Tasks that want the same one wait here while the first of them starts it.
type Slot = Arc<tokio::sync::Mutex<Option<Box<dyn Running>>>>;

/// The environment servers of a cycle. Cheap to clone; dropping the last clone ends them the hard way.
#[derive(Clone)]
pub struct Servers {
    runtime: Arc<dyn Runtime>,
    root: PathBuf,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

impl Servers {
    /// No servers yet. Paths in what is asked for start from `root`.
    pub fn new(runtime: Arc<dyn Runtime>, root: PathBuf) -> Self {
        Self { runtime, root, slots: Arc::default() }
    }

    /// The server for `family` as `server` describes it, started if it does not run or does not answer.
    ///
    /// A server that was replaced has another address and remembers nothing of what the old one was told.
    ///
    /// # Errors
    /// [`Error`] when it cannot be started. The next call tries again.
    pub async fn get(&self, family: &str, server: &plan::Server) -> Result<Address, Error> {
        let slot = self.slot(family, server);
        let mut slot = slot.lock().await;
        if let Some(running) = slot.as_mut() {
            match running.check().await {
                Ok(()) => return Ok(running.address().clone()),
                Err(error) => tracing::warn!(family, "starting another environment server: {}", error.explain()),
            }
        }
        if let Some(broken) = slot.take() {
            broken.stop().await;
        }
        let order = Order { server: server.clone(), root: self.root.clone() };
        let running = slot.insert(self.runtime.start(&order).await?);
        tracing::info!(family, "environment server runs as {}", running.address().description);
        Ok(running.address().clone())
    }

    /// End all of them. Those that are just being started are ended as soon as they run.
    pub async fn stop(&self) {
        let slots: Vec<Slot> =
            self.slots.lock().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, slot)| slot).collect();
        join_all(slots.into_iter().map(|slot| async move {
            if let Some(running) = slot.lock().await.take() {
                running.stop().await;
            }
        }))
        .await;
    }

    fn slot(&self, family: &str, server: &plan::Server) -> Slot {
        let description = serde_json::to_value(server).expect("a server's description has string keys only");
        let key = format!("{family} {}", evidence::digest(&description));
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("root", &self.root).finish_non_exhaustive()
    }
}
