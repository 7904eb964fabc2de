//! Buffers for content on its way from the disk to clients, used again while they are warm.
//!
//! A new buffer of this size is cleared before it is filled, and lies where no cache of the processor has it; the one that
//! was sent last is neither. A byte in a piece of eight chunks costs a fifth less than in one of a single chunk (494 beside
//! 630 µs of CPU a MiB, most of it in the kernel); but a client that reads slowly keeps a piece for as long as it likes. So
//! pieces are large as long as all of them together are few.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::record::CHUNK;

/// The largest piece.
const PIECE_MAX: usize = 8 * CHUNK;

/// What all pieces may take before new ones are of one chunk.
const LARGE_BYTES_MAX: usize = 64 << 20;

/// Buffers of either size that a thread keeps: six MiB. More are given back to the allocator.
const KEPT_MAX: [usize; 2] = [16, 4];

static IN_USE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static KEPT: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Room for up to [`Buffer::largest`] bytes; kept by the thread that drops it.
pub(super) struct Buffer {
    /// Always as long as its size is, so that nothing has to be cleared.
    bytes: Vec<u8>,
    length: usize,
}

impl Buffer {
    /// What a piece may be long now: some chunks.
    pub(super) fn largest() -> usize {
        if IN_USE.load(Relaxed) < LARGE_BYTES_MAX { PIECE_MAX } else { CHUNK }
    }

    /// For that many bytes; what is in it is of no meaning.
    pub(super) fn new(length: usize) -> Self {
        let length = length.min(PIECE_MAX);
        let (size, bytes) = if length <= CHUNK { (0, CHUNK) } else { (1, PIECE_MAX) };
        IN_USE.fetch_add(bytes, Relaxed);
        let kept = KEPT.with_borrow_mut(|kept| kept[size].pop());
        Self { bytes: kept.unwrap_or_else(|| vec![0; bytes]), length }
    }

    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        IN_USE.fetch_sub(bytes.len(), Relaxed);
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let size = usize::from(bytes.len() > CHUNK);
            let kept = &mut kept.borrow_mut()[size];
            if kept.len() < KEPT_MAX[size] {
                kept.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_used_again() {
        for (length, size) in [(10, 0), (CHUNK + 1, 1)] {
            let mut one = Buffer::new(length);
            one.as_mut().fill(7);
            assert!(one.as_ref().iter().all(|byte| *byte == 7) && one.as_ref().len() == length);
            let place = one.as_ref().as_ptr();
            drop(one);
            let again = Buffer::new(length + 5);
            assert_eq!((again.as_ref().as_ptr(), again.as_ref().len()), (place, length + 5));
            drop(again);
            let all: Vec<_> = (0..2 * KEPT_MAX[size]).map(|_| Buffer::new(length)).collect();
            drop(all);
            assert_eq!(KEPT.with_borrow(|kept| kept[size].len()), KEPT_MAX[size]);
        }
    }

    #[test]
    fn where_there_are_many_they_are_small() {
        let many: Vec<_> = (0..LARGE_BYTES_MAX / PIECE_MAX).map(|_| Buffer::new(PIECE_MAX)).collect();
        assert_eq!(Buffer::largest(), CHUNK);
        drop(many);
    }
}
