//! Metrics of the disk tier.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

type Labels = [(&'static str, &'static str); 1];
type Sum = Gauge<u64, AtomicU64>;

/// Handles of all families.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) on: Sum,
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) lookup: Histogram,
    pub(super) commit: Histogram,
    pub(super) entries: Sum,
    pub(super) contents: Sum,
    pub(super) logical: Sum,
    pub(super) stored: Sum,
    pub(super) physical: Sum,
    pub(super) index: Sum,
    pub(super) written: Counter,
    pub(super) deduplicated: Counter,
    pub(super) compressed_in: Counter,
    pub(super) compressed_out: Counter,
    pub(super) queue: Sum,
    pub(super) queue_bytes: Sum,
    pub(super) scrubbed: Counter,
    drops: Family<Labels, Counter>,
    evictions: Family<Labels, Counter>,
    scrub: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
}

/// Why an entry was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drop {
    /// Seen once only.
    Admission,
    /// Too many wait.
    Queue,
    /// Larger than one object may be.
    Large,
    /// The tier is off.
    Off,
    /// No room, and none could be made.
    Room,
    /// The disk would not take it.
    Error,
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
    /// Of no use any more.
    Expired,
    /// For `l3.max_bytes`.
    Bytes,
    /// For `l3.entries_max`.
    Entries,
    /// For `l3.free_bytes_min`.
    Free,
}

/// What was found of content that was read to find it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scrubbed {
    Sound,
    Corrupt,
    Missing,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("l3");
        let sum = |registry: &mut Registry, name: &str, help: &str| {
            let sum = Sum::default();
            registry.register(name, help, sum.clone());
            sum
        };
        let count = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let time = |registry: &mut Registry, name: &str, help: &str| {
            let histogram = Histogram::new(exponential_buckets(0.00005, 2.0, 16));
            registry.register(name, help, histogram.clone());
            histogram
        };
        let family = |registry: &mut Registry, name: &str, help: &str| {
            let family = Family::<Labels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let metrics = Self {
            on: sum(registry, "on", "1 while L3 is in use, 0 while it is off because of its disk"),
            hits: count(registry, "hits", "Look-ups that found something in L3"),
            misses: count(registry, "misses", "Look-ups that found nothing in L3"),
            lookup: time(registry, "lookup_seconds", "Time of look-ups that had to read the disk"),
            commit: time(
                registry,
                "commit_seconds",
                "Time to write a batch and make it last, pauses for the rate included",
            ),
            entries: sum(registry, "entries", "Slots in L3"),
            contents: sum(registry, "contents", "Files of content in L3"),
            logical: sum(registry, "logical_bytes", "Content of all entries in L3, as clients get it"),
            stored: sum(registry, "stored_bytes", "Content of all entries in L3, compressed, as if none was shared"),
            physical: sum(registry, "physical_bytes", "What content in L3 takes of the disk"),
            index: sum(registry, "index_bytes", "What the index of L3 takes of the disk"),
            written: count(registry, "written_bytes", "Content written to L3"),
            deduplicated: count(
                registry,
                "deduplicated_bytes",
                "Content that was there already when it was to be written",
            ),
            compressed_in: count(registry, "compressed_in_bytes", "Content that was stored compressed, before"),
            compressed_out: count(registry, "compressed_out_bytes", "Content that was stored compressed, after"),
            queue: sum(registry, "queue_entries", "Changes that wait to be written to L3"),
            queue_bytes: sum(registry, "queue_bytes", "Memory held by changes that wait to be written to L3"),
            scrubbed: count(registry, "scrubbed_bytes", "Content read to find it right"),
            drops: family(registry, "drops", "Entries not written to L3, by reason"),
            evictions: family(registry, "evictions", "Entries that left L3 to make room, by reason"),
            scrub: family(registry, "scrub", "Content read to find it right, by result"),
            errors: family(registry, "errors", "What went wrong with the disk, by kind"),
        };
        // A counter that begins with its first event has not grown, for who compares two scrapes.
        for kind in ["corrupt", "missing", "record", "damaged", "full", "read-only", "gone", "io", "timeout"] {
            let _ = metrics.errors.get_or_create(&[("kind", kind)]);
        }
        for reason in ["admission", "queue", "large", "off", "room", "error"] {
            let _ = metrics.drops.get_or_create(&[("reason", reason)]);
        }
        for reason in ["expired", "bytes", "entries", "free"] {
            let _ = metrics.evictions.get_or_create(&[("reason", reason)]);
        }
        metrics
    }

    pub(super) fn dropped(&self, reason: Drop) {
        let reason = match reason {
            Drop::Admission => "admission",
            Drop::Queue => "queue",
            Drop::Large => "large",
            Drop::Off => "off",
            Drop::Room => "room",
            Drop::Error => "error",
        };
        self.drops.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn evicted(&self, reason: Eviction) {
        let reason = match reason {
            Eviction::Expired => "expired",
            Eviction::Bytes => "bytes",
            Eviction::Entries => "entries",
            Eviction::Free => "free",
        };
        self.evictions.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn scrubbed(&self, result: Scrubbed) {
        let result = match result {
            Scrubbed::Sound => "sound",
            Scrubbed::Corrupt => "corrupt",
            Scrubbed::Missing => "missing",
        };
        self.scrub.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn error(&self, kind: &'static str) {
        self.errors.get_or_create(&[("kind", kind)]).inc();
    }

    /// How often it went wrong so.
    pub(super) fn errors(&self, kind: &'static str) -> u64 {
        self.errors.get_or_create(&[("kind", kind)]).get()
    }

    /// How many left for that reason.
    #[cfg(test)]
    pub(super) fn drops(&self, reason: &'static str) -> u64 {
        self.drops.get_or_create(&[("reason", reason)]).get()
    }

    /// How many left for that reason.
    #[cfg(test)]
    pub(super) fn evictions(&self, reason: &'static str) -> u64 {
        self.evictions.get_or_create(&[("reason", reason)]).get()
    }
}
