//! Look-ups in L3 that are under way: many requests for one key read the disk once.
//!
//! What is read counts for those only that came before anything was changed under the key or of the URL: it may have
//! been overtaken while the disk was waited for.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{changes::Changes, invalidations::Watch};
use crate::object::{entry::Entry, key::Key, vary::Variants};

const SHARDS: usize = 16;

/// What L3 had, as it is of use now.
#[derive(Clone)]
pub(super) enum Promoted {
    Entry(Arc<Entry>),
    Variants(Arc<Variants>),
}

/// One look-up.
pub(super) struct Reading {
    /// What [`Changes`] said of the key before.
    changes: u32,
    /// The URL, as it was before.
    watch: Watch,
    pub(super) result: OnceCell<Option<Promoted>>,
}

impl Reading {
    /// Whether what it brings is still what there is.
    pub(super) fn is_current(&self, key: &Key, changes: &Changes) -> bool {
        self.changes == changes.of(key) && !self.watch.is_invalidated()
    }
}

/// All that are under way.
pub(super) struct Reads {
    shards: Box<[Shard]>,
}

type Shard = Mutex<HashMap<Key, Arc<Reading>>>;

/// A place at one of them. The last one to leave takes it out of the table.
pub(super) struct Ticket<'a> {
    reads: &'a Reads,
    key: Key,
    pub(super) reading: Arc<Reading>,
}

impl Reads {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Joins the look-up of `key`, unless something was changed since it began; `watch` starts to watch its URL.
    pub(super) fn join(&self, key: Key, changes: &Changes, watch: impl FnOnce() -> Watch) -> Ticket<'_> {
        let mut shard = self.shard(&key).lock();
        let known = shard.get(&key).filter(|reading| reading.is_current(&key, changes)).cloned();
        let reading = known.unwrap_or_else(|| {
            let reading = Reading { changes: changes.of(&key), watch: watch(), result: OnceCell::new() };
            let reading = Arc::new(reading);
            shard.insert(key, Arc::clone(&reading));
            reading
        });
        Ticket { reads: self, key, reading }
    }

    fn shard(&self, key: &Key) -> &Shard {
        &self.shards[key.as_bytes()[30] as usize % SHARDS]
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut shard = self.reads.shard(&self.key).lock();
        // Others come by it only under this lock: the table's own and this one are the last.
        if Arc::strong_count(&self.reading) == 2
            && shard.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.reading))
        {
            shard.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::invalidations::Invalidations, *};
    use crate::object::scope::Scope;

    #[test]
    fn many_join_one_until_something_changes() {
        let (reads, changes, urls) = (Reads::new(), Changes::new(), Invalidations::new());
        let (key, url) = (Key::from_bytes([1; 32]), Scope::from_bits(5));
        let join = || reads.join(key, &changes, || urls.watch(url));
        let under_way = || reads.shard(&key).lock().len();
        let (first, second) = (join(), join());
        assert!(Arc::ptr_eq(&first.reading, &second.reading));
        changes.note(&key);
        let third = join();
        assert!(!Arc::ptr_eq(&first.reading, &third.reading));
        assert!(!first.reading.is_current(&key, &changes) && third.reading.is_current(&key, &changes));
        urls.note(url);
        assert!(!third.reading.is_current(&key, &changes));
        let fourth = join();
        assert!(!Arc::ptr_eq(&third.reading, &fourth.reading));
        drop((first, second, third));
        assert_eq!(under_way(), 1, "an older one takes no newer one along");
        drop(fourth);
        assert_eq!(under_way(), 0);
    }
}
