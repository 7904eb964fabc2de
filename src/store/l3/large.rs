//! An entry whose content stays on the disk while it is sent.
//!
//! Each chunk of the content is found right before any byte of it is handed out: what was damaged on the disk breaks off
//! and is never sent. Chunks in the page cache are read where they are asked for, some at a time; one that is not there,
//! on a thread for blocking work. A file removed meanwhile can be read to its end.

use std::{
    fmt,
    fs::File,
    future::poll_fn,
    io,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    buffers::Buffer,
    content::{ContentId, Unreadable},
    proof::Opener,
    record::CHUNK,
    tier::Tier,
};
use crate::object::entry::{Elsewhere, Entry, Unpacked};

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
    pub(super) opener: Opener,
    pub(super) tier: Arc<Tier>,
}

/// Reads a range of content, in order.
pub struct Pieces {
    content: Arc<Content>,
    next: u64,
    /// Behind the last byte.
    end: u64,
    /// Whether the disk had to be waited for.
    cold: bool,
    /// A chunk that the disk is waited for.
    reading: Option<Pin<Box<Reading>>>,
}

type Reading = dyn Future<Output = Result<Bytes, Unreadable>> + Send;

impl Large {
    pub(super) fn new(entry: &Arc<Entry>, content: Content) -> Self {
        let content = Arc::new(content);
        Self { entry: with_content(entry, &content), content }
    }

    /// The content that `entry` has on the disk.
    pub fn of(entry: &Arc<Entry>) -> Option<Self> {
        let content = entry.elsewhere()?.handle()?;
        Some(Self { entry: Arc::clone(entry), content })
    }

    /// The entry: its content lies elsewhere, which is to say here.
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
        Pieces { content: Arc::clone(&self.content), next: *range.start(), end, cold: false, reading: None }
    }

    /// All content, in pieces.
    pub fn all(&self) -> Pieces {
        Pieces { content: Arc::clone(&self.content), next: 0, end: self.content.length, cold: false, reading: None }
    }

    pub(super) fn id(&self) -> ContentId {
        self.content.id
    }

    /// The same content under a new head.
    pub(super) fn under(self, entry: &Arc<Entry>) -> Self {
        Self { entry: with_content(entry, &self.content), ..self }
    }
}

/// The same entry, with that content.
fn with_content(entry: &Arc<Entry>, content: &Arc<Content>) -> Arc<Entry> {
    let handle = Arc::clone(content);
    let elsewhere = Some(Elsewhere::new(content.length, handle));
    Arc::new(Unpacked { elsewhere, ..entry.under(entry.head.clone()) }.pack())
}

impl Pieces {
    /// The next piece, some chunks at most; `None` behind the last.
    pub async fn next(&mut self) -> Option<Result<Bytes, ContentError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Pieces::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ContentError>>> {
        if self.next >= self.end {
            return Poll::Ready(None);
        }
        let number = self.next / CHUNK as u64;
        Poll::Ready(Some(match ready!(self.poll_chunk(number, cx)) {
            Ok(chunk) => {
                let start = number * CHUNK as u64;
                let piece = offset(self.next - start)..offset(self.end - start).min(chunk.len());
                self.next = start + piece.end as u64;
                Ok(chunk.slice(piece))
            }
            Err(error) => {
                self.end = self.next;
                Err(self.content.found_wrong(error))
            }
        }))
    }

    fn poll_chunk(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, Unreadable>> {
        if self.reading.is_none() {
            // A file that is in the page cache in part only is read chunk by chunk.
            let most = if self.cold { CHUNK } else { Buffer::largest() };
            if let Some(chunks) = self.content.at_once(number, self.end, most).transpose() {
                return Poll::Ready(chunks);
            }
            self.cold = true;
        }
        let content = &self.content;
        let reading = self.reading.get_or_insert_with(|| Box::pin(Arc::clone(content).chunk(number)));
        let chunk = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(chunk)
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").field("next", &self.next).field("end", &self.end).finish_non_exhaustive()
    }
}

/// An offset within a chunk, or beyond it.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Content {
    /// That chunk and those after it, up to the one that holds the last byte before `end`, or `most` bytes; found right, if
    /// that takes no waiting for the disk.
    fn at_once(&self, number: u64, end: u64, most: usize) -> Result<Option<Bytes>, Unreadable> {
        self.tier.contents.faults.read()?;
        let start = number * CHUNK as u64;
        let wanted = offset(end.next_multiple_of(CHUNK as u64).min(self.length) - start);
        let mut buffer = Buffer::new(wanted.min(most));
        if read_at_once(&self.file, buffer.as_mut(), start) {
            self.verified(number, buffer).map(Some)
        } else {
            Ok(None)
        }
    }

    /// That chunk, found right.
    async fn chunk(self: Arc<Self>, number: u64) -> Result<Bytes, Unreadable> {
        let permit = Arc::clone(&self.tier.reads).acquire_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let start = number * CHUNK as u64;
            let mut buffer = Buffer::new(offset(self.length - start).min(CHUNK));
            self.file.read_exact_at(buffer.as_mut(), start).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Unreadable::Length,
                _ => Unreadable::Io(error),
            })?;
            self.verified(number, buffer)
        });
        read.await.map_err(io::Error::other)?
    }

    /// What is in the buffer, in clear, if its chunks, of which the first has that number, are what was written.
    fn verified(&self, number: u64, mut buffer: Buffer) -> Result<Bytes, Unreadable> {
        let first = usize::try_from(number).unwrap_or(usize::MAX);
        if self.opener.chunks(first, buffer.as_mut()) { Ok(Bytes::from_owner(buffer)) } else { Err(Unreadable::Bytes) }
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
