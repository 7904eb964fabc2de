//! Figures of the whole gateway, for `/stats`.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Proxy, metrics::RouteMetrics};
use crate::{
    cache::{self, Outcome},
    purge::{Fleet, fleet::FleetStats},
    store::{L2, L3, l2, l3},
};

/// Outcomes that did not wait for the origin.
const HITS: [&str; 3] = ["hit", "stale", "stale-if-error"];
/// Outcomes in which the cache had a say.
const LOOKED_UP: [&str; 9] =
    ["hit", "stale", "stale-if-error", "revalidated", "collapsed", "hit-for-miss", "refresh", "expired", "miss"];

/// Figures of the gateway since it started.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stats {
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Requests answered, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Share of requests answered from the cache, of those it could have answered; absent before the first.
    pub hit_ratio: Option<f64>,
    /// Requests that cost the origin nothing of their own: hits, and those that joined a fill of another.
    pub origin_requests_spared: u64,
    /// Requests being answered.
    pub requests_in_flight: i64,
    /// Content sent to clients.
    pub sent_bytes: u64,
    /// Requests answered from the cache, by the tier that had the answer.
    pub tier_hits: TierHits,
    /// Routes that have had requests.
    pub routes: Vec<RouteStats>,
    /// The cache.
    #[serde(flatten)]
    pub cache: cache::stats::Stats,
    /// The nodes over one Redis, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStats>,
    /// The tier that nodes share, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2: Option<l2::Stats>,
    /// The disk tier, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3: Option<l3::Stats>,
}

/// Requests answered from the cache.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TierHits {
    /// From memory, or from recorded calls.
    pub l1: u64,
    /// From Redis.
    pub l2: u64,
    /// From the disk.
    pub l3: u64,
}

/// Figures of one route.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RouteStats {
    /// Its name.
    pub name: String,
    /// Requests answered, by outcome; those that never were are absent.
    pub requests: BTreeMap<&'static str, u64>,
    /// Content sent to clients.
    pub sent_bytes: u64,
}

impl Proxy {
    /// Figures at this moment.
    pub fn stats(&self) -> Stats {
        let named: Vec<_> = self.route_metrics().collect();
        let routes: Vec<_> = named.iter().map(|(_, metrics)| *metrics).collect();
        let count = |outcome: &str| {
            let index = Outcome::NAMES.iter().position(|name| *name == outcome).unwrap_or_default();
            routes.iter().map(|route| route.requests(index)).sum::<u64>()
        };
        let all = |outcomes: &[&str]| outcomes.iter().map(|outcome| count(outcome)).sum::<u64>();
        let (hits, looked_up) = (all(&HITS), all(&LOOKED_UP));
        let spared = hits + count("collapsed");
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts needs no more than fifty bits")]
        let hit_ratio = (looked_up > 0).then(|| hits as f64 / looked_up as f64);
        Stats {
            uptime_seconds: self.cache().clock().uptime().as_secs(),
            requests: Outcome::NAMES.iter().map(|name| (*name, count(name))).collect(),
            hit_ratio,
            origin_requests_spared: spared,
            requests_in_flight: self.inner.metrics.in_flight(),
            sent_bytes: routes.iter().map(|route| route.sent()).sum(),
            tier_hits: tier_hits(hits, &routes),
            routes: named.iter().map(|(name, metrics)| route_stats(name, metrics)).filter(has_requests).collect(),
            cache: self.cache().stats(),
            fleet: self.cache().fleet().map(Fleet::stats),
            l2: self.cache().l2().map(L2::stats),
            l3: self.cache().l3().map(L3::stats),
        }
    }

    fn route_metrics(&self) -> impl Iterator<Item = (&str, &RouteMetrics)> {
        let routes = self.routes().iter().map(|(_, route)| (&*route.cache.name, &*route.metrics));
        let forward = &self.inner.forward_route;
        routes.chain([(&*forward.cache.name, &*forward.metrics)])
    }
}

fn tier_hits(hits: u64, routes: &[&RouteMetrics]) -> TierHits {
    let l2 = routes.iter().map(|route| route.hits_of_redis()).sum();
    let l3 = routes.iter().map(|route| route.hits_of_disk()).sum();
    // They are counted one after the other.
    TierHits { l1: hits.saturating_sub(l2).saturating_sub(l3), l2, l3 }
}

fn route_stats(name: &str, metrics: &RouteMetrics) -> RouteStats {
    let counts = Outcome::NAMES.iter().enumerate().map(|(index, outcome)| (*outcome, metrics.requests(index)));
    RouteStats {
        name: name.to_owned(),
        requests: counts.filter(|(_, count)| *count > 0).collect(),
        sent_bytes: metrics.sent(),
    }
}

fn has_requests(route: &RouteStats) -> bool {
    !route.requests.is_empty()
}
