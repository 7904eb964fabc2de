//! All pools, one an endpoint, and the task that sweeps them once a second.
//!
//! There are at most [`POOLS_MAX`] of them; the one not asked for longest gives way. Requests that still use it keep
//! it alive, no new ones find it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{metrics::Metrics, pool::Pool, upstream::Endpoint, wire::Clock};

/// Origins that connections are kept for.
const POOLS_MAX: usize = 4096;
/// Seconds a pool without connections is remembered (for whether its origin speaks HTTP/2).
const REMEMBERED: u64 = 300;

/// See the module.
#[derive(Debug)]
pub(super) struct Pools {
    map: RwLock<HashMap<Arc<Endpoint>, Arc<Pool>>>,
    clock: Clock,
    swept: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Pools {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { map: RwLock::default(), clock: Clock::default(), swept: AtomicBool::new(false), metrics }
    }

    /// The pool of an endpoint.
    pub(super) fn get(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Arc<Pool> {
        if let Some(pool) = self.map.read().get(endpoint) {
            pool.touch();
            return Arc::clone(pool);
        }
        self.start_sweeping();
        self.insert(endpoint)
    }

    fn insert(&self, endpoint: &Arc<Endpoint>) -> Arc<Pool> {
        let mut map = self.map.write();
        if map.len() >= POOLS_MAX && !map.contains_key(endpoint) {
            let unused = map.iter().min_by_key(|(_, pool)| pool.last_used()).map(|(endpoint, _)| Arc::clone(endpoint));
            unused.and_then(|endpoint| map.remove(&endpoint));
        }
        let new = || Arc::new(Pool::new(Arc::clone(endpoint), Arc::clone(&self.metrics), self.clock.clone()));
        let pool = Arc::clone(map.entry(Arc::clone(endpoint)).or_insert_with(new));
        self.metrics.pools.set(map.len() as i64);
        pool
    }

    fn start_sweeping(self: &Arc<Self>) {
        if !self.swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep_until_dropped(Arc::downgrade(self)));
        }
    }

    fn sweep(&self) {
        let (second, now) = (self.clock.tick(), Instant::now());
        let pools = self.map.read().iter().map(|(key, pool)| (Arc::clone(key), Arc::clone(pool))).collect::<Vec<_>>();
        let is_forgotten = |pool: &Pool| pool.sweep(now) && pool.last_used() + REMEMBERED < second;
        let forgotten = pools.into_iter().filter(|(_, pool)| is_forgotten(pool)).collect::<Vec<_>>();
        if !forgotten.is_empty() {
            let mut map = self.map.write();
            for (endpoint, _) in &forgotten {
                map.remove(endpoint);
            }
            self.metrics.pools.set(map.len() as i64);
        }
    }
}

async fn sweep_until_dropped(pools: Weak<Pools>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        match pools.upgrade() {
            Some(pools) => pools.sweep(),
            None => return,
        }
    }
}
