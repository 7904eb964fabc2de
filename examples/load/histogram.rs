//! Durations counted in buckets that grow with the value: 64 for each power of two, so within 1.6 %.

use std::time::Duration;

use serde_json::{Value, json};

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;

/// Nanoseconds, counted.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; (64 - SUB_BITS as usize + 1) * SUB as usize], count: 0, max: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: Duration) {
        let value = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[index(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Microseconds.
    pub(crate) fn summary(&self) -> Value {
        json!({
            "count": self.count,
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "p999": self.quantile(0.999),
            "max": self.max as f64 / 1e3,
        })
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0.0, |index| value(index).min(self.max) as f64 / 1e3)
    }
}

/// Small values have a bucket each; a larger one is its power of two and the six bits after the first.
fn index(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

/// The least value of a bucket.
fn value(index: usize) -> u64 {
    let shift = (index as u64 / SUB).saturating_sub(1);
    (index as u64 - shift * SUB) << shift
}
