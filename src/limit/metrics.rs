//! What is counted of limits.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{TypedMetric, counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use super::Known;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: String,
    route: String,
    result: &'static str,
}

/// Families of limits.
#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<Labels, Counter>,
    /// Answered by Redis: there was something left.
    pub(super) granted: Counter,
    /// Answered by Redis: there was nothing left.
    pub(super) denied: Counter,
    /// Answered without a call, by what Redis said before.
    pub(super) remembered: Counter,
    /// No answer: counted by this node alone.
    pub(super) local: Counter,
    /// No answer: admitted.
    pub(super) open: Counter,
}

/// The handles of one limit on one route.
pub(super) struct Counts {
    pub(super) admitted: Counter,
    pub(super) refused: Counter,
    pub(super) would_refuse: Counter,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, known: Arc<Known>) -> Self {
        let requests = Family::<Labels, Counter>::default();
        registry.register(
            "limit_requests",
            "requests that a limit was asked about, by limit, route and what it said",
            requests.clone(),
        );
        let redis = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "limit_redis",
            "what became of requests under limits over Redis: granted and denied by it, remembered from what it said \
             before, or, without an answer of it, counted by this node alone (local) or admitted (open)",
            redis.clone(),
        );
        registry.register_collector(Box::new(Callers(known)));
        let result = |result| redis.get_or_create_owned(&[("result", result)]);
        Self {
            requests,
            granted: result("granted"),
            denied: result("denied"),
            remembered: result("remembered"),
            local: result("local"),
            open: result("open"),
        }
    }

    pub(super) fn counts(&self, limit: &str, route: &str) -> Counts {
        let of = |result| {
            self.requests.get_or_create_owned(&Labels { limit: limit.to_owned(), route: route.to_owned(), result })
        };
        Counts { admitted: of("admitted"), refused: of("refused"), would_refuse: of("would_refuse") }
    }
}

/// Reads how many are known when it is scraped, so that a request updates nothing.
struct Callers(Arc<Known>);

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").finish_non_exhaustive()
    }
}

impl Collector for Callers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new(i64::try_from(self.0.callers()).unwrap_or(i64::MAX));
        let help = "callers that limits count for, those aside whose time is up";
        gauge.encode(encoder.encode_descriptor("limit_callers", help, None, ConstGauge::<i64>::TYPE)?)
    }
}
