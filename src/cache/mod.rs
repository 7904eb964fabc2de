//! The decisions: hit, stale, miss, pass; and the fills that make hits of misses.
//!
//! [`Cache::hit`] answers at once what is fresh in memory; [`Cache::call`] does everything else. The proxy asks, and
//! tells through [`Outgoing`] how a request leaves for its origin.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use prometheus_client::registry::Registry;

use crate::{
    object::{
        entry::Entry,
        key::{Key, KeyBuilder},
        time::Timestamp,
        vary::{Variant, Variants},
    },
    origin::Origins,
    purge,
    store::{L1, Slot},
};

mod adopt;
mod asked;
mod body;
mod call;
mod clock;
mod complete;
pub mod config;
mod decide;
pub mod explain;
mod failure;
mod fetch;
mod fill;
mod flight;
mod growing;
mod head;
mod hit;
mod invalidate;
mod key_body;
mod metrics;
mod outcome;
mod pass;
pub mod route;
mod spill;
pub mod stats;
pub mod target;

pub use self::{
    body::{Body, Broken},
    call::{Answer, Call, Departure, Outgoing},
    clock::Clock,
    failure::Failure,
    outcome::{Forward, Kind, Outcome, Tier},
    spill::Spill,
};
use self::{
    config::FillConfig,
    fill::Fill,
    flight::{Flight, Permit},
    growing::Growing,
    metrics::Metrics,
    route::Route,
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The cache. Copies share everything.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    config: FillConfig,
    name: String,
    via: HeaderValue,
    secret: [u8; 32],
    clock: Clock,
    l1: L1,
    log: purge::Log,
    origins: Origins,
    flight: Arc<Flight>,
    spill: Spill,
    metrics: Metrics,
    /// Parts ever stored: while there are none, no miss looks for one.
    parts: AtomicU64,
}

/// What a cache is made of.
pub struct Parts {
    /// `[fill]`.
    pub config: FillConfig,
    /// Name in `Cache-Status` and `Via`.
    pub name: String,
    /// Key of the hashes that stand for credentials.
    pub secret: [u8; 32],
    /// Its clock.
    pub clock: Clock,
    /// The memory tier.
    pub l1: L1,
    /// The purge log.
    pub log: purge::Log,
    /// The way to the origins.
    pub origins: Origins,
    /// Where large bodies spill to.
    pub spill: Spill,
}

impl Cache {
    /// Puts a cache together.
    pub fn new(parts: Parts, registry: &mut Registry) -> Self {
        let Parts { config, name, secret, clock, l1, log, origins, spill } = parts;
        let via = HeaderValue::from_str(&format!("1.1 {name}")).unwrap_or(HeaderValue::from_static("1.1 larder"));
        let metrics = Metrics::register(registry, spill.clone());
        let (flight, parts) = (Flight::new(), AtomicU64::new(0));
        let inner = Inner { config, name, via, secret, clock, l1, log, origins, flight, spill, metrics, parts };
        Self { inner: Arc::new(inner) }
    }

    /// The purge log.
    pub fn purge_log(&self) -> &purge::Log {
        &self.inner.log
    }

    /// The memory tier.
    pub fn l1(&self) -> &L1 {
        &self.inner.l1
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Name in `Cache-Status` and `Via`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The way to the origins.
    pub fn origins(&self) -> &Origins {
        &self.inner.origins
    }

    fn secret(&self) -> &[u8; 32] {
        &self.inner.secret
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn flight(&self) -> &Arc<Flight> {
        &self.inner.flight
    }

    fn followers_max(&self) -> usize {
        self.inner.config.followers_max
    }

    fn follow_timeout(&self) -> Duration {
        self.inner.config.follow_timeout
    }

    fn fills_max(&self) -> usize {
        self.inner.config.fills_max
    }

    fn new_growing(&self) -> Arc<Growing> {
        let memory_max = usize::try_from(self.inner.config.memory_bytes_max.as_u64()).unwrap_or(usize::MAX);
        Growing::new(memory_max, self.inner.spill.clone())
    }

    /// Largest body that may be stored for `route`.
    fn object_bytes_max(&self, route: &Route) -> u64 {
        route.object_bytes_max().min(self.l1().object_bytes_max())
    }

    /// The share of a lifetime to take off, at random up to `most`.
    fn jitter(&self, most: f64) -> f64 {
        if most <= 0.0 {
            return 0.0;
        }
        let mut bytes = [0; 4];
        // Without randomness there is no jitter; nothing else depends on it.
        let _ = getrandom::fill(&mut bytes);
        most * f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    /// Stores an entry; `fill`, where given, must not have been invalidated meanwhile.
    fn insert(&self, entry: Arc<Entry>, fill: Option<&Fill>) {
        let key = entry.key;
        if entry.part.is_some() {
            self.inner.parts.fetch_add(1, Relaxed);
        }
        self.l1().insert(key, Slot::Entry(entry));
        // An unsafe request marks the fill first and removes the entry second: whichever way the two race, one of them
        // sees the other.
        if fill.is_some_and(Fill::is_invalidated) {
            self.l1().remove(&key);
        }
    }

    fn has_parts(&self) -> bool {
        self.inner.parts.load(Relaxed) > 0
    }

    /// Makes the variant findable under the primary key.
    fn remember_variant(&self, primary: &Key, route: &Route, variant: Variant) {
        let max = route.policy.variants_max;
        self.l1().replace(primary, |slot| {
            let known = match slot {
                Some(Slot::Variants(variants)) => variants,
                _ => Arc::new(Variants::default()),
            };
            Some(Slot::Variants(Arc::new(known.with(variant, max))))
        });
    }

    /// Remembers that `key` is not storable, unless a response that is still of use is stored there.
    fn mark_hit_for_miss(&self, key: &Key, until: Timestamp) {
        let now = self.now();
        self.l1().replace(key, |slot| match slot {
            Some(Slot::Entry(entry)) if entry.freshness.is_fresh(now) => Some(Slot::Entry(entry)),
            Some(Slot::Variants(variants)) => Some(Slot::Variants(variants)),
            _ => Some(Slot::HitForMiss(until)),
        });
    }

    /// Keeps a failed fill in the table for `time`, so that those who ask again at once get the same answer.
    fn linger(&self, permit: Permit, time: Duration) {
        if !time.is_zero() {
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                drop(permit);
            });
        }
    }

    /// What the gateway and the route change in a response, before it is stored.
    fn rewrite_response(&self, route: &Route, headers: &mut HeaderMap) {
        for name in &route.response.remove {
            headers.remove(name);
        }
        for (name, value) in &route.response.set {
            headers.insert(name, value.clone());
        }
        headers.append(header::VIA, self.inner.via.clone());
    }

    /// Takes the fields that carry tags out, where clients are not to see them.
    fn hide_tags(&self, route: &Route, headers: &mut HeaderMap) {
        if route.policy.tag_fields_hidden {
            // `Cache-Groups` is meant for every cache on the way (RFC 9875).
            for name in route.tag_fields.iter().filter(|name| **name != "cache-groups") {
                headers.remove(name);
            }
        }
    }
}

/// The key under which a part of what `key` names is stored.
fn part_key(key: &Key) -> Key {
    KeyBuilder::new("part").field(key.as_bytes()).finish()
}
