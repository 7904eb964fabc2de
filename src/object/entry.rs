//! A stored response as every tier holds it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    freshness::Freshness,
    head::Head,
    key::Key,
    range::ContentRange,
    scope::{Position, Scope},
    time::Timestamp,
    validators::Validators,
};

/// A stored response: complete, or one part of a representation.
pub struct Entry {
    /// Identity: the primary key, or the variant's (RFC 9111 section 4.1).
    pub key: Key,
    /// The key without `Vary`.
    pub primary: Key,
    /// Position of the purge log before the request for it left.
    pub stamp: Position,
    /// What purges can reach it by.
    pub scopes: Arc<[Scope]>,
    /// URL as a client names it, to fetch it again and to explain it.
    pub url: Box<str>,
    /// Tags, separated by blanks: their fields may be hidden from clients, and so from the head.
    pub tags: Box<str>,
    /// Status and end-to-end fields.
    pub head: Head,
    /// Content, complete.
    pub body: Bytes,
    /// Which part of the representation `body` is; `None`: all of it.
    pub part: Option<ContentRange>,
    /// Deadlines.
    pub freshness: Freshness,
    /// Entity tag and modification date, parsed.
    pub validators: Validators,
    /// When it was stored.
    pub stored: Timestamp,
    /// Milliseconds the origin took from request to complete response: what regenerating it costs.
    pub fill_millis: u32,
    /// Times it was served.
    pub hits: AtomicU32,
    /// Highest purge position it was found untouched at, as a number; spares most hits the look-up of scopes.
    pub checked: AtomicU64,
}

impl Entry {
    /// Bytes of memory it takes in L1, bookkeeping included.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.head.weight()
            + self.body.len()
            + self.url.len()
            + self.tags.len()
            + size_of_val(&*self.scopes)
    }

    /// Notes that it was served.
    pub fn served(&self) {
        self.hits.fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("status", &self.head.status)
            .field("body_bytes", &self.body.len())
            .field("freshness", &self.freshness)
            .finish_non_exhaustive()
    }
}
