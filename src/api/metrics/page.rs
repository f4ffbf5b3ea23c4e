//! A page of metrics being made: values under the definitions of `names.rs`, in the library's form. Pure.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::names::{Definition, Kind};

/// Values by metric.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: BTreeMap<&'static str, MetricFamily>,
}

/// How many values are in which bucket.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Vec<u64>,
    total: f64,
}

impl Spread {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], total: 0.0 }
    }

    /// Values in the bucket below the bound of this number; those of a number that is none are above all.
    pub(super) fn add(&mut self, bucket: i32, count: i64, total: f64) {
        let last = self.bounds.len();
        let place = usize::try_from(bucket).map_or(last, |bucket| bucket.min(last));
        self.counts[place] += count.unsigned_abs();
        self.total += total;
    }
}

impl Page {
    /// A value under the definition's labels, in their order.
    pub(super) fn set(&mut self, definition: &'static Definition, labels: &[&str], value: f64) {
        let mut metric = Metric::from_label(pairs(definition, labels));
        if definition.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.family(definition).mut_metric().push(metric);
    }

    /// A histogram.
    pub(super) fn spread(&mut self, definition: &'static Definition, labels: &[&str], spread: &Spread) {
        let mut sum = 0;
        let buckets = spread.bounds.iter().zip(&spread.counts).map(|(bound, count)| {
            sum += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(sum);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(spread.counts.iter().sum());
        histogram.set_sample_sum(spread.total);
        let mut metric = Metric::from_label(pairs(definition, labels));
        metric.set_histogram(histogram);
        self.family(definition).mut_metric().push(metric);
    }

    /// Everything, by name. What has no value is not there.
    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families.into_values().collect()
    }

    fn family(&mut self, definition: &'static Definition) -> &mut MetricFamily {
        self.families.entry(definition.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(definition.name.to_owned());
            family.set_help(definition.help.to_owned());
            family.set_field_type(match definition.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            family
        })
    }
}

fn pairs(definition: &Definition, values: &[&str]) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    definition.labels.iter().zip(values).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::super::names;
    use super::*;

    #[test]
    fn a_page_is_text_that_prometheus_reads() {
        let mut page = Page::default();
        page.set(&names::CYCLES, &["hourly", "completed"], 3.0);
        let mut spread = Spread::new(&[0.1, 1.0]);
        for (bucket, count, total) in [(0, 2, 0.1), (1, 1, 0.5), (2, 1, 7.0), (-1, 1, 9.0)] {
            spread.add(bucket, count, total);
        }
        page.spread(&names::STAGE_DURATION, &["episodes/run"], &spread);
        let text = TextEncoder::new().encode_to_string(&page.into_families()).unwrap();
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "robo_eval_cycles_total{pipeline=\"hourly\",status=\"completed\"} 3",
                "robo_stage_duration_seconds_bucket{kind=\"episodes/run\",le=\"0.1\"} 2",
                "robo_stage_duration_seconds_bucket{kind=\"episodes/run\",le=\"1\"} 3",
                "robo_stage_duration_seconds_bucket{kind=\"episodes/run\",le=\"+Inf\"} 5",
                "robo_stage_duration_seconds_sum{kind=\"episodes/run\"} 16.6",
                "robo_stage_duration_seconds_count{kind=\"episodes/run\"} 5",
            ]
        );
    }
}
