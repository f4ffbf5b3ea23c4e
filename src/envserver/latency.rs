//! A summary of latencies by nearest rank. Pure.

use std::time::Duration;

use crate::cycle::LatencySummary;

/// Median, 95th percentile and slowest; none of nothing. Nearest rank: each is a latency that was measured.
pub(super) fn summary(mut latencies: Vec<Duration>) -> Option<LatencySummary> {
    latencies.sort_unstable();
    let rank = |percent: usize| (latencies.len() * percent).div_ceil(100).saturating_sub(1);
    let at = |index: usize| latencies.get(index).map(|latency| latency.as_secs_f64() * 1000.0);
    Some(LatencySummary { p50_ms: at(rank(50))?, p95_ms: at(rank(95))?, max_ms: at(rank(100))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> Option<(f64, f64, f64)> {
        let latencies = milliseconds.into_iter().map(Duration::from_millis).collect();
        summary(latencies).map(|summary| (summary.p50_ms, summary.p95_ms, summary.max_ms))
    }

    #[test]
    fn ranks_are_nearest() {
        assert_eq!(of([]), None);
        assert_eq!(of([7]), Some((7.0, 7.0, 7.0)));
        assert_eq!(of([2, 1]), Some((1.0, 2.0, 2.0)));
        assert_eq!(of((1..=100).rev()), Some((50.0, 95.0, 100.0)));
        assert_eq!(of(1..=10), Some((5.0, 10.0, 10.0)));
    }
}
