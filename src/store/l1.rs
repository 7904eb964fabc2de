//! L1: responses in memory, weighed in bytes.
//!
//! A lookup is synchronous, allocates nothing and takes no lock but the engine's own. Writers of one key exclude each
//! other (by one of [`STRIPES`] locks, never held by readers), which makes [`L1::replace`] one atomic step without
//! running the caller's function under a lock that hits wait for.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::registry::Registry;

use super::{
    EvictionPolicy, L1Config, Slot,
    metrics::{Metrics, Sizes},
    moka::Moka,
    quick::Quick,
};
use crate::object::key::Key;

/// Locks that writers share.
const STRIPES: usize = 64;

/// The memory tier. Clones are the same tier.
#[derive(Clone)]
pub struct L1 {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    writers: [Mutex<()>; STRIPES],
    max_bytes: u64,
    object_bytes_max: u64,
    metrics: Metrics,
}

/// Who decides what leaves.
pub(super) enum Engine {
    Quick(Quick),
    Moka(Moka),
}

impl L1 {
    /// An empty tier; its metrics go to `registry` under `l1`.
    pub fn new(config: &L1Config, registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("l1");
        let metrics = Metrics::new(registry);
        let max_bytes = config.max_bytes.as_u64();
        let object_bytes_max = object_bytes_max(config);
        let engine = Arc::new(match config.policy {
            EvictionPolicy::S3Fifo => Engine::Quick(Quick::new(max_bytes, object_bytes_max, &metrics)),
            EvictionPolicy::Lru => Engine::Moka(Moka::lru(max_bytes, &metrics)),
            EvictionPolicy::Lfu => Engine::Moka(Moka::lfu(max_bytes, &metrics)),
        });
        Sizes::register(registry, engine.clone(), max_bytes);
        let writers = std::array::from_fn(|_| Mutex::new(()));
        Self { inner: Arc::new(Inner { engine, writers, max_bytes, object_bytes_max, metrics }) }
    }

    /// What is stored under `key`; counts as a use of it.
    pub fn lookup(&self, key: &Key) -> Option<Slot> {
        match &*self.inner.engine {
            Engine::Quick(quick) => quick.get(key),
            Engine::Moka(moka) => moka.get(key),
        }
    }

    /// Stores `slot` in place of what was there. One heavier than [`L1::object_bytes_max`] is not stored, and what was
    /// there goes all the same: it is no longer the newest.
    pub fn insert(&self, key: Key, slot: Slot) {
        let _writer = self.inner.writer(&key);
        self.inner.put(key, slot);
    }

    /// Replaces what is stored under `key` by what `change` makes of it, in one step with respect to all other writers;
    /// `None` stands for nothing stored, on both sides. `change` has to be short, and may read this tier and not
    /// write it.
    pub fn replace(&self, key: &Key, change: impl FnOnce(Option<Slot>) -> Option<Slot>) {
        let _writer = self.inner.writer(key);
        match change(self.inner.engine.peek(key)) {
            Some(slot) => self.inner.put(*key, slot),
            None => self.inner.take(key),
        }
    }

    /// Shows `look` what is stored under `key`, while nobody else writes it. `look` has to be short, and may read this
    /// tier and not write it.
    pub fn inspect<T>(&self, key: &Key, look: impl FnOnce(Option<&Slot>) -> T) -> T {
        let _writer = self.inner.writer(key);
        look(self.inner.engine.peek(key).as_ref())
    }

    /// Removes what is stored under `key`.
    pub fn remove(&self, key: &Key) {
        let _writer = self.inner.writer(key);
        self.inner.take(key);
    }

    /// Whether an object of that weight would be stored. Ask with the length of a body to spare collecting one that is
    /// too long; the head comes on top of it, and [`L1::insert`] has the last word.
    pub fn admits(&self, bytes: u64) -> bool {
        bytes <= self.inner.object_bytes_max
    }

    /// Weight of the largest slot that is stored: `object_share_max` of `max_bytes`, and never more than the engine can
    /// hold in one piece.
    pub fn object_bytes_max(&self) -> u64 {
        self.inner.object_bytes_max
    }

    /// Weight that all slots may have together.
    pub fn max_bytes(&self) -> u64 {
        self.inner.max_bytes
    }

    /// Number of slots.
    pub fn len(&self) -> u64 {
        self.inner.engine.len()
    }

    /// Whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Weight of all slots, bookkeeping included.
    pub fn bytes(&self) -> u64 {
        self.inner.engine.bytes()
    }

    /// Removes everything that was stored before the call.
    pub fn clear(&self) {
        let _writers: Vec<_> = self.inner.writers.iter().map(Mutex::lock).collect();
        self.inner.metrics.cleared.inc_by(self.len());
        self.inner.engine.clear();
    }

    /// Visits what is stored, as far as it stays while this runs; neither order nor a moment in time is promised. No
    /// lock is held while `visit` runs that a hit could wait for.
    pub fn for_each(&self, visit: &mut dyn FnMut(&Slot)) {
        self.inner.engine.for_each(visit);
    }

    /// As [`L1::for_each`], for `max` of the slots at most: any of them, as which come first is for the hashes of their
    /// keys to say. Whether these were all.
    pub fn look_through(&self, max: usize, visit: &mut dyn FnMut(&Slot)) -> bool {
        self.inner.engine.look_through(max, visit)
    }
}

impl Inner {
    /// Excludes other writers of `key`.
    fn writer(&self, key: &Key) -> MutexGuard<'_, ()> {
        self.writers[(key.prefix() % STRIPES as u64) as usize].lock()
    }

    fn put(&self, key: Key, slot: Slot) {
        if slot.weight() > self.object_bytes_max {
            self.metrics.refused.inc();
            return self.take(&key);
        }
        self.metrics.inserts.inc();
        match &*self.engine {
            Engine::Quick(quick) => quick.put(key, slot),
            Engine::Moka(moka) => moka.put(key, slot),
        }
    }

    fn take(&self, key: &Key) {
        let removed = match &*self.engine {
            Engine::Quick(quick) => quick.remove(key),
            Engine::Moka(moka) => moka.remove(key),
        };
        self.metrics.removed.inc_by(u64::from(removed));
    }
}

impl Engine {
    fn peek(&self, key: &Key) -> Option<Slot> {
        match self {
            Self::Quick(quick) => quick.peek(key),
            Self::Moka(moka) => moka.get(key),
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Quick(quick) => quick.len(),
            Self::Moka(moka) => moka.len(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Quick(quick) => quick.bytes(),
            Self::Moka(moka) => moka.bytes(),
        }
    }

    fn clear(&self) {
        match self {
            Self::Quick(quick) => quick.clear(),
            Self::Moka(moka) => moka.clear(),
        }
    }

    fn for_each(&self, visit: &mut dyn FnMut(&Slot)) {
        self.look_through(usize::MAX, visit);
    }

    fn look_through(&self, max: usize, visit: &mut dyn FnMut(&Slot)) -> bool {
        match self {
            Self::Quick(quick) => quick.look_through(max, visit),
            Self::Moka(moka) => moka.look_through(max, visit),
        }
    }
}

fn object_bytes_max(config: &L1Config) -> u64 {
    let max_bytes = config.max_bytes.as_u64();
    let share = (max_bytes as f64 * config.object_share_max.clamp(0.0, 1.0)) as u64;
    let engine = match config.policy {
        EvictionPolicy::S3Fifo => Quick::object_bytes_max(max_bytes),
        EvictionPolicy::Lru | EvictionPolicy::Lfu => Moka::object_bytes_max(max_bytes),
    };
    share.min(engine)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use prometheus_client::encoding::text::encode;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        object::{allocation, time::Timestamp, vary::Variants},
        store::{
            quick,
            testing::{POLICIES, body_bytes, key, l1, slot},
        },
    };

    const MIB: u64 = 1 << 20;

    #[test]
    fn every_kind_of_slot_is_found() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.5);
            l1.insert(key(1), slot(1, 100));
            l1.insert(key(2), Slot::Variants(Arc::new(Variants::default())));
            l1.insert(key(3), Slot::hit_for_miss(Timestamp::from_secs(9), "private"));
            assert_eq!(l1.lookup(&key(1)).as_ref().and_then(body_bytes), Some(100));
            assert!(matches!(l1.lookup(&key(2)), Some(Slot::Variants(_))));
            assert!(matches!(l1.lookup(&key(3)), Some(Slot::HitForMiss(marker)) if marker.until.as_secs() == 9));
            assert!(l1.lookup(&key(4)).is_none());
            assert_eq!(l1.len(), 3);
        }
    }

    #[test]
    fn removed_and_cleared() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.5);
            (0..300).for_each(|n| l1.insert(key(n), slot(n, 10)));
            l1.remove(&key(5));
            assert!(l1.lookup(&key(5)).is_none());
            assert_eq!(l1.len(), 299, "{policy:?}");
            l1.clear();
            assert!((0..300).all(|n| l1.lookup(&key(n)).is_none()));
            assert_eq!((l1.len(), l1.bytes()), (0, 0), "{policy:?}");
            l1.insert(key(5), slot(5, 10));
            assert!(l1.lookup(&key(5)).is_some());
        }
    }

    #[test]
    fn the_limit_holds() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.1);
            for n in 0..2000 {
                l1.insert(key(n), slot(n, (n as usize * 7919) % 60_000));
                assert!(l1.bytes() <= MIB, "{policy:?}: {} after {n}", l1.bytes());
            }
            assert!(l1.bytes() > MIB / 2, "{policy:?}: {}", l1.bytes());
        }
    }

    /// Until a tenth of the tier has been stored after it. LFU may refuse at once what is new.
    #[test]
    fn what_was_just_stored_stays_for_a_while() {
        for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
            // One shard: with several, chance has a say.
            let l1 = l1(policy, 4 * MIB, 0.8);
            (0..3000).for_each(|n| l1.insert(key(n), slot(n, 4000)));
            let full = l1.len();
            assert!(full < 1500, "{policy:?}: {full} slots");
            (3000..3000 + full / 10).for_each(|n| l1.insert(key(n), slot(n, 4000)));
            assert!(l1.lookup(&key(3000)).is_some(), "{policy:?}");
        }
    }

    #[test]
    fn markers_alone_do_not_pass_the_limit() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.1);
            (0..10_000).for_each(|n| l1.insert(key(n), Slot::hit_for_miss(Timestamp::NEVER, "private")));
            assert!(l1.bytes() <= MIB && l1.len() <= MIB / quick::OVERHEAD, "{policy:?}: {}", l1.len());
        }
    }

    /// Length of the longest body that fits.
    fn largest(l1: &L1) -> usize {
        let about = slot(1, allocation::LARGE_STEP).weight() - allocation::LARGE_STEP as u64;
        let room = (l1.object_bytes_max() - about) as usize;
        room / allocation::LARGE_STEP * allocation::LARGE_STEP
    }

    #[test]
    fn an_object_has_a_limit_and_takes_its_predecessor_along() {
        for policy in POLICIES {
            let l1 = l1(policy, 64 * MIB, 0.25);
            assert_eq!(l1.object_bytes_max(), 16 * MIB);
            assert!(l1.admits(16 * MIB) && !l1.admits(16 * MIB + 1));
            let largest = largest(&l1);
            l1.insert(key(1), slot(1, largest));
            assert!(l1.lookup(&key(1)).is_some(), "{policy:?}: the largest is kept");
            l1.insert(key(1), slot(1, largest + 1));
            assert!(l1.lookup(&key(1)).is_none(), "{policy:?}: and nothing older is left");
        }
    }

    #[test]
    fn the_whole_tier_for_one_object() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 1.0);
            l1.insert(key(1), slot(1, largest(&l1)));
            assert!(l1.lookup(&key(1)).is_some(), "{policy:?}");
        }
    }

    #[test]
    fn replacing_is_one_step() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.9);
            thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(|| (0..200).for_each(|_| l1.replace(&key(1), grow)));
                }
            });
            assert_eq!(l1.lookup(&key(1)).as_ref().and_then(body_bytes), Some(799), "{policy:?}");
            assert_eq!(l1.inspect(&key(1), |slot| slot.and_then(body_bytes)), Some(799));
            l1.replace(&key(1), |_| None);
            assert!(l1.lookup(&key(1)).is_none() && l1.inspect(&key(1), |slot| slot.is_none()));
        }
    }

    fn grow(slot: Option<Slot>) -> Option<Slot> {
        let grown = slot.as_ref().and_then(body_bytes).map_or(0, |bytes| bytes + 1);
        Some(super::super::testing::slot(1, grown))
    }

    #[test]
    fn replacing_keeps_the_limit() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.2);
            for n in 0..200 {
                l1.insert(key(n), slot(n, 0));
            }
            for n in 0..200 {
                l1.replace(&key(n), |_| Some(slot(n, 100_000)));
                assert!(l1.bytes() <= MIB, "{policy:?}: {}", l1.bytes());
            }
        }
    }

    #[test]
    fn reasons_are_counted() {
        for policy in POLICIES {
            let mut registry = Registry::default();
            let config = L1Config { max_bytes: bytesize::ByteSize(MIB), policy, object_share_max: 0.9 };
            let l1 = L1::new(&config, &mut registry);
            l1.insert(key(1), slot(1, 10));
            l1.insert(key(1), slot(1, 20));
            l1.remove(&key(1));
            l1.remove(&key(1));
            l1.insert(key(2), slot(2, 2 * MIB as usize));
            (10..13).for_each(|n| l1.insert(key(n), slot(n, 500_000)));
            let (left, bytes) = (l1.len(), l1.bytes());
            let text = scrape(&registry);
            let evicted = format!("l1_evictions_total{{reason=\"size\"}} {}\n", 3 - left);
            for line in [
                "l1_evictions_total{reason=\"replaced\"} 1\n",
                "l1_evictions_total{reason=\"removed\"} 1\n",
                evicted.as_str(),
                "l1_refused_total 1\n",
                "l1_inserts_total 5\n",
                &format!("l1_entries {left}\n"),
                &format!("l1_bytes {bytes}\n"),
            ] {
                assert!(text.contains(line), "{policy:?}: {line} is not in {text}");
            }
            l1.clear();
            assert!(scrape(&registry).contains(&format!("l1_evictions_total{{reason=\"cleared\"}} {left}\n")));
        }
    }

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).expect("a string takes everything");
        text
    }

    #[test]
    fn all_slots_are_visited() {
        for policy in POLICIES {
            let l1 = l1(policy, MIB, 0.5);
            (0..100).for_each(|n| l1.insert(key(n), slot(n, 10)));
            let mut visited = HashSet::new();
            l1.for_each(&mut |slot| {
                let Slot::Entry(entry) = slot else { panic!("{policy:?}: {slot:?} was never stored") };
                assert!(visited.insert(entry.key.prefix()), "{policy:?}: twice");
            });
            assert_eq!(visited.len(), 100, "{policy:?}");
            let mut some = 0;
            assert!(!l1.look_through(30, &mut |_| some += 1) && l1.look_through(100, &mut |_| {}), "{policy:?}");
            assert_eq!(some, 30, "{policy:?}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64, usize),
        Mark(u64),
        Replace(u64, Option<usize>),
        Remove(u64),
        Lookup(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = 0..40_u64;
        let bytes = 0..40_000_usize;
        prop_oneof![
            8 => (name.clone(), bytes.clone()).prop_map(|(n, bytes)| Step::Insert(n, bytes)),
            2 => name.clone().prop_map(Step::Mark),
            4 => (name.clone(), proptest::option::of(bytes)).prop_map(|(n, bytes)| Step::Replace(n, bytes)),
            2 => name.clone().prop_map(Step::Remove),
            4 => name.prop_map(Step::Lookup),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_weight_is_that_of_what_is_there(steps in proptest::collection::vec(step(), 1..200)) {
            let l1 = l1(EvictionPolicy::S3Fifo, MIB / 4, 0.2);
            for taken in steps {
                match taken {
                    Step::Insert(n, bytes) => l1.insert(key(n), slot(n, bytes)),
                    Step::Mark(n) => l1.insert(key(n), Slot::hit_for_miss(Timestamp::NEVER, "private")),
                    Step::Replace(n, bytes) => l1.replace(&key(n), |_| bytes.map(|bytes| slot(n, bytes))),
                    Step::Remove(n) => l1.remove(&key(n)),
                    Step::Lookup(n) => drop(l1.lookup(&key(n))),
                    Step::Clear => l1.clear(),
                }
                let (mut bytes, mut slots) = (0, 0);
                l1.for_each(&mut |slot| {
                    bytes += slot.weight() + quick::OVERHEAD;
                    slots += 1;
                });
                prop_assert_eq!((l1.bytes(), l1.len()), (bytes, slots));
                prop_assert!(bytes <= MIB / 4);
            }
        }
    }
}
