//! L3: responses on the disk, which survive a restart.
//!
//! ```text
//!  lookup ─▶ pending (what is about to be written) ─▶ catalogue (is it there?) ─▶ index ─▶ content
//!  store ──▶ pending ─▶ keeper: content ▶ sync ▶ index ▶ catalogue
//! ```
//!
//! Content lies in cacache by hash, so identical bodies are stored once, unless they are enciphered; the index (redb) says
//! which keys name it. What the disk shows of all that, and to whom, is for `seal.rs` to say.
//! Guarantees:
//!
//! - No look-up fails: what cannot be read is a miss, and counted. What is handed out is what was stored, byte for byte.
//! - What was removed is not found again from the moment [`L3::remove`] returns. A crash before the removal is on the
//!   disk may bring it back: [`L3::removed`] waits for that.
//! - A crash at any moment leaves no entry without its content; what was not committed is gone.
//! - A disk that fails turns the tier off, not the gateway; it comes back by itself.
//!
//! Whether what is found may be used is for its reader to find out (freshness, purge log).

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::AtomicBool, atomic::AtomicU64},
    thread::{self, JoinHandle},
};

use bytesize::ByteSize;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, sync::oneshot, time::Instant};
use utoipa::ToSchema;

use crate::object::{entry::Entry, key::Key, scope::Scope, time::Timestamp, vary::Variants};

mod admission;
mod brief;
mod buffers;
mod catalogue;
mod census;
mod cipher;
pub mod config;
mod content;
mod evict;
mod handles;
mod home;
mod index;
mod keeper;
mod large;
mod locator;
mod metrics;
mod pace;
mod pages;
mod pending;
mod policy;
mod prepare;
mod proof;
mod record;
mod room;
mod seal;
mod stream;
mod survey;
#[cfg(test)]
mod tests;
mod tier;
mod trouble;
mod upkeep;

use self::{
    admission::Seen,
    catalogue::Presence,
    census::Census,
    content::Contents,
    handles::Handles,
    home::Home,
    keeper::Keeper,
    locator::{Address, Locator},
    metrics::{Drop as Dropped, Metrics},
    pace::Pace,
    pending::{Control, Op, Pending},
    room::Room,
    seal::Seal,
    tier::{Now, Peek, STREAMS_MAX, Tier},
    trouble::{Faults, Trouble},
};
pub use self::{
    census::Scattered,
    config::{Admission, L3Config, L3Policy},
    home::OpenError,
    large::{ContentError, Large, Pieces},
    stream::{Finished, Stopped, Writer},
    survey::Rank,
    upkeep::{Collected, Verified},
};

/// The disk tier. Clones are the same tier; with the last one gone, what waits is written, and the directory is free.
#[derive(Clone)]
pub struct L3 {
    inner: Arc<Inner>,
}

struct Inner {
    tier: Arc<Tier>,
    threads: Vec<JoinHandle<()>>,
}

/// When the tier is tidied up and scrubbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upkeep {
    ByItself,
    OnCall,
}

/// What is stored under a key.
#[derive(Clone)]
pub enum Found {
    /// A response in memory.
    Entry(Arc<Entry>),
    /// A response whose content stays on the disk.
    Large(Large),
    /// How to find the variant's own key.
    Variants(Arc<Variants>),
}

/// Why an operator's call was not done.
#[derive(Debug, thiserror::Error)]
#[error("disk tier: {0}")]
pub struct DiskError(String);

/// What the tier holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Whether it is in use.
    pub on: bool,
    /// Slots.
    pub entries: u64,
    /// Files of content.
    pub contents: u64,
    /// Content of all entries, as clients get it.
    pub logical_bytes: u64,
    /// Content of all entries, compressed, as if none was shared.
    pub stored_bytes: u64,
    /// What content takes of the disk.
    pub physical_bytes: u64,
    /// What the index takes of the disk.
    pub index_bytes: u64,
    /// Changes that wait to be written.
    pub queued: u64,
    /// Damaged indexes that empty ones took the place of, since the start.
    pub damaged_indexes: u64,
}

impl L3 {
    /// Opens the tier in `directory`, which is made if need be and belongs to this process from now on. `secret` seals
    /// the index, `now` tells the time. Its metrics go to `registry` under `l3`.
    ///
    /// # Errors
    /// If the directory belongs to another process or another release, or cannot be made. A disk that fails, or a
    /// damaged index, is no error.
    pub fn open(
        config: &L3Config,
        directory: &Path,
        secret: &[u8; 32],
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        registry: &mut Registry,
    ) -> Result<Self, OpenError> {
        Self::start(config, directory, secret, Box::new(now), registry, Arc::default(), Upkeep::ByItself)
    }

    /// As [`L3::open`], for an operator's call in place of a gateway: there are no bounds, and nothing is looked for or
    /// tidied up but by the call.
    ///
    /// # Errors
    /// As [`L3::open`].
    pub fn open_for_operator(
        config: &L3Config,
        directory: &Path,
        secret: &[u8; 32],
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let config = L3Config {
            max_bytes: ByteSize(u64::MAX),
            entries_max: u64::MAX,
            free_bytes_min: ByteSize(0),
            write_rate: ByteSize(0),
            ..config.clone()
        };
        let mut registry = Registry::default();
        Self::start(&config, directory, secret, Box::new(now), &mut registry, Arc::default(), Upkeep::OnCall)
    }

    /// Empties a directory that no process uses, whatever release wrote it.
    ///
    /// # Errors
    /// If a process uses it, or it cannot be written.
    pub fn clear_directory(directory: &Path) -> Result<(), OpenError> {
        Home::clear(directory)
    }

    fn start(
        config: &L3Config,
        directory: &Path,
        secret: &[u8; 32],
        now: Now,
        registry: &mut Registry,
        faults: Arc<Faults>,
        upkeep: Upkeep,
    ) -> Result<Self, OpenError> {
        let home = match upkeep {
            Upkeep::ByItself => Home::take(directory, config.form().is_enciphered())?,
            Upkeep::OnCall => Home::take_as_it_is(directory, config.form().is_enciphered())?,
        };
        let config = L3Config { encrypt: home.is_enciphered(), ..config.clone() };
        // Without the mark the next start is as after a crash, which is no more than slow.
        let untidy = home.mark().unwrap_or(true);
        let contents = Contents::new(directory, faults);
        if let Err(error) = contents.forget_unfinished() {
            tracing::warn!(?directory, %error, "disk tier: unfinished files are left");
        }
        let tier = Arc::new(Tier {
            home,
            contents,
            seal: Seal::new(secret, config.form()),
            index: RwLock::default(),
            catalogue: RwLock::default(),
            pending: Pending::default(),
            handles: Handles::default(),
            census: Census::new(),
            seen: Seen::new(),
            metrics: Metrics::new(registry),
            reads: Arc::new(Semaphore::new(config.threads)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            streaming: AtomicU64::new(0),
            room: AtomicBool::new(true),
            pace: Mutex::new(Pace::new(config.write_rate.as_u64())),
            trouble: Mutex::default(),
            untidy: AtomicBool::new(untidy),
            config,
            on_call: upkeep == Upkeep::OnCall,
            now,
        });
        Room::register(registry, &tier);
        let mut inner = Inner { tier: Arc::clone(&tier), threads: Vec::new() };
        let keeper = Keeper::new(Arc::clone(&tier));
        inner.spawn("l3-keeper", move || keeper.run()).map_err(OpenError::Threads)?;
        if upkeep == Upkeep::ByItself {
            inner.spawn("l3-upkeep", move || upkeep::run(&tier)).map_err(OpenError::Threads)?;
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    fn tier(&self) -> &Arc<Tier> {
        &self.inner.tier
    }

    fn locator(&self, key: &Key) -> Locator {
        self.tier().seal.locator(key)
    }

    /// Whether `key` is surely not stored: answered from memory, without a wait.
    pub fn lacks(&self, key: &Key) -> bool {
        self.tier().is_absent(&self.locator(key)) || !self.tier().is_on()
    }

    /// What is stored under `key`; counts as a use of it. Waits for the disk at most `l3.lookup_timeout`, and not at
    /// all for a key that is not stored.
    pub async fn lookup(&self, key: &Key) -> Option<Found> {
        let at = self.tier().seal.address(key);
        let found = self.look_at(at).await;
        if found.is_some() {
            self.tier().touch(&at.locator);
            self.tier().metrics.hits.inc();
        } else {
            self.tier().metrics.misses.inc();
        }
        found
    }

    /// As [`L3::lookup`], for who asks on nobody's behalf: it is no use, and nothing is counted.
    pub async fn look(&self, key: &Key) -> Option<Found> {
        self.look_at(self.tier().seal.address(key)).await
    }

    async fn look_at(&self, at: Address) -> Option<Found> {
        match self.tier().peek(&at.locator) {
            _ if !self.tier().is_on() => None,
            Peek::Found(found) => Some(found),
            Peek::Open(large) => Some(Found::Large(large)),
            Peek::Absent => None,
            Peek::Read => self.read(at).await,
        }
    }

    async fn read(&self, at: Address) -> Option<Found> {
        let (tier, start) = (Arc::clone(self.tier()), Instant::now());
        let reading = async move {
            let permit = Arc::clone(&tier.reads).acquire_owned().await;
            let read = move || {
                // Held as long as the disk takes, also when nobody waits any more.
                let _permit = permit;
                tier.read(&at)
            };
            tokio::task::spawn_blocking(read).await.ok().flatten()
        };
        let found = tokio::time::timeout(self.tier().lookup_timeout(), reading).await;
        let metrics = &self.tier().metrics;
        metrics.lookup.observe(start.elapsed().as_secs_f64());
        found.unwrap_or_else(|_| {
            metrics.error("timeout");
            None
        })
    }

    /// Whether an entry is worth writing that has been served `hits` times: where the second hit counts, one that has
    /// been, or whose key was stored or asked about here lately.
    pub fn admits(&self, key: &Key, hits: u32) -> bool {
        let admitted = self.tier().config.admission == Admission::All || hits > 0 || self.tier().seen.note(key);
        if !admitted {
            self.tier().metrics.dropped(Dropped::Admission);
        }
        admitted
    }

    /// Writes an entry behind, if it is admitted or takes the place of another, and there is room in the queue. Whether
    /// it is on its way; it can be found from then on. If it is not, what was there goes all the same: it is no longer
    /// the newest.
    pub fn store(&self, entry: &Arc<Entry>) -> bool {
        let hits = entry.hits.load(std::sync::atomic::Ordering::Relaxed);
        let stored = self.takes(entry)
            && (self.tier().is_present(&self.locator(&entry.key)) || self.admits(&entry.key, hits))
            && self.put(entry, None);
        if !stored {
            self.remove(&entry.key);
        }
        stored
    }

    /// Writes an entry, admitted or not; it can be found as soon as this returns. The future says whether it came to the
    /// disk.
    pub fn store_through(&self, entry: &Arc<Entry>) -> impl Future<Output = bool> + Send + use<> {
        let (told, stored) = oneshot::channel();
        let taken = self.takes(entry) && self.put(entry, Some(told));
        if !taken {
            self.remove(&entry.key);
        }
        async move { taken && stored.await.unwrap_or(false) }
    }

    /// Writes a new head for what is stored: of an entry in memory, or of `large` content, which stays as it is.
    pub fn renew(&self, entry: &Arc<Entry>, large: Option<&Large>) -> bool {
        match large {
            None => self.takes(entry) && self.put(entry, None),
            Some(large) => {
                let locator = self.locator(&entry.key);
                self.tier().is_on() && self.tier().push(locator, Op::Renew(Arc::clone(entry), large.id()), None)
            }
        }
    }

    /// Notes that the entry of `key` has been served `hits` times by now.
    pub fn served(&self, key: &Key, hits: u32) {
        let prefix = self.locator(key).prefix();
        self.tier().catalogue.read().served(prefix, self.tier().seconds(), hits);
    }

    /// Writes a variants record behind.
    pub fn store_variants(&self, key: &Key, variants: &Arc<Variants>) -> bool {
        let locator = self.locator(key);
        self.tier().is_on() && self.tier().push(locator, Op::Variants(*key, Arc::clone(variants)), None)
    }

    /// Starts writing the content of `key` while it arrives; `None` where the tier is off or too many are under way.
    /// Ask [`L3::admits`] first.
    pub fn writer(&self, key: &Key) -> Option<Writer> {
        let tier = self.tier();
        let reason = if tier.is_on() { Dropped::Queue } else { Dropped::Off };
        let permit = Arc::clone(&tier.streams).try_acquire_owned().ok().filter(|_| tier.is_on());
        if permit.is_none() {
            tier.metrics.dropped(reason);
        }
        permit.map(|permit| Writer::new(Arc::clone(tier), *key, permit))
    }

    /// Removes what is stored under `key`: it is not found from now on.
    pub fn remove(&self, key: &Key) {
        let locator = self.locator(key);
        if !self.is_surely_absent(&locator) {
            self.tier().push(locator, Op::Remove, None);
        }
    }

    /// As [`L3::remove`], which is done when this returns. The future waits until no crash can bring it back; it says
    /// whether that is so.
    pub fn removed(&self, key: &Key) -> impl Future<Output = bool> + Send + use<> {
        let locator = self.locator(key);
        let absent = self.is_surely_absent(&locator);
        let (told, removed) = oneshot::channel();
        if !absent {
            // While the tier is off nobody can tell when it will be.
            let told = self.is_on().then_some(told);
            self.tier().push(locator, Op::Remove, told);
        }
        async move { absent || removed.await.unwrap_or(false) }
    }

    /// Whether there is nothing to remove. An index that is closed may hold anything.
    fn is_surely_absent(&self, key: &Locator) -> bool {
        let tier = self.tier();
        let waiting = tier.pending.find(key).is_some();
        !waiting && tier.is_on() && tier.catalogue.read().presence(key.prefix()) == Presence::Absent
    }

    /// Keys of the `max` entries with the most hits, the hottest first, as far as they are known by now: none where what
    /// is stored is enciphered, for then they are not on the disk. Blocks for the time of so many reads of the index.
    pub fn hottest(&self, max: usize) -> Vec<Key> {
        if self.tier().home.is_enciphered() {
            return Vec::new();
        }
        let prefixes = self.tier().catalogue.read().hottest(max);
        let Some(index) = self.tier().index() else { return Vec::new() };
        let found = prefixes.iter().filter_map(|prefix| index.brief(*prefix).ok().flatten());
        found.filter_map(|(locator, _)| self.tier().seal.key(&locator)).collect()
    }

    /// Largest content of one entry that is taken.
    pub fn object_bytes_max(&self) -> u64 {
        self.tier().object_bytes_max()
    }

    /// Whether any of the entries may be a part of a representation.
    pub fn may_hold_parts(&self) -> bool {
        self.tier().census.may_hold_parts()
    }

    /// What is stored of this URL, or one that shares its place, under keys that hold more than the URL.
    pub fn scattered(&self, url: Scope) -> Scattered {
        self.tier().census.scattered(self.tier().seal.place(url))
    }

    /// Whether all entries have been read from the index since the start.
    pub fn is_loaded(&self) -> bool {
        self.tier().catalogue.read().is_complete()
    }

    /// Whether the tier is in use.
    pub fn is_on(&self) -> bool {
        self.tier().is_on()
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.tier().home.path()
    }

    /// What it holds.
    pub fn stats(&self) -> Stats {
        let metrics = &self.tier().metrics;
        Stats {
            on: self.is_on(),
            entries: metrics.entries.get(),
            contents: metrics.contents.get(),
            logical_bytes: metrics.logical.get(),
            stored_bytes: metrics.stored.get(),
            physical_bytes: metrics.physical.get(),
            index_bytes: metrics.index.get(),
            queued: self.tier().pending.size().0 as u64,
            damaged_indexes: metrics.errors("damaged"),
        }
    }

    /// Waits until all that was stored and removed before is on the disk. Whether it is.
    pub async fn flush(&self) -> bool {
        self.ask(Control::Flush).await
    }

    /// Removes everything.
    ///
    /// # Errors
    /// Where the disk does not let it.
    pub async fn clear(&self) -> Result<(), DiskError> {
        if self.ask(Control::Clear).await { Ok(()) } else { Err(DiskError("off".into())) }
    }

    /// Reads all there is, and removes what is not as it was written. `watch` sees what was found up to then, and says
    /// whether to go on.
    ///
    /// # Errors
    /// Where the tier is off, or goes off.
    pub async fn verify(
        &self,
        mut watch: impl FnMut(&Verified) -> bool + Send + 'static,
    ) -> Result<Verified, DiskError> {
        let damaged = self.stats().damaged_indexes;
        let mut watched =
            move |tier: &Tier| upkeep::verify(tier, |_, found| !tier.pending.is_stopping() && watch(found));
        let found = self.upkeep(move |tier| Ok(watched(tier))).await?;
        Ok(Verified { index_damaged: self.stats().damaged_indexes > damaged, ..found })
    }

    /// Removes content that nothing names, and entries without their content.
    ///
    /// # Errors
    /// Where the tier is off, or goes off.
    pub async fn gc(&self) -> Result<Collected, DiskError> {
        self.upkeep(upkeep::collect).await
    }

    async fn upkeep<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Tier) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, DiskError> {
        if !self.is_on() {
            return Err(DiskError("off".into()));
        }
        let tier = Arc::clone(self.tier());
        let reported = move || {
            run(&tier).map_err(|trouble| {
                let error = DiskError(trouble.to_string());
                tier.report(trouble);
                error
            })
        };
        let done = tokio::task::spawn_blocking(reported).await;
        let done = done.unwrap_or_else(|panic| Err(DiskError(panic.to_string())))?;
        // What the keeper was asked for meanwhile is done as well.
        if self.flush().await { Ok(done) } else { Err(DiskError("it went off meanwhile".into())) }
    }

    async fn ask(&self, control: impl FnOnce(oneshot::Sender<bool>) -> Control) -> bool {
        let (reply, done) = oneshot::channel();
        self.tier().pending.ask(control(reply));
        done.await.unwrap_or(false)
    }

    /// Whether an entry of that size is taken now.
    fn takes(&self, entry: &Entry) -> bool {
        let reason = if !self.is_on() {
            Dropped::Off
        } else if entry.content().len() as u64 > self.tier().object_bytes_max() {
            Dropped::Large
        } else {
            return true;
        };
        self.tier().metrics.dropped(reason);
        false
    }

    fn put(&self, entry: &Arc<Entry>, told: Option<oneshot::Sender<bool>>) -> bool {
        self.tier().push(self.locator(&entry.key), Op::Entry(Arc::clone(entry)), told)
    }
}

impl Inner {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tier.pending.stop();
        for thread in self.threads.drain(..) {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}
