//! L2: responses in Redis, which any node of a fleet filled, for all of them.
//!
//! ```text
//!  look ──▶ found ─────────────▶ it answers
//!       ├─▶ leased ────────────▶ this node fills, and all others wait ─▶ store, or settle
//!       └─▶ busy ──────────────▶ another one does: wait_for_change, and look again
//! ```
//!
//! One round trip looks and takes the lease. Guarantees:
//!
//! - No look-up fails or takes longer than `l2.read_timeout`, and so long again for each piece of a long value: what
//!   has no answer by then is nothing, and counted. Nothing of the gateway ever depends on Redis being there.
//! - What was removed is not brought back by a fill that began before, and nothing older takes the place of what is newer
//!   (`scripts.rs`).
//! - A lease that is not given back ends by itself: when its holder dies, another node takes over.
//! - What waits to be written is bounded in bytes and number; beyond that it is dropped.
//!
//! Whether what is found may be used is for its reader to find out (freshness, purge log).

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::registry::Registry;
use redis::Value;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::timeout,
};

pub mod config;
mod look;
mod metrics;
mod names;
mod pieces;
mod scripts;
mod seal;
mod stats;
mod ticket;
mod value;
mod wait;
mod wake;
mod write;

pub use self::{
    config::L2Config,
    look::{Holder, Looked, Wanted},
    stats::Stats,
    ticket::Ticket,
    value::Begun,
    wait::Waiting,
    write::Write,
};
use self::{metrics::Metrics, names::Names, seal::Seal, value::Form, wake::Wakes};
use crate::{
    kv::{Class, Error, Kv, Script, value as replies},
    object::{key::Key, scope::FleetPosition},
};

/// Values up to this length come along with a look-up, and do not hold up others on the way.
const SMALL_MAX: usize = 64 << 10;

/// Tasks in the background, writes included.
const TASKS_MAX: usize = 16 << 10;

/// The tier in Redis. Clones are the same tier.
#[derive(Clone)]
pub struct L2 {
    inner: Arc<Inner>,
}

struct Inner {
    config: L2Config,
    kv: Kv,
    names: Names,
    form: Form,
    metrics: Metrics,
    /// What is done behind runs here: fills come and go with the threads that serve clients.
    runtime: Handle,
    writers: Semaphore,
    waiting: Semaphore,
    joins: Semaphore,
    wakes: Wakes,
    queued: AtomicU64,
    tasks: watch::Sender<usize>,
}

impl L2 {
    /// The tier over `kv`. `secret` keys what is enciphered. What it does behind runs on the runtime this is called in.
    pub fn new(config: &L2Config, kv: Kv, secret: &[u8; 32], registry: &mut Registry) -> Self {
        let (seal, hidden) = config.encrypt.then(|| Seal::new(secret)).unzip();
        let form = Form { compression: config.compression, seal, object_bytes_max: config.object_bytes_max.as_u64() };
        let inner = Inner {
            names: Names::new(&config.namespace, hidden),
            config: config.clone(),
            kv,
            form,
            metrics: Metrics::new(registry),
            runtime: Handle::current(),
            writers: Semaphore::new(write::WRITERS),
            waiting: Semaphore::new(wait::WAITING_MAX),
            joins: Semaphore::new(look::JOINS),
            wakes: Wakes::default(),
            queued: AtomicU64::new(0),
            tasks: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Largest content it takes.
    pub fn object_bytes_max(&self) -> u64 {
        self.inner.config.object_bytes_max.as_u64()
    }

    /// Where what is known of the look-ups of one fill is gathered, for entries of that primary key; `position` is where
    /// the fleet's purge log was when it began.
    pub fn ticket(&self, primary: Key, position: FleetPosition) -> Ticket {
        Ticket::new(self.clone(), primary, position)
    }

    /// Counts a fill that was answered.
    pub fn note_hit(&self) {
        self.inner.metrics.hits.inc();
    }

    /// Counts a fill for which there was something to be confirmed.
    pub fn note_stale(&self) {
        self.inner.metrics.stale.inc();
    }

    /// Counts a fill for which there was nothing of use.
    pub fn note_miss(&self) {
        self.inner.metrics.misses.inc();
    }

    /// Runs a script that answers with numbers, within the time of a write.
    async fn run(&self, class: Class, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<Vec<Value>, Error> {
        let Inner { kv, config, metrics, .. } = &*self.inner;
        let reply = kv.run(class, config.write_timeout, script, keys, args).await;
        let reply = reply.and_then(|reply| match reply {
            Value::Int(_) => Ok(vec![reply]),
            reply => replies::array(reply),
        });
        if let Err(error) = &reply {
            metrics.error(error.name());
        }
        reply
    }

    /// Does something nobody waits for, unless too much of that is under way.
    fn behind(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let counted = self.inner.tasks.send_if_modified(|tasks| {
            let room = *tasks < TASKS_MAX;
            *tasks += usize::from(room);
            room
        });
        if counted {
            let done = Done(self.clone());
            self.inner.runtime.spawn(async move {
                let _done = done;
                task.await;
            });
        }
        counted
    }

    /// Waits until what was begun before has been written, for as long as a write may take.
    pub async fn flush(&self) {
        let mut tasks = self.inner.tasks.subscribe();
        let written = tasks.wait_for(|tasks| *tasks == 0);
        // What has not been written by then is a miss for somebody, later.
        let _ = timeout(self.inner.config.write_timeout, written).await;
    }
}

/// One task in the background.
struct Done(L2);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.inner.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness all is as it would be without jitter.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
