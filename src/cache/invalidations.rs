//! Which URLs unsafe requests have invalidated lately (RFC 9111 section 4.4), as far as fills under way need to know.
//!
//! A fixed table of counters, a URL's found by its scope: a fill notes the count before its request leaves and compares
//! it when it stores. That finds every fill of a URL, whatever key it runs under and whether or not others can join it,
//! and costs a fill one load. Two URLs that share a counter invalidate each other's fills: they are then not stored, which
//! is a miss and nothing wrong.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use crate::object::scope::Scope;

/// Counters: 256 KiB. At a thousand unsafe requests a second, a fill that takes a tenth of one is lost to a stranger's
/// once in six hundred times.
const COUNTERS: usize = 1 << 16;

/// The counters.
pub(super) struct Invalidations {
    counts: Box<[AtomicU32]>,
}

/// A URL as it was at some moment.
pub(super) struct Watch {
    table: Arc<Invalidations>,
    place: usize,
    seen: u32,
}

impl Invalidations {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { counts: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect() })
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
