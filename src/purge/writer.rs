//! The thread that owns the write-ahead file.
//!
//! It takes all purges that wait, writes them in one go, makes them durable with one fsync, applies them and only then
//! answers. The order of the last steps is what readers rely on: watermarks, then position, then receipts.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Release},
    },
};

use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    frame,
    mark::Mark,
    metrics::Metrics,
    recent::{Known, Recent},
    record::{self, Record},
    recovery::{self, Files, Recovered},
    snapshot,
    types::{Purge, PurgeError, PurgeId, Receipt},
    wal::Wal,
    watermarks::Watermarks,
};
use crate::object::scope::Position;

/// Purges that may wait for the writer; more wait for a place.
pub(super) const QUEUE: usize = 1024;

/// Limits of one group: requests looked at, and bytes one fsync has to wait for.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 1 << 20;

/// The write-ahead file is compacted at this length, or at twice that of the last snapshot: however large the table is,
/// the cost per purge stays the same.
const COMPACT_BYTES: u64 = 4 << 20;

/// What readers see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) table: RwLock<Watermarks>,
    /// Written after the table, read before it.
    pub(super) position: AtomicU64,
    pub(super) metrics: Metrics,
}

/// A purge on its way to the writer.
pub(super) struct Request {
    pub(super) purge: Purge,
    /// Its place in the log of the fleet, if it comes from there.
    pub(super) mark: Option<Mark>,
    pub(super) waiting: Waiting,
}

/// Who waits for the receipt of a purge.
pub(super) struct Waiting {
    pub(super) start: Instant,
    pub(super) reply: oneshot::Sender<Result<Receipt, PurgeError>>,
}

impl Waiting {
    /// Whoever no longer waits does not need the answer; the purge is done all the same.
    fn answer(self, answer: Result<Receipt, PurgeError>) {
        let _ = self.reply.send(answer);
    }
}

/// Owner of the file.
pub(super) struct Writer {
    shared: Arc<Shared>,
    files: Files,
    fsync: bool,
    wal: Wal,
    recent: Recent,
    position: Position,
    /// The last record of the fleet's log that was applied.
    mark: Option<Mark>,
    compact_at: u64,
}

/// Purges that share an fsync.
#[derive(Default)]
struct Group {
    records: Vec<(Record, Waiting)>,
    ids: HashSet<PurgeId>,
    frames: Vec<u8>,
}

impl Writer {
    /// Takes over what was recovered; the rest is for readers.
    pub(super) fn new(recovered: Recovered, files: Files, fsync: bool, metrics: Metrics) -> (Self, Arc<Shared>) {
        let Recovered { table, recent, position, wal, mark, is_new: _ } = recovered;
        let shared = Arc::new(Shared { table: RwLock::new(table), position: position.number().into(), metrics });
        let compact_at = COMPACT_BYTES;
        let writer = Self { shared: shared.clone(), files, fsync, wal, recent, position, mark, compact_at };
        writer.measure();
        (writer, shared)
    }

    /// Works until nobody can send any more.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| requests.blocking_recv()) {
            let mut group = Group::default();
            next = self.gather(&mut group, first, &mut requests);
            self.commit(group);
            if self.wal.length() >= self.compact_at {
                self.compact();
            }
        }
    }

    /// Fills the group with what waits. Returns what has to wait for the next: a purge with the id of one in the group.
    fn gather(&self, group: &mut Group, first: Request, requests: &mut mpsc::Receiver<Request>) -> Option<Request> {
        let mut next = Some(first);
        for _ in 0..GROUP_MAX {
            let Some(request) = next.take() else { break };
            if group.ids.contains(&request.purge.id) {
                return Some(request);
            }
            self.admit(group, request);
            if group.frames.len() < GROUP_BYTES_MAX {
                next = requests.try_recv().ok();
            }
        }
        next
    }

    /// Adds a purge to the group, or answers one that is known.
    fn admit(&self, group: &mut Group, Request { purge, mark, waiting }: Request) {
        if let Some(known) = self.recent.find(&purge.id) {
            let answer = known.answer(record::digest(purge.mode, purge.hold, &purge.scopes));
            // What the fleet's log holds counts, whatever its id was used for here.
            if mark.is_none() || answer.is_ok() {
                self.shared.metrics.repeated.inc();
                return waiting.answer(answer);
            }
        }
        group.ids.insert(purge.id);
        let position = group.records.last().map_or(self.position, |(record, _)| record.position).next();
        let record = Record::new(position, purge, mark);
        frame::push(&mut group.frames, &record.encode());
        group.records.push((record, waiting));
    }

    fn commit(&mut self, group: Group) {
        if group.records.is_empty() {
            return;
        }
        match self.wal.append(&group.frames) {
            Ok(fsync) => {
                self.shared.metrics.fsync.observe(fsync.as_secs_f64());
                self.apply(group);
            }
            Err(error) => self.fail(group, error),
        }
        self.measure();
    }

    fn apply(&mut self, group: Group) {
        let folds: u64 = {
            let mut table = self.shared.table.write();
            group.records.iter().map(|(record, _)| table.apply(record)).sum()
        };
        self.shared.metrics.folds.inc_by(folds);
        self.position = group.records.last().map_or(self.position, |(record, _)| record.position);
        self.shared.position.store(self.position.number(), Release);
        self.mark = group.records.iter().rev().find_map(|(record, _)| record.mark).or(self.mark);
        for (record, waiting) in group.records {
            self.shared.metrics.done(record.mode, record.scopes.len());
            let known = Known::new(&record, waiting.start.elapsed());
            self.recent.remember(known);
            waiting.answer(Ok(known.receipt));
        }
    }

    fn fail(&self, group: Group, error: io::Error) {
        tracing::error!(file = ?self.wal.path(), %error, purges = group.records.len(), "purge log: cannot write");
        let source = Arc::new(error);
        for (_, waiting) in group.records {
            self.shared.metrics.failures.inc();
            let error = PurgeError::Write { path: self.wal.path().to_owned(), source: source.clone() };
            waiting.answer(Err(error));
        }
    }

    fn compact(&mut self) {
        let compacted = {
            let table = self.shared.table.read();
            self.compact_at = COMPACT_BYTES.max(2 * snapshot::bytes(&table));
            let snapshot = snapshot::encode(self.position, &table, &self.recent, self.mark.as_ref());
            recovery::compact(&self.files, self.position, &snapshot, self.fsync)
        };
        match compacted {
            Ok(wal) => {
                self.wal = wal;
                self.shared.metrics.compactions.inc();
            }
            Err(error) => {
                self.compact_at = self.compact_at.max(2 * self.wal.length());
                self.shared.metrics.compaction_failures.inc();
                tracing::warn!(%error, "purge log: not compacted");
            }
        }
        self.measure();
    }

    fn measure(&self) {
        let metrics = &self.shared.metrics;
        metrics.wal_bytes.set(self.wal.length());
        metrics.table_scopes.set(self.shared.table.read().len() as u64);
        metrics.position.set(self.position.number());
    }
}
