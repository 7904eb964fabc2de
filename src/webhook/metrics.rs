//! What webhooks do, in numbers, by their name.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

type Labels = [(&'static str, String); 1];

/// All families.
#[derive(Debug, Clone, Default)]
pub(super) struct Families {
    sent: Family<Labels, Counter>,
    failed: Family<Labels, Counter>,
    retried: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    left_out: Family<Labels, Counter>,
    queue: Family<Labels, Gauge>,
}

/// Those of one webhook.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) sent: Counter,
    pub(super) failed: Counter,
    pub(super) retried: Counter,
    pub(super) dropped: Counter,
    pub(super) left_out: Counter,
    pub(super) queue: Gauge,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register("sent", "Calls that were taken", all.sent.clone());
        registry.register("failed", "Calls that were refused, or given up", all.failed.clone());
        registry.register("retried", "Calls that were tried again", all.retried.clone());
        registry.register("dropped", "Purges nobody was told of: the queue was full", all.dropped.clone());
        registry.register("left_out", "Things purged that the API has no word for", all.left_out.clone());
        registry.register("queue", "Purges that wait", all.queue.clone());
        all
    }

    pub(super) fn of(&self, name: &str) -> Metrics {
        let labels = [("webhook", name.to_owned())];
        Metrics {
            sent: self.sent.get_or_create_owned(&labels),
            failed: self.failed.get_or_create_owned(&labels),
            retried: self.retried.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
            left_out: self.left_out.get_or_create_owned(&labels),
            queue: self.queue.get_or_create_owned(&labels),
        }
    }
}
