//! What readers and the writer of the tier share, and how a look-up reads the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use super::{
    super::compress,
    Found,
    admission::Seen,
    brief::seconds,
    catalogue::{Catalogue, Presence},
    census::Census,
    config::L3Config,
    content::{ContentId, Contents, Unreadable},
    handles::Handles,
    home::Home,
    index::Index,
    large::{self, Large},
    locator::{Address, Locator},
    metrics::{Drop as Dropped, Metrics},
    pace::Pace,
    pending::{Control, Limits, Op, Pending},
    proof::Proof,
    record::{Coding, Kind, Record, Stored},
    seal::{Inspected, Seal},
    trouble::Trouble,
};
use crate::object::{codec, entry::Entry, time::Timestamp, variants_codec};

/// What tells the time.
pub(super) type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// Contents that are written piece by piece at the same time.
pub(super) const STREAMS_MAX: usize = 64;

/// The shared state.
pub(super) struct Tier {
    pub(super) config: L3Config,
    /// Whether it is open for an operator's call alone.
    pub(super) on_call: bool,
    pub(super) home: Home,
    pub(super) seal: Seal,
    pub(super) contents: Arc<Contents>,
    /// `None` while the tier is off.
    pub(super) index: RwLock<Option<Arc<Index>>>,
    pub(super) catalogue: RwLock<Catalogue>,
    pub(super) pending: Pending,
    pub(super) handles: Handles,
    pub(super) census: Census,
    pub(super) seen: Seen,
    pub(super) metrics: Metrics,
    /// Reads of the disk at the same time.
    pub(super) reads: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    /// Bytes of streams that are not in the index yet.
    pub(super) streaming: AtomicU64,
    /// Whether the disk has room for more, as the writer found last.
    pub(super) room: AtomicBool,
    pub(super) pace: Mutex<Pace>,
    /// What readers met, for the writer to act on.
    pub(super) trouble: Mutex<Option<Trouble>>,
    /// Whether files may lie about that nothing names.
    pub(super) untidy: AtomicBool,
    pub(super) now: Now,
}

/// What is known of a key without the disk.
pub(super) enum Peek {
    /// All.
    Found(Found),
    /// All, and its content is held open.
    Open(Large),
    Absent,
    /// That it has to be read.
    Read,
}

/// Why a record gives nothing.
enum Useless {
    /// It is not what was written.
    Damaged,
    /// Its content is not.
    Content(ContentId, Unreadable),
}

impl Tier {
    /// The time, in seconds.
    pub(super) fn seconds(&self) -> u32 {
        seconds((self.now)())
    }

    pub(super) fn index(&self) -> Option<Arc<Index>> {
        self.index.read().clone()
    }

    pub(super) fn is_on(&self) -> bool {
        self.index.read().is_some()
    }

    pub(super) fn has_room(&self) -> bool {
        self.room.load(Relaxed)
    }

    pub(super) fn limits(&self) -> Limits {
        let bytes = usize::try_from(self.config.queue_bytes_max.as_u64()).unwrap_or(usize::MAX);
        Limits { entries: self.config.queue_max, bytes }
    }

    /// Content of one entry, at most: none may push out half of all others.
    pub(super) fn object_bytes_max(&self) -> u64 {
        self.config.object_bytes_max.as_u64().min(self.config.max_bytes.as_u64() / 2)
    }

    /// Puts a change in the queue; one that finds no room is counted.
    pub(super) fn push(&self, key: Locator, op: Op, told: Option<oneshot::Sender<bool>>) -> bool {
        let pushed = self.pending.push(key, op, self.limits(), told).is_ok();
        if !pushed {
            self.metrics.dropped(Dropped::Queue);
        }
        pushed
    }

    /// What the index says; `None` where there is none, or it is of no use, which is reported.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Index) -> Result<T, Trouble>) -> Option<T> {
        let index = self.index()?;
        question(&index).map_err(|trouble| self.report(trouble)).ok()
    }

    /// Hands trouble to the writer, which decides what it means. Trouble with the index, while it is still held: the
    /// writer waits for its last reader, and takes no trouble with an old index for one with a new one.
    pub(super) fn report(&self, trouble: Trouble) {
        self.trouble.lock().get_or_insert(trouble);
        self.pending.nudge();
    }

    /// Whether there is something at `key`, without reading the disk.
    pub(super) fn peek(self: &Arc<Self>, key: &Locator) -> Peek {
        match self.pending.find(key) {
            Some(Op::Remove) => return Peek::Absent,
            Some(Op::Entry(entry)) => return Peek::Found(Found::Entry(entry)),
            Some(Op::Variants(_, variants)) => return Peek::Found(Found::Variants(variants)),
            Some(Op::Large(_) | Op::Renew(..)) => return Peek::Read,
            None => {}
        }
        match self.catalogue.read().presence(key.prefix()) {
            Presence::Absent => Peek::Absent,
            Presence::Present | Presence::Unknown => match self.handles.find(key) {
                Some(large) => Peek::Open(large),
                None => Peek::Read,
            },
        }
    }

    /// Whether there is surely something at `key`.
    pub(super) fn is_present(&self, key: &Locator) -> bool {
        match self.pending.find(key) {
            Some(op) => !matches!(op, Op::Remove),
            None => self.catalogue.read().presence(key.prefix()) == Presence::Present,
        }
    }

    /// Whether there is surely nothing at `key`.
    pub(super) fn is_absent(&self, key: &Locator) -> bool {
        match self.pending.find(key) {
            Some(op) => matches!(op, Op::Remove),
            None => self.catalogue.read().presence(key.prefix()) == Presence::Absent,
        }
    }

    /// What is stored there. Blocks.
    pub(super) fn read(self: &Arc<Self>, at: &Address) -> Option<Found> {
        let index = self.index()?;
        let locator = &at.locator;
        let (changes, pending) = (self.handles.changes(), self.pending.find(locator));
        if let Some(Op::Large(landed)) = &pending {
            return self.large(at, &landed.entry, &landed.stored, Arc::clone(&landed.proof)).ok();
        }
        let sealed = match index.record(locator) {
            Ok(sealed) => sealed?,
            Err(trouble) => {
                self.report(trouble);
                return None;
            }
        };
        match self.opened(at, &sealed) {
            Ok(found) => {
                let found = renewed(found, pending);
                if let Found::Large(large) = &found {
                    self.handles.keep(*locator, large, changes);
                }
                Some(found)
            }
            Err(useless) => {
                self.found_useless(locator, useless);
                None
            }
        }
    }

    /// Notes a use of what is stored at `key`.
    pub(super) fn touch(&self, key: &Locator) {
        self.catalogue.read().touch(key.prefix(), self.seconds());
    }

    fn opened(self: &Arc<Self>, at: &Address, sealed: &[u8]) -> Result<Found, Useless> {
        let record = self.seal.open(at, sealed).and_then(|record| Record::decode(&record)).ok_or(Useless::Damaged)?;
        match record.kind {
            Kind::Variants => {
                let variants = variants_codec::decode(&record.head).map_err(|_| Useless::Damaged)?;
                Ok(Found::Variants(Arc::new(variants)))
            }
            Kind::Whole => {
                let body = self.whole(at, &record.stored, record.proof)?;
                let entry = match codec::decode_head(&record.head, body) {
                    Ok(entry) => entry,
                    Err(codec::DecodeError::Body) => {
                        return Err(Useless::Content(record.stored.id, Unreadable::Bytes));
                    }
                    Err(_) => return Err(Useless::Damaged),
                };
                Ok(Found::Entry(Arc::new(self.with_hits(at, entry)?)))
            }
            Kind::Large => {
                let entry = codec::decode_head(&record.head, Bytes::new()).map_err(|_| Useless::Damaged)?;
                let entry = Arc::new(self.with_hits(at, entry)?);
                self.large(at, &entry, &record.stored, Arc::new(record.proof))
            }
        }
    }

    /// Whether a sealed record is what was written at `key`. Its content is another matter.
    pub(super) fn is_readable(&self, key: &Locator, sealed: &[u8]) -> bool {
        let record = match self.seal.inspect(key, sealed) {
            Inspected::Damaged => return false,
            Inspected::Shut => return true,
            Inspected::Open(record) => Record::decode(&record),
        };
        record.is_some_and(|record| match record.kind {
            Kind::Variants => variants_codec::decode(&record.head).is_ok(),
            Kind::Whole | Kind::Large => {
                matches!(codec::decode_head(&record.head, Bytes::new()), Ok(_) | Err(codec::DecodeError::Body))
            }
        })
    }

    /// Removes what is stored at `key`, unless that is another record by now. Whether it is the same.
    pub(super) fn forget_unreadable(&self, key: &Locator, sealed: &[u8]) -> bool {
        let now = self.ask(|index| index.record(key)).flatten();
        let same = self.pending.find(key).is_none() && now.is_some_and(|record| record == sealed);
        if same {
            self.metrics.error("record");
            self.push(*key, Op::Remove, None);
        }
        same
    }

    /// The entry, with the hits that were counted since it was written.
    fn with_hits(&self, at: &Address, entry: Entry) -> Result<Entry, Useless> {
        if entry.key != at.key {
            return Err(Useless::Damaged);
        }
        if let Some(worth) = self.catalogue.read().worth(at.locator.prefix()) {
            entry.hits.fetch_max(worth.hits, Relaxed);
        }
        Ok(entry)
    }

    /// Content that is read as a whole.
    fn whole(&self, at: &Address, stored: &Stored, proof: Proof) -> Result<Bytes, Useless> {
        let Some((id, bytes)) = stored.file() else { return Ok(Bytes::new()) };
        let mut content = self.contents.read(id, bytes).map_err(|error| Useless::Content(id, error))?;
        if matches!(proof, Proof::Sealed { .. }) {
            let opener = self.seal.opener(&at.key, Arc::new(proof)).ok_or(Useless::Damaged)?;
            if !opener.whole(&mut content) {
                return Err(Useless::Content(id, Unreadable::Bytes));
            }
        }
        match stored.coding {
            Coding::Plain => Ok(content.into()),
            Coding::Zstd => {
                let length = usize::try_from(stored.length).unwrap_or(usize::MAX);
                let content = compress::decompress(&content, length);
                content.map(Bytes::from).ok_or(Useless::Content(id, Unreadable::Bytes))
            }
        }
    }

    fn large(
        self: &Arc<Self>,
        at: &Address,
        entry: &Arc<Entry>,
        stored: &Stored,
        proof: Arc<Proof>,
    ) -> Result<Found, Useless> {
        let Stored { id, length, .. } = *stored;
        let opener = self.seal.opener(&at.key, proof).ok_or(Useless::Damaged)?;
        let file = self.contents.open(id, length).map_err(|error| Useless::Content(id, error))?;
        Ok(Found::Large(Large::new(entry, large::Content { id, file, length, opener, tier: Arc::clone(self) })))
    }

    fn found_useless(&self, key: &Locator, useless: Useless) {
        let for_good = match useless {
            Useless::Damaged => {
                self.metrics.error("record");
                true
            }
            Useless::Content(id, error) => self.found_unreadable(id, &error),
        };
        // Something newer may be on its way.
        if for_good && self.pending.find(key).is_none() {
            self.push(*key, Op::Remove, None);
        }
    }

    /// Content cannot be had: nobody is to be sent to it any more, unless it is the whole directory that is gone.
    /// Whether it is the content.
    pub(super) fn found_unreadable(&self, id: ContentId, error: &Unreadable) -> bool {
        self.handles.condemn(id);
        let kind = match error {
            Unreadable::Missing => "missing",
            Unreadable::Length | Unreadable::Bytes => "corrupt",
            Unreadable::Io(error) => Trouble::Io(error.kind().into()).kind(),
            Unreadable::Condemned => return true,
        };
        self.metrics.error(kind);
        if !self.home.path().join("version").exists() {
            self.report(Trouble::Io(rustix::io::Errno::NOENT.into()));
            return false;
        }
        if self.contents.condemn(id) && !self.pending.ask(Control::Condemn(id)) {
            self.contents.acquit(id);
        }
        true
    }

    /// Whether content is stored that the index names, so that it has been made last.
    pub(super) fn is_stored(&self, id: ContentId, bytes: u64) -> Result<bool, Trouble> {
        let Some(index) = self.index() else { return Ok(false) };
        Ok(index.reference(id)?.is_some() && self.contents.length(id)? == Some(bytes))
    }

    /// How long a look-up may take.
    pub(super) fn lookup_timeout(&self) -> Duration {
        self.config.lookup_timeout
    }
}

/// What was found, under the head that is about to be written.
fn renewed(found: Found, pending: Option<Op>) -> Found {
    match (found, pending) {
        (Found::Large(large), Some(Op::Renew(entry, id))) if large.id() == id => Found::Large(large.under(&entry)),
        (found, _) => found,
    }
}
