//! What warm-up does, in numbers.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::fetch::Fetched;

/// Who asked for a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A job.
    Job,
    /// A purge with `refresh`.
    Refresh,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Refresh => "refresh",
        }
    }
}

type Labels = [(&'static str, &'static str); 2];

/// The metric families of warm-up.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    fetches: Family<Labels, Counter>,
    /// URLs waiting to be fetched again after a purge.
    pub(super) refresh_queue: Gauge,
}

impl Metrics {
    /// Registers them under `warm`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("warm");
        registry.register(
            "fetches",
            "Fetches of warm-up, by what asked for them and what they came to",
            metrics.fetches.clone(),
        );
        registry.register(
            "refresh_queue",
            "URLs waiting to be fetched again after a purge",
            metrics.refresh_queue.clone(),
        );
        metrics
    }

    pub(super) fn count(&self, cause: Cause, fetched: &Fetched) {
        self.fetches.get_or_create(&[("cause", cause.as_str()), ("result", fetched.as_str())]).inc();
    }
}
