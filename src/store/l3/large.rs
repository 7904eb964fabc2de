//! An entry whose content stays on the disk while it is sent.
//!
//! Content is read chunk by chunk and each is found right before any byte of it is handed out: what was damaged on the
//! disk breaks off and is never sent. A chunk in the page cache is read where it is asked for; one that is not, on a
//! thread for blocking work. A file removed meanwhile can be read to its end.

use std::{fs::File, io, ops::RangeInclusive, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;

use super::{
    content::{ContentId, Unreadable},
    record::{CHUNK, checksum},
    tier::Tier,
};
use crate::object::entry::Entry;

/// Why content broke off.
#[derive(Debug, thiserror::Error)]
#[error("stored content cannot be read: {0}")]
pub struct ContentError(#[from] Unreadable);

/// A stored response too long to be held in memory. Clones share the open file.
#[derive(Clone)]
pub struct Large {
    entry: Arc<Entry>,
    content: Arc<Content>,
}

pub(super) struct Content {
    pub(super) id: ContentId,
    pub(super) file: File,
    pub(super) length: u64,
    pub(super) sums: Arc<[u64]>,
    pub(super) tier: Arc<Tier>,
}

/// Reads a range of content, in order.
pub struct Pieces {
    content: Arc<Content>,
    next: u64,
    /// Behind the last byte.
    end: u64,
}

impl Large {
    pub(super) fn new(entry: Arc<Entry>, content: Content) -> Self {
        Self { entry, content: Arc::new(content) }
    }

    /// All but its content, which is empty here.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Length of the content.
    pub fn length(&self) -> u64 {
        self.content.length
    }

    /// Content from the first to the last byte of `range`, as far as there is any.
    pub fn pieces(&self, range: RangeInclusive<u64>) -> Pieces {
        let end = range.end().saturating_add(1).min(self.content.length);
        Pieces { content: Arc::clone(&self.content), next: *range.start(), end }
    }

    /// All content, in pieces.
    pub fn all(&self) -> Pieces {
        Pieces { content: Arc::clone(&self.content), next: 0, end: self.content.length }
    }

    pub(super) fn id(&self) -> ContentId {
        self.content.id
    }

    /// The same content under a new head.
    pub(super) fn under(self, entry: Arc<Entry>) -> Self {
        Self { entry, ..self }
    }
}

impl Pieces {
    /// The next piece, at most a chunk; `None` behind the last.
    pub async fn next(&mut self) -> Option<Result<Bytes, ContentError>> {
        if self.next >= self.end {
            return None;
        }
        let number = self.next / CHUNK as u64;
        let chunk = match self.content.clone().chunk(number).await {
            Ok(chunk) => chunk,
            Err(error) => {
                self.end = self.next;
                return Some(Err(self.content.found_wrong(error)));
            }
        };
        let start = number * CHUNK as u64;
        let piece = offset(self.next - start)..offset(self.end - start).min(chunk.len());
        self.next = start + piece.end as u64;
        Some(Ok(chunk.slice(piece)))
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }
}

/// An offset within a chunk, or beyond it.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Content {
    /// That chunk, found right.
    async fn chunk(self: Arc<Self>, number: u64) -> Result<Bytes, Unreadable> {
        let start = number * CHUNK as u64;
        let mut buffer = vec![0; offset(self.length - start).min(CHUNK)];
        self.tier.contents.faults.read()?;
        if read_at_once(&self.file, &mut buffer, start) {
            return self.verified(number, buffer);
        }
        let permit = Arc::clone(&self.tier.reads).acquire_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            self.file.read_exact_at(&mut buffer, start).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Unreadable::Length,
                _ => Unreadable::Io(error),
            })?;
            self.verified(number, buffer)
        });
        read.await.map_err(io::Error::other)?
    }

    fn verified(&self, number: u64, chunk: Vec<u8>) -> Result<Bytes, Unreadable> {
        let sum = usize::try_from(number).ok().and_then(|number| self.sums.get(number));
        if sum == Some(&checksum(&chunk)) { Ok(chunk.into()) } else { Err(Unreadable::Bytes) }
    }

    fn found_wrong(&self, error: Unreadable) -> ContentError {
        self.tier.found_unreadable(self.id, &error);
        ContentError(error)
    }
}

/// Fills the buffer, if that takes no waiting for the disk.
#[cfg(target_os = "linux")]
fn read_at_once(file: &File, buffer: &mut [u8], start: u64) -> bool {
    let length = buffer.len();
    let mut buffers = [io::IoSliceMut::new(buffer)];
    let read = rustix::io::preadv2(file, &mut buffers, start, rustix::io::ReadWriteFlags::NOWAIT);
    read.is_ok_and(|read| read == length)
}

#[cfg(not(target_os = "linux"))]
fn read_at_once(_: &File, _: &mut [u8], _: u64) -> bool {
    false
}
