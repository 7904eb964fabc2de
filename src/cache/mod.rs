//! The decisions: hit, stale, miss, pass; and the fills that make hits of misses.
//!
//! [`Cache::hit`] answers at once what is fresh in memory; [`Cache::call`] does everything else. The proxy asks, and
//! tells through [`Outgoing`] how a request leaves for its origin.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use prometheus_client::registry::Registry;

use crate::{
    llm::price::Prices,
    object::{
        entry::Entry,
        key::{Key, KeyBuilder},
        time::Timestamp,
    },
    origin::Origins,
    purge,
    store::{L1, L2, L3},
};

mod adopt;
mod answer;
mod asked;
mod body;
mod call;
mod changes;
mod clock;
mod complete;
pub mod config;
mod decide;
mod disk;
mod exchange;
pub mod explain;
pub mod export;
mod failure;
mod fetch;
mod fill;
mod flight;
mod growing;
mod head;
mod hit;
pub mod import;
mod invalidate;
mod invalidations;
mod judge;
mod key_body;
mod l2;
pub mod llm;
mod lookup;
mod memory;
mod metrics;
mod outcome;
mod pass;
mod plan;
mod pour;
mod preload;
mod promote;
mod pump;
mod reads;
mod refused;
pub mod route;
mod spill;
pub mod stats;
pub mod survey;
pub mod target;
mod tiers;
mod traced;
mod vouch;

pub use self::{
    body::{Body, Broken},
    call::{Answer, Call, Charge, Departure, Outgoing},
    clock::Clock,
    failure::Failure,
    lookup::{NotPlain, PlainHit},
    outcome::{Forward, Kind, Outcome, Tier},
    pass::Upgrade,
    spill::Spill,
};
use self::{
    config::FillConfig,
    disk::Disk,
    flight::{Flight, Permit},
    growing::Growing,
    invalidations::Invalidations,
    llm::{Misses, accounts::Accounts, semantic::Matchers},
    memory::Memory,
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
    l2: Option<L2>,
    disk: Option<Disk>,
    log: purge::Log,
    fleet: Option<purge::Fleet>,
    origins: Origins,
    flight: Arc<Flight>,
    invalidations: Arc<Invalidations>,
    memory: Memory,
    spill: Spill,
    metrics: Metrics,
    accounts: Accounts,
    misses: Misses,
    matchers: Matchers,
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
    /// The tier that nodes share.
    pub l2: Option<L2>,
    /// The disk tier.
    pub l3: Option<L3>,
    /// The purge log.
    pub log: purge::Log,
    /// The nodes this one is among.
    pub fleet: Option<purge::Fleet>,
    /// The way to the origins.
    pub origins: Origins,
    /// Where large bodies spill to.
    pub spill: Spill,
    /// What calls to models cost.
    pub prices: Prices,
    /// What looks for similar calls to models.
    pub matchers: Matchers,
}

impl Cache {
    /// Puts a cache together.
    pub fn new(parts: Parts, registry: &mut Registry) -> Self {
        let Parts { config, name, secret, clock, l1, l2, l3, log, fleet, origins, spill, prices, matchers } = parts;
        let via = HeaderValue::from_str(&format!("1.1 {name}")).unwrap_or(HeaderValue::from_static("1.1 larder"));
        let memory = Memory::new(usize::try_from(config.memory_total_bytes_max.as_u64()).unwrap_or(usize::MAX));
        let metrics = Metrics::register(registry, memory.clone(), spill.clone());
        let inner = Inner {
            config,
            name,
            via,
            secret,
            clock,
            l1,
            l2,
            disk: l3.map(Disk::new),
            log,
            fleet,
            origins,
            flight: Flight::new(),
            invalidations: Invalidations::new(),
            memory,
            spill,
            metrics,
            accounts: Accounts::register(prices, registry),
            misses: Misses::default(),
            matchers,
            parts: AtomicU64::new(0),
        };
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

    /// The disk tier, where there is one.
    pub fn l3(&self) -> Option<&L3> {
        self.disk().map(|disk| &disk.l3)
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

    fn invalidations(&self) -> &Arc<Invalidations> {
        &self.inner.invalidations
    }

    fn followers_max(&self) -> usize {
        self.inner.config.followers_max
    }

    fn follow_timeout(&self) -> Duration {
        self.inner.config.follow_timeout
    }

    /// Whether there are as many fills under way as there may be.
    fn fills_full(&self) -> bool {
        self.metrics().fills_running() >= self.inner.config.fills_max
    }

    /// Bytes of one body in memory while it arrives.
    fn memory_bytes_max(&self) -> usize {
        usize::try_from(self.inner.config.memory_bytes_max.as_u64()).unwrap_or(usize::MAX)
    }

    /// What all bodies on their way take of it together.
    fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    fn new_growing(&self) -> Arc<Growing> {
        Growing::new(self.memory_bytes_max(), self.memory().clone(), self.inner.spill.clone())
    }

    /// Largest body that may be stored in memory for `route`.
    fn memory_object_bytes_max(&self, route: &Route) -> u64 {
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
        if route.hidden().are_in(headers) {
            for name in route.hidden().as_slice() {
                headers.remove(name);
            }
        }
    }
}

/// The key under which a part of what `key` names is stored.
fn part_key(key: &Key) -> Key {
    KeyBuilder::new("part").field(key.as_bytes()).finish()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds of freshness left, negative where it is stale.
fn ttl(entry: &Entry, now: Timestamp) -> i64 {
    if entry.freshness().is_fresh(now) {
        seconds(entry.freshness().ttl(now))
    } else {
        -seconds(now.since(entry.freshness().fresh_until))
    }
}
