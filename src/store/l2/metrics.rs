//! Metrics of the tier in Redis.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

type Labels = [(&'static str, &'static str); 1];
type Sum = Gauge<u64, AtomicU64>;

/// Handles of all families.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) stale: Counter,
    pub(super) queue_bytes: Sum,
    pub(super) waiting: Sum,
    pub(super) wakes: Counter,
    pub(super) read: Counter,
    pub(super) written: Counter,
    pub(super) compressed_in: Counter,
    pub(super) compressed_out: Counter,
    lookup: Histogram,
    errors: Family<Labels, Counter>,
    writes: Family<Labels, Counter>,
    leases: Family<Labels, Counter>,
    removals: Family<Labels, Counter>,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteEnd {
    Stored,
    /// Something newer was there.
    Outdated,
    /// Removed since its fill began.
    Fenced,
    /// Larger than one entry may be.
    Large,
    /// No room among those that wait.
    Dropped,
    Failed,
}

/// What came of the wish to be the one who fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseEnd {
    Taken,
    /// Another node has it: waiting began.
    Waited,
    /// The other node brought what was waited for.
    Followed,
    /// The other node did not, and this one took over.
    Inherited,
    /// What the other node brought is not storable.
    Unstorable,
    /// Waited long enough, or as many wait as may.
    Alone,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("l2");
        let count = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let sum = |registry: &mut Registry, name: &str, help: &str| {
            let sum = Sum::default();
            registry.register(name, help, sum.clone());
            sum
        };
        let family = |registry: &mut Registry, name: &str, help: &str| {
            let family = Family::<Labels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let lookup = Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let help = "time of look-ups in L2, those without an answer included";
        registry.register_with_unit("lookup", help, Unit::Seconds, lookup.clone());
        Self {
            hits: count(registry, "hits", "fills that L2 answered"),
            misses: count(registry, "misses", "fills for which L2 had nothing of use"),
            stale: count(registry, "stale", "fills for which L2 had something to be confirmed"),
            queue_bytes: sum(registry, "queue_bytes", "bytes of entries that wait to be written to L2"),
            waiting: sum(registry, "waiting", "fills that wait for one under way on another node"),
            wakes: count(registry, "wakes", "fills that were woken because one on another node has ended"),
            read: count(registry, "read_bytes", "bytes of values read from L2"),
            written: count(registry, "written_bytes", "bytes of values written to L2"),
            compressed_in: count(
                registry,
                "compressed_in_bytes",
                "bytes of entries before they were compressed for L2",
            ),
            compressed_out: count(registry, "compressed_out_bytes", "bytes of entries compressed for L2"),
            lookup,
            errors: family(registry, "errors", "calls to Redis on behalf of L2 that failed, by kind"),
            writes: family(registry, "writes", "entries for L2, by what came of them"),
            leases: family(registry, "leases", "claims of fills among nodes, by what came of them"),
            removals: family(registry, "removals", "removals from L2, by what came of them"),
        }
    }

    pub(super) fn looked_up(&self, took: Duration) {
        self.lookup.observe(took.as_secs_f64());
    }

    pub(super) fn error(&self, kind: &'static str) {
        self.errors.get_or_create_owned(&[("kind", kind)]).inc();
    }

    pub(super) fn wrote(&self, end: WriteEnd) {
        let result = match end {
            WriteEnd::Stored => "stored",
            WriteEnd::Outdated => "outdated",
            WriteEnd::Fenced => "fenced",
            WriteEnd::Large => "too-large",
            WriteEnd::Dropped => "dropped",
            WriteEnd::Failed => "failed",
        };
        self.writes.get_or_create_owned(&[("result", result)]).inc();
    }

    pub(super) fn writes(&self, result: &'static str) -> u64 {
        self.writes.get(&[("result", result)]).map_or(0, |count| count.get())
    }

    pub(super) fn lease(&self, end: LeaseEnd) {
        let result = match end {
            LeaseEnd::Taken => "taken",
            LeaseEnd::Waited => "waited",
            LeaseEnd::Followed => "followed",
            LeaseEnd::Inherited => "inherited",
            LeaseEnd::Unstorable => "unstorable",
            LeaseEnd::Alone => "alone",
        };
        self.leases.get_or_create_owned(&[("result", result)]).inc();
    }

    pub(super) fn removed(&self, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.removals.get_or_create_owned(&[("result", result)]).inc();
    }
}
