//! Which keys have been seen before: two generations of a table of fixed size, in which a few are forgotten early.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::object::key::Key;

/// Places in a generation: half a megabyte.
const PLACES: usize = 1 << 17;

/// Places a key may lie in.
const WAYS: usize = 4;

/// The table. Writers may race: the worst of it is a key forgotten.
pub(super) struct Seen {
    generations: [Box<[AtomicU32]>; 2],
    /// Which generation is written.
    current: AtomicUsize,
    /// Keys in it.
    filled: AtomicUsize,
}

impl Seen {
    pub(super) fn new() -> Self {
        let places = || (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Self { generations: [places(), places()], current: AtomicUsize::new(0), filled: AtomicUsize::new(0) }
    }

    /// Whether `key` was noted lately; it is now.
    pub(super) fn note(&self, key: &Key) -> bool {
        let (at, fingerprint) = place(key);
        let current = self.current.load(Relaxed) % 2;
        let find =
            |generation: &[AtomicU32]| generation[at..at + WAYS].iter().any(|it| it.load(Relaxed) == fingerprint);
        if find(&self.generations[current]) {
            return true;
        }
        let known = find(&self.generations[1 - current]);
        self.write(current, at, fingerprint);
        known
    }

    fn write(&self, current: usize, at: usize, fingerprint: u32) {
        let places = &self.generations[current][at..at + WAYS];
        let free = places.iter().position(|place| place.load(Relaxed) == 0);
        // Without a free place, some other key is forgotten.
        places[free.unwrap_or(fingerprint as usize % WAYS)].store(fingerprint, Relaxed);
        if self.filled.fetch_add(1, Relaxed) + 1 >= PLACES / 2 {
            self.filled.store(0, Relaxed);
            self.generations[1 - current].iter().for_each(|place| place.store(0, Relaxed));
            self.current.store(1 - current, Relaxed);
        }
    }
}

fn place(key: &Key) -> (usize, u32) {
    let prefix = key.prefix();
    let at = (prefix as usize) % (PLACES / WAYS) * WAYS;
    (at, ((prefix >> 32) as u32).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::key;

    #[test]
    fn the_second_time() {
        let seen = Seen::new();
        let again = |range: std::ops::Range<u64>| range.filter(|n| seen.note(&key(*n))).count();
        assert_eq!(again(0..1000), 0);
        assert_eq!(again(0..1000), 1000);
    }

    #[test]
    fn the_old_are_forgotten() {
        let seen = Seen::new();
        assert!(!seen.note(&key(0)));
        let wrongly = (1..200_000).filter(|n| seen.note(&key(*n))).count();
        assert!(wrongly < 200, "{wrongly}");
        assert!(!seen.note(&key(0)));
    }
}
