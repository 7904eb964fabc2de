//! What the log knows after a start: snapshot, then write-ahead file, then a fresh snapshot.
//!
//! Where something is missing that may have been acknowledged, everything filled before counts as hard-purged: the log
//! goes on in the next epoch, and the floor is raised to its beginning. That costs misses and serves nothing wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    config::Config,
    mark::Mark,
    metrics::Metrics,
    recent::{Known, Recent},
    record::Record,
    snapshot::{self, Snapshot},
    wal::{Replay, Wal},
    watermarks::{Watermark, Watermarks},
};
use crate::{files, object::scope::Position};

/// Names of the files.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) wal: PathBuf,
    pub(super) snapshot: PathBuf,
    pub(super) runs: PathBuf,
}

impl Files {
    pub(super) fn of(data_dir: &Path) -> Self {
        let dir = data_dir.join("purge");
        Self { wal: dir.join("wal"), snapshot: dir.join("snapshot"), runs: dir.join("runs") }
    }
}

/// The log as it was left.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) table: Watermarks,
    pub(super) recent: Recent,
    pub(super) position: Position,
    pub(super) wal: Wal,
    pub(super) mark: Option<Mark>,
    /// Whether there was nothing to read.
    pub(super) is_new: bool,
}

/// Reads what there is, repairs it and makes it compact.
pub(super) fn recover(files: &Files, config: &Config, metrics: &Metrics) -> io::Result<Recovered> {
    let found = Found::read(files)?;
    let mut state = State::new(config.scopes_max);
    let sound = state.restore(&found, metrics);
    if !sound {
        state.distrust();
        metrics.damaged.inc();
        tracing::warn!(file = ?files.wal, "purge log: damaged; everything stored before counts as purged");
        files::keep_damaged(&files.wal)?;
        files::keep_damaged(&files.snapshot)?;
    }
    let State { table, recent, position, mark } = state;
    let wal = match &found.replay {
        // Nothing was purged since the snapshot: the file can be used as it is.
        Some(replay) if sound && replay.records.is_empty() => Wal::open(&files.wal, replay.good, config.fsync)?,
        None if sound => Wal::create(&files.wal, position, config.fsync)?,
        replay => {
            match compact(files, position, &snapshot::encode(position, &table, &recent, mark.as_ref()), config.fsync) {
                Ok(wal) => wal,
                // A sound file will do for now; a damaged one must not be appended to.
                Err(error) if sound => {
                    metrics.compaction_failures.inc();
                    tracing::warn!(%error, "purge log: not compacted");
                    Wal::open(&files.wal, replay.as_ref().map_or(0, |replay| replay.good), config.fsync)?
                }
                Err(error) => return Err(error),
            }
        }
    };
    let is_new = found.snapshot.is_none() && found.replay.is_none();
    Ok(Recovered { table, recent, position, wal, mark, is_new })
}

/// Writes a snapshot and begins a new write-ahead file. A crash in between leaves the old file, whose records are then
/// known already.
pub(super) fn compact(files: &Files, position: Position, snapshot: &[u8], fsync: bool) -> io::Result<Wal> {
    files::replace(&files.snapshot, snapshot, fsync)?;
    if fsync {
        files::sync_dir(&files.snapshot)?;
    }
    Wal::create(&files.wal, position, fsync)
}

/// What the files hold.
struct Found {
    /// `Some(None)`: there is one that cannot be read.
    snapshot: Option<Option<Snapshot>>,
    replay: Option<Replay>,
}

impl Found {
    fn read(files: &Files) -> io::Result<Self> {
        let snapshot = files::read(&files.snapshot)?;
        let wal = files::read(&files.wal)?;
        Ok(Self {
            snapshot: snapshot.map(|content| snapshot::decode(&content)),
            replay: wal.map(|content| Replay::of(&content)),
        })
    }
}

struct State {
    table: Watermarks,
    recent: Recent,
    position: Position,
    mark: Option<Mark>,
}

impl State {
    fn new(scopes_max: usize) -> Self {
        Self { table: Watermarks::new(scopes_max), recent: Recent::default(), position: Position::START, mark: None }
    }

    /// Applies all that can be read. Returns whether that is all there ever was.
    fn restore(&mut self, found: &Found, metrics: &Metrics) -> bool {
        let snapshot_sound = match &found.snapshot {
            Some(Some(snapshot)) => {
                self.restore_snapshot(snapshot);
                true
            }
            Some(None) => false,
            None => true,
        };
        let Some(replay) = &found.replay else {
            // The two are always there together, except before the very first purge.
            return found.snapshot.is_none();
        };
        let gapless = replay.base <= self.position;
        self.position = self.position.max(replay.base);
        self.replay(replay, metrics);
        snapshot_sound && gapless && !replay.damaged
    }

    fn restore_snapshot(&mut self, snapshot: &Snapshot) {
        self.position = snapshot.position;
        self.mark = snapshot.mark;
        self.table.raise_floor(snapshot.floor);
        for &(scope, watermark) in &snapshot.scopes {
            self.table.raise(scope, watermark);
        }
        snapshot.recent.iter().for_each(|&known| self.recent.remember(known));
    }

    fn replay(&mut self, replay: &Replay, metrics: &Metrics) {
        if replay.bad > 0 && !replay.damaged {
            metrics.torn.inc();
            tracing::warn!(bytes = replay.bad, "purge log: dropped a record that was never finished");
        }
        let unknown = replay.records.iter().filter(|record| record.position > self.position);
        for record in unknown.collect::<Vec<&Record>>() {
            self.table.apply(record);
            self.recent.remember(Known::new(record, std::time::Duration::ZERO));
            self.position = record.position;
            self.mark = record.mark.or(self.mark);
            metrics.replayed.inc();
        }
    }

    /// Begins the next epoch and trusts nothing from before.
    fn distrust(&mut self) {
        let epoch = (self.position.number() >> 48) + 1;
        let begin = epoch.checked_mul(1 << 48).map_or(self.position.next(), Position::from_number);
        self.position = begin;
        // What the log of the fleet held is to be applied anew.
        self.mark = None;
        self.table.raise_floor(Watermark { hard: begin, ..Watermark::default() });
    }
}
