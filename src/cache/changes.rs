//! Which keys were written lately, so that who reads a key from the disk, or writes it there for a while, finds out
//! whether something newer came meanwhile.
//!
//! A table of fixed size: two keys that share a place cost each other a second look and nothing else.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::object::key::Key;

/// Places: 256 KiB.
const PLACES: usize = 1 << 16;

/// The table.
pub(super) struct Changes {
    counts: Box<[AtomicU32]>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { counts: (0..PLACES).map(|_| AtomicU32::new(0)).collect() }
    }

    /// How often what is stored under `key` was written or removed.
    pub(super) fn of(&self, key: &Key) -> u32 {
        self.place(key).load(SeqCst)
    }

    /// Notes that what is stored under `key` is another from now on.
    pub(super) fn note(&self, key: &Key) {
        self.place(key).fetch_add(1, SeqCst);
    }

    fn place(&self, key: &Key) -> &AtomicU32 {
        // A key is a hash already.
        &self.counts[(key.prefix() % PLACES as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_shows() {
        let changes = Changes::new();
        let (one, other) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let seen = [changes.of(&one), changes.of(&other)];
        changes.note(&one);
        assert_ne!(changes.of(&one), seen[0]);
        assert_eq!(changes.of(&other), seen[1]);
    }
}
