//! Metrics of the fleet's log.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Acked {
    ack: &'static str,
    result: &'static str,
}

/// Handles of all families.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    /// Records applied.
    pub(super) applied: Counter,
    /// Records that did not follow the last one.
    pub(super) forks: Counter,
    /// Epochs begun.
    pub(super) turns: Counter,
    /// Records given back after a fail-over.
    pub(super) appended_again: Counter,
    /// From a purge's call to its application here, by the clocks of both nodes.
    pub(super) propagation: Histogram,
    /// Records in Redis.
    pub(super) records: Gauge<u64, AtomicU64>,
    /// 1: the lease has run out.
    pub(super) fenced: Gauge,
    /// Seconds without a lease.
    pub(super) fenced_seconds: Counter<f64, AtomicU64>,
    /// Seconds of the lease that are left.
    pub(super) lease_left: Gauge<f64, AtomicU64>,
    /// Proofs that could not be had.
    pub(super) beat_failures: Counter,
    /// Live nodes, this one included.
    pub(super) nodes: Gauge<u64, AtomicU64>,
    /// Invalidations by unsafe requests that other nodes are not told.
    pub(super) dropped: Counter,
    /// Hits that were looked at afterwards.
    pub(super) audits: Counter,
    /// Of these, those that a purge should have prevented.
    pub(super) stale_reads: Counter,
    /// Snapshots written.
    pub(super) snapshots: Counter,
    resyncs: Family<Why, Counter>,
    acks: Family<Acked, Counter>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("fleet");
        let metrics = Self {
            applied: Counter::default(),
            forks: Counter::default(),
            turns: Counter::default(),
            appended_again: Counter::default(),
            propagation: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            records: Gauge::default(),
            fenced: Gauge::default(),
            fenced_seconds: Counter::default(),
            lease_left: Gauge::default(),
            beat_failures: Counter::default(),
            nodes: Gauge::default(),
            dropped: Counter::default(),
            audits: Counter::default(),
            stale_reads: Counter::default(),
            snapshots: Counter::default(),
            resyncs: Family::default(),
            acks: Family::default(),
        };
        registry.register("applied", "Purges of the fleet's log applied here", metrics.applied.clone());
        registry.register("forks", "Records that did not follow the last one applied", metrics.forks.clone());
        registry.register(
            "epochs_begun",
            "Epochs of the log, after fail-overs that lost records",
            metrics.turns.clone(),
        );
        registry.register(
            "appended_again",
            "Purges given back to a log that had lost them",
            metrics.appended_again.clone(),
        );
        registry.register(
            "propagation_seconds",
            "From a purge's call on one node to its application on this one",
            metrics.propagation.clone(),
        );
        registry.register("log_records", "Records of the log in Redis", metrics.records.clone());
        registry.register("fenced", "1: no proof of being up to date with the log", metrics.fenced.clone());
        registry.register("fenced_seconds", "Seconds without such a proof", metrics.fenced_seconds.clone());
        registry.register("lease_left_seconds", "What is left of the lease", metrics.lease_left.clone());
        registry.register("beat_failures", "Proofs that could not be had", metrics.beat_failures.clone());
        registry.register("nodes", "Live nodes, this one included", metrics.nodes.clone());
        registry.register(
            "invalidations_dropped",
            "Invalidations by unsafe requests that other nodes were not told of",
            metrics.dropped.clone(),
        );
        registry.register("audits", "Hits that were looked at afterwards", metrics.audits.clone());
        registry.register(
            "stale_reads",
            "Of these, responses that had been purged longer before than the lease allows: always 0",
            metrics.stale_reads.clone(),
        );
        registry.register("snapshots", "Snapshots written to Redis by this node", metrics.snapshots.clone());
        registry.register("resyncs", "Looks at the whole log, by what was found", metrics.resyncs.clone());
        registry.register(
            "acks",
            "Purges called for here, by what they waited for and its result",
            metrics.acks.clone(),
        );
        metrics
    }

    pub(super) fn resync(&self, why: &'static str) {
        self.resyncs.get_or_create(&Why { why }).inc();
    }

    pub(super) fn acked(&self, ack: &'static str, result: &'static str) {
        self.acks.get_or_create(&Acked { ack, result }).inc();
    }
}
