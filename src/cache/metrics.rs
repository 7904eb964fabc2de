//! What the cache counts of its fills.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{memory::Memory, spill::Spill};

/// Handles of the families.
pub(super) struct Metrics {
    running: Gauge,
    ended: Family<Ended, Counter>,
    followers: Counter,
    waiting: Gauge,
    waits: Histogram,
    invalidated: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, memory: Memory, spill: Spill) -> Self {
        let waits = Histogram::new(exponential_buckets(0.000_25, 4.0, 10));
        let metrics = Self {
            running: Gauge::default(),
            ended: Family::default(),
            followers: Counter::default(),
            waiting: Gauge::default(),
            waits,
            invalidated: Counter::default(),
        };
        registry.register("fills_running", "origin responses on their way into the cache", metrics.running.clone());
        registry.register("fills", "fills that ended, by how they did", metrics.ended.clone());
        registry.register("followers", "requests that joined a fill of another", metrics.followers.clone());
        registry.register("followers_waiting", "followers waiting for a response head", metrics.waiting.clone());
        registry.register_with_unit(
            "follower_wait",
            "how long followers waited for the response head",
            Unit::Seconds,
            metrics.waits.clone(),
        );
        registry.register("invalidated", "URLs invalidated by unsafe requests", metrics.invalidated.clone());
        registry.register_collector(Box::new(BodiesCollector { memory, spill }));
        metrics
    }

    pub(super) fn fill_running(&self) -> GaugeGuard {
        GaugeGuard::new(&self.running)
    }

    pub(super) fn fills_running(&self) -> usize {
        usize::try_from(self.running.get()).unwrap_or(0)
    }

    pub(super) fn fill_ended(&self, result: &'static str) {
        self.ended.get_or_create_owned(&Ended { result }).inc();
    }

    pub(super) fn follower_waiting(&self) -> Waiting {
        self.followers.inc();
        Waiting {
            _gauge: GaugeGuard::new(&self.waiting),
            waits: self.waits.clone(),
            since: tokio::time::Instant::now(),
        }
    }

    pub(super) fn followers(&self) -> u64 {
        self.followers.get()
    }

    pub(super) fn url_invalidated(&self) {
        self.invalidated.inc();
    }
}

/// Counts one up, and down again when dropped.
pub(super) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A follower that waits; observes how long when dropped.
pub(super) struct Waiting {
    _gauge: GaugeGuard,
    waits: Histogram,
    since: tokio::time::Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.observe(self.since.elapsed().as_secs_f64());
    }
}

/// What bodies on their way take: read where it is counted.
struct BodiesCollector {
    memory: Memory,
    spill: Spill,
}

impl std::fmt::Debug for BodiesCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodiesCollector")
    }
}

impl prometheus_client::collector::Collector for BodiesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let held = u64::try_from(self.memory.held()).unwrap_or(u64::MAX);
        for (name, help, bytes) in [
            ("fill_memory", "bytes of bodies in memory on their way into the cache", held),
            ("spill", "bytes of bodies spilled to files", self.spill.bytes()),
        ] {
            let bytes = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            let descriptor = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), bytes.metric_type())?;
            bytes.encode(descriptor)?;
        }
        Ok(())
    }
}
