//! Metrics of the purge log.

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

use super::types::Mode;

type Labels = [(&'static str, &'static str); 1];

/// Handles of all families.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    hard: Counter,
    soft: Counter,
    /// Scopes named by purges.
    pub(super) scopes: Counter,
    /// Purges answered with the receipt of the first one.
    pub(super) repeated: Counter,
    /// Purges refused because they could not be written.
    pub(super) failures: Counter,
    /// How long making a group of purges durable took.
    pub(super) fsync: Histogram,
    /// Times the oldest scopes were folded.
    pub(super) folds: Counter,
    /// Times the write-ahead file was replaced by a snapshot.
    pub(super) compactions: Counter,
    /// Compactions that failed.
    pub(super) compaction_failures: Counter,
    /// Records read at start.
    pub(super) replayed: Counter,
    /// Unfinished records dropped at start.
    pub(super) torn: Counter,
    /// Files found damaged at start.
    pub(super) damaged: Counter,
    /// Length of the write-ahead file.
    pub(super) wal_bytes: Gauge<u64, AtomicU64>,
    /// Size of the table.
    pub(super) table_scopes: Gauge<u64, AtomicU64>,
    /// Last purge.
    pub(super) position: Gauge<u64, AtomicU64>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("purge");
        let purges = Family::<Labels, Counter>::default();
        registry.register("appends", "Purges done, by mode", purges.clone());
        let done = |mode: Mode| purges.get_or_create_owned(&[("mode", mode.as_str())]);
        let fsync = Histogram::new(exponential_buckets(0.0001, 2.0, 15));
        registry.register("fsync_seconds", "Time to make a group of purges durable", fsync.clone());
        Self {
            hard: done(Mode::Hard),
            soft: done(Mode::Soft),
            scopes: counter(registry, "scopes", "Scopes named by purges"),
            repeated: counter(registry, "repeated", "Purges sent again and answered with the first receipt"),
            failures: counter(registry, "append_failures", "Purges refused because they could not be written"),
            fsync,
            folds: counter(registry, "floor_folds", "Times the oldest scopes were folded into the floor"),
            compactions: counter(registry, "compactions", "Times a snapshot took the place of the write-ahead file"),
            compaction_failures: counter(registry, "compaction_failures", "Compactions that failed"),
            replayed: counter(registry, "replayed_records", "Purges read from the write-ahead file at start"),
            torn: counter(registry, "torn_tails", "Unfinished purges dropped at start"),
            damaged: counter(registry, "damaged_files", "Files of the log found damaged at start"),
            wal_bytes: gauge(registry, "wal_bytes", "Length of the write-ahead file"),
            table_scopes: gauge(registry, "table_scopes", "Scopes with a watermark of their own"),
            position: gauge(registry, "position", "Position of the last purge"),
        }
    }

    /// Counts a purge.
    pub(super) fn done(&self, mode: Mode, scopes: usize) {
        match mode {
            Mode::Hard => self.hard.inc(),
            Mode::Soft => self.soft.inc(),
        };
        self.scopes.inc_by(scopes as u64);
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge<u64, AtomicU64> {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}
