//! What the stream of changes does, in numbers.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Handles of all families.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    /// Messages that were purged.
    pub(super) applied: Counter,
    /// Messages that were not understood.
    pub(super) rejected: Counter,
    /// Messages that are to be tried again.
    pub(super) retried: Counter,
    /// Messages taken over from other nodes.
    pub(super) claimed: Counter,
    /// Messages that some node has taken and not acknowledged.
    pub(super) pending: Gauge<u64, AtomicU64>,
    /// Seconds from the writing of the last message to its purge.
    pub(super) lag: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("changes");
        registry.register("applied", "Messages of backends that this node has purged", metrics.applied.clone());
        registry.register("rejected", "Messages of backends that were not understood", metrics.rejected.clone());
        registry.register("retried", "Messages of backends that are to be tried again", metrics.retried.clone());
        registry.register("claimed", "Messages taken over from other nodes", metrics.claimed.clone());
        registry.register("pending", "Messages some node has taken and not acknowledged", metrics.pending.clone());
        registry.register("lag_seconds", "Age of the last message when it was purged", metrics.lag.clone());
        metrics
    }
}
