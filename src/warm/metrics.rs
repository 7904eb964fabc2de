//! What warm-up does, in numbers.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::fetch::Fetched;

/// Who asked for a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Cause {
    /// A job.
    Job,
    /// A purge with `refresh`.
    Refresh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Stored,
    Fresh,
    NotStorable,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cause: Cause,
    result: Outcome,
}

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
        let result = match fetched {
            Fetched::Stored => Outcome::Stored,
            Fetched::Fresh => Outcome::Fresh,
            Fetched::NotStorable => Outcome::NotStorable,
            Fetched::Failed(_) => Outcome::Failed,
        };
        self.fetches.get_or_create(&Labels { cause, result }).inc();
    }
}
