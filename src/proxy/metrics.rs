//! What the proxy counts of requests: by route and outcome, with handles taken when routes are made.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
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

use crate::{
    cache::{Outcome, Tier},
    tenants::{Denied, Tenant},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    route: Arc<str>,
    tenant: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabels {
    route: Arc<str>,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
    tier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    route: String,
    tier: &'static str,
}

/// Classes of statuses as labels say them, by their first digit. `none`: the client left before an answer began.
const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Outcomes in which a tier answers: the first of [`Outcome::NAMES`].
const FROM_TIERS: usize = 3;

/// The tiers as labels say them, in the order of [`place`].
const TIERS: [&str; 4] = ["l1", "l2", "l3", "pack"];

/// Families of the proxy.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    tiers: Family<TierLabels, Counter>,
    statuses: Family<StatusLabels, Counter>,
    duration: Family<OutcomeLabels, Histogram, fn() -> Histogram>,
    sent: Family<RequestLabels, Counter>,
    tenants: Family<TenantLabels, Counter>,
    denied: Family<DeniedLabels, Counter>,
    in_flight: Gauge,
    tunnels: Gauge,
}

/// The handles of one route.
pub(super) struct RouteMetrics {
    requests: [Counter; Outcome::NAMES.len()],
    from_redis: Counter,
    from_disk: Counter,
    statuses: [Counter; STATUSES.len()],
    /// In the order of [`place`].
    duration: Vec<Histogram>,
    sent: [Counter; Outcome::NAMES.len()],
    name: Arc<str>,
    /// Made when there is one to count: most routes ask for no tenants.
    tenants: Family<TenantLabels, Counter>,
    denied: Family<DeniedLabels, Counter>,
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
            statuses: Family::default(),
            duration: Family::new_with_constructor(latency),
            sent: Family::default(),
            tenants: Family::default(),
            denied: Family::default(),
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
            "from the request head to the last byte of the answer, by outcome and the tier that answered",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "responses",
            "requests answered, by route and class of status; none: the client left before an answer began",
            metrics.statuses.clone(),
        );
        let help = "content sent to clients, by route and outcome";
        registry.register_with_unit("response", help, Unit::Bytes, metrics.sent.clone());
        registry.register("tenant_requests", "requests of tenants, by route and outcome", metrics.tenants.clone());
        registry.register("access_denied", "requests not let in, by route and reason", metrics.denied.clone());
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
            statuses: STATUSES
                .map(|status| self.statuses.get_or_create_owned(&StatusLabels { route: name.to_owned(), status })),
            duration: places().map(|labels| self.duration.get_or_create_owned(&labels)).collect(),
            sent: Outcome::NAMES.map(|outcome| self.sent.get_or_create_owned(&requests(outcome))),
            name: name.into(),
            tenants: self.tenants.clone(),
            denied: self.denied.clone(),
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
        self.sent.iter().map(|sent| sent.get()).sum()
    }

    pub(super) fn begun(&self) {
        self.in_flight.inc();
    }

    pub(super) fn ended(&self, outcome: &Outcome, status: Option<StatusCode>, sent: u64, duration: Duration) {
        let index = outcome.index();
        self.requests[index].inc();
        match outcome.tier() {
            Some(Tier::L2) => drop(self.from_redis.inc()),
            Some(Tier::L3) => drop(self.from_disk.inc()),
            Some(Tier::L1 | Tier::Pack) | None => {}
        }
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        self.statuses[class.min(STATUSES.len() - 1)].inc();
        self.duration[place(index, outcome.tier())].observe(duration.as_secs_f64());
        self.sent[index].inc_by(sent);
        self.in_flight.dec();
    }
}

impl RouteMetrics {
    /// A request of that tenant has ended.
    pub(super) fn ended_of(&self, tenant: &Tenant, outcome: &Outcome) {
        let (route, tenant) = (Arc::clone(&self.name), tenant.label());
        self.tenants.get_or_create(&TenantLabels { route, tenant, outcome: outcome.name() }).inc();
    }

    /// A request was not let in.
    pub(super) fn denied(&self, denied: &Denied) {
        let labels = DeniedLabels { route: Arc::clone(&self.name), reason: denied.as_str() };
        self.denied.get_or_create(&labels).inc();
    }
}

/// Where the time of an outcome is counted: that of those a tier answers with its tier, the others after them.
fn place(index: usize, tier: Option<Tier>) -> usize {
    match tier {
        Some(tier) => {
            let tier = match tier {
                Tier::L1 => 0,
                Tier::L2 => 1,
                Tier::L3 => 2,
                Tier::Pack => 3,
            };
            index * TIERS.len() + tier
        }
        None => FROM_TIERS * (TIERS.len() - 1) + index,
    }
}

/// What each [`place`] is called.
fn places() -> impl Iterator<Item = OutcomeLabels> {
    let (tiers, others) = Outcome::NAMES.split_at(FROM_TIERS);
    let tiers = tiers.iter().flat_map(|outcome| TIERS.map(|tier| OutcomeLabels { outcome, tier }));
    tiers.chain(others.iter().map(|outcome| OutcomeLabels { outcome, tier: "none" }))
}

/// An open tunnel, counted.
pub(super) struct TunnelGuard(Gauge);

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Kind;

    #[test]
    fn each_outcome_has_a_place_with_its_name() {
        let places: Vec<_> = places().collect();
        for (kind, name, tier) in [
            (Kind::Hit(Tier::L1), "hit", "l1"),
            (Kind::Hit(Tier::L3), "hit", "l3"),
            (Kind::StaleHit(Tier::L2), "stale", "l2"),
            (Kind::StaleOnError(Tier::Pack), "stale-if-error", "pack"),
            (Kind::Revalidated, "revalidated", "none"),
            (Kind::Forwarded, "miss", "none"),
        ] {
            let outcome = Outcome::of(kind);
            let place = &places[place(outcome.index(), outcome.tier())];
            assert_eq!((place.outcome, place.tier), (name, tier));
        }
        assert_eq!(place(Outcome::NAMES.len() - 1, None), places.len() - 1);
    }
}
