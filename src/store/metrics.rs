//! Metrics of L1. Sizes are read when they are scraped, so a hit updates nothing.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{TypedMetric, counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use super::l1::Engine;

/// Counters of what is written and what leaves, by reason.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    /// Slots written.
    pub(super) inserts: Counter,
    /// Slots larger than one object may be.
    pub(super) refused: Counter,
    /// Left to make room.
    pub(super) evicted: Counter,
    /// Overwritten by a newer slot of the same key.
    pub(super) replaced: Counter,
    /// Removed by key.
    pub(super) removed: Counter,
    /// Removed together with all others.
    pub(super) cleared: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let inserts = Counter::default();
        registry.register("inserts", "Slots written to L1", inserts.clone());
        let refused = Counter::default();
        registry.register("refused", "Slots not written to L1: larger than one object may be", refused.clone());
        let evictions = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "evictions",
            "Slots that left L1: for room (size), overwritten (replaced), by key (removed), with all others (cleared)",
            evictions.clone(),
        );
        let reason = |reason| evictions.get_or_create_owned(&[("reason", reason)]);
        Self {
            inserts,
            refused,
            evicted: reason("size"),
            replaced: reason("replaced"),
            removed: reason("removed"),
            cleared: reason("cleared"),
        }
    }
}

/// Reads the sizes of an engine.
pub(super) struct Sizes {
    engine: Arc<Engine>,
    bytes_max: u64,
}

impl Sizes {
    pub(super) fn register(registry: &mut Registry, engine: Arc<Engine>, bytes_max: u64) {
        registry.register_collector(Box::new(Self { engine, bytes_max }));
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sizes").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Collector for Sizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?)
        };
        gauge("bytes", "Weight of all slots in L1, bookkeeping included", self.engine.bytes())?;
        gauge("entries", "Slots in L1", self.engine.len())?;
        gauge("bytes_max", "Weight L1 may reach", self.bytes_max)
    }
}
