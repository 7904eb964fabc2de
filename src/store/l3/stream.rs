//! Content that is written while it arrives, so that a large body never has to fit in memory.
//!
//! ```text
//!  push … push      up to WHOLE_MAX in memory, then to a file beside the content; paced by `l3.write_rate`
//!  finish           the file takes its place and is made last
//!  store            then the index is to name it
//!  dropped before   the file goes, nothing was there
//! ```

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    content::{Claim, Writing},
    metrics::Drop as Dropped,
    pending::{Landed, Op},
    proof::Prover,
    record::{CHUNK, Coding, Stored, WHOLE_MAX},
    tier::Tier,
    trouble::Trouble,
};
use crate::object::{
    entry::{Entry, Unpacked},
    key::Key,
};

/// Writes the content of one entry.
pub struct Writer {
    tier: Arc<Tier>,
    key: Key,
    /// What is not in the file yet.
    held: BytesMut,
    file: Option<Box<Landing>>,
    length: u64,
    _permit: OwnedSemaphorePermit,
}

/// A file that is being written, and what its content will be found right by.
struct Landing {
    file: Writing,
    prover: Prover,
}

/// Content that is on the disk, and what is to name it. Dropped before it is stored, it leaves nothing that counts.
pub struct Finished {
    tier: Arc<Tier>,
    key: Key,
    op: Op,
}

/// The content will not be stored; the reason was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl Writer {
    pub(super) fn new(tier: Arc<Tier>, key: Key, permit: OwnedSemaphorePermit) -> Self {
        let held = BytesMut::new();
        Self { tier, key, held, file: None, length: 0, _permit: permit }
    }

    /// Appends a piece. Waits for the disk, and for the rate that is kept.
    ///
    /// # Errors
    /// Where nothing of it will be stored: drop it then.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), Stopped> {
        self.length += piece.len() as u64;
        self.tier.streaming.fetch_add(piece.len() as u64, Relaxed);
        if self.length > self.tier.object_bytes_max() {
            return Err(self.stopped(Dropped::Large));
        }
        self.held.extend_from_slice(&piece);
        if self.file.is_none() && self.held.len() as u64 <= WHOLE_MAX {
            return Ok(());
        }
        let ready = self.held.len() / CHUNK * CHUNK;
        if ready > 0 { self.write(ready).await } else { Ok(()) }
    }

    /// Brings what was written to its end, under the head of `entry`, whose own content does not count.
    pub async fn finish(mut self, entry: Unpacked) -> Option<Finished> {
        if self.file.is_none() {
            let body = std::mem::take(&mut self.held).freeze();
            let entry = Arc::new(Unpacked { body, ..entry }.pack());
            return Some(self.finished(Op::Entry(entry)));
        }
        if !self.held.is_empty() && self.write(self.held.len()).await.is_err() {
            return None;
        }
        let entry = Arc::new(Unpacked { body: Bytes::new(), ..entry }.pack());
        let (file, tier) = (self.file.take()?, Arc::clone(&self.tier));
        let length = self.length;
        let landing = tokio::task::spawn_blocking(move || land(&tier, *file, entry, length));
        match landing.await {
            Ok(Ok(landed)) => Some(self.finished(Op::Large(Arc::new(landed)))),
            Ok(Err(trouble)) => {
                self.tier.report(trouble);
                self.stopped(Dropped::Error);
                None
            }
            Err(_) => None,
        }
    }

    fn finished(&self, op: Op) -> Finished {
        Finished { tier: Arc::clone(&self.tier), key: self.key, op }
    }

    /// Bytes that were pushed.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Writes so much of what is held.
    async fn write(&mut self, bytes: usize) -> Result<(), Stopped> {
        if !self.tier.is_on() {
            return Err(self.stopped(Dropped::Off));
        }
        if !self.tier.has_room() {
            return Err(self.stopped(Dropped::Room));
        }
        let wait = self.tier.pace.lock().take(bytes as u64, Instant::now());
        tokio::time::sleep(wait).await;
        let (mut piece, file, tier) = (self.held.split_to(bytes), self.file.take(), Arc::clone(&self.tier));
        let key = self.key;
        let writing = tokio::task::spawn_blocking(move || -> Result<_, Trouble> {
            let mut file = match file {
                Some(file) => file,
                None => Box::new(Landing { file: tier.contents.start()?, prover: tier.seal.prover(&key)? }),
            };
            file.prover.chunks(&mut piece)?;
            file.file.push(&piece)?;
            Ok(file)
        });
        match writing.await {
            Ok(Ok(file)) => {
                self.file = Some(file);
                self.tier.metrics.written.inc_by(bytes as u64);
                Ok(())
            }
            Ok(Err(trouble)) => {
                self.tier.report(trouble);
                Err(self.stopped(Dropped::Error))
            }
            Err(_) => Err(self.stopped(Dropped::Error)),
        }
    }

    fn stopped(&self, reason: Dropped) -> Stopped {
        self.tier.metrics.dropped(reason);
        Stopped
    }
}

impl Finished {
    /// Stores it. Whether it is on its way; it can be found from then on.
    pub fn store(self) -> bool {
        self.tier.push(self.tier.seal.locator(&self.key), self.op, None)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tier.streaming.fetch_sub(self.length, Relaxed);
    }
}

/// Puts content in its place, unless the same is there.
fn land(tier: &Arc<Tier>, landing: Landing, entry: Arc<Entry>, length: u64) -> Result<Landed, Trouble> {
    let Landing { file, prover } = landing;
    let id = file.id();
    let claim: Arc<Claim> = tier.contents.claim(id).into();
    if tier.is_stored(id, length)? {
        tier.metrics.deduplicated.inc_by(length);
    } else {
        file.finish(&tier.contents)?;
    }
    let stored = Stored { id, bytes: length, coding: Coding::Plain, length };
    Ok(Landed { entry, stored, proof: prover.finish().into(), claim })
}
