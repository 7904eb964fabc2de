//! The write-ahead file: a header and one frame per purge since the snapshot, in order, without gaps.
//!
//! ```text
//!  "LDRPURG1" │ position the first record follows │ check │ frame │ frame …
//! ```
//!
//! An append that fails leaves the file as it was: what it wrote is cut off, at once or before the next append.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    frame,
    record::Record,
    wire::{Fields, Put, checksum},
};
use crate::{files, object::scope::Position};

const MAGIC: [u8; 8] = *b"LDRPURG1";
const HEADER: u64 = 24;

/// What a file was found to hold.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Position the first record follows.
    pub(super) base: Position,
    pub(super) records: Vec<Record>,
    /// Bytes that are good.
    pub(super) good: u64,
    /// Bytes after them.
    pub(super) bad: u64,
    /// Whether an acknowledged record may be among the bad bytes.
    pub(super) damaged: bool,
}

impl Replay {
    /// Reads the records of a file, up to the first that cannot be read.
    pub(super) fn of(content: &[u8]) -> Self {
        let mut replay = Self::default();
        let mut rest = content;
        match header(&mut rest) {
            Some(base) => replay.records_of(base, &mut rest),
            None => replay.damaged = true,
        }
        replay.good = (content.len() - rest.len()) as u64;
        replay.bad = rest.len() as u64;
        replay
    }

    fn records_of(&mut self, base: Position, rest: &mut &[u8]) {
        self.base = base;
        let mut expected = base.next();
        loop {
            let record = match frame::next(rest) {
                frame::Next::End | frame::Next::Torn => return,
                frame::Next::Damaged => None,
                frame::Next::Frame(payload, after) => Record::decode(payload).map(|record| (record, after)),
            };
            let Some((record, after)) = record.filter(|(record, _)| record.position == expected) else {
                self.damaged = true;
                return;
            };
            self.records.push(record);
            *rest = after;
            expected = expected.next();
        }
    }
}

fn header(bytes: &mut &[u8]) -> Option<Position> {
    let mut fields = Fields(bytes);
    let start = fields.bytes(16)?;
    let base = start.strip_prefix(&MAGIC).and_then(|base| Fields(base).u64())?;
    (fields.array()? == checksum::<8>(&[start])).then(|| *bytes = fields.0)?;
    Some(Position::from_number(base))
}

/// The open file.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    file: File,
    /// Length up to the last good frame.
    length: u64,
    /// Whether there may be more in the file than `length`.
    overhang: bool,
    /// Whether the file's name is known to survive a power failure.
    settled: bool,
    fsync: bool,
    /// Bytes the disk still takes.
    #[cfg(test)]
    pub(super) room: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Wal {
    /// Puts an empty file in place of `path`; its first record will follow `base`.
    pub(super) fn create(path: &Path, base: Position, fsync: bool) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        header.put_u64(base.number());
        header.put(&checksum::<8>(&[&header.clone()]));
        Ok(Self::new(path, files::replace(path, &header, fsync)?, HEADER, fsync))
    }

    /// Opens a file that is good up to `length`.
    pub(super) fn open(path: &Path, length: u64, fsync: bool) -> io::Result<Self> {
        let mut wal = Self::new(path, files::open(path)?, length, fsync);
        wal.overhang = true;
        Ok(wal)
    }

    fn new(path: &Path, file: File, length: u64, fsync: bool) -> Self {
        Self {
            path: path.to_owned(),
            file,
            length,
            overhang: false,
            settled: false,
            fsync,
            #[cfg(test)]
            room: std::sync::Arc::new(usize::MAX.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends `frames`, all or none. Returns how long making them durable took.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<Duration> {
        self.settle()?;
        self.cut()?;
        self.overhang = true;
        let written = self.write(frames).and_then(|()| self.sync());
        match written {
            Ok(_) => {
                self.length += frames.len() as u64;
                self.overhang = false;
            }
            // If this fails too, the next append tries again first.
            Err(_) => drop(self.cut()),
        }
        written
    }

    /// Without this, a power failure could bring back the file that this one replaced.
    fn settle(&mut self) -> io::Result<()> {
        if !self.settled && self.fsync {
            files::sync_dir(&self.path)?;
        }
        self.settled = true;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.overhang {
            self.file.set_len(self.length)?;
            self.overhang = false;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        #[cfg(test)]
        if self.room.load(std::sync::atomic::Ordering::Relaxed) < bytes.len() {
            self.file.write_all(&bytes[..self.room.load(std::sync::atomic::Ordering::Relaxed)])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<Duration> {
        let start = Instant::now();
        if self.fsync {
            self.file.sync_data()?;
        }
        Ok(start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::atomic::Ordering::Relaxed};

    use super::*;
    use crate::{
        object::{scope::Scope, time::Timestamp},
        purge::{Mode, Purge, PurgeId},
    };

    fn frame(position: u64) -> Vec<u8> {
        let purge = Purge {
            id: PurgeId::named(&position.to_string()),
            at: Timestamp::EPOCH,
            mode: Mode::Hard,
            scopes: vec![Scope::from_bits(position)],
            hold: Duration::ZERO,
            note: String::new(),
        };
        let mut out = Vec::new();
        frame::push(&mut out, &Record::new(Position::from_number(position), purge, None).encode());
        out
    }

    fn replay(path: &Path) -> Replay {
        Replay::of(&fs::read(path).expect("readable"))
    }

    #[test]
    fn a_failed_append_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("wal");
        let mut wal = Wal::create(&path, Position::START, true).expect("created");
        wal.append(&frame(1)).expect("room");
        wal.room.store(20, Relaxed);
        assert_eq!(wal.append(&frame(2)).expect_err("full").kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::metadata(&path).expect("there").len(), wal.length());
        wal.room.store(usize::MAX, Relaxed);
        wal.append(&frame(2)).expect("room again");
        let replay = replay(&path);
        assert_eq!((replay.records.len(), replay.bad, replay.damaged), (2, 0, false));
    }

    #[test]
    fn what_a_crash_left_is_cut_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("wal");
        drop(Wal::create(&path, Position::from_number(7), true).expect("created"));
        let mut content = fs::read(&path).expect("readable");
        content.extend(&frame(8)[..30]);
        fs::write(&path, content).expect("written");
        let found = replay(&path);
        assert_eq!((found.base.number(), found.good, found.bad, found.damaged), (7, HEADER, 30, false));
        Wal::open(&path, found.good, true).expect("opened").append(&frame(8)).expect("room");
        assert_eq!((replay(&path).records.len(), replay(&path).bad), (1, 0));
    }

    #[test]
    fn a_missing_record_is_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("wal");
        let mut wal = Wal::create(&path, Position::START, true).expect("created");
        wal.append(&[frame(1), frame(3)].concat()).expect("room");
        assert_eq!((replay(&path).records.len(), replay(&path).damaged), (1, true));
    }
}
