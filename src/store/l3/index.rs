//! The index: what is stored under each key, which is known here by its locator, and how many keys name a content.
//!
//! ```text
//! records   locator → sealed record (`record.rs`)
//! briefs    locator → what is needed to choose what leaves (`brief.rs`); rewritten when hits are noted
//! contents  content id → keys that name it, bytes of its file
//! meta      sealed canary; totals
//! ```
//!
//! One transaction changes all of them, and only the writer's thread makes one. redb gets no page that is not as it was
//! written (`pages.rs`). Should it panic over one all the same, say one that a disk forgot to write, that ends here as an
//! error; after one this index is not to be used any more.

use std::{
    collections::HashSet,
    io,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    brief::Brief,
    content::{ContentId, disk_bytes},
    locator::Locator,
    pages::Pages,
    record::Stored,
    seal::Seal,
    trouble::{Faults, Trouble},
};
use crate::{files, object::key::Key};

type Id = &'static [u8; 32];

const RECORDS: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("records");
const BRIEFS: TableDefinition<'_, Id, &[u8; Brief::BYTES]> = TableDefinition::new("briefs");
const CONTENTS: TableDefinition<'_, Id, (u32, u64)> = TableDefinition::new("contents");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// What shows that the records were sealed by whom we are.
const CANARY: &[u8] = b"larder l3";
const CANARY_KEY: Key = Key::from_bytes([0; 32]);

/// The open index.
pub(super) struct Index {
    /// `None` once it is being closed.
    database: Option<Database>,
    /// Whether a damaged page was met.
    damaged: Arc<AtomicBool>,
}

/// One change of many that are made together.
pub(super) enum Change {
    /// Stores a record in place of the one there was.
    Put { key: Locator, record: Vec<u8>, brief: Brief },
    /// Removes what is stored.
    Remove(Locator),
    /// Notes hits of the entry whose key starts so.
    Touch { prefix: u64, used: u32, hits: u32 },
    /// Forgets content whose file proved wrong, whoever names it.
    Condemn(ContentId),
    /// Forgets content that no key names, if it is still counted so often.
    Reclaim(ContentId, u32),
}

/// Content, as far as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) count: u32,
    pub(super) bytes: u64,
}

/// Sums over everything that is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) entries: u64,
    /// Content as clients get it, of all entries.
    pub(super) logical: u64,
    /// Content as it is stored, of all entries, as if each had its own.
    pub(super) stored: u64,
    /// What files take of the disk.
    pub(super) physical: u64,
    /// Files.
    pub(super) contents: u64,
}

/// What changes led to.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) totals: Totals,
    /// Content that no key names any more.
    pub(super) freed: Vec<ContentId>,
}

impl Index {
    /// Opens the index at `path`; makes an empty one if there is none.
    pub(super) fn open(path: &Path, memory: usize, seal: &Seal, faults: Arc<Faults>) -> Result<Self, Trouble> {
        let file = files::private().truncate(false).open(path)?;
        let pages = Pages::new(file, faults);
        let damaged = pages.damaged();
        let open =
            || -> Result<Database, Failed> { Ok(Builder::new().set_cache_size(memory).create_with_backend(pages)?) };
        let index = Self { database: Some(guarded(open)?), damaged };
        index.greet(seal, path)?;
        Ok(index)
    }

    /// Makes the tables of a new index, and finds out whether it is ours.
    fn greet(&self, seal: &Seal, path: &Path) -> Result<(), Trouble> {
        let known = self.guarded(|| {
            let transaction = self.read()?;
            match transaction.open_table(META) {
                Ok(meta) => Ok(meta.get("canary")?.map(|canary| canary.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        match known {
            Some(known) if seal.open(&seal.address(&CANARY_KEY), &known).as_deref() == Some(CANARY) => Ok(()),
            Some(_) => Err(Trouble::Stranger),
            None => {
                files::sync_dir(path)?;
                self.found(seal)
            }
        }
    }

    fn found(&self, seal: &Seal) -> Result<(), Trouble> {
        let canary = seal.seal(&seal.address(&CANARY_KEY), CANARY).ok_or_else(|| io::Error::other("no randomness"))?;
        self.change(|transaction| {
            transaction.open_table(RECORDS)?;
            transaction.open_table(BRIEFS)?;
            transaction.open_table(CONTENTS)?;
            transaction.open_table(META)?.insert("canary", &canary[..])?;
            Ok(())
        })
    }

    /// The sealed record of `key`.
    pub(super) fn record(&self, key: &Locator) -> Result<Option<Vec<u8>>, Trouble> {
        self.guarded(|| {
            let records = self.read()?.open_table(RECORDS)?;
            Ok(records.get(key.as_bytes())?.map(|record| record.value().to_vec()))
        })
    }

    /// Up to `max` keys after that one, in order, with their sealed records.
    pub(super) fn records(&self, after: Option<Locator>, max: usize) -> Result<Vec<(Locator, Vec<u8>)>, Trouble> {
        self.guarded(|| {
            let records = self.read()?.open_table(RECORDS)?;
            let start = after.map(|key| *key.as_bytes());
            let bound = start.as_ref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let range = records.range::<&[u8; 32]>((bound, std::ops::Bound::Unbounded))?;
            let mut found = Vec::new();
            for item in range.take(max) {
                let (key, record) = item?;
                found.push((Locator::from_bytes(*key.value()), record.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// What is noted of up to `max` entries after that key, in order; those that are damaged as [`Err`].
    pub(super) fn briefs(&self, after: Option<Locator>, max: usize) -> Result<Vec<(Locator, Option<Brief>)>, Trouble> {
        self.guarded(|| {
            let briefs = self.read()?.open_table(BRIEFS)?;
            let start = after.map(|key| *key.as_bytes());
            let bound = start.as_ref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let range = briefs.range::<&[u8; 32]>((bound, std::ops::Bound::Unbounded))?;
            let mut found = Vec::new();
            for item in range.take(max) {
                let (key, brief) = item?;
                let key = Locator::from_bytes(*key.value());
                found.push((key, Brief::decode(&key, brief.value())));
            }
            Ok(found)
        })
    }

    /// What is noted of the first entry whose key starts so.
    pub(super) fn brief(&self, prefix: u64) -> Result<Option<(Locator, Option<Brief>)>, Trouble> {
        self.guarded(|| {
            let briefs = self.read()?.open_table(BRIEFS)?;
            let (first, last) = keys_with(prefix);
            let item = briefs.range::<&[u8; 32]>(&first..=&last)?.next().transpose()?;
            Ok(item.map(|(key, brief)| {
                let key = Locator::from_bytes(*key.value());
                (key, Brief::decode(&key, brief.value()))
            }))
        })
    }

    /// How `id` is named.
    pub(super) fn reference(&self, id: ContentId) -> Result<Option<Reference>, Trouble> {
        self.guarded(|| {
            let contents = self.read()?.open_table(CONTENTS)?;
            Ok(contents.get(id.as_bytes())?.map(|reference| Reference::of(reference.value())))
        })
    }

    /// Up to `max` contents after that one, in order.
    pub(super) fn contents(
        &self,
        after: Option<ContentId>,
        max: usize,
    ) -> Result<Vec<(ContentId, Reference)>, Trouble> {
        self.guarded(|| {
            let contents = self.read()?.open_table(CONTENTS)?;
            let start = after.map(|id| *id.as_bytes());
            let bound = start.as_ref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let range = contents.range::<&[u8; 32]>((bound, std::ops::Bound::Unbounded))?;
            let mut found = Vec::new();
            for item in range.take(max) {
                let (id, reference) = item?;
                found.push((ContentId::from_bytes(*id.value()), Reference::of(reference.value())));
            }
            Ok(found)
        })
    }

    /// Contents that no entry names, all as of one moment.
    pub(super) fn unnamed(&self) -> Result<Vec<(ContentId, Reference)>, Trouble> {
        self.guarded(|| {
            let transaction = self.read()?;
            let (briefs, contents) = (transaction.open_table(BRIEFS)?, transaction.open_table(CONTENTS)?);
            let mut named = HashSet::new();
            for item in briefs.range::<&[u8; 32]>(..)? {
                let (key, brief) = item?;
                let brief = Brief::decode(&Locator::from_bytes(*key.value()), brief.value());
                named.extend(brief.and_then(|brief| brief.stored.file()).map(|(id, _)| id));
            }
            let mut unnamed = Vec::new();
            for item in contents.range::<&[u8; 32]>(..)? {
                let (id, reference) = item?;
                let id = ContentId::from_bytes(*id.value());
                if !named.contains(&id) {
                    unnamed.push((id, Reference::of(reference.value())));
                }
            }
            Ok(unnamed)
        })
    }

    /// Sums over everything, as of the last change.
    pub(super) fn totals(&self) -> Result<Totals, Trouble> {
        self.guarded(|| {
            let meta = self.read()?.open_table(META)?;
            Ok(meta.get("totals")?.map(|totals| Totals::decode(totals.value())).unwrap_or_default())
        })
    }

    /// Makes all changes, or none, and makes them last.
    pub(super) fn apply(&self, changes: &[Change]) -> Result<Applied, Trouble> {
        self.change(|transaction| {
            let meta = ManuallyDrop::new(transaction.open_table(META)?);
            let totals = meta.get("totals")?.map(|totals| Totals::decode(totals.value())).unwrap_or_default();
            let mut tables = Tables::open(transaction, totals)?;
            let changed = changes.iter().try_for_each(|change| tables.apply(change));
            let Tables { contents, mut applied, .. } = ManuallyDrop::into_inner(tables);
            changed?;
            // What one change freed another may have named again.
            let mut freed = Vec::new();
            for id in applied.freed.drain(..) {
                if contents.get(id.as_bytes())?.is_none() {
                    freed.push(id);
                }
            }
            applied.freed = freed;
            let mut meta = ManuallyDrop::into_inner(meta);
            meta.insert("totals", &applied.totals.encode()[..])?;
            Ok(applied)
        })
    }

    /// As [`guarded`]. Only the first to meet a damaged page is told so by redb; it tells all others of an error before.
    fn guarded<T>(&self, run: impl FnOnce() -> Result<T, Failed>) -> Result<T, Trouble> {
        match guarded(run) {
            Err(Trouble::Io(_)) if self.damaged.load(Relaxed) => {
                Err(Trouble::Damaged("a page is not as it was".into()))
            }
            result => result,
        }
    }

    fn database(&self) -> Result<&Database, Failed> {
        self.database.as_ref().ok_or(Failed(redb::Error::DatabaseClosed))
    }

    fn read(&self) -> Result<redb::ReadTransaction, Failed> {
        Ok(self.database()?.begin_read()?)
    }

    fn change<T>(&self, change: impl FnOnce(&redb::WriteTransaction) -> Result<T, Failed>) -> Result<T, Trouble> {
        self.guarded(|| {
            // While redb unwinds it must not be asked to end a transaction in order: a second panic is the end of the
            // process. What it leaves then is forgotten.
            let mut transaction = ManuallyDrop::new(self.database()?.begin_write()?);
            // A start after a crash would have to read all of the index otherwise.
            transaction.set_quick_repair(true);
            let changed = change(&transaction);
            let transaction = ManuallyDrop::into_inner(transaction);
            let changed = changed?;
            transaction.commit()?;
            Ok(changed)
        })
    }
}

impl Drop for Index {
    /// Closing writes, and so stumbles over damage as well.
    fn drop(&mut self) {
        let database = self.database.take();
        if let Err(trouble) = guarded(|| {
            drop(database);
            Ok(())
        }) {
            tracing::debug!(%trouble, "disk tier: the index was not closed in order");
        }
    }
}

/// The tables of a transaction under way.
struct Tables<'t> {
    records: redb::Table<'t, Id, &'static [u8]>,
    briefs: redb::Table<'t, Id, &'static [u8; Brief::BYTES]>,
    contents: redb::Table<'t, Id, (u32, u64)>,
    applied: Applied,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t redb::WriteTransaction, totals: Totals) -> Result<ManuallyDrop<Self>, Failed> {
        let records = ManuallyDrop::new(transaction.open_table(RECORDS)?);
        let briefs = ManuallyDrop::new(transaction.open_table(BRIEFS)?);
        let contents = ManuallyDrop::new(transaction.open_table(CONTENTS)?);
        Ok(ManuallyDrop::new(Self {
            records: ManuallyDrop::into_inner(records),
            briefs: ManuallyDrop::into_inner(briefs),
            contents: ManuallyDrop::into_inner(contents),
            applied: Applied { totals, freed: Vec::new() },
        }))
    }

    fn apply(&mut self, change: &Change) -> Result<(), Failed> {
        match change {
            Change::Put { key, record, brief } => self.put(key, record, brief),
            Change::Remove(key) => self.remove(key),
            Change::Touch { prefix, used, hits } => self.touch(*prefix, *used, *hits),
            Change::Condemn(id) => self.forget(*id, |_| true),
            Change::Reclaim(id, count) => self.forget(*id, |reference| reference.count == *count),
        }
    }

    fn put(&mut self, key: &Locator, record: &[u8], brief: &Brief) -> Result<(), Failed> {
        // Named by the new one first: content that both have is not freed in between.
        if let Some((id, bytes)) = brief.stored.file() {
            self.name(id, bytes)?;
        }
        self.records.insert(key.as_bytes(), record)?;
        let old = self.briefs.insert(key.as_bytes(), &brief.encode(key))?.map(|old| *old.value());
        self.add(&brief.stored);
        match old {
            Some(old) => self.unname(Brief::decode(key, &old)),
            None => Ok(()),
        }
    }

    fn remove(&mut self, key: &Locator) -> Result<(), Failed> {
        self.records.remove(key.as_bytes())?;
        let old = self.briefs.remove(key.as_bytes())?.map(|old| *old.value());
        match old {
            Some(old) => self.unname(Brief::decode(key, &old)),
            None => Ok(()),
        }
    }

    fn touch(&mut self, prefix: u64, used: u32, hits: u32) -> Result<(), Failed> {
        let (first, last) = keys_with(prefix);
        let found = {
            let item = self.briefs.range::<&[u8; 32]>(&first..=&last)?.next().transpose()?;
            item.map(|(key, brief)| (Locator::from_bytes(*key.value()), *brief.value()))
        };
        if let Some((key, brief)) = found
            && let Some(mut brief) = Brief::decode(&key, &brief)
        {
            (brief.used, brief.hits) = (used, hits);
            self.briefs.insert(key.as_bytes(), &brief.encode(&key))?;
        }
        Ok(())
    }

    fn name(&mut self, id: ContentId, bytes: u64) -> Result<(), Failed> {
        let known = self.contents.get(id.as_bytes())?.map(|known| known.value());
        let (count, bytes) = known.unwrap_or((0, bytes));
        if known.is_none() {
            self.applied.totals.contents += 1;
            self.applied.totals.physical += disk_bytes(bytes);
        }
        self.contents.insert(id.as_bytes(), (count.saturating_add(1), bytes))?;
        Ok(())
    }

    /// An entry is gone; one whose brief is damaged leaves its content to gc.
    fn unname(&mut self, brief: Option<Brief>) -> Result<(), Failed> {
        self.applied.totals.entries = self.applied.totals.entries.saturating_sub(1);
        let Some(Brief { stored, .. }) = brief else { return Ok(()) };
        let totals = &mut self.applied.totals;
        totals.logical = totals.logical.saturating_sub(stored.length);
        totals.stored = totals.stored.saturating_sub(stored.bytes);
        let Some((id, _)) = stored.file() else { return Ok(()) };
        let known = self.contents.get(id.as_bytes())?.map(|known| known.value());
        match known {
            Some((count, bytes)) if count > 1 => {
                self.contents.insert(id.as_bytes(), (count - 1, bytes))?;
                Ok(())
            }
            Some(_) => self.forget(id, |_| true),
            None => Ok(()),
        }
    }

    fn forget(&mut self, id: ContentId, really: impl Fn(Reference) -> bool) -> Result<(), Failed> {
        let known = self.contents.get(id.as_bytes())?.map(|known| Reference::of(known.value()));
        if let Some(reference) = known.filter(|reference| really(*reference)) {
            self.contents.remove(id.as_bytes())?;
            let totals = &mut self.applied.totals;
            totals.contents = totals.contents.saturating_sub(1);
            totals.physical = totals.physical.saturating_sub(disk_bytes(reference.bytes));
            self.applied.freed.push(id);
        }
        Ok(())
    }

    fn add(&mut self, stored: &Stored) {
        let totals = &mut self.applied.totals;
        totals.entries += 1;
        totals.logical += stored.length;
        totals.stored += stored.bytes;
    }
}

impl Reference {
    fn of((count, bytes): (u32, u64)) -> Self {
        Self { count, bytes }
    }
}

impl Totals {
    fn encode(self) -> Vec<u8> {
        let Self { entries, logical, stored, physical, contents } = self;
        [entries, logical, stored, physical, contents].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| bytes.as_chunks().0.get(at).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self { entries: number(0), logical: number(1), stored: number(2), physical: number(3), contents: number(4) }
    }
}

/// The first and the last key that start so.
fn keys_with(prefix: u64) -> ([u8; 32], [u8; 32]) {
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    first[..8].copy_from_slice(&prefix.to_le_bytes());
    last[..8].copy_from_slice(&prefix.to_le_bytes());
    (first, last)
}

/// What redb may say.
struct Failed(redb::Error);

impl<E: Into<redb::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Runs what uses redb. A damaged page can make it panic: that is an error like any other.
fn guarded<T>(run: impl FnOnce() -> Result<T, Failed>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failed(redb::Error::Io(error)))) if is_of_the_disk(&error) => Err(Trouble::Io(error)),
        // Told in full when it happened.
        Ok(Err(Failed(redb::Error::PreviousIo))) => Err(Trouble::Io(io::Error::other("an earlier error"))),
        Ok(Err(Failed(error))) => Err(Trouble::Damaged(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Trouble::Damaged(text.unwrap_or_else(|| "redb panicked".into())))
        }
    }
}

/// Whether the disk is to blame. A file that ends early, is none of redb's, or leads redb to impossible places is damaged.
fn is_of_the_disk(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| !matches!(errno, Errno::INVAL | Errno::FBIG | Errno::OVERFLOW))
}
