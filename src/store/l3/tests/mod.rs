//! The tier as its users see it, on directories and disks of all kinds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::*;
use crate::{
    object::{
        entry::Unpacked,
        freshness::Freshness,
        scope::{Position, Scope},
        testing,
    },
    store::testing::key,
};

mod bounds;
mod crash;
mod damage;
mod enciphered;
mod failing;
mod operating;
mod scale;
mod storing;

const SECRET: [u8; 32] = [7; 32];

const MIB: u64 = 1 << 20;

/// A directory, and what the tier in it is told.
struct Disk {
    directory: TempDir,
    config: L3Config,
    secret: [u8; 32],
    millis: Arc<AtomicU64>,
    faults: Arc<Faults>,
}

fn config() -> L3Config {
    L3Config {
        max_bytes: ByteSize::gib(1),
        entries_max: 1_000_000,
        object_bytes_max: ByteSize::mib(64),
        free_bytes_min: ByteSize(0),
        write_rate: ByteSize(0),
        scrub_rate: ByteSize(0),
        policy: L3Policy::Lru,
        admission: Admission::All,
        compression: true,
        queue_max: 10_000,
        queue_bytes_max: ByteSize::mib(64),
        preload_max: 0,
        threads: 4,
        lookup_timeout: Duration::from_secs(30),
        index_memory_bytes: ByteSize::mib(8),
        readable_index: false,
        encrypt: false,
    }
}

/// A process that a test starts holds the locks of all others from its fork until it is another program.
fn patiently<T>(mut open: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let mut opened = open();
    for _ in 0..500 {
        match &opened {
            Err(OpenError::Directory(error)) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
            _ => break,
        }
        std::thread::park_timeout(Duration::from_millis(10));
        opened = open();
    }
    opened
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let millis = Arc::new(AtomicU64::new(1_800_000_000_000));
        Self { directory, config: config(), secret: SECRET, millis, faults: Arc::default() }
    }

    fn with(change: impl FnOnce(&mut L3Config)) -> Self {
        let mut disk = Self::new();
        change(&mut disk.config);
        disk
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("l3")
    }

    fn open(&self) -> L3 {
        patiently(|| self.try_open()).expect("opened")
    }

    fn try_open(&self) -> Result<L3, OpenError> {
        let millis = Arc::clone(&self.millis);
        let now: Now = Box::new(move || Timestamp::from_millis(millis.load(Relaxed)));
        let faults = Arc::clone(&self.faults);
        L3::start(&self.config, &self.path(), &self.secret, now, &mut Registry::default(), faults, Upkeep::ByItself)
    }

    fn pass(&self, seconds: u64) {
        self.millis.fetch_add(seconds * 1000, Relaxed);
    }
}

fn unpacked(n: u64, body: impl Into<Bytes>) -> Unpacked {
    Unpacked { body: body.into(), ..testing::unpacked(key(n), Position::START, &[Scope::key(&key(n))]) }
}

fn entry(n: u64, body: impl Into<Bytes>) -> Arc<Entry> {
    Arc::new(unpacked(n, body).pack())
}

/// Of no use after so many seconds from the first `now` of a test.
fn keep(entry: Unpacked, seconds: u64) -> Unpacked {
    let keep_until = Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
    Unpacked { freshness: Freshness { keep_until, ..entry.freshness }, ..entry }
}

/// Bytes that nothing makes shorter, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Content of what was found, to its last byte.
async fn content(found: Option<Found>) -> Option<Vec<u8>> {
    match found? {
        Found::Entry(entry) => Some(entry.content().to_vec()),
        Found::Large(large) => read(large.all()).await,
        Found::Variants(_) => None,
    }
}

async fn read(mut pieces: Pieces) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    while let Some(piece) = pieces.next().await {
        content.extend_from_slice(&piece.ok()?);
    }
    Some(content)
}

async fn found(l3: &L3, n: u64) -> Option<Vec<u8>> {
    content(l3.lookup(&key(n)).await).await
}

/// Waits until something holds that another thread is about to bring about.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{what}: in vain");
}
