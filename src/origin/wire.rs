//! What connections of all kinds have: they are counted, and they know coarsely what time it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use prometheus_client::metrics::gauge::Gauge;

/// Counts a connection for as long as it exists.
#[derive(Debug)]
pub(super) struct Open {
    count: Arc<AtomicUsize>,
    gauge: Gauge,
}

/// Seconds, as counted by the pools' sweeper. Coarse, but reading it costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

// === impl Clock ===

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Another second has passed; returns which.
    pub(super) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

// === impl Open ===

impl Open {
    pub(super) fn new(count: &Arc<AtomicUsize>, gauge: &Gauge) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Self { count: Arc::clone(count), gauge: gauge.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}
