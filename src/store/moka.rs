//! The LRU and LFU engine: moka, which keeps exact order at several times the price of a lookup.
//!
//! moka applies writes in the background of later ones; here each write applies at once, so that the limit holds.

use ::moka::{notification::RemovalCause, policy::EvictionPolicy, sync::Cache};

use super::{Slot, hasher::KeyHash, metrics::Metrics};
use crate::object::key::Key;

/// Bookkeeping of one slot in bytes, measured as for the other engine, with either policy and also once the tier was
/// replaced several times over (340 to 400).
const OVERHEAD: u64 = 384;

pub(super) struct Moka {
    cache: Cache<Key, Slot, KeyHash>,
}

impl Moka {
    pub(super) fn lru(max_bytes: u64, metrics: &Metrics) -> Self {
        Self::new(EvictionPolicy::lru(), max_bytes, metrics)
    }

    pub(super) fn lfu(max_bytes: u64, metrics: &Metrics) -> Self {
        Self::new(EvictionPolicy::tiny_lfu(), max_bytes, metrics)
    }

    fn new(policy: EvictionPolicy, max_bytes: u64, metrics: &Metrics) -> Self {
        let metrics = metrics.clone();
        let cache = Cache::builder()
            .eviction_policy(policy)
            .max_capacity(max_bytes)
            .weigher(|_, slot: &Slot| u32::try_from(slot.weight() + OVERHEAD).unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| match cause {
                RemovalCause::Size | RemovalCause::Expired => drop(metrics.evicted.inc()),
                RemovalCause::Replaced => drop(metrics.replaced.inc()),
                // Counted by whoever removes, who knows whether it was one or all.
                RemovalCause::Explicit => {}
            })
            .build_with_hasher(KeyHash::new());
        Self { cache }
    }

    /// moka counts the weight of a slot in 32 bits.
    pub(super) fn object_bytes_max(max_bytes: u64) -> u64 {
        max_bytes.min(u64::from(u32::MAX)).saturating_sub(OVERHEAD)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Slot> {
        self.cache.get(key)
    }

    pub(super) fn put(&self, key: Key, slot: Slot) {
        self.cache.insert(key, slot);
        self.cache.run_pending_tasks();
    }

    pub(super) fn remove(&self, key: &Key) -> bool {
        let removed = self.cache.remove(key).is_some();
        self.cache.run_pending_tasks();
        removed
    }

    pub(super) fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    pub(super) fn len(&self) -> u64 {
        self.cache.entry_count()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    pub(super) fn look_through(&self, max: usize, visit: &mut dyn FnMut(&Slot)) -> bool {
        let mut slots = self.cache.iter();
        slots.by_ref().take(max).for_each(|(_, slot)| visit(&slot));
        slots.next().is_none()
    }
}
