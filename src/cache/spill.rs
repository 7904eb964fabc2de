//! Files for bodies too large to be held in memory while they arrive.
//!
//! They are anonymous (unlinked as soon as they are open), so no file is left behind however the process ends, and
//! together they stay below a budget. The blocks of the disk that they had are another matter: they hold what was written
//! until others write there, and so it is enciphered where nothing may be read from a stolen disk.

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

use aws_lc_rs::{
    cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    iv::FixedLength,
};
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bodies read back into memory at once, to be stored: whatever number of them is complete at the same moment.
const READ_BACK_MAX: usize = 2;

/// Bytes of a cipher's block.
const BLOCK: u64 = 16;

/// Where spilled bodies go, and how much of them there may be. Copies share the budget.
#[derive(Clone)]
pub struct Spill {
    inner: Arc<Inner>,
    enciphered: bool,
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
        Self { inner: Arc::new(Inner { directory, bytes_max, bytes, turns }), enciphered: false }
    }

    /// As it is, but that what is written to files can be read by this process alone.
    #[must_use]
    pub fn enciphered(self) -> Self {
        Self { enciphered: true, ..self }
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
        let cipher = if self.enciphered { Some(Cipher::new()?) } else { None };
        Ok(SpillFile { file, cipher, spill: self.clone(), bytes: AtomicU64::new(0) })
    }
}

/// One spilled body. Its share of the budget is given back when the last reader has gone.
pub(super) struct SpillFile {
    file: File,
    cipher: Option<Cipher>,
    spill: Spill,
    bytes: AtomicU64,
}

impl SpillFile {
    /// Writes `chunks` one after the other from `offset` on. Blocks.
    pub(super) fn write_at(&self, mut offset: u64, chunks: &[Bytes]) -> io::Result<()> {
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.reserve(len)?;
        for chunk in chunks {
            match &self.cipher {
                Some(cipher) => self.file.write_all_at(&cipher.applied(offset, chunk)?, offset)?,
                None => self.file.write_all_at(chunk, offset)?,
            }
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    /// Reads `len` bytes from `offset` on. Blocks.
    pub(super) fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        match &self.cipher {
            Some(cipher) => Ok(cipher.applied(offset, &bytes)?.into()),
            None => Ok(bytes.into()),
        }
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

/// AES-256 in counter mode, under a key that is nowhere but here. Each byte of a file is written once, and nobody else can
/// reach the file to change it, so nothing vouches for what is read.
struct Cipher(EncryptingKey);

impl Cipher {
    fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| io::Error::other("no randomness"))?;
        let key = UnboundCipherKey::new(&AES_256, &key).and_then(EncryptingKey::ctr);
        key.map(Self).map_err(|_| io::Error::other("there is no such cipher"))
    }

    /// What is written of these bytes at that offset, and the other way round.
    fn applied(&self, offset: u64, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let counter = u128::from(offset / BLOCK).to_be_bytes();
        // The first block from its start on.
        let before = usize::try_from(offset % BLOCK).map_err(io::Error::other)?;
        let mut applied = Vec::with_capacity(before + bytes.len());
        applied.resize(before, 0);
        applied.extend_from_slice(bytes);
        let context = EncryptionContext::Iv128(FixedLength::from(counter));
        self.0.less_safe_encrypt(&mut applied, context).map_err(|_| io::Error::other("could not be enciphered"))?;
        applied.drain(..before);
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn any_part_can_be_read(pieces in vec(vec(any::<u8>(), 1..100), 1..8), from: prop::sample::Index, sealed: bool) {
            let directory = tempfile::tempdir().expect("a directory");
            let spill = Spill::new(directory.path(), 1 << 20);
            let file = if sealed { spill.enciphered() } else { spill }.create().expect("room");
            let whole = pieces.concat();
            let mut offset = 0;
            for batch in pieces.chunks(2) {
                let batch: Vec<_> = batch.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
                file.write_at(offset, &batch).expect("room");
                offset += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            }
            let from = from.index(whole.len());
            prop_assert_eq!(&file.read_at(from as u64, whole.len() - from).expect("there")[..], &whole[from..]);
        }
    }

    #[test]
    fn what_is_enciphered_shows_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let spill = Spill::new(directory.path(), 1 << 20);
        let text = Bytes::from("nobody else ".repeat(20));
        for (spill, shown) in [(spill.clone(), true), (spill.enciphered(), false)] {
            let file = spill.create().expect("room");
            file.write_at(5, std::slice::from_ref(&text)).expect("room");
            let mut raw = vec![0; text.len()];
            file.file.read_exact_at(&mut raw, 5).expect("there");
            assert_eq!(raw == text, shown);
            assert_eq!(raw.windows(6).any(|window| window == b"nobody"), shown);
            assert_eq!(file.read_at(5, text.len()).expect("there"), text);
        }
    }
}
