//! What the database has said, and the metrics it makes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{
    super::{
        documents::{Evaluated, Score},
        standing::BLOCK_SECONDS,
    },
    names,
    page::{Page, Spread},
};
use crate::cycle::{CycleId, Outcome};
use crate::schedule::Timing;
use crate::store::{
    CYCLE_SECONDS, Count, Counters, Error, Gauges, LATENCY_SECONDS, PauseRow, STAGE_SECONDS, ScheduleRow, Standing,
    Store,
};

/// Scores that are shown at most: 256 miners in 32 environments.
const MOST_SCORES: usize = 8192;

/// Due times that are looked at to find the longest wait between two of them.
const DUE_TIMES: usize = 12;

/// What the database has said.
#[derive(Debug)]
pub(super) struct Seen {
    gauges: Gauges,
    schedules: Vec<ScheduleRow>,
    pauses: Vec<PauseRow>,
    held: bool,
    counts: Option<Counting>,
}

/// The vector that counts.
#[derive(Debug, Clone)]
struct Counting {
    cycle: CycleId,
    as_of: DateTime<Utc>,
    miners: usize,
    scores: Vec<Scored>,
    omitted: usize,
}

#[derive(Debug, Clone)]
struct Scored {
    uid: String,
    hotkey: String,
    environment: String,
    rate: f64,
}

impl Seen {
    /// Ask; what is in the documents of a vector is read once, and taken from `before` from then on.
    pub(super) async fn ask(store: &Store, counters: &Counters, before: Option<&Self>) -> Result<Self, Error> {
        let gauges = store.gauges(counters).await?;
        let Standing { latest, held } = store.standing().await?;
        let before = before.and_then(|before| before.counts.as_ref());
        let counts = latest.and_then(|row| match before.filter(|before| before.cycle == row.cycle) {
            Some(known) => Some(known.clone()),
            None => match Evaluated::of(&row) {
                Ok(evaluated) => Some(Counting::new((row.cycle, row.as_of), &evaluated)),
                Err(error) => {
                    tracing::error!("{:#}", anyhow::Error::from(error));
                    None
                }
            },
        });
        let (schedules, pauses) = (store.schedules().await?, store.pauses().await?);
        Ok(Self { gauges, schedules, pauses, held: held.is_some(), counts })
    }

    /// The metrics at `now`, of a process that has started at `started`.
    pub(super) fn show(&self, page: &mut Page, (now, started): (DateTime<Utc>, DateTime<Utc>)) {
        self.show_counters(page);
        self.show_queue(page);
        self.show_schedules(page, now, started);
        page.set(&names::GUARD, &[], f64::from(u8::from(self.held)));
        page.set(&names::MINERS, &[], self.counts.as_ref().map_or(0, |counts| counts.miners) as f64);
        let Some(counts) = &self.counts else { return };
        page.set(&names::WEIGHTS_AGE, &[], seconds(now - counts.as_of).max(0.0));
        page.set(&names::SCORES_OMITTED, &[], counts.omitted as f64);
        for score in &counts.scores {
            page.set(&names::SCORES, &[&score.uid, &score.hotkey, &score.environment], score.rate);
        }
    }

    fn show_counters(&self, page: &mut Page) {
        let tally = &self.gauges.tally;
        for ended in &tally.ended {
            page.set(&names::CYCLES, &[&ended.pipeline, &ended.status], ended.count as f64);
        }
        let mut durations = Spread::new(&CYCLE_SECONDS);
        for it in &tally.durations {
            durations.add(it.bucket, it.count, it.total);
        }
        page.spread(&names::CYCLE_DURATION, &[], &durations);
        let (mut episodes, mut stages) = (BTreeMap::new(), BTreeMap::new());
        let mut latency = Spread::new(&LATENCY_SECONDS);
        for it in &tally.counts {
            match it.what.as_str() {
                "episode" => *episodes.entry(outcome(it)).or_insert(0) += it.count,
                "latency" => latency.add(it.bucket, it.count, it.total),
                _ => {
                    let stage = stages.entry(it.label.as_str()).or_insert_with(|| Spread::new(&STAGE_SECONDS));
                    stage.add(it.bucket, it.count, it.total);
                }
            }
        }
        for ((outcome, reason), count) in episodes {
            page.set(&names::EPISODES, &[outcome, reason], count as f64);
        }
        page.spread(&names::LATENCY, &[], &latency);
        for (kind, spread) in &stages {
            page.spread(&names::STAGE_DURATION, &[kind], spread);
        }
    }

    fn show_queue(&self, page: &mut Page) {
        let Gauges { tasks, servers, leases: (all, own), episodes_pending, .. } = &self.gauges;
        for (state, count) in
            [("ready", tasks.ready), ("waiting", tasks.waiting), ("running", tasks.running), ("paused", tasks.paused)]
        {
            page.set(&names::TASKS, &[state], count as f64);
        }
        for (kind, count) in
            [("process", servers.process), ("container", servers.container), ("service", servers.service)]
        {
            page.set(&names::SERVERS, &[kind], count as f64);
        }
        page.set(&names::EPISODES_PENDING, &[], *episodes_pending as f64);
        page.set(&names::LEASES, &[], *all as f64);
        page.set(&names::LEASES_HELD, &[], *own as f64);
    }

    fn show_schedules(&self, page: &mut Page, now: DateTime<Utc>, started: DateTime<Utc>) {
        page.set(&names::PAUSED, &[], self.pauses.len() as f64);
        let mut starts: BTreeMap<&str, DateTime<Utc>> =
            self.schedules.iter().map(|row| (row.pipeline.as_str(), started)).collect();
        for last in &self.gauges.last_cycles {
            starts.insert(&last.pipeline, last.created_at);
            if let Some(at) = last.completed_at {
                page.set(&names::LAST_SUCCESS, &[&last.pipeline], unix(at));
            }
        }
        for (pipeline, at) in starts {
            page.set(&names::LAST_START, &[pipeline], unix(at));
        }
        let paused: BTreeSet<&str> = self.pauses.iter().map(|pause| pause.pipeline.as_str()).collect();
        let mut intervals: BTreeMap<&str, f64> = BTreeMap::new();
        for row in self.schedules.iter().filter(|row| !paused.contains(row.pipeline.as_str())) {
            let Some(interval) = interval(&row.schedule.timing, now) else { continue };
            let shortest = intervals.entry(&row.pipeline).or_insert(interval);
            *shortest = shortest.min(interval);
        }
        for (pipeline, interval) in intervals {
            page.set(&names::INTERVAL, &[pipeline], interval);
        }
    }
}

impl Counting {
    fn new((cycle, as_of): (CycleId, DateTime<Utc>), evaluated: &Evaluated) -> Self {
        let shown = evaluated.entries.iter().take(MOST_SCORES).map(|score: &Score| Scored {
            uid: score.uid.to_string(),
            hotkey: score.hotkey.clone(),
            environment: score.environment.clone(),
            rate: score.success_rate,
        });
        let omitted = evaluated.entries.len().saturating_sub(MOST_SCORES);
        Self { cycle, as_of, miners: evaluated.miners(), scores: shown.collect(), omitted }
    }
}

/// The words of an outcome: there are only so many, whatever an older or newer program has written.
fn outcome(count: &Count) -> (&'static str, &'static str) {
    let reason = Some(count.detail.as_str()).filter(|reason| !reason.is_empty());
    let known = Outcome::from_words(&count.label, reason);
    known.map_or(("other", ""), |outcome| (outcome.word(), outcome.reason().unwrap_or_default()))
}

/// The longest time from one due time to the next, as far as can be seen.
fn interval(timing: &Timing, now: DateTime<Utc>) -> Option<f64> {
    if let Timing::Blocks(every) = timing {
        return Some(every.get() as f64 * BLOCK_SECONDS as f64);
    }
    let due = std::iter::successors(timing.next_time(now), |last| timing.next_time(*last));
    let due: Vec<DateTime<Utc>> = due.take(DUE_TIMES).collect();
    due.windows(2).map(|pair| seconds(pair[1] - pair[0])).reduce(f64::max)
}

fn seconds(span: chrono::TimeDelta) -> f64 {
    span.num_milliseconds() as f64 / 1000.0
}

fn unix(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_the_longest_wait() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let cron = |text: &str| Timing::Cron { cron: text.parse().unwrap(), timezone: chrono_tz::UTC };
        assert_eq!(interval(&cron("0 * * * *"), now), Some(3600.0));
        assert_eq!(interval(&cron("0 9,17 * * *"), now), Some(16.0 * 3600.0));
        assert_eq!(interval(&Timing::Blocks(300.try_into().unwrap()), now), Some(3600.0));
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        let entry = |uid: usize| {
            serde_json::json!({
                "uid": uid % 256, "hotkey": format!("miner-{}", uid % 256), "environment": format!("m/{}", uid / 256),
                "success_rate": 0.5, "interval": [0.0, 1.0], "mean_return": 0.0, "episodes": 2, "successes": 1, "outcomes": {},
            })
        };
        let entries: Vec<_> = (0..MOST_SCORES + 3).map(entry).collect();
        let document = serde_json::json!({ "environments": ["m/0"], "entries": entries });
        let evaluated: Evaluated = serde_json::from_value(document).unwrap();
        let counts = Counting::new((CycleId::generate(), Utc::now()), &evaluated);
        assert_eq!((counts.scores.len(), counts.omitted, counts.miners), (MOST_SCORES, 3, 256));
    }

    #[test]
    fn words_that_are_not_known_are_others() {
        let count = |label: &str, detail: &str| Count {
            what: "episode".into(),
            label: label.into(),
            detail: detail.into(),
            bucket: 0,
            count: 1,
            total: 0.0,
        };
        assert_eq!(outcome(&count("miner_fault", "tls_error")), ("miner_fault", "tls_error"));
        assert_eq!(outcome(&count("success", "")), ("success", ""));
        assert_eq!(outcome(&count("miner_fault", "from the future")), ("other", ""));
    }
}
