//! The S3-FIFO engine: `quick_cache`, sharded, one short read lock of a shard per lookup.
//!
//! Its limit is per shard: a shard of `max_bytes / shards` refuses, silently, what is heavier than [`HOT_SHARE`] of it.
//! So the number of shards is chosen such that the largest admitted object fits into one ([`shards`]); a large
//! `object_share_max` costs parallelism, not objects.

use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::{Slot, hasher::KeyHash, metrics::Metrics};
use crate::object::key::Key;

/// Bookkeeping of one slot in bytes. Its place in the slab of `quick_cache` is 40, its share of the table 9 to 11; the
/// rest is what the allocator keeps of its pages and what they lose when sizes change, measured as growth of the resident
/// set (`examples/fill.rs`).
pub(super) const OVERHEAD: u64 = 80;

/// Share of a shard for slots seen more than once; also the largest single slot. What was just stored has the rest: so
/// much of the shard is stored before it has to have been asked for again (docs/ARCHITECTURE.md, "Choices").
const HOT_SHARE: f64 = 0.85;

/// A guess, good to an order of magnitude: sizes the list of ghosts, half as many as this makes of `max_bytes`.
const AVERAGE_BYTES: u64 = 8 * 1024;

pub(super) struct Quick {
    cache: Cache<u64, Slot, Weigher, KeyHash, Departures>,
    metrics: Metrics,
}

impl Quick {
    pub(super) fn new(max_bytes: u64, object_bytes_max: u64, metrics: &Metrics) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = shards(max_bytes, object_bytes_max + OVERHEAD, cores);
        let options = OptionsBuilder::new()
            .shards(shards)
            .hot_allocation(HOT_SHARE)
            .estimated_items_capacity(usize::try_from(max_bytes / AVERAGE_BYTES).unwrap_or(usize::MAX).max(1))
            // Rounded down: the crate rounds each shard up.
            .weight_capacity(max_bytes / shards as u64 * shards as u64)
            .build()
            .expect("both capacities are set");
        let cache = Cache::with_options(options, Weigher, KeyHash::new(), Departures);
        Self { cache, metrics: metrics.clone() }
    }

    /// The largest slot a cache of one shard takes, without bookkeeping.
    pub(super) fn object_bytes_max(max_bytes: u64) -> u64 {
        hot_bytes(max_bytes).saturating_sub(OVERHEAD)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Slot> {
        self.cache.get(&key.prefix()).filter(|slot| may_be_of(slot, key))
    }

    /// Without counting as a use.
    pub(super) fn peek(&self, key: &Key) -> Option<Slot> {
        self.cache.peek(&key.prefix()).filter(|slot| may_be_of(slot, key))
    }

    /// The caller is the only writer of this key.
    pub(super) fn put(&self, key: Key, slot: Slot) {
        let key = key.prefix();
        let mut leaving = Vec::new();
        match self.cache.replace_with_lifecycle(key, slot, false, &mut leaving) {
            Ok(()) => drop(self.metrics.replaced.inc()),
            Err((key, slot)) => self.cache.insert_with_lifecycle(key, slot, &mut leaving),
        }
        // What was replaced is reported as leaving, too.
        let evicted = leaving.iter().filter(|(other, _)| *other != key).count();
        self.metrics.evicted.inc_by(evicted as u64);
    }

    pub(super) fn remove(&self, key: &Key) -> bool {
        self.cache.remove(&key.prefix()).is_some()
    }

    pub(super) fn clear(&self) {
        self.cache.clear();
    }

    pub(super) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Takes and leaves a shard's lock for each slot.
    pub(super) fn look_through(&self, max: usize, visit: &mut dyn FnMut(&Slot)) -> bool {
        let mut slots = self.cache.iter();
        slots.by_ref().take(max).for_each(|(_, slot)| visit(&slot));
        slots.next().is_none()
    }
}

/// Whether `slot`, found under the prefix of `key`, is the one of `key`. Two keys of one prefix would have to be some
/// billions away from each other; the later of them has the place, and for the other its entry is not there. What is no
/// entry may be taken for the other's: at worst a marker spares a wait, and variants are found under keys of their own.
fn may_be_of(slot: &Slot, key: &Key) -> bool {
    match slot {
        Slot::Entry(entry) => entry.key == *key,
        Slot::Variants(_) | Slot::HitForMiss(_) => true,
    }
}

/// How many shards: the most that still take a slot of `slot_bytes`, a power of two, at most four per core.
fn shards(max_bytes: u64, slot_bytes: u64, cores: usize) -> usize {
    let mut shards = 1 << (4 * cores.max(1)).ilog2();
    while shards > 1 && hot_bytes(max_bytes / shards) < slot_bytes {
        shards /= 2;
    }
    usize::try_from(shards).expect("at most four per core")
}

/// The part of a shard that a single slot may fill, computed as `quick_cache` does.
fn hot_bytes(shard_bytes: u64) -> u64 {
    (shard_bytes as f64 * HOT_SHARE) as u64
}

#[derive(Clone)]
struct Weigher;

impl Weighter<u64, Slot> for Weigher {
    fn weight(&self, _: &u64, slot: &Slot) -> u64 {
        slot.weight() + OVERHEAD
    }
}

/// Keeps what leaves until the shard's lock is released: freeing a body takes a while.
#[derive(Clone)]
struct Departures;

impl Lifecycle<u64, Slot> for Departures {
    type RequestState = Vec<(u64, Slot)>;

    fn on_evict(&self, leaving: &mut Self::RequestState, key: u64, slot: Slot) {
        leaving.push((key, slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_largest_object_fits_into_a_shard() {
        assert_eq!(shards(64 * MIB, 3 * MIB, 4), 16);
        assert_eq!(shards(64 * MIB, 4 * MIB, 4), 8, "4 MiB are more than 85 % of 4 MiB");
        assert_eq!(shards(64 * MIB, 54 * MIB, 4), 1);
        assert_eq!(shards(64 * MIB, 1, 3), 8, "a power of two, at most four per core");
        assert_eq!(shards(0, 1, 64), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_admitted_object_is_refused(max in 64 * 1024..1u64 << 40, share in 0.0..=1.0f64, cores in 1usize..256) {
            let object = Quick::object_bytes_max(max).min((max as f64 * share) as u64);
            let shards = shards(max, object + OVERHEAD, cores);
            proptest::prop_assert!(shards.is_power_of_two() && shards <= 4 * cores);
            proptest::prop_assert!(hot_bytes(max / shards as u64) >= object + OVERHEAD);
        }
    }
}
