//! One limit where it holds for one route.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Inner,
    config::{Count, Fallback, LimitConfig, Over, Per},
    gcra::Rate,
    known::Tally,
    memory::Whose,
    metrics::{Counts, Metrics},
    subject::{self, Caller},
};

/// One of `[[limit]]`.
pub(super) struct Limit {
    pub(super) config: LimitConfig,
    pub(super) name: Arc<str>,
    pub(super) rate: Rate,
    pub(super) kept: Arc<Kept>,
}

/// By what a limit finds again what it has counted.
pub(super) struct Kept {
    id: u64,
    /// Arrival times of routes, which no flood of other callers is to push out.
    routes: Mutex<HashMap<String, Arc<AtomicU64>>>,
}

impl Kept {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { id, routes: Mutex::default() })
    }
}

impl Limit {
    pub(super) fn new(config: LimitConfig, kept: Arc<Kept>) -> Self {
        Self { name: config.name.as_str().into(), rate: config.rate(), config, kept }
    }

    /// Whether what is counted means the same to both.
    pub(super) fn counts_as(&self, other: &LimitConfig) -> bool {
        let same = |one: &LimitConfig| (one.name.clone(), one.per.clone(), one.rate(), one.count, one.over);
        same(&self.config) == same(other)
    }
}

/// See the module.
pub(super) struct Gate {
    pub(super) limit: Arc<Limit>,
    pub(super) counts: Counts,
    route: Box<str>,
    /// Where the whole route is counted together, here.
    arrival: Option<Arc<AtomicU64>>,
}

impl Gate {
    pub(super) fn new(limit: Arc<Limit>, route: &str, metrics: &Metrics) -> Self {
        let arrival = (limit.config.per == Per::Route).then(|| {
            let mut routes = limit.kept.routes.lock();
            Arc::clone(routes.entry(route.to_owned()).or_default())
        });
        Self { counts: metrics.counts(&limit.name, route), route: route.into(), arrival, limit }
    }

    pub(super) fn enforces(&self) -> bool {
        self.limit.config.enforce
    }

    /// What a request is counted under; `None`: the limit is not for its client.
    pub(super) fn subject(&self, caller: &Caller<'_>, secret: &[u8; 32]) -> Option<u128> {
        let config = &self.limit.config;
        let address = caller.address.to_canonical();
        let exempt = config.exempt.iter().any(|network| network.contains(&address));
        (!exempt).then(|| subject::of(&config.per, caller, secret))
    }

    /// Whether what it counts is known afterwards only; until then nothing is taken.
    pub(super) fn counts_tokens(&self) -> bool {
        self.limit.config.count == Count::Tokens
    }

    pub(super) fn is_shared(&self) -> bool {
        self.limit.config.over == Over::Redis
    }

    /// Takes one, if that takes no call to Redis; `None` if it does.
    pub(super) fn at_once(&self, inner: &Inner, subject: u128, now: u64) -> Option<Tally> {
        match self.limit.config.over {
            Over::Memory => Some(self.take_here(inner, subject, now)),
            Over::Redis => inner.known.remembered(self.whose(subject), now),
        }
    }

    /// Takes one from Redis; counted here, or admitted, where it does not answer.
    pub(super) async fn ask(&self, inner: &Inner, subject: u128) -> Tally {
        let (config, rate) = (&self.limit.config, &self.limit.rate);
        let name: &[&str] = match config.per {
            Per::Route => &[&config.name, &self.route],
            _ => &[&config.name],
        };
        let wanted = config.batch.clamp(1, rate.burst());
        let said = match &inner.shared {
            Some(shared) => shared.take(name, subject, rate, wanted).await,
            None => Err(crate::kv::Error::Unconnected),
        };
        let now = inner.known.now(Instant::now());
        match said {
            Ok(said) => {
                let tally = inner.known.hear(self.whose(subject), said, now);
                if tally.admitted { &inner.metrics.granted } else { &inner.metrics.denied }.inc();
                tally
            }
            Err(error) => {
                tracing::debug!(%error, limit = %self.limit.name, "a limit is kept without Redis");
                match config.fallback {
                    Fallback::Local => {
                        inner.metrics.local.inc();
                        self.take_here(inner, subject, now)
                    }
                    Fallback::Open => {
                        inner.metrics.open.inc();
                        Tally { left: rate.burst(), reset: 0, admitted: true }
                    }
                }
            }
        }
    }

    /// Takes so many, whether there are any left or not.
    pub(super) fn charge(&self, inner: &Inner, subject: u128, now: u64, cost: u64) {
        let rate = &self.limit.rate;
        match &self.arrival {
            Some(arrival) => {
                let _ = arrival.fetch_update(Relaxed, Relaxed, |arrival| Some(rate.charge(arrival, now, cost)));
            }
            None => inner.known.charge(self.whose(subject), rate, now, cost),
        }
    }

    /// Gives one back.
    pub(super) fn give_back(&self, inner: &Inner, subject: u128, now: u64) {
        if self.counts_tokens() {
            return;
        }
        let rate = &self.limit.rate;
        match (self.limit.config.over, &self.arrival) {
            (Over::Redis, _) => inner.known.return_granted(self.whose(subject), now),
            (Over::Memory, Some(arrival)) => {
                let _ = arrival.fetch_update(Relaxed, Relaxed, |arrival| Some(rate.give_back(arrival, 1)));
            }
            (Over::Memory, None) => inner.known.give_back(self.whose(subject), rate, now),
        }
    }

    fn take_here(&self, inner: &Inner, subject: u128, now: u64) -> Tally {
        let rate = &self.limit.rate;
        let cost = u64::from(!self.counts_tokens());
        let Some(arrival) = &self.arrival else { return inner.known.take(self.whose(subject), rate, now, cost) };
        let mut refused = None;
        let taken = arrival.fetch_update(Relaxed, Relaxed, |arrival| {
            rate.take(arrival, now, cost).map_err(|wait| refused = Some(wait)).ok()
        });
        match (taken, refused) {
            // What it was before it was moved on.
            (Ok(before), _) => Tally::admitted(rate, rate.take(before, now, cost).unwrap_or(before), now),
            (Err(_), wait) => Tally::refused(wait.unwrap_or_default()),
        }
    }

    fn whose(&self, subject: u128) -> Whose {
        let subject = if self.limit.config.per == Per::Route { subject::of_text(&self.route) } else { subject };
        Whose { limit: self.limit.kept.id, subject }
    }
}
