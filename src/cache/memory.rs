//! The memory that all bodies on their way into the cache take together.
//!
//! Whoever holds some has a [`Share`], which follows what is held and gives it back when dropped: the sum is exact at any
//! moment, however a fill ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The account. Copies are of the same.
#[derive(Clone)]
pub(super) struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    max: usize,
    held: AtomicUsize,
}

/// What one body holds.
pub(super) struct Share {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    /// An account of which nothing is held, and at most `max` should be.
    pub(super) fn new(max: usize) -> Self {
        Self { inner: Arc::new(Inner { max, held: AtomicUsize::new(0) }) }
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.inner.held.load(Relaxed)
    }

    /// Whether more is held than should be: what can go elsewhere has to.
    pub(super) fn is_short(&self) -> bool {
        self.held() > self.inner.max
    }

    /// A share of nothing yet.
    pub(super) fn share(&self) -> Share {
        Share { memory: self.clone(), bytes: 0 }
    }

    /// A share of `bytes`, where there is room for them.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Share> {
        let more = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= self.inner.max);
        self.inner.held.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Share { memory: self.clone(), bytes })
    }
}

impl Share {
    /// Holds `bytes` from now on, more or less than before.
    pub(super) fn set(&mut self, bytes: usize) {
        let held = &self.memory.inner.held;
        if bytes >= self.bytes {
            held.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            held.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let memory = Memory::new(100);
        let (mut one, mut other) = (memory.share(), memory.share());
        one.set(60);
        other.set(40);
        assert_eq!((memory.held(), memory.is_short()), (100, false));
        other.set(41);
        assert_eq!((memory.held(), memory.is_short()), (101, true));
        other.set(0);
        assert_eq!(memory.held(), 60);
        drop((one, other));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn only_what_there_is_can_be_reserved() {
        let memory = Memory::new(100);
        let held = memory.reserve(70);
        assert!(memory.reserve(31).is_none() && memory.reserve(usize::MAX).is_none());
        assert_eq!(memory.held(), 70, "what was refused is not counted");
        drop(held);
        assert!(memory.reserve(100).is_some());
        assert_eq!(memory.held(), 0);
    }
}
