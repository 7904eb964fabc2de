//! What unsafe requests and fills have to know of each other by URL (RFC 9111 section 4.4): which URLs were invalidated
//! lately, and of which something is stored under keys that an unsafe request cannot tell.
//!
//! Two tables of fixed size, a URL's place found by its scope. In the first a fill notes the count before its request
//! leaves and compares it when it stores. That finds every fill of a URL, whatever key it runs under and whether or not
//! others can join it, and costs a fill one load. Two URLs that share a place invalidate each other's fills: they are then
//! not stored, which is a miss and nothing wrong.
//!
//! The second says up to which stamp something may be stored under keys that the URL does not give. Nothing is ever taken
//! out of it: whether all of that has been purged is for the log to say, which knows when a purge is applied, and for each
//! URL apart. Two URLs that share a place cost each other a purge too many at times.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use crate::{
    object::scope::{Position, Scope},
    purge::{self, Standing},
};

/// Places: 768 KiB. At a thousand unsafe requests a second, a fill that takes a tenth of one is lost to a stranger's
/// once in six hundred times.
const PLACES: usize = 1 << 16;

/// The tables.
pub(super) struct Invalidations {
    counts: Box<[AtomicU32]>,
    /// One more than the highest stamp of what was stored under keys that the URL alone does not give; 0: nothing was.
    scattered: Box<[AtomicU64]>,
}

/// A URL as it was at some moment.
pub(super) struct Watch {
    table: Arc<Invalidations>,
    place: usize,
    seen: u32,
}

impl Invalidations {
    pub(super) fn new() -> Arc<Self> {
        let counts = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { counts, scattered: (0..PLACES).map(|_| AtomicU64::new(0)).collect() })
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

    /// Notes that something of a URL, with that stamp, is about to be stored under a key that the URL alone does not give.
    pub(super) fn scatter(&self, url: Scope, stamp: Position) {
        self.scattered[place(url)].fetch_max(stamp.number().saturating_add(1), SeqCst);
    }

    /// Whether something of a URL may be stored so and not be purged: what `log` has been told and not yet applied does
    /// not count.
    pub(super) fn is_scattered(&self, url: Scope, log: &purge::Log) -> bool {
        let stamp = self.scattered[place(url)].load(SeqCst).checked_sub(1).map(Position::from_number);
        stamp.is_some_and(|stamp| log.verdict(stamp, &[url]) != Standing::Hard)
    }
}

impl Watch {
    /// Leaves one note out of account: the watcher's own, of `url`.
    pub(super) fn forgive(&mut self, url: Scope) {
        if place(url) == self.place {
            self.seen = self.seen.wrapping_add(1);
        }
    }

    /// Whether the URL has been invalidated since.
    pub(super) fn is_invalidated(&self) -> bool {
        self.table.counts[self.place].load(SeqCst) != self.seen
    }
}

fn place(url: Scope) -> usize {
    // The scope is a hash already.
    (url.bits() % PLACES as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        object::time::Timestamp,
        purge::{Config, Log, Mode, Purge, PurgeId},
    };

    fn log(directory: &Path) -> Log {
        let config = Config { fsync: false, scopes_max: 100, call_scopes_max: 10, refresh_max: 1, refresh_rate: 1 };
        Log::open(&config, directory, &mut Registry::default()).expect("a new log")
    }

    async fn purge(log: &Log, mode: Mode, url: Scope) {
        let id = PurgeId::random().expect("randomness");
        let (at, hold) = (Timestamp::EPOCH, Duration::ZERO);
        log.append(Purge { id, at, mode, scopes: vec![url], hold, note: String::new() })
            .await
            .expect("room on the disk");
    }

    #[tokio::test]
    async fn what_is_scattered_is_so_until_it_is_purged() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (log, table) = (log(directory.path()), Invalidations::new());
        let url = Scope::url("http://shop.example", "/a", None);
        assert!(!table.is_scattered(url, &log));
        table.scatter(url, log.position());
        // To be asked changes nothing: of two unsafe requests, neither relies on what the other has only begun.
        assert!(table.is_scattered(url, &log) && table.is_scattered(url, &log));
        purge(&log, Mode::Soft, url).await;
        assert!(table.is_scattered(url, &log), "a soft purge leaves it in use");
        purge(&log, Mode::Hard, url).await;
        assert!(!table.is_scattered(url, &log));
        table.scatter(url, log.position());
        assert!(table.is_scattered(url, &log), "stored after the purge");
    }

    #[tokio::test]
    async fn to_purge_one_url_is_not_to_purge_another_in_its_place() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (log, table) = (log(directory.path()), Invalidations::new());
        let (one, other) = (Scope::from_bits(7), Scope::from_bits(7 + PLACES as u64));
        table.scatter(one, log.position());
        table.scatter(other, log.position());
        purge(&log, Mode::Hard, one).await;
        assert!(!table.is_scattered(one, &log));
        assert!(table.is_scattered(other, &log));
    }

    #[test]
    fn what_is_forgiven_counts_once_and_no_more() {
        let table = Invalidations::new();
        let (own, other) = (Scope::from_bits(7), Scope::from_bits(8));
        let mut watch = table.watch(own);
        table.note(own);
        watch.forgive(own);
        table.note(other);
        watch.forgive(other);
        assert!(!watch.is_invalidated());
        table.note(own);
        assert!(watch.is_invalidated());
        watch.forgive(own);
        table.note(own);
        assert!(watch.is_invalidated(), "somebody else's, beside its own");
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
