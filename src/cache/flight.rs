//! Which fills are under way, by key: identical requests join one instead of going to the origin each.
//!
//! ```text
//!  join ──▶ vacant ──▶ Lead(permit)      the permit's drop takes the fill out of the table
//!      └──▶ running ─▶ Follow(fill)      where the fill is for this request too, otherwise
//!                    ├▶ Lead(permit)     in its place: a purge came after it began (coherence rule F3), say
//!                    └▶ Alone            what it brings is for nobody but who asked for it
//! ```

use std::{collections::HashMap, hash::BuildHasherDefault, sync::Arc};

use parking_lot::Mutex;

use super::fill::Fill;
use crate::object::key::Key;

const SHARDS: usize = 64;

/// Fills under way.
pub(super) struct Flight {
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<Key, Arc<Fill>, BuildHasherDefault<PrefixHasher>>;

/// A key is a hash already; its prefix serves as it is.
#[derive(Default)]
struct PrefixHasher(u64);

impl std::hash::Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.is_empty(), "keys hash as one number");
    }

    fn write_u64(&mut self, prefix: u64) {
        self.0 = prefix;
    }
}

/// What a fill under way is to a request that comes upon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It may be followed.
    Follow,
    /// Not by this request: a newer one takes its place.
    Lead,
    /// By nobody, and no newer one would be either.
    Alone,
}

/// What joining led to.
pub(super) enum Join {
    /// Nobody was there: this request starts the fill.
    Lead(Permit),
    /// There is a fill that can be followed.
    Follow(Arc<Fill>),
    /// This request had better not wait for others.
    Alone,
}

/// Keeps a fill in the table; dropping it takes the fill out.
pub(super) struct Permit {
    flight: Arc<Flight>,
    pub(super) key: Key,
    fill: Arc<Fill>,
}

impl Flight {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() })
    }

    /// Does about the fill of `key` what `fit` says of it; leads with what `start` makes if there is none.
    pub(super) fn join(
        self: &Arc<Self>,
        key: Key,
        fit: impl FnOnce(&Fill) -> Fit,
        start: impl FnOnce() -> Arc<Fill>,
    ) -> Join {
        let mut shard = self.shard(&key).lock();
        if let Some(fill) = shard.get(&key) {
            match fit(fill) {
                Fit::Follow => return Join::Follow(Arc::clone(fill)),
                Fit::Alone => return Join::Alone,
                Fit::Lead => {}
            }
        }
        let fill = start();
        shard.insert(key, Arc::clone(&fill));
        Join::Lead(Permit { flight: Arc::clone(self), key, fill })
    }

    /// The fill of `key`, if one is under way.
    pub(super) fn running(&self, key: &Key) -> Option<Arc<Fill>> {
        self.shard(key).lock().get(key).cloned()
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[key.as_bytes()[31] as usize % SHARDS]
    }

    fn remove(&self, key: &Key, fill: &Arc<Fill>) {
        let mut shard = self.shard(key).lock();
        if shard.get(key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            shard.remove(key);
        }
    }
}

impl Permit {
    pub(super) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// From now on the fill is found under another key (its variant is known).
    pub(super) fn move_to(&mut self, key: Key) {
        if key == self.key {
            return;
        }
        self.flight.remove(&self.key, &self.fill);
        self.flight.shard(&key).lock().insert(key, Arc::clone(&self.fill));
        self.key = key;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.flight.remove(&self.key, &self.fill);
    }
}
