//! The purge log that all nodes share, in Redis: a purge called for on one node is applied on every node, in one order, and
//! a node that cannot be sure of having applied all of them knows it.
//!
//! ```text
//!  purge() ──▶ append ──▶ Redis: log ──▶ tail (every node) ──▶ table of what Redis holds ──▶ the node's own log ──▶ applied
//!                          ▲   │                                                                                    │
//!                          │   └── a replica has it                                                                 │
//!                         beat: how far I am; the head that comes back, once applied, is the proof of being up to date
//! ```
//!
//! What is guaranteed:
//! - Records are applied in the log's order, none is passed over: each names the digest of all before it.
//! - A node whose last proof is older than the lease says so ([`Fleet::may_serve`]).
//! - After [`Fleet::purge`] with [`Ack::Fleet`] returned, every node has applied it or may not serve until it has.
//! - A fail-over that loses records is found out; who has them gives them back, in a new epoch.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

mod append;
mod audit;
mod beat;
pub mod config;
mod kept;
mod later;
mod message;
mod metrics;
mod names;
mod nodes;
mod resync;
mod save;
mod saved;
mod scripts;
#[cfg(test)]
mod simulation;
mod state;
mod tail;

use self::{
    append::{Appended, Appending},
    kept::Kept,
    metrics::Metrics,
    names::Names,
    nodes::{Nodes, Others},
    state::State,
};
pub use self::{config::FleetConfig, nodes::NodeStats};
use super::{
    log::Log,
    types::{Purge, PurgeError, Receipt, Standing},
};
use crate::{
    kv::{self, Kv, value},
    object::{
        scope::{FleetPosition, Scope},
        time::Timestamp,
    },
};

/// What a purge waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Applied on this node; the others follow as soon as Redis has it.
    Local,
    /// In the log, and applied on this node.
    Log,
    /// Applied on every live node.
    Fleet,
}

impl Ack {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Log => "log",
            Self::Fleet => "fleet",
        }
    }
}

/// How far a purge has spread when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
pub struct Spread {
    /// Epoch of the fleet's log.
    pub epoch: u64,
    /// Its number in that epoch; 0 with `queued`.
    pub seq: u64,
    /// Whether a replica of Redis has it.
    pub replicated: bool,
    /// Whether it waits for Redis: the other nodes will have it later.
    pub queued: bool,
    /// Other live nodes that have applied it, where that was waited for.
    pub nodes: usize,
    /// Other nodes whose lease has run out: they serve nothing stored before they have applied it.
    pub gone: usize,
}

/// What tells this node from others.
#[derive(Clone)]
pub struct Identity {
    /// In lists; need not be unique.
    pub name: String,
    /// Prefix of all keys.
    pub namespace: String,
    /// Key of the hashes under which this node's entries lie. Others are told which it is, and not what it is.
    pub secret: [u8; 32],
}

/// A fleet of nodes over one Redis, seen from one of them. Clones are the same; with the last one gone, its tasks end.
#[derive(Clone)]
pub struct Fleet {
    handle: Arc<Handle>,
}

struct Handle {
    inner: Arc<Inner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

/// What the tasks share.
struct Inner {
    config: FleetConfig,
    kv: Kv,
    names: Names,
    name: String,
    log: Log,
    state: State,
    nodes: Nodes,
    /// Told when Redis has said how far all nodes are.
    heard: Notify,
    appending: mpsc::Sender<Appending>,
    later: mpsc::Sender<Purge>,
    kept: Mutex<Kept>,
    saving: Mutex<Option<Instant>>,
    fenced_since: Mutex<Option<Instant>>,
    /// Looks afterwards that are under way.
    audits: AtomicUsize,
    said_strangers: AtomicBool,
    said_eviction: AtomicBool,
    scopes_max: usize,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Inner {
    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// The fleet in figures.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FleetStats {
    /// Number of the log's life; another one after Redis has lost it.
    pub life: u64,
    /// Epoch of the log, as applied here.
    pub epoch: u64,
    /// Record of that epoch, as applied here.
    pub seq: u64,
    /// Records of the epoch that are not applied here yet, as last heard.
    pub lag: u64,
    /// Whether this node has no proof of being up to date.
    pub fenced: bool,
    /// Milliseconds for which it has one.
    pub lease_left_ms: u64,
    /// Purges acknowledged here that wait for Redis.
    pub queued: usize,
    /// Hits that were looked at afterwards.
    pub audits: u64,
    /// Of these, those that a purge should have prevented: none.
    pub stale_reads: u64,
    /// All nodes.
    pub nodes: Vec<NodeStats>,
}

impl Fleet {
    /// Joins the fleet: reads its log from now on and applies it to `log`. Nothing is waited for; without Redis it goes on
    /// trying. `scopes_max` bounds the table of watermarks.
    ///
    /// # Errors
    /// Without randomness.
    pub fn join(
        config: &FleetConfig,
        identity: Identity,
        kv: Kv,
        log: Log,
        scopes_max: usize,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        registry: &mut Registry,
    ) -> std::io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let id = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (appending, to_append) = mpsc::channel(append::QUEUE);
        let (later, to_append_later) = mpsc::channel(config.queue_max.max(1));
        let inner = Arc::new(Inner {
            state: State::new(config.lease, scopes_max),
            nodes: Nodes::new(id, fingerprint(&identity.secret), config.lease),
            config: config.clone(),
            names: Names::new(&identity.namespace),
            name: identity.name,
            kv,
            log,
            heard: Notify::new(),
            appending,
            later,
            kept: Mutex::default(),
            saving: Mutex::default(),
            fenced_since: Mutex::default(),
            audits: AtomicUsize::new(0),
            said_strangers: AtomicBool::new(false),
            said_eviction: AtomicBool::new(false),
            scopes_max,
            clock: Box::new(clock),
            metrics: Metrics::new(registry),
            stop: CancellationToken::new(),
        });
        let stop = inner.stop.clone();
        let until_stopped = move |task: futures_util::future::BoxFuture<'static, ()>| {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(task).await });
        };
        until_stopped(Box::pin(tail::run(Arc::clone(&inner))));
        until_stopped(Box::pin(beat::run(Arc::clone(&inner))));
        until_stopped(Box::pin(append::run(Arc::clone(&inner), to_append)));
        until_stopped(Box::pin(later::run(Arc::clone(&inner), to_append_later)));
        Ok(Self { handle: Arc::new(Handle { inner }) })
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// How far this node is for sure; as a stamp to be read before the request to the origin leaves. What this node has
    /// applied beyond that a fail-over may take back, and give its place to another purge. Of no life before the log was
    /// seen: what carries that is not to be shared.
    pub fn position(&self) -> FleetPosition {
        self.inner().state.proved()
    }

    /// How what Redis has with that stamp stands to all purges that this node knows.
    pub fn standing(&self, at: FleetPosition, scopes: &[Scope]) -> Standing {
        self.inner().state.standing(at, scopes)
    }

    /// Whether this node can be sure, at that moment, to have applied every purge that is older than the lease.
    pub fn is_fenced(&self, at: Instant) -> bool {
        self.inner().state.is_fenced(at)
    }

    /// As [`Fleet::is_fenced`], the other way round, for a response that was stored then. While the log has never been seen,
    /// what an earlier process stored is not to be trusted, whatever Redis does now.
    pub fn may_serve(&self, stored: Timestamp, at: Instant) -> bool {
        let state = &self.inner().state;
        !state.is_fenced(at) && (state.is_synced() || state.refused_since().is_some_and(|since| stored >= since))
    }

    /// For how long the lease has been over; `None`: there never was one.
    pub fn fenced_for(&self, at: Instant) -> Option<Duration> {
        self.inner().state.fenced_for(at)
    }

    /// For how long a node may serve after a proof.
    pub fn lease(&self) -> Duration {
        self.inner().config.lease
    }

    /// As [`Fleet::confirm`], within `fleet.confirm_timeout`.
    pub async fn confirm_now(&self) -> bool {
        self.confirm(self.inner().config.confirm_timeout).await
    }

    /// Tells the other nodes of something that this one has done for itself. Returns when the log has it; or after `within`,
    /// and it follows as soon as Redis takes it. Too much of it is dropped and counted.
    pub async fn announce(&self, purge: Purge, within: Duration) {
        let inner = self.inner();
        if inner.state.is_pending(&purge.scopes) {
            return;
        }
        inner.state.announced(purge.id);
        if !inner.state.is_fenced(Instant::now()) && inner.append(&purge, Instant::now() + within).await.is_ok() {
            return;
        }
        let max = inner.config.queue_max;
        let place = inner.later.try_reserve().ok().filter(|_| inner.state.hold_back(purge.id, &purge.scopes, max));
        match place {
            Some(place) => {
                place.send(purge);
            }
            None => {
                inner.state.is_obeyed(&purge.id);
                inner.metrics.dropped.inc();
            }
        }
    }

    /// Asks Redis for the head of the log and returns when this node has applied all up to there: `false` if that takes
    /// longer than `within`.
    pub async fn confirm(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let inner = self.inner();
        let asked = inner.kv.run(kv::Class::Control, within, &scripts::HEAD, &[&inner.names.meta], &[]).await;
        let Ok(answer) = asked else { return false };
        let [life, epoch, seq, digest] = value::as_list(&answer) else { return false };
        let Some(head) = names::head([life, epoch, seq, digest]) else { return false };
        let reached = inner.state.reached(&head);
        timeout_at(deadline, reached).await.unwrap_or(false)
    }

    /// Purges on all nodes; returns when that has come as far as `ack` says.
    ///
    /// # Errors
    /// Where it has not come as far in `fleet.ack_timeout`. It may hold all the same: said again with the same id, it is the
    /// same purge.
    pub async fn purge(&self, purge: Purge, ack: Ack) -> Result<(Receipt, Spread), PurgeError> {
        let inner = self.inner();
        inner.log.check(&purge)?;
        let start = Instant::now();
        let done = match ack {
            Ack::Local => self.purge_here(purge).await,
            Ack::Log | Ack::Fleet => self.purge_all(purge, ack == Ack::Fleet).await,
        };
        inner.metrics.acked(ack.as_str(), if done.is_ok() { "ok" } else { "error" });
        let (mut receipt, spread) = done?;
        receipt.duration = start.elapsed();
        Ok((receipt, spread))
    }

    async fn purge_here(&self, purge: Purge) -> Result<(Receipt, Spread), PurgeError> {
        let inner = self.inner();
        let full = || PurgeError::QueueFull { max: inner.config.queue_max };
        let place = inner.later.try_reserve().map_err(|_| full())?;
        if !inner.state.hold_back(purge.id, &purge.scopes, inner.config.queue_max) {
            return Err(full());
        }
        let receipt = match inner.log.append(purge.clone()).await {
            Ok(receipt) => receipt,
            Err(error) => {
                inner.state.let_go(&purge.id);
                return Err(error);
            }
        };
        place.send(purge);
        Ok((receipt, Spread { epoch: 0, seq: 0, replicated: false, queued: true, nodes: 0, gone: 0 }))
    }

    async fn purge_all(&self, purge: Purge, fleet: bool) -> Result<(Receipt, Spread), PurgeError> {
        let inner = self.inner();
        let deadline = Instant::now() + inner.config.ack_timeout;
        let mut appended = inner.append(&purge, deadline).await?;
        let (nodes, gone) = loop {
            if !fleet {
                break (0, 0);
            }
            let others = inner.all_have(appended.mark.at, deadline).await?;
            // A fail-over may have lost it meanwhile: what is appended again has another place.
            let again = inner.append(&purge, deadline).await?;
            if again.known && again.mark == appended.mark {
                break others;
            }
            appended = again;
        };
        // Applied through the tail: what the node's own log says of it is known by its id.
        let scopes = purge.scopes.iter().collect::<BTreeSet<_>>().len();
        let position = inner.log.position();
        let seq = names::seq(appended.mark.at.position);
        let receipt = Receipt { id: purge.id, seq, position, scopes, duration: Duration::ZERO };
        let epoch = names::epoch(appended.mark.at.position);
        Ok((receipt, Spread { epoch, seq, replicated: appended.replicated, queued: false, nodes, gone }))
    }

    /// Figures at this moment.
    pub fn stats(&self) -> FleetStats {
        let (inner, now) = (self.inner(), Instant::now());
        let (at, head) = (inner.state.mark().at, inner.state.head());
        let same = at.life == head.life && names::epoch(at.position) == names::epoch(head.position);
        FleetStats {
            life: at.life,
            epoch: names::epoch(at.position),
            seq: names::seq(at.position),
            lag: if same { head.position.number().saturating_sub(at.position.number()) } else { 0 },
            fenced: inner.state.is_fenced(now),
            lease_left_ms: u64::try_from(inner.state.left(now).as_millis()).unwrap_or(u64::MAX),
            queued: inner.state.pending(),
            audits: inner.metrics.audits.get(),
            stale_reads: inner.metrics.stale_reads.get(),
            nodes: inner.nodes.stats(now),
        }
    }

    /// Leaves: no purge waits for this node any more, which must serve nothing from now on.
    pub async fn leave(&self) {
        self.inner().stop.cancel();
        self.inner().leave().await;
    }
}

impl Inner {
    /// Appends, and returns when this node has applied it.
    async fn append(&self, purge: &Purge, deadline: Instant) -> Result<Appended, PurgeError> {
        // All nodes say at once that they have it: for who waits for them, and because what a node fetches is shared only
        // up to where it has said to be.
        let record = message::purge(purge, true);
        let (mut pause, mut anew) = (Duration::from_millis(10), false);
        loop {
            let (reply, appended) = oneshot::channel();
            let appending = Appending { id: purge.id, record: record.clone(), anew, reply };
            let sent = timeout_at(deadline, self.appending.send(appending)).await;
            sent.map_err(|_| unlogged(&kv::Error::Timeout))?.map_err(|_| PurgeError::Closed)?;
            let appended = match timeout_at(deadline, appended).await {
                Ok(appended) => appended.map_err(|_| PurgeError::Closed)?,
                Err(_) => Err(kv::Error::Timeout),
            };
            match appended {
                Ok(appended) => match timeout_at(deadline, self.state.reached(&appended.mark)).await {
                    Ok(true) => {
                        self.state.passed(appended.mark.at);
                        return Ok(appended);
                    }
                    // This node is at a log that a fail-over has changed since. Or the place it was given says nothing any
                    // more: that would stay so.
                    Ok(false) => {
                        self.state.distrust();
                        anew = appended.known;
                        tokio::time::sleep(pause).await;
                    }
                    Err(_) => return Err(PurgeError::Unapplied),
                },
                Err(error) if Instant::now() + pause >= deadline => return Err(unlogged(&error)),
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
            }
        }
    }

    /// Returns when every live node has applied the record; with how many those are, and how many are not live.
    async fn all_have(&self, at: FleetPosition, deadline: Instant) -> Result<(usize, usize), PurgeError> {
        let mut pause = Duration::from_millis(1);
        loop {
            let heard = self.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            let behind = match self.nodes.others(at, Instant::now()) {
                Others::Applied { live, gone } => return Ok((live, gone)),
                Others::Behind(behind) => behind,
            };
            if Instant::now() >= deadline {
                return Err(PurgeError::Behind { nodes: behind.join(", ") });
            }
            // A beat brings what all nodes say.
            self.state.beat.notify_one();
            let _ = timeout_at(deadline.min(Instant::now() + pause), heard).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Tells secrets apart, and nothing else.
fn fingerprint(secret: &[u8; 32]) -> String {
    let derived = blake3::derive_key("larder fleet fingerprint of the secret 1", secret);
    derived[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unlogged(error: &kv::Error) -> PurgeError {
    PurgeError::Unlogged(Arc::from(error.to_string()))
}
