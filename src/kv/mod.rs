//! Redis: one server, the master that Sentinels name, or a cluster.
//!
//! What is known is a picture (`topology`): which node has which slot. Every call is about one slot, and goes to its
//! node over a connection that is there already; where there is none, it fails at once. Each node has a connection for
//! each class of calls (`node`, `lane`), made and made anew in the background, and a breaker on each, so that a node
//! that hangs costs the others nothing. A task (`watch`) keeps the picture up to date.
//!
//! Guarantees: a call ends within its time; nobody waits for a connection to be made; calls, nodes and tables are
//! bounded; nothing that Redis sends is trusted to be well-formed. It knows nothing of caches.

mod backoff;
mod config;
mod connect;
mod dedicated;
mod discover;
mod error;
mod lane;
mod metrics;
mod node;
mod redirect;
mod refusal;
mod route;
mod script;
mod slot;
mod stats;
mod tls;
mod topology;
mod url;
pub mod value;
mod watch;

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use redis::{Cmd, Pipeline, Value};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::task::AbortOnDropHandle;

pub use config::{Config, ConfigError};
pub use dedicated::Dedicated;
pub use error::Error;
pub use script::Script;
pub use slot::{SLOTS, slot};
pub use stats::{NodeStats, Stats};
pub use topology::Kind;

use connect::Connector;
use metrics::Metrics;
use node::Context;
use route::Shared;
use url::Address;
use watch::Watch;

/// What a call is, so that a large value holds up no small one: each class has connections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Leases, locks, the log.
    Control,
    /// Values of some kilobytes.
    Small,
    /// Larger ones.
    Large,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Small, Self::Large];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// See the module. Copies are the same; the connections end with the last one.
#[derive(Clone)]
pub struct Kv {
    shared: Arc<Shared>,
    /// Those of the configuration; Sentinels are none.
    seeds: Arc<[Address]>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Kv {
    /// Begins to connect, on the runtime it is called in, and returns at once. What cannot be reached is tried again
    /// for ever.
    ///
    /// # Errors
    /// If a URL or a file of TLS cannot be used.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(config: &Config, registry: &mut Registry) -> Result<Self, ConfigError> {
        let target = url::Target::of(&config.urls)?;
        let context = Context {
            connector: Connector::new(config, &target)?,
            metrics: Metrics::new(registry),
            runtime: Handle::current(),
            suspect: tokio::sync::Notify::new(),
            breaker_failures: config.breaker_failures,
            breaker_pause: config.breaker_pause,
            in_flight_max: config.in_flight_max,
        };
        let shared = Arc::new(Shared::new(context));
        let seeds = target.form.servers().into();
        let watch = Watch::new(Arc::clone(&shared), target.form);
        let watch = AbortOnDropHandle::new(shared.context.runtime.spawn(watch.run()));
        Ok(Self { shared, seeds, _watch: Arc::new(watch) })
    }

    /// The answer to a command about `key`.
    ///
    /// # Errors
    /// See [`Error`]; what Redis refuses is [`Error::Server`].
    pub async fn call(&self, class: Class, within: Duration, key: &[u8], command: &Cmd) -> Result<Value, Error> {
        let begun = Instant::now();
        let answer = self.shared.one(class, begun + within, slot(key), command).await;
        self.shared.context.metrics.called(class, begun.elapsed(), &answer);
        answer
    }

    /// The answers to several commands, sent together, about keys that all are in `key`'s slot. A command that Redis
    /// refuses has a [`Value::ServerError`] in its place ([`value::checked`]), and the others have their answers. They
    /// are not a transaction: for that there are scripts.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pipeline(
        &self,
        class: Class,
        within: Duration,
        key: &[u8],
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        let begun = Instant::now();
        let answers = self.shared.many(class, begun + within, slot(key), pipeline).await;
        self.shared.context.metrics.called(class, begun.elapsed(), &answers);
        answers
    }

    /// The answer of a script about keys that are all in the slot of the first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(
        &self,
        class: Class,
        within: Duration,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, Error> {
        let begun = Instant::now();
        let slot = slot(keys.first().copied().unwrap_or_default());
        let mut answer = self.shared.one(class, begun + within, slot, &script.short(keys, args)).await;
        if answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            answer = self.shared.one(class, begun + within, slot, &script.whole(keys, args)).await;
        }
        self.shared.context.metrics.called(class, begun.elapsed(), &answer);
        answer
    }

    /// A connection of its own to the master of `key`'s slot: for what blocks, and for `WAIT`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn dedicated(&self, key: &[u8], within: Duration) -> Result<Dedicated, Error> {
        Dedicated::open(&self.shared, key, within).await
    }

    /// How many replicas in order the node of `key`'s slot has, as last heard.
    pub fn replicas(&self, key: &[u8]) -> usize {
        self.shared.topology.load().member(slot(key)).map_or(0, |member| member.replicas.len())
    }

    /// Asks every server that is known for a connection. The time before, if every one of them refused: then nobody else
    /// can have used Redis at that time either. A server that does not answer, or cannot be found, may answer others.
    pub async fn refused_by_all(&self) -> Option<Instant> {
        let before = Instant::now();
        refusal::is_complete(&self.shared.topology.load(), &self.seeds).await.then_some(before)
    }

    /// Whether any node is connected and answers.
    pub fn is_up(&self) -> bool {
        self.shared.is_up()
    }

    /// Figures at this moment.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared.topology.load())
    }

    /// Has the nodes asked for soon.
    pub fn refresh(&self) {
        self.shared.context.suspect.notify_one();
    }
}

impl std::fmt::Debug for Kv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kv").field("kind", &self.shared.topology.load().kind).finish_non_exhaustive()
    }
}
