//! Which fills are under way, by key: identical requests join one instead of going to the origin each.
//!
//! ```text
//!  join ──▶ vacant ──▶ Lead(permit)      the permit's drop takes the fill out of the table
//!      └──▶ running ─▶ Follow(fill)      unless a purge came after the fill began (coherence rule F3)
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

/// What joining led to.
pub(super) enum Join {
    /// Nobody was there: this request starts the fill.
    Lead(Permit),
    /// There is a fill that can be followed.
    Follow(Arc<Fill>),
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

    /// Follows the fill of `key` if there is one that `fits`; otherwise leads with what `start` makes.
    pub(super) fn join(
        self: &Arc<Self>,
        key: Key,
        fits: impl FnOnce(&Fill) -> bool,
        start: impl FnOnce() -> Arc<Fill>,
    ) -> Join {
        let mut shard = self.shard(&key).lock();
        if let Some(fill) = shard.get(&key)
            && fits(fill)
        {
            return Join::Follow(Arc::clone(fill));
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
