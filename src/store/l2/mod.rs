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
//! - No look-up fails or takes longer than `l2.read_timeout`: what has no answer by then is nothing, and counted. Nothing
//!   of the gateway ever depends on Redis being there.
//! - What was removed is not brought back by a fill that began before, and nothing older takes the place of what is newer
//!   (`scripts.rs`).
//! - A lease that is not given back ends by itself: when its holder dies, another node takes over.
//! - What waits to be written is bounded in bytes and number; beyond that it is dropped.
//!
//! Whether what is found may be used is for its reader to find out (freshness, purge log).

use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::registry::Registry;
use redis::Value;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit, oneshot, watch},
    time::{Instant, sleep, timeout},
};

pub mod config;
mod metrics;
mod names;
mod scripts;
mod seal;
mod stats;
mod ticket;
mod value;

pub use self::{config::L2Config, stats::Stats, ticket::Ticket, value::Begun};
use self::{
    metrics::{LeaseEnd, Metrics, WriteEnd},
    names::Names,
    scripts::{looked, put},
    seal::Seal,
    value::Form,
};
use crate::{
    kv::{Class, Error, Kv, Script, value as replies},
    object::{
        entry::Entry,
        key::Key,
        scope::{FleetPosition, Scope},
        time::Timestamp,
        vary::{Variant, Variants},
    },
};

/// Values up to this length come along with a look-up, and do not hold up others on the way.
const SMALL_MAX: usize = 64 << 10;

/// Writes under way; the others wait in the queue.
const WRITERS: usize = 64;

/// Tasks in the background, writes included.
const TASKS_MAX: usize = 16 << 10;

/// Fills that wait for one on another node: each costs Redis a look-up now and then.
const WAITING_MAX: usize = 1024;

/// How long Redis remembers that something was removed: longer than a fill takes.
const REMOVED: Duration = Duration::from_secs(120);

/// How long a key that proved not storable keeps nobody waiting.
const UNSTORABLE: Duration = Duration::from_millis(1500);

/// Longest time anything is kept. Redis counts in milliseconds, and refuses times without end.
const KEEP_MAX: Duration = Duration::from_hours(24 * 365 * 10);

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
    queued: AtomicU64,
    tasks: watch::Sender<usize>,
}

/// What a look-up asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The key: the primary one of the ticket, or that of a variant.
    pub key: Key,
    /// Only what was stored after that.
    pub newer: Option<Timestamp>,
    /// Whether the lease is to be taken where nothing is found.
    pub lease: bool,
    /// Who is to lose it: what comes of its fill is of no use.
    pub over: Option<Holder>,
    /// Tell the variants of the URL if nothing is found and there are more than so many.
    pub variants: Option<usize>,
}

/// What a look-up came to.
pub enum Looked {
    /// An entry, its stamp that of nothing.
    Found(Box<Entry>, Begun),
    /// Nothing under that key, but the URL has variants.
    Variants(Variants),
    /// Nothing; and this node is to fill it.
    Leased,
    /// Nothing, and another fill is under way.
    Busy(Holder),
    /// Nothing, and what was filled a moment ago was not storable.
    Unstorable,
    /// Nothing, or no answer.
    Nothing,
}

/// Who has a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    token: [u8; scripts::TOKEN],
    /// Where the fleet's purge log was when its fill began.
    pub position: FleetPosition,
}

/// An entry to be written.
pub struct Write {
    /// The entry, its content in memory.
    pub entry: Arc<Entry>,
    /// When its fill began.
    pub begun: Begun,
    /// How long it is of use.
    pub keep: Duration,
    /// Of a variant: how it is found. Absent where it has been found before.
    pub variant: Option<Variant>,
    /// Variants of one key.
    pub variants_max: usize,
    /// Its URL, where that alone does not tell its key.
    pub scattered: Option<Scope>,
    /// What the look-up before left.
    pub ticket: Option<Ticket>,
}

/// A place among those who wait for other nodes.
pub struct Waiting<'a> {
    l2: &'a L2,
    _permit: SemaphorePermit<'a>,
    since: Instant,
    nth: u32,
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
            writers: Semaphore::new(WRITERS),
            waiting: Semaphore::new(WAITING_MAX),
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

    /// Looks into Redis.
    pub async fn look(&self, ticket: &mut Ticket, wanted: &Wanted) -> Looked {
        let start = Instant::now();
        let looked = self.ask(ticket, wanted).await;
        self.inner.metrics.looked_up(start.elapsed());
        match looked {
            Ok(looked) => looked,
            Err(error) => {
                self.inner.metrics.error(error.name());
                if wanted.lease && !error.is_unsent() {
                    ticket.may_hold(wanted.key);
                }
                Looked::Nothing
            }
        }
    }

    async fn ask(&self, ticket: &mut Ticket, wanted: &Wanted) -> Result<Looked, Error> {
        let Inner { names, config, .. } = &*self.inner;
        let named = names.of(&ticket.primary, &wanted.key);
        let lease = if wanted.lease { millis(config.fill_lease) } else { String::new() };
        let newer = wanted.newer.map_or_else(String::new, |time| time.as_millis().to_string());
        let variants = wanted.variants.map_or_else(String::new, |known| known.to_string());
        let token = if wanted.lease { *ticket.token() } else { [0; scripts::TOKEN] };
        let (keys, small) = ([&named.entry[..], &named.lease, &named.variants, &named.removal], SMALL_MAX.to_string());
        let (position, over) = (value::place(ticket.position), wanted.over.map(|holder| holder.token));
        let over = over.as_ref().map_or(&[][..], |token| token);
        let (newer, variants) = (newer.as_bytes(), variants.as_bytes());
        let args = [&token[..], lease.as_bytes(), newer, variants, small.as_bytes(), &position, over];
        let reply = self.inner.kv.run(Class::Small, config.read_timeout, &scripts::LOOK, &keys, &args).await?;
        let mut reply = replies::array(reply)?.into_iter();
        let code = replies::int(&reply.next().unwrap_or(Value::Nil))?;
        ticket.seen = replies::bytes(reply.next().unwrap_or(Value::Nil))?;
        Ok(match code {
            looked::FOUND => {
                let value = replies::bytes(reply.next().unwrap_or(Value::Nil))?.unwrap_or_default();
                self.read(&named.entry, wanted, &value)
            }
            looked::LARGE => {
                let value = self.large(&named.entry).await?;
                value.map_or(Looked::Nothing, |value| self.read(&named.entry, wanted, &value))
            }
            looked::VARIANTS => {
                let records = reply.map(replies::bytes).collect::<Result<Vec<_>, _>>()?;
                let records: Vec<_> = records.into_iter().flatten().collect();
                Looked::Variants(self.inner.form.decode_variants(&ticket.primary, &records))
            }
            looked::LEASED => {
                self.inner.metrics.lease(LeaseEnd::Taken);
                ticket.holds(wanted.key);
                Looked::Leased
            }
            looked::BUSY => {
                Looked::Busy(holder(&replies::bytes(reply.next().unwrap_or(Value::Nil))?.unwrap_or_default()))
            }
            looked::UNSTORABLE => Looked::Unstorable,
            _ => Looked::Nothing,
        })
    }

    async fn large(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let get = redis::Cmd::get(name);
        let Inner { kv, config, .. } = &*self.inner;
        replies::bytes(kv.call(Class::Large, config.read_timeout, name, &get).await?)
    }

    fn read(&self, name: &[u8], wanted: &Wanted, value: &[u8]) -> Looked {
        let Inner { metrics, form, .. } = &*self.inner;
        metrics.read.inc_by(value.len() as u64);
        match form.decode(&wanted.key, value) {
            Ok((entry, begun)) => Looked::Found(Box::new(entry), begun),
            Err(error) => {
                tracing::debug!(%error, key = %wanted.key, "what lies in Redis is not used");
                metrics.error("value");
                self.discard(name, value);
                Looked::Nothing
            }
        }
    }

    /// What is no entry goes: nobody could use it, and it would be found again and again.
    fn discard(&self, name: &[u8], value: &[u8]) {
        let (l2, name, start) = (self.clone(), name.to_vec(), value[..value.len().min(value::HEAD)].to_vec());
        self.behind(async move {
            let removed = l2.run(Class::Control, &scripts::DISCARD, &[&name], &[&start]).await;
            l2.inner.metrics.removed(removed.is_ok());
        });
    }

    /// Without an effect on anything: what there is under `key`.
    pub async fn peek(&self, primary: Key, key: Key) -> Looked {
        let wanted = Wanted { key, newer: None, lease: false, over: None, variants: (primary == key).then_some(0) };
        self.look(&mut self.ticket(primary, FleetPosition::default()), &wanted).await
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

    // === Waiting for other nodes ===

    /// A place among those who wait, unless as many do as may.
    pub fn wait(&self) -> Option<Waiting<'_>> {
        let permit = self.inner.waiting.try_acquire();
        let Ok(permit) = permit else {
            self.inner.metrics.lease(LeaseEnd::Alone);
            return None;
        };
        self.inner.metrics.lease(LeaseEnd::Waited);
        self.inner.metrics.waiting.inc();
        Some(Waiting { l2: self, _permit: permit, since: Instant::now(), nth: 0 })
    }

    /// Waits until something may have changed under `key`: the `nth` time in turn.
    async fn wait_for_change(&self, _primary: &Key, _key: &Key, nth: u32) {
        let most = Duration::from_millis(2 << nth.min(5)).min(Duration::from_millis(50));
        // Half of it at random: nodes that began together do not ask together.
        sleep(most.mul_f64(0.5 + 0.5 * chance())).await;
    }

    // === Writing ===

    /// Writes an entry behind. What is given back says whether it is there, once that is known; nothing, if it is surely
    /// not going to be.
    pub fn store(&self, write: Write) -> Option<impl Future<Output = bool> + Send + use<>> {
        let metrics = &self.inner.metrics;
        let content = write.entry.content().len() as u64;
        if content > self.object_bytes_max() || write.entry.elsewhere().is_some() || write.entry.part().is_some() {
            metrics.wrote(WriteEnd::Large);
            let (key, begun) = (write.entry.key, write.begun);
            self.settle(write.ticket, write.entry.primary(), key, true, Some(begun.at));
            return None;
        }
        let bytes = content + write.entry.head.weight() as u64 + 512;
        let Some(queued) = self.queue(bytes) else {
            metrics.wrote(WriteEnd::Dropped);
            return None;
        };
        let (told, stored) = oneshot::channel();
        let l2 = self.clone();
        let begun = self.behind(async move {
            let end = l2.write(write).await;
            l2.inner.metrics.wrote(end);
            drop(queued);
            // Nobody may wait.
            let _ = told.send(end == WriteEnd::Stored);
        });
        if !begun {
            metrics.wrote(WriteEnd::Dropped);
            return None;
        }
        let patience = self.inner.config.write_timeout;
        Some(async move { matches!(timeout(patience, stored).await, Ok(Ok(true))) })
    }

    async fn write(&self, mut write: Write) -> WriteEnd {
        let Inner { names, config, form, metrics, writers, .. } = &*self.inner;
        let Ok(_permit) = writers.acquire().await else { return WriteEnd::Failed };
        let keep = self.kept(write.keep);
        // First: an unsafe request that does not find the mark relies on there being nothing.
        if let Some(url) = write.scattered
            && !self.scatter(url, keep).await
        {
            return WriteEnd::Failed;
        }
        let (entry, primary) = (Arc::clone(&write.entry), write.entry.primary());
        let Some(value) = self.encoded(&entry, write.begun).await else { return WriteEnd::Failed };
        let record = match (&write.variant, primary == entry.key) {
            (Some(variant), false) => form.encode_variant(&primary, variant),
            _ => Some(Vec::new()),
        };
        let Some(record) = record else { return WriteEnd::Failed };
        let field = if primary == entry.key { String::new() } else { names.field(&entry.key) };
        let named = names.of(&primary, &entry.key);
        let held = write.ticket.as_ref().and_then(Ticket::held);
        let lease = names.of(&primary, held.as_ref().map_or(&entry.key, |(key, _)| key)).lease;
        let (token, seen) = (held.as_ref().map_or(&[][..], |(_, token)| token), write.ticket.as_ref());
        let seen = seen.and_then(|ticket| ticket.seen.as_deref()).unwrap_or(b"?");
        let (keep, max) = (millis(keep), write.variants_max.max(1).to_string());
        let whole = names.of(&primary, &primary).entry;
        let keys = [&named.entry[..], &lease, &named.variants, &named.removal, &whole];
        let args = [&value[..], keep.as_bytes(), token, seen, field.as_bytes(), &record, max.as_bytes()];
        let class = if value.len() > SMALL_MAX { Class::Large } else { Class::Small };
        match self.run(class, &scripts::PUT, &keys, &args).await {
            Ok(reply) => {
                let code = reply.first().map_or(Ok(0), replies::int);
                if let Some(ticket) = &mut write.ticket {
                    ticket.given_back();
                }
                metrics.written.inc_by(value.len() as u64);
                match code {
                    Ok(put::STORED) => WriteEnd::Stored,
                    Ok(put::OUTDATED) => WriteEnd::Outdated,
                    Ok(put::FENCED | put::UNLISTED) => WriteEnd::Fenced,
                    _ => WriteEnd::Failed,
                }
            }
            Err(error) => {
                tracing::debug!(%error, url = %entry.url(), timeout = ?config.write_timeout, "not written to Redis");
                WriteEnd::Failed
            }
        }
    }

    /// Notes that something of a URL is stored under keys that the URL does not give.
    async fn scatter(&self, url: Scope, keep: Duration) -> bool {
        let (name, keep) = (self.inner.names.scattered(url), millis(keep));
        self.run(Class::Control, &scripts::SCATTER, &[&name], &[keep.as_bytes()]).await.is_ok()
    }

    /// Whether something of a URL may be stored under keys that the URL does not give, as far as anybody knows.
    pub async fn is_scattered(&self, url: Scope) -> bool {
        let name = self.inner.names.scattered(url);
        let Inner { kv, config, metrics, .. } = &*self.inner;
        let exists = redis::Cmd::exists(&name);
        match kv.call(Class::Control, config.write_timeout, &name, &exists).await.and_then(|found| replies::int(&found))
        {
            Ok(found) => found > 0,
            Err(error) => {
                metrics.error(error.name());
                true
            }
        }
    }

    async fn encoded(&self, entry: &Arc<Entry>, begun: Begun) -> Option<Vec<u8>> {
        let written = if entry.content().len() <= SMALL_MAX {
            self.inner.form.encode(entry, begun)
        } else {
            // What takes a millisecond holds nobody up.
            let (l2, entry) = (self.clone(), Arc::clone(entry));
            tokio::task::spawn_blocking(move || l2.inner.form.encode(&entry, begun)).await.ok().flatten()
        }?;
        if let Some((before, after)) = written.compressed {
            self.inner.metrics.compressed_in.inc_by(before as u64);
            self.inner.metrics.compressed_out.inc_by(after as u64);
        }
        Some(written.bytes)
    }

    /// So much of what waits to be written is to be counted until it is dropped; `None`: there is no room.
    fn queue(&self, bytes: u64) -> Option<Queued> {
        let Inner { queued, config, metrics, .. } = &*self.inner;
        if queued.fetch_add(bytes, Relaxed) + bytes > config.queue_bytes_max.as_u64() {
            queued.fetch_sub(bytes, Relaxed);
            return None;
        }
        metrics.queue_bytes.inc_by(bytes);
        Some(Queued { l2: self.clone(), bytes })
    }

    fn kept(&self, keep: Duration) -> Duration {
        let keep = keep.clamp(Duration::from_millis(1), KEEP_MAX);
        keep + keep.mul_f64(self.inner.config.ttl_jitter * chance())
    }

    /// Gives up what `ticket` holds, for an entry of `key` that is not stored here. `unstorable`: others need not wait for
    /// each other for a while. What began no later than `stale` goes.
    pub fn settle(&self, ticket: Option<Ticket>, primary: Key, key: Key, unstorable: bool, stale: Option<Timestamp>) {
        if ticket.as_ref().is_none_or(|ticket| ticket.held().is_none()) && stale.is_none() {
            return;
        }
        let l2 = self.clone();
        self.behind(async move {
            let names = &l2.inner.names;
            let held = ticket.as_ref().and_then(Ticket::held);
            let lease = names.of(&primary, held.as_ref().map_or(&key, |(key, _)| key)).lease;
            let token = held.as_ref().map_or(&[][..], |(_, token)| token);
            let mark = if unstorable { millis(UNSTORABLE) } else { String::new() };
            let stale = stale.map_or_else(String::new, |time| time.as_millis().to_string());
            let named = names.of(&primary, &key);
            let (keys, args) = ([&lease[..], &named.entry], [token, mark.as_bytes(), stale.as_bytes()]);
            let settled = l2.run(Class::Control, &scripts::SETTLE, &keys, &args).await;
            if let (Ok(_), Some(mut ticket)) = (settled, ticket) {
                ticket.given_back();
            }
        });
    }

    /// Removes all that is stored under a primary key, those of its variants that are listed included, and `known` ones.
    /// Whether it is gone: once it is, no fill that began before brings it back.
    pub async fn remove(&self, primary: &Key, known: &[Key]) -> bool {
        let names = &self.inner.names;
        let named = names.of(primary, primary);
        let mut number = [0; 16];
        let drawn = getrandom::fill(&mut number).is_ok();
        let (keep, fields) = (millis(REMOVED), known.iter().map(|key| names.field(key)).collect::<Vec<_>>());
        let keys = [&named.entry[..], &named.lease, &named.variants, &named.removal];
        let mut args = vec![&number[..], keep.as_bytes()];
        args.extend(fields.iter().map(String::as_bytes));
        let removed = drawn && self.run(Class::Control, &scripts::REMOVE, &keys, &args).await.is_ok();
        self.inner.metrics.removed(removed);
        removed
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

impl Waiting<'_> {
    /// Waits until it is worth another look at `key`; false when that was long enough.
    pub async fn for_change(&mut self, primary: &Key, key: &Key) -> bool {
        let left = self.l2.inner.config.follow_max.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            self.l2.inner.metrics.lease(LeaseEnd::Alone);
            return false;
        }
        // The last look is at the end of the time, not after it.
        let _ = timeout(left, self.l2.wait_for_change(primary, key, self.nth)).await;
        self.nth += 1;
        true
    }

    /// The wait is over: `looked` is what was found.
    pub fn ended(self, looked: &Looked) {
        let end = match looked {
            Looked::Found(..) | Looked::Variants(_) => LeaseEnd::Followed,
            Looked::Leased => LeaseEnd::Inherited,
            Looked::Unstorable => LeaseEnd::Unstorable,
            Looked::Busy(_) | Looked::Nothing => LeaseEnd::Alone,
        };
        self.l2.inner.metrics.lease(end);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.l2.inner.metrics.waiting.dec();
    }
}

/// Bytes that wait to be written.
struct Queued {
    l2: L2,
    bytes: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.l2.inner.queued.fetch_sub(self.bytes, Relaxed);
        self.l2.inner.metrics.queue_bytes.dec_by(self.bytes);
    }
}

/// One task in the background.
struct Done(L2);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.inner.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

/// What [`scripts::LOOK`] tells of a lease; of what is none, something that nobody is.
fn holder(lease: &[u8]) -> Holder {
    let (token, place) = lease.split_first_chunk().unwrap_or((&[0; scripts::TOKEN], &[]));
    Holder { token: *token, position: value::placed(place).unwrap_or_default() }
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
