//! Hashing of keys: they are hashes already, so one multiplication with a secret is enough.
//!
//! The secret is there because BLAKE3 without a key is public: whoever can choose URLs could otherwise search for keys
//! that share a bucket.

use std::hash::{BuildHasher, Hasher};

/// Multiplier with bits well spread: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Builds [`KeyHasher`]s that share one secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHash {
    secret: u64,
}

impl KeyHash {
    /// With a secret of its own.
    pub(super) fn new() -> Self {
        // Without randomness hashing still works, only less guarded: no reason to fail.
        Self { secret: getrandom::u64().unwrap_or(SPREAD) }
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { state: self.secret }
    }
}

/// Folds 64-bit words; a key is one.
#[derive(Debug)]
pub(super) struct KeyHasher {
    state: u64,
}

impl Hasher for KeyHasher {
    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.state ^ word) * u128::from(SPREAD);
        self.state = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::store::testing::key;

    #[test]
    fn keys_spread_over_both_ends() {
        let hash = KeyHash::new();
        let hashes: Vec<u64> = (0..4096).map(|n| hash.hash_one(key(n))).collect();
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 63).collect();
        let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 58).collect();
        assert_eq!((low.len(), high.len()), (64, 64));
    }

    #[test]
    fn equal_keys_hash_alike_under_one_secret_only() {
        let (one, other) = (KeyHash { secret: 1 }, KeyHash { secret: 2 });
        assert_eq!(one.hash_one(key(7)), one.hash_one(key(7)));
        assert_ne!(one.hash_one(key(7)), other.hash_one(key(7)));
    }
}
