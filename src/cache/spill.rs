//! Files for bodies too large to be held in memory while they arrive.
//!
//! They are anonymous (unlinked as soon as they are open), so nothing is left behind however the process ends, and
//! together they stay below a budget.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bodies read back into memory at once, to be stored: whatever number of them is complete at the same moment.
const READ_BACK_MAX: usize = 2;

/// Where spilled bodies go, and how much of them there may be. Copies share the budget.
#[derive(Clone)]
pub struct Spill {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    bytes_max: u64,
    bytes: AtomicU64,
    turns: Semaphore,
}

impl Spill {
    /// Files in `directory`, which is created when first needed; `bytes_max` together.
    pub fn new(directory: &Path, bytes_max: u64) -> Self {
        let (directory, bytes, turns) = (directory.to_owned(), AtomicU64::new(0), Semaphore::new(READ_BACK_MAX));
        Self { inner: Arc::new(Inner { directory, bytes_max, bytes, turns }) }
    }

    /// Waits for the turn to read a whole body back.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.turns.acquire().await.ok()
    }

    /// Bytes in spill files now.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.load(Relaxed)
    }

    /// A new, empty file.
    pub(super) fn create(&self) -> io::Result<SpillFile> {
        if self.bytes() >= self.inner.bytes_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        std::fs::create_dir_all(&self.inner.directory)?;
        let file = tempfile::tempfile_in(&self.inner.directory)?;
        Ok(SpillFile { file, spill: self.clone(), bytes: AtomicU64::new(0) })
    }
}

/// One spilled body. Its share of the budget is given back when the last reader has gone.
pub(super) struct SpillFile {
    file: File,
    spill: Spill,
    bytes: AtomicU64,
}

impl SpillFile {
    /// Writes `chunks` one after the other from `offset` on. Blocks.
    pub(super) fn write_at(&self, mut offset: u64, chunks: &[Bytes]) -> io::Result<()> {
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.reserve(len)?;
        for chunk in chunks {
            self.file.write_all_at(chunk, offset)?;
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    /// Reads `len` bytes from `offset` on. Blocks.
    pub(super) fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let budget = &self.spill.inner;
        if budget.bytes.fetch_add(len, Relaxed) + len > budget.bytes_max {
            budget.bytes.fetch_sub(len, Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.fetch_add(len, Relaxed);
        Ok(())
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.spill.inner.bytes.fetch_sub(self.bytes.load(Relaxed), Relaxed);
    }
}
