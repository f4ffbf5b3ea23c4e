//! The schedules of a backend's pipelines, looked at round by round.
//!
//! Decides nothing itself: when something may have become due it reads the pipeline again and asks the store, which decides
//! once for all backends. The time is an argument; nothing here waits.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use tracing::{info, warn};

use super::{BlockSource, Pipeline, Pipelines, new_cycle, unreachable};
use crate::schedule::{Clock, Due, Schedule, next_start};
use crate::store::{self, Fired, Outcome, Round, Store};

/// The schedules of some pipelines.
pub struct Schedules {
    store: Arc<Store>,
    pipelines: Pipelines,
    watched: Vec<Watched>,
    blocks: Arc<dyn BlockSource>,
    /// Why there is no block, as it was last told.
    without_block: Option<String>,
}

/// The schedules of one of them.
struct Watched {
    /// None while its file has never been usable.
    pipeline: Option<Arc<Pipeline>>,
    /// Its place among all of them.
    place: usize,
    /// Its name and schedules as the database knows them.
    registered: Option<(String, Vec<Schedule>)>,
    /// When each schedule, by its key, is to be looked at again.
    quiet: HashMap<String, Quiet>,
}

/// A schedule of which nothing can become due for a while.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    block: Option<u64>,
}

impl Quiet {
    /// Whether nothing has become due. After the clock was set back that has to be asked again.
    fn lasts(self, clock: &Clock) -> bool {
        clock.now >= self.since && self.until.is_none_or(|until| clock.now < until) && clock.block == self.block
    }
}

impl Schedules {
    /// The schedules of these pipelines.
    pub fn new(store: Arc<Store>, pipelines: Pipelines, blocks: Arc<dyn BlockSource>) -> Self {
        let all = pipelines.all().into_iter().enumerate();
        let watched = all
            .map(|(place, kept)| Watched { pipeline: kept.pipeline, place, registered: None, quiet: HashMap::new() })
            .collect();
        Self { store, pipelines, watched, blocks, without_block: None }
    }

    /// Decide whatever has become due by `now`. What cannot be decided for want of a database is decided in a later round.
    pub async fn round(&mut self, now: DateTime<Utc>) -> Vec<Fired> {
        let clock = Clock { now, block: self.block().await };
        let mut all = Vec::new();
        for watched in &mut self.watched {
            match watched.round((&self.store, &self.pipelines), &clock).await {
                Ok(fired) => all.extend(fired),
                Err(error) => unreachable("the schedules of a pipeline could not be looked at", error),
            }
        }
        all
    }

    async fn block(&mut self) -> Option<u64> {
        let by_block = |it: &Watched| it.schedules().iter().any(|schedule| schedule.timing.is_by_block());
        if !self.watched.iter().any(by_block) {
            return None;
        }
        let latest = self.blocks.latest().await;
        let problem = latest.as_ref().err().map(ToString::to_string);
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.without_block) {
            warn!("schedules by block wait: {problem}");
        }
        self.without_block = problem;
        latest.ok()
    }
}

impl Watched {
    async fn round(&mut self, (store, all): (&Store, &Pipelines), clock: &Clock) -> Result<Vec<Fired>, store::Error> {
        self.pipeline = all.refresh(self.place).await;
        self.register(store, clock.now).await?;
        let mut started = Vec::new();
        if self.awake(clock).is_empty() {
            return Ok(started);
        }
        // The cycle that may start now is that of the files as they are now: manifests and simulators, too.
        self.pipeline = all.reread(self.place).await.pipeline;
        self.register(store, clock.now).await?;
        let Some(pipeline) = self.pipeline.clone() else { return Ok(started) };
        let new = new_cycle(pipeline.compiled());
        for schedule in self.awake(clock) {
            loop {
                let fired = store.run_schedule(&Round { schedule: &schedule, clock: *clock, new: &new }).await?;
                let is_all = fired.is_empty();
                fired.iter().for_each(|fired| tell(&new.pipeline, fired));
                started.extend(fired);
                if is_all {
                    break;
                }
            }
            let until = next_start(&schedule, &new.pipeline, clock.now);
            self.quiet.insert(schedule.key(), Quiet { since: clock.now, until, block: clock.block });
        }
        Ok(started)
    }

    fn awake(&self, clock: &Clock) -> Vec<Schedule> {
        let is_awake = |schedule: &&Schedule| !self.quiet.get(&schedule.key()).is_some_and(|quiet| quiet.lasts(clock));
        self.schedules().iter().filter(is_awake).cloned().collect()
    }

    fn schedules(&self) -> &[Schedule] {
        self.pipeline.as_ref().map_or(&[], |pipeline| &pipeline.compiled().schedules)
    }

    async fn register(&mut self, store: &Store, now: DateTime<Utc>) -> Result<(), store::Error> {
        let Some(pipeline) = &self.pipeline else { return Ok(()) };
        let facts = (pipeline.name().to_owned(), self.schedules().to_vec());
        if self.registered.as_ref() == Some(&facts) {
            return Ok(());
        }
        let file = pipeline.file().display().to_string();
        if let Some((old, _)) = self.registered.as_ref().filter(|(old, _)| *old != facts.0) {
            store.register_schedules((old, &file), &[], now).await?;
        }
        store.register_schedules((&facts.0, &file), &facts.1, now).await?;
        self.registered = Some(facts);
        self.quiet.clear();
        Ok(())
    }
}

fn tell(pipeline: &str, fired: &Fired) {
    let due = match fired.due {
        Due::Time(time) => time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        Due::Block(block) => format!("block {block}"),
    };
    match &fired.outcome {
        Outcome::Cycle(cycle) => info!(cycle = %cycle, "`{pipeline}` was due at {due}: cycle {cycle}"),
        Outcome::Skipped(reason) => info!("`{pipeline}` was due at {due} and is left out: {reason}"),
    }
}
