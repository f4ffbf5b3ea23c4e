//! What is measured while episodes are played.

use std::time::{Duration, Instant};

use robo::cycle::EpisodeReport;

use super::{
    cpu::{cpu_seconds, family},
    mock::Mock,
    play::{Load, STEPS},
};

/// What was measured in a round: the workers alone, many episodes in flight, one episode at a time.
#[derive(Default)]
pub(crate) struct Round {
    /// CPU milliseconds a step of each kind of workers alone.
    pub(crate) alone: Vec<f64>,
    /// Steps per second of one episode at a time, in a round that tried it.
    pub(crate) one: Option<f64>,
    pub(crate) steps_per_second: f64,
    pub(crate) cpu_ms_per_step: f64,
    pub(crate) server_share: f64,
    pub(crate) inflation: Inflation,
}

/// Measure the middle of a run, without the resets at its begin and the thinning out at its end.
pub(crate) async fn watch(load: Load, mock: &Mock, server: u32) -> Round {
    let all = u64::from(STEPS * load.in_flight());
    let base = mock.acts();
    let at = async |share: f64| {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while ((mock.acts() - base) as f64) < share * all as f64 {
            ticks.tick().await;
        }
        let processes = family(server);
        (Instant::now(), mock.acts(), cpu_seconds(&processes), cpu_seconds(&processes[..1]))
    };
    let (began, acts, cpu, own) = at(0.15).await;
    let (ended, acts_then, cpu_then, own_then) = at(0.85).await;
    let steps = (acts_then - acts) as f64;
    Round {
        steps_per_second: steps / (ended - began).as_secs_f64(),
        cpu_ms_per_step: (cpu_then - cpu) * 1000.0 / steps,
        server_share: (own_then - own) / (cpu_then - cpu),
        ..Round::default()
    }
}

/// Latency in milliseconds as recorded and as the mock took it, averaged over episodes.
#[derive(Default)]
pub(crate) struct Inflation {
    pub(crate) recorded: [f64; 2],
    pub(crate) taken: [f64; 2],
    pub(crate) worst_p95: f64,
}

pub(crate) fn inflation(reports: &[(String, EpisodeReport)], mock: &Mock) -> Inflation {
    let mut sums = Inflation::default();
    for (episode_id, report) in reports {
        let recorded = report.latency.expect("actions were answered");
        let taken = mock.taken(episode_id);
        let share = 1.0 / reports.len() as f64;
        sums.recorded[0] += recorded.p50_ms * share;
        sums.recorded[1] += recorded.p95_ms * share;
        sums.taken[0] += taken[0] * share;
        sums.taken[1] += taken[1] * share;
        sums.worst_p95 = sums.worst_p95.max(recorded.p95_ms - taken[1]);
    }
    sums
}

impl Round {
    /// How far the record is from the truth: the median and the 95th percentile, in milliseconds.
    pub(crate) fn error(&self) -> [f64; 2] {
        let Inflation { recorded, taken, .. } = self.inflation;
        [(recorded[0] - taken[0]).abs(), (recorded[1] - taken[1]).abs()]
    }
}

/// The middle one.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
