//! What the proxy counts of requests: by route and outcome, with handles taken when routes are made.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::cache::{Outcome, Tier};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    route: String,
    tier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// Families of the proxy.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    tiers: Family<TierLabels, Counter>,
    duration: Family<OutcomeLabels, Histogram, fn() -> Histogram>,
    sent: Family<RouteLabels, Counter>,
    in_flight: Gauge,
    tunnels: Gauge,
}

/// The handles of one route.
pub(super) struct RouteMetrics {
    requests: [Counter; Outcome::NAMES.len()],
    from_redis: Counter,
    from_disk: Counter,
    duration: [Histogram; Outcome::NAMES.len()],
    sent: Counter,
    in_flight: Gauge,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 3.0, 14))
}

impl Metrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            tiers: Family::default(),
            duration: Family::new_with_constructor(latency),
            sent: Family::default(),
            in_flight: Gauge::default(),
            tunnels: Gauge::default(),
        };
        registry.register("requests", "requests answered, by route and outcome", metrics.requests.clone());
        registry.register(
            "tier_hits",
            "requests answered from another tier than memory, by route and tier; they are among those of `requests`",
            metrics.tiers.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "from the request head to the last byte of the answer, by outcome",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit("response", "content sent to clients", Unit::Bytes, metrics.sent.clone());
        registry.register("requests_in_flight", "requests being answered", metrics.in_flight.clone());
        registry.register("tunnels", "tunnels open", metrics.tunnels.clone());
        metrics
    }

    /// The handles of the route `name`.
    pub(super) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let requests = |outcome| RequestLabels { route: name.to_owned(), outcome };
        Arc::new(RouteMetrics {
            requests: Outcome::NAMES.map(|outcome| self.requests.get_or_create_owned(&requests(outcome))),
            from_redis: self.tiers.get_or_create_owned(&TierLabels { route: name.to_owned(), tier: "l2" }),
            from_disk: self.tiers.get_or_create_owned(&TierLabels { route: name.to_owned(), tier: "l3" }),
            duration: Outcome::NAMES.map(|outcome| self.duration.get_or_create_owned(&OutcomeLabels { outcome })),
            sent: self.sent.get_or_create_owned(&RouteLabels { route: name.to_owned() }),
            in_flight: self.in_flight.clone(),
        })
    }

    pub(super) fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    pub(super) fn tunnel(&self) -> TunnelGuard {
        self.tunnels.inc();
        TunnelGuard(self.tunnels.clone())
    }
}

impl RouteMetrics {
    /// Requests with the outcome of that place in [`Outcome::NAMES`].
    pub(super) fn requests(&self, index: usize) -> u64 {
        self.requests[index].get()
    }

    /// Requests answered from Redis.
    pub(super) fn hits_of_redis(&self) -> u64 {
        self.from_redis.get()
    }

    /// Requests answered from the disk.
    pub(super) fn hits_of_disk(&self) -> u64 {
        self.from_disk.get()
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(super) fn begun(&self) {
        self.in_flight.inc();
    }

    pub(super) fn ended(&self, outcome: &Outcome, sent: u64, duration: Duration) {
        let index = outcome.index();
        self.requests[index].inc();
        match outcome.tier() {
            Some(Tier::L2) => drop(self.from_redis.inc()),
            Some(Tier::L3) => drop(self.from_disk.inc()),
            Some(Tier::L1 | Tier::Pack) | None => {}
        }
        self.duration[index].observe(duration.as_secs_f64());
        self.sent.inc_by(sent);
        self.in_flight.dec();
    }
}

/// An open tunnel, counted.
pub(super) struct TunnelGuard(Gauge);

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
