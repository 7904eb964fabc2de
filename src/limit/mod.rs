//! Limits: how many requests of whom are admitted in how long.
//!
//! ```text
//!  [[limit]] ─▶ Limits ─▶ RouteLimits ─▶ gates ─┬─▶ counted here (memory: a table that never grows)
//!                            ▲                  └─▶ counted by all nodes (redis: one script); what it said is
//!                         a request                 remembered, and where it says nothing, this node counts alone
//! ```
//!
//! A request is admitted by all limits that hold for it, or costs none of them anything. Redis' failure is never a
//! client's: what is not answered is counted here.

mod callers;
pub mod config;
mod fields;
mod gate;
pub mod gcra;
mod known;
mod memory;
mod metrics;
mod redis;
mod route;
mod subject;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

pub use self::{
    callers::Callers,
    config::{Config, LimitConfig},
    fields::{LEFT, POLICY},
    route::{Begun, Passed, Refused, RouteLimits, ToOrigin},
    subject::{Caller, Fields},
};
use self::{
    gate::{Gate, Kept, Limit},
    known::Known,
    metrics::Metrics,
    redis::Shared,
};
use crate::kv::Kv;

/// Most limits of a gateway: one bit of a word each.
pub const LIMITS_MAX: usize = 64;

/// All limits of a gateway, and what is counted, for the life of the process. Copies share everything.
#[derive(Clone)]
pub struct Limits {
    inner: Arc<Inner>,
}

struct Inner {
    known: Arc<Known>,
    shared: Option<Shared>,
    metrics: Metrics,
    secret: [u8; 32],
    /// As taken over last.
    current: Mutex<Vec<Arc<Limit>>>,
    next_id: AtomicU64,
}

/// Limits that were read and can be taken over.
pub struct Read {
    limits: Limits,
    made: Vec<Arc<Limit>>,
}

impl Limits {
    /// Without any limit yet. `redis` is where limits can be shared, and the namespace of names there; `secret` the key
    /// of the hashes that stand for callers.
    pub fn new(config: &Config, redis: Option<(Kv, &str)>, secret: [u8; 32], registry: &mut Registry) -> Self {
        let known = Arc::new(Known::new(config.callers_max));
        let metrics = Metrics::register(registry, Arc::clone(&known));
        let shared = redis.map(|(kv, namespace)| Shared::new(kv, namespace, config.redis_timeout, secret));
        let (current, next_id) = (Mutex::default(), AtomicU64::new(1));
        Self { inner: Arc::new(Inner { known, shared, metrics, secret, current, next_id }) }
    }

    /// Makes limits ready to take the place of those there are, and changes nothing. What one of the same name has
    /// counted goes on to count where it counts the same.
    pub fn read(&self, limits: &[LimitConfig]) -> Read {
        let current = self.inner.current.lock();
        let kept = |config: &LimitConfig| {
            let earlier = current.iter().find(|earlier| earlier.counts_as(config));
            earlier.map_or_else(|| Kept::new(self.inner.next_id.fetch_add(1, Relaxed)), |one| Arc::clone(&one.kept))
        };
        let made = limits.iter().map(|config| Arc::new(Limit::new(config.clone(), kept(config)))).collect();
        Read { limits: self.clone(), made }
    }

    /// From now on what these have counted is what others can go on from.
    pub fn take(&self, read: Read) {
        *self.inner.current.lock() = read.made;
    }
}

impl Read {
    /// Those that hold for the route of that name, if there are any; `told` says whether its answers tell of them.
    pub fn of(&self, route: &str, told: bool) -> Option<Arc<RouteLimits>> {
        let gate = |limit: &Arc<Limit>| Gate::new(Arc::clone(limit), route, &self.limits.inner.metrics);
        let gates: Vec<Gate> = self.made.iter().filter(|limit| limit.config.holds_for(route)).map(gate).collect();
        (!gates.is_empty()).then(|| Arc::new(RouteLimits::new(self.limits.clone(), gates, told)))
    }
}
