//! What unsafe requests and fills have to know of each other by URL (RFC 9111 section 4.4): which URLs were invalidated
//! lately, and of which something is stored under keys that an unsafe request cannot tell.
//!
//! A fixed table of counters, a URL's found by its scope: a fill notes the count before its request leaves and compares
//! it when it stores. That finds every fill of a URL, whatever key it runs under and whether or not others can join it,
//! and costs a fill one load. Two URLs that share a counter invalidate each other's fills: they are then not stored, which
//! is a miss and nothing wrong.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use crate::object::scope::Scope;

/// Counters: 320 KiB. At a thousand unsafe requests a second, a fill that takes a tenth of one is lost to a stranger's
/// once in six hundred times.
const COUNTERS: usize = 1 << 16;

/// The counters.
pub(super) struct Invalidations {
    counts: Box<[AtomicU32]>,
    /// Whether something may be stored under keys that the URL alone does not give.
    scattered: Box<[AtomicBool]>,
}

/// A URL as it was at some moment.
pub(super) struct Watch {
    table: Arc<Invalidations>,
    place: usize,
    seen: u32,
}

impl Invalidations {
    pub(super) fn new() -> Arc<Self> {
        let counts = (0..COUNTERS).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { counts, scattered: (0..COUNTERS).map(|_| AtomicBool::new(false)).collect() })
    }

    /// Starts to watch a URL.
    pub(super) fn watch(self: &Arc<Self>, url: Scope) -> Watch {
        let place = place(url);
        Watch { table: Arc::clone(self), place, seen: self.counts[place].load(SeqCst) }
    }

    /// Notes that an unsafe request invalidated a URL.
    pub(super) fn note(&self, url: Scope) {
        self.counts[place(url)].fetch_add(1, SeqCst);
    }

    /// Notes that something of a URL is stored under a key that the URL alone does not give.
    pub(super) fn scatter(&self, url: Scope) {
        self.scattered[place(url)].store(true, SeqCst);
    }

    /// Whether something of a URL may be stored so; it is the caller's from now on to purge it.
    pub(super) fn gather(&self, url: Scope) -> bool {
        self.scattered[place(url)].swap(false, SeqCst)
    }
}

impl Watch {
    /// Whether the URL has been invalidated since.
    pub(super) fn is_invalidated(&self) -> bool {
        self.table.counts[self.place].load(SeqCst) != self.seen
    }
}

fn place(url: Scope) -> usize {
    // The scope is a hash already.
    (url.bits() % COUNTERS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scattered_is_gathered_once() {
        let table = Invalidations::new();
        let url = Scope::url("http://shop.example", "/a", None);
        assert!(!table.gather(url));
        table.scatter(url);
        assert!(table.gather(url));
        assert!(!table.gather(url));
    }

    #[test]
    fn what_came_before_the_watch_does_not_count() {
        let table = Invalidations::new();
        let url = Scope::url("http://shop.example", "/a", None);
        table.note(url);
        let watch = table.watch(url);
        assert!(!watch.is_invalidated());
        table.note(Scope::url("http://shop.example", "/b", None));
        assert!(!watch.is_invalidated());
        table.note(url);
        assert!(watch.is_invalidated());
        assert!(!table.watch(url).is_invalidated());
    }
}
