//! What is counted of Redis.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::{Class, error::Error};

/// Handles of all families.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    calls: Family<[(&'static str, &'static str); 2], Counter>,
    times: [Histogram; Class::ALL.len()],
    pub(super) nodes: Gauge<i64>,
    pub(super) breakers: Gauge<i64>,
    pub(super) connects: Counter,
    pub(super) connect_errors: Counter,
    refreshes: Family<[(&'static str, &'static str); 1], Counter>,
    pub(super) slots: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Registers them under `redis`.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("redis");
        // 50 µs to 1.6 s.
        let family = Family::<[(&'static str, &'static str); 1], Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.00005, 2.0, 16))
        });
        let metrics = Self {
            calls: Family::default(),
            times: Class::ALL.map(|class| family.get_or_create(&[("class", class.name())]).clone()),
            nodes: Gauge::default(),
            breakers: Gauge::default(),
            connects: Counter::default(),
            connect_errors: Counter::default(),
            refreshes: Family::default(),
            slots: Gauge::default(),
        };
        registry.register("calls", "Calls to Redis, by class and result", metrics.calls.clone());
        registry.register("call_seconds", "Time of calls that were sent to Redis, by class", family);
        registry.register("nodes", "Nodes of Redis that are connected and answer", metrics.nodes.clone());
        registry.register(
            "breakers_open",
            "Connections given up because calls timed out on them, not made anew yet",
            metrics.breakers.clone(),
        );
        registry.register("connects", "Connections made to Redis", metrics.connects.clone());
        registry.register(
            "connect_errors",
            "Connections to Redis that could not be made",
            metrics.connect_errors.clone(),
        );
        registry.register(
            "topology_refreshes",
            "Questions for the nodes of Redis, by result",
            metrics.refreshes.clone(),
        );
        registry.register("slots", "Slots of Redis whose node is known", metrics.slots.clone());
        metrics
    }

    /// Counts a call that took so long.
    pub(super) fn called<T>(&self, class: Class, took: Duration, result: &Result<T, Error>) {
        let name = result.as_ref().err().map_or("ok", Error::name);
        self.calls.get_or_create(&[("class", class.name()), ("result", name)]).inc();
        if !result.as_ref().is_err_and(Error::is_unsent) {
            self.times[class.index()].observe(took.as_secs_f64());
        }
    }

    /// Counts a question for the nodes.
    pub(super) fn refreshed(&self, result: &'static str) {
        self.refreshes.get_or_create(&[("result", result)]).inc();
    }
}
