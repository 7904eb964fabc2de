//! The thread that changes the disk. It alone writes the index and removes content.
//!
//! ```text
//!        ┌──────────── trouble: one line, the index is closed ───────────┐
//!        │                                                               ▼
//!  on ───┴── batch: make room ▶ write content ▶ sync it ▶ commit ▶      off ── probes, at growing intervals
//!        │          catalogue ▶ let readers see it ▶ remove what         │
//!        ▲          nothing names any more                               │
//!        └──────── the disk takes a file again, the index opens ─────────┘
//! ```
//!
//! A batch that fails leaves the index as it was; content it wrote is an orphan until gc.

use std::{sync::Arc, sync::Weak, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{
    catalogue::Catalogue,
    content::ContentId,
    evict::Evictor,
    index::{Applied, Change, Index, Totals},
    locator::Locator,
    metrics::Drop as Dropped,
    pending::{Batch, Control, Op, Taken},
    prepare::Prepared,
    tier::Tier,
    trouble::Trouble,
};

/// Changes made together.
const BATCH_MAX: usize = 1024;

/// Content written before any of it is committed.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Entries read from the index at once while the catalogue is filled.
const LOAD: usize = 16_384;

/// Entries looked at in each round for hits to note.
const NOTED: usize = 65_536;

/// How often hits are noted on the disk.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// How long to wait for something to do.
const IDLE: Duration = Duration::from_secs(1);

/// Probes of a disk that failed.
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(60);

/// What is removed of a disk so full that nothing can be written any more.
const SACRIFICE: u64 = 4 << 20;

/// The thread's own state.
pub(super) struct Keeper {
    pub(super) tier: Arc<Tier>,
    state: State,
    pub(super) totals: Totals,
    /// How long the next failure lasts at least: a disk that fails again and again is asked less and less often, and
    /// spoken of once. It has to work as long as this to be trusted again.
    backoff: Duration,
    on_since: Instant,
    /// Until where the catalogue was filled; `None`: to its end.
    loading: Option<Cursor>,
    /// Where the search for hits to note goes on, and when.
    noting: (usize, Instant),
    pub(super) evictor: Evictor,
}

enum Cursor {
    Start,
    After(Locator),
}

enum State {
    On,
    Off {
        /// Whether the disk was full.
        full: bool,
        /// The index, as long as any reader has it.
        old: Weak<Index>,
        probe_at: Instant,
    },
}

impl Keeper {
    /// Opens the index; a disk that fails already is probed later.
    pub(super) fn new(tier: Arc<Tier>) -> Self {
        let now = Instant::now();
        let state = State::Off { full: false, old: Weak::new(), probe_at: now };
        let evictor = Evictor::default();
        let mut keeper = Self {
            tier,
            state,
            backoff: PROBE_MIN,
            on_since: now,
            totals: Totals::default(),
            loading: None,
            noting: (0, now),
            evictor,
        };
        // No file is written for a try: a start had to wait for the disk, and a first failure is found soon enough.
        if let Err(trouble) = keeper.open() {
            keeper.fail(trouble);
        }
        keeper
    }

    /// Works until nobody uses the tier any more.
    pub(super) fn run(mut self) {
        // Room is made for a batch as a whole: it must not be most of what there is.
        let share = usize::try_from(self.tier.config.max_bytes.as_u64() / 8).unwrap_or(usize::MAX);
        let bytes = BATCH_BYTES_MAX.min(share);
        loop {
            let busy = self.loading.is_some() || self.evictor.is_behind();
            let wait = if busy { Duration::ZERO } else { IDLE };
            let batch = self.tier.pending.take(BATCH_MAX, bytes, wait);
            let stopping = batch.stopping;
            self.round(batch);
            if stopping && (self.tier.pending.is_empty() || !matches!(self.state, State::On)) {
                break;
            }
        }
        self.attempt(|keeper| keeper.note(usize::MAX));
        if matches!(self.state, State::On) && !self.tier.untidy.load(Relaxed) {
            self.close();
            // With the mark left, the next start tidies up for nothing.
            let _ = self.tier.home.unmark();
        }
    }

    fn round(&mut self, batch: Batch) {
        let reported = self.tier.trouble.lock().take();
        self.attempt(|_| reported.map_or(Ok(()), Err));
        if let State::Off { probe_at, .. } = self.state
            && (Instant::now() < probe_at || !self.probe())
        {
            return self.refuse(batch);
        }
        let Batch { changes, controls, .. } = batch;
        if !changes.is_empty() {
            self.batch(changes);
        }
        controls.into_iter().for_each(|control| self.control(control));
        self.attempt(Self::load);
        self.attempt(Self::evict_some);
        if self.noting.1.elapsed() >= NOTE_EVERY {
            self.noting.1 = Instant::now();
            self.attempt(|keeper| keeper.note(NOTED));
        }
        self.measure();
    }

    /// Does what may fail, unless something has.
    fn attempt(&mut self, what: impl FnOnce(&mut Self) -> Result<(), Trouble>) {
        if matches!(self.state, State::On)
            && let Err(trouble) = what(self)
        {
            self.fail(trouble);
        }
    }

    /// Stores what waited.
    fn batch(&mut self, changes: Vec<Taken>) {
        let start = Instant::now();
        match self.commit(&changes) {
            Ok(dropped) => {
                let (given_up, done): (Vec<_>, Vec<_>) =
                    changes.into_iter().partition(|taken| dropped.contains(&taken.key));
                self.tier.pending.done(&given_up, false);
                self.tier.pending.done(&done, true);
                if self.on_since.elapsed() >= self.backoff {
                    self.backoff = PROBE_MIN;
                }
                self.tier.metrics.commit.observe(start.elapsed().as_secs_f64());
            }
            Err(trouble) => {
                let lost = changes.iter().filter(|taken| !matches!(taken.op, Op::Remove)).count();
                (0..lost).for_each(|_| self.tier.metrics.dropped(Dropped::Error));
                self.fail(trouble);
                self.tier.pending.retry(changes);
            }
        }
    }

    /// Content first, made last; then the index. Returns keys for which there was no room.
    fn commit(&mut self, changes: &[Taken]) -> Result<Vec<Locator>, Trouble> {
        let needs: u64 = changes.iter().map(|taken| self.tier.needs(&taken.op)).sum();
        let room = self.make_room(needs, changes.len() as u64)?;
        let tier = Arc::clone(&self.tier);
        let (mut prepared, mut dropped) = (Prepared::default(), Vec::new());
        for taken in changes {
            if room || matches!(taken.op, Op::Remove) {
                tier.prepare(taken, &mut prepared)?;
            } else {
                tier.metrics.dropped(Dropped::Room);
                // What it was to replace is not the newest any more.
                prepared.changes.push(Change::Remove(taken.key));
                dropped.push(taken.key);
            }
        }
        if !prepared.written.is_empty() {
            tier.contents.sync(&prepared.written)?;
        }
        let freed = self.apply(&prepared.changes)?;
        drop(prepared);
        self.remove_content(freed)?;
        Ok(dropped)
    }

    /// Commits changes, and lets the catalogue follow. Returns content that nothing names any more.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<Vec<ContentId>, Trouble> {
        let Some(index) = self.tier.index() else { return Ok(Vec::new()) };
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let Applied { totals, freed } = index.apply(changes)?;
        self.totals = totals;
        let changed = changes.iter().filter_map(|change| match change {
            Change::Put { key, .. } | Change::Remove(key) => Some(key),
            Change::Touch { .. } | Change::Condemn(_) | Change::Reclaim(..) => None,
        });
        self.tier.handles.changed(changed);
        for change in changes {
            let mut catalogue = self.tier.catalogue.write();
            match change {
                Change::Put { key, brief, .. } => {
                    self.tier.census.note(&brief.kin);
                    catalogue.put(key.prefix(), brief.worth());
                }
                Change::Remove(key) => catalogue.remove(key.prefix()),
                Change::Touch { .. } | Change::Condemn(_) | Change::Reclaim(..) => {}
            }
        }
        Ok(freed)
    }

    pub(super) fn remove_content(&self, freed: Vec<ContentId>) -> Result<(), Trouble> {
        for id in freed {
            self.tier.contents.remove(id)?;
        }
        Ok(())
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Condemn(id) => {
                self.attempt(|keeper| {
                    keeper.tier.handles.condemn(id);
                    let freed = keeper.apply(&[Change::Condemn(id)])?;
                    keeper.tier.contents.remove(id)?;
                    keeper.remove_content(freed)
                });
                self.tier.contents.acquit(id);
            }
            Control::Reclaim(id, counted, reply) => {
                let mut removed = false;
                self.attempt(|keeper| {
                    removed = keeper.reclaim(id, counted)?;
                    Ok(())
                });
                let _ = reply.send(removed);
            }
            Control::Clear(reply) => {
                let cleared = self.clear();
                if let Err(trouble) = cleared {
                    self.fail(trouble);
                }
                let _ = reply.send(matches!(self.state, State::On));
            }
            Control::Flush(reply) => {
                // Who waited reads the sums next.
                self.measure();
                let _ = reply.send(matches!(self.state, State::On));
            }
        }
    }

    /// Removes content that no key names: there was none, or all have proved damaged.
    fn reclaim(&mut self, id: ContentId, counted: Option<u32>) -> Result<bool, Trouble> {
        if let Some(count) = counted {
            self.apply(&[Change::Reclaim(id, count)])?;
        }
        let named = match self.tier.index() {
            Some(index) => index.reference(id)?.is_some(),
            None => true,
        };
        Ok(!named && self.tier.contents.remove(id)?)
    }

    /// Starts an empty index, and removes all content.
    fn clear(&mut self) -> Result<(), Trouble> {
        let old = self.close();
        self.tier.pending.reset();
        self.await_readers(&old);
        std::fs::remove_file(self.tier.home.index())?;
        self.open()?;
        self.tier.contents.sacrifice(u64::MAX)?;
        Ok(())
    }

    /// Fills the catalogue from the index, a piece at a time.
    fn load(&mut self) -> Result<(), Trouble> {
        let (Some(cursor), Some(index)) = (&self.loading, self.tier.index()) else { return Ok(()) };
        let after = match cursor {
            Cursor::Start => None,
            Cursor::After(key) => Some(*key),
        };
        let found = index.briefs(after, LOAD)?;
        self.loading = found.last().map(|(key, _)| Cursor::After(*key));
        for some in found.chunks(512) {
            let mut catalogue = self.tier.catalogue.write();
            for (key, brief) in some {
                if let Some(brief) = brief {
                    self.tier.census.note(&brief.kin);
                }
                match brief {
                    Some(brief) if catalogue.worth(key.prefix()).is_none() => {
                        catalogue.put(key.prefix(), brief.worth());
                    }
                    Some(_) => {}
                    None => {
                        self.tier.metrics.error("record");
                        self.tier.push(*key, Op::Remove, None);
                    }
                }
            }
        }
        if self.loading.is_none() {
            self.tier.catalogue.write().completed();
            self.tier.census.set_complete(true);
        }
        Ok(())
    }

    /// Notes hits on the disk, of the next `look` entries.
    fn note(&mut self, look: usize) -> Result<(), Trouble> {
        let touched = self.tier.catalogue.read().touched(&mut self.noting.0, look);
        let change = |(prefix, worth): &(u64, super::policy::Worth)| Change::Touch {
            prefix: *prefix,
            used: worth.used,
            hits: worth.hits,
        };
        let changes: Vec<_> = touched.iter().map(change).collect();
        self.apply(&changes).map(drop)
    }

    /// Turns the tier off, or puts a damaged index aside and goes on.
    fn fail(&mut self, trouble: Trouble) {
        self.tier.metrics.error(trouble.kind());
        let damaged = matches!(trouble, Trouble::Damaged(_));
        self.tier.untidy.store(true, Relaxed);
        let path = self.tier.home.path().to_owned();
        if damaged {
            tracing::error!(directory = ?path, %trouble, "disk tier: starting with an empty index");
        } else if self.backoff == PROBE_MIN {
            tracing::error!(directory = ?path, %trouble, "disk tier: off; it comes back when the disk does");
        } else {
            tracing::debug!(directory = ?path, %trouble, "disk tier: off again");
        }
        let old = self.close();
        let wait = if damaged { Duration::ZERO } else { self.later() };
        if damaged {
            self.await_readers(&old);
            if let Err(error) = self.tier.home.set_index_aside() {
                tracing::warn!(directory = ?path, %error, "disk tier: the damaged index stays in the way");
            }
        }
        let probe_at = Instant::now() + wait;
        self.state = State::Off { full: trouble.is_full(), old, probe_at };
        if damaged {
            self.probe();
        }
        self.measure();
    }

    /// Takes the index from readers.
    fn close(&mut self) -> Weak<Index> {
        let index = self.tier.index.write().take();
        *self.tier.catalogue.write() = Catalogue::default();
        self.tier.census.set_complete(false);
        self.tier.handles.clear();
        self.loading = None;
        self.totals = Totals::default();
        index.map_or_else(Weak::new, |index| Arc::downgrade(&index))
    }

    /// Waits until no reader has the old index any more: closing it writes to its file.
    fn await_readers(&self, old: &Weak<Index>) {
        while old.strong_count() > 0 && !self.tier.pending.is_stopping() {
            self.tier.pending.pause(Duration::from_millis(1));
        }
    }

    /// Tries whether the disk is of use again. Whether it is.
    fn probe(&mut self) -> bool {
        let State::Off { full, old, .. } = &self.state else { return true };
        let tried = if old.strong_count() > 0 { Ok(false) } else { self.revive(*full).map(|()| true) };
        match tried {
            Ok(true) => true,
            Ok(false) => {
                self.probe_later(None);
                false
            }
            Err(trouble) => {
                if matches!(trouble, Trouble::Damaged(_)) {
                    tracing::error!(%trouble, "disk tier: starting with an empty index");
                    self.tier.metrics.error(trouble.kind());
                    self.tier.untidy.store(true, Relaxed);
                    // Without its file, the next probe makes a new one.
                    let _ = self.tier.home.set_index_aside();
                }
                self.probe_later(Some(&trouble));
                false
            }
        }
    }

    fn probe_later(&mut self, trouble: Option<&Trouble>) {
        // An index that was put aside is replaced at once.
        let damaged = matches!(trouble, Some(Trouble::Damaged(_)));
        let next = Instant::now() + if damaged { Duration::ZERO } else { self.later() };
        if let State::Off { full, probe_at, .. } = &mut self.state {
            *full = trouble.map_or(*full, Trouble::is_full);
            *probe_at = next;
        }
    }

    /// How long to wait this time; the next time it is twice as long.
    fn later(&mut self) -> Duration {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(PROBE_MAX);
        wait
    }

    fn revive(&mut self, full: bool) -> Result<(), Trouble> {
        let home = &self.tier.home;
        home.settle()?;
        if full && home.probe().is_err() {
            // What was stored is in the way of what says so: some of it goes.
            self.tier.contents.sacrifice(SACRIFICE)?;
        }
        home.probe()?;
        self.tier.contents.faults.write()?;
        if self.tier.pending.is_overflown() {
            match std::fs::remove_file(home.index()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.tier.pending.reset(),
            }
        }
        self.open()
    }

    fn open(&mut self) -> Result<(), Trouble> {
        let tier = &self.tier;
        let memory = usize::try_from(tier.config.index_memory_bytes.as_u64()).unwrap_or(usize::MAX);
        let faults = Arc::clone(&tier.contents.faults);
        let index = Index::open(&tier.home.index(), memory, &tier.seal, faults).map_err(|trouble| match trouble {
            // Nobody will ever read it. But an operator may have given another configuration than the gateway has.
            Trouble::Stranger if !tier.on_call => Trouble::Damaged(trouble.to_string()),
            trouble => trouble,
        })?;
        self.totals = index.totals()?;
        // Nobody reads an older one any more, so whatever was reported was of that.
        *tier.trouble.lock() = None;
        *tier.catalogue.write() = Catalogue::default();
        *tier.index.write() = Some(Arc::new(index));
        self.loading = Some(Cursor::Start);
        if !matches!(self.state, State::On) {
            tracing::info!(directory = ?tier.home.path(), entries = self.totals.entries, "disk tier: on");
        }
        self.state = State::On;
        self.on_since = Instant::now();
        self.measure();
        Ok(())
    }

    /// While the tier is off: removals wait, the rest is given up.
    fn refuse(&mut self, batch: Batch) {
        let lost = batch.changes.iter().filter(|taken| !matches!(taken.op, Op::Remove)).count();
        (0..lost).for_each(|_| self.tier.metrics.dropped(Dropped::Off));
        let waits = batch.changes.len() > lost;
        self.tier.pending.retry(batch.changes);
        for control in batch.controls {
            match control {
                Control::Condemn(id) => self.tier.contents.acquit(id),
                Control::Reclaim(_, _, reply) | Control::Clear(reply) | Control::Flush(reply) => {
                    let _ = reply.send(false);
                }
            }
        }
        if waits {
            // The removals are in the queue again: not at once.
            self.tier.pending.pause(Duration::from_millis(100));
        }
    }

    pub(super) fn measure(&self) {
        let (metrics, totals) = (&self.tier.metrics, &self.totals);
        metrics.on.set(u64::from(matches!(self.state, State::On)));
        metrics.entries.set(totals.entries);
        metrics.contents.set(totals.contents);
        metrics.logical.set(totals.logical);
        metrics.stored.set(totals.stored);
        metrics.physical.set(totals.physical);
        metrics.index.set(self.tier.home.index_bytes());
        let (waiting, bytes) = self.tier.pending.size();
        metrics.queue.set(waiting as u64);
        metrics.queue_bytes.set(bytes as u64);
        self.tier.room.store(matches!(self.state, State::On) && !self.evictor.is_behind(), Relaxed);
    }
}

impl Drop for Keeper {
    /// Without this thread nothing is written and nothing removed, so nothing may be found either: it may have panicked.
    fn drop(&mut self) {
        self.close();
        self.tier.pending.close();
        self.tier.metrics.on.set(0);
    }
}
