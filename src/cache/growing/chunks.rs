//! The part of a growing body that is in memory: chunks laid end to end, found by offset.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::super::memory::{Memory, Share};

/// A piece smaller than this is copied, for it may keep a whole read buffer of the origin's connection, which is no
/// smaller.
const COPIED_BELOW: usize = 8 << 10;

/// Chunks in the order of their offsets, without gaps.
pub(super) struct Chunks {
    queue: VecDeque<Chunk>,
    end: u64,
    /// Of the memory of all bodies: always [`Chunks::weight`].
    share: Share,
}

struct Chunk {
    /// Offset of its first byte. Kept beside it, so that an offset is found without adding lengths up.
    start: u64,
    data: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

impl Chunks {
    /// None yet; what they take is counted in `memory`.
    pub(super) fn new(memory: &Memory) -> Self {
        Self { queue: VecDeque::new(), end: 0, share: memory.share() }
    }

    /// Offset of the first byte in memory; the end, where there is none.
    pub(super) fn start(&self) -> u64 {
        self.queue.front().map_or(self.end, |first| first.start)
    }

    /// Offset behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of memory: the content, and what keeping it in pieces costs.
    pub(super) fn weight(&self) -> usize {
        let content = usize::try_from(self.end - self.start()).unwrap_or(usize::MAX);
        content.saturating_add(self.queue.len() * size_of::<Chunk>())
    }

    /// Appends `data`; nothing is kept of an empty piece.
    pub(super) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            let data = if data.len() < COPIED_BELOW { Bytes::copy_from_slice(&data) } else { data };
            self.push_as_it_is(data);
        }
    }

    fn push_as_it_is(&mut self, data: Bytes) {
        let chunk = Chunk { start: self.end, data };
        self.end = chunk.end();
        self.queue.push_back(chunk);
        self.share.set(self.weight());
    }

    /// Drops the chunks that lie wholly before `offset`.
    pub(super) fn forget_until(&mut self, offset: u64) {
        while self.queue.pop_front_if(|first| first.end() <= offset).is_some() {}
        self.share.set(self.weight());
    }

    /// Takes all of it in one piece in the place of the chunks.
    pub(super) fn replace(&mut self, whole: Bytes) {
        debug_assert!(whole.len() as u64 >= self.end, "a body replaces what was written");
        self.queue.clear();
        self.end = 0;
        if !whole.is_empty() {
            self.push_as_it_is(whole);
        }
    }

    /// What the chunk that holds `offset` has from there on.
    pub(super) fn rest_at(&self, offset: u64) -> Option<Bytes> {
        let begun = self.queue.partition_point(|chunk| chunk.start <= offset);
        let chunk = self.queue.get(begun.checked_sub(1)?)?;
        let skip = usize::try_from(offset - chunk.start).ok()?;
        (skip < chunk.data.len()).then(|| chunk.data.slice(skip..))
    }

    /// All of it, where it is whole and in one piece.
    pub(super) fn in_one_piece(&self) -> Option<Bytes> {
        match (self.start(), self.queue.len()) {
            (0, 0) => Some(Bytes::new()),
            (0, 1) => self.queue.front().map(|only| only.data.clone()),
            _ => None,
        }
    }

    /// All of it, where it takes no joining: in one piece that keeps nothing else alive.
    pub(super) fn as_it_is(&self) -> Option<Bytes> {
        self.in_one_piece().filter(|whole| whole.len() < COPIED_BELOW)
    }

    /// Whether nothing is in memory.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The chunks, in order.
    pub(super) fn to_vec(&self) -> Vec<Bytes> {
        self.queue.iter().map(|chunk| chunk.data.clone()).collect()
    }
}

/// Pieces laid end to end.
pub(super) fn joined<'a>(pieces: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut whole = BytesMut::with_capacity(pieces.clone().map(Bytes::len).sum());
    pieces.for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` chunks of one to seven bytes; the byte at an offset is that offset, modulo 251.
    fn many(count: usize) -> Chunks {
        let mut chunks = Chunks::new(&Memory::new(0));
        for number in 0..count {
            let (start, len) = (chunks.end(), 1 + number as u64 % 7);
            chunks.push((start..start + len).map(byte_at).collect());
            chunks.push(Bytes::new());
        }
        chunks
    }

    fn byte_at(offset: u64) -> u8 {
        u8::try_from(offset % 251).expect("below 251")
    }

    fn check(chunks: &Chunks) {
        for chunk in &chunks.queue {
            for offset in chunk.start..chunk.end() {
                let found = chunks.rest_at(offset).expect("in memory");
                assert_eq!(found.len() as u64, chunk.end() - offset, "at {offset}: the rest of its chunk");
                assert_eq!(found[0], byte_at(offset), "at {offset}");
            }
        }
        assert_eq!(chunks.rest_at(chunks.end()), None, "the end is behind the last byte");
        assert_eq!(chunks.rest_at(u64::MAX), None);
    }

    #[test]
    fn every_offset_is_found_in_its_chunk() {
        let mut chunks = many(3000);
        check(&chunks);
        let middle = chunks.queue[1500].start;
        chunks.forget_until(middle + 1);
        assert_eq!(chunks.start(), middle, "a chunk goes when its last byte may go");
        assert_eq!(chunks.rest_at(middle - 1), None);
        check(&chunks);
        let next = chunks.queue[0].end();
        chunks.forget_until(next);
        assert_eq!(chunks.start(), next);
        chunks.forget_until(u64::MAX);
        assert_eq!((chunks.start(), chunks.rest_at(0)), (chunks.end(), None));
    }

    #[test]
    fn one_piece_is_all_of_it_or_none() {
        let mut chunks = Chunks::new(&Memory::new(0));
        assert_eq!(chunks.in_one_piece(), Some(Bytes::new()));
        chunks.push(Bytes::from_static(b"ab"));
        assert_eq!(chunks.in_one_piece(), Some(Bytes::from_static(b"ab")));
        chunks.push(Bytes::from_static(b"c"));
        assert_eq!(chunks.in_one_piece(), None);
        assert_eq!(joined(chunks.to_vec().iter()), "abc");
        chunks.forget_until(2);
        assert_eq!(chunks.in_one_piece(), None, "the first byte is gone");
        chunks.replace(Bytes::from_static(b"abc"));
        assert_eq!((chunks.in_one_piece(), chunks.end()), (Some(Bytes::from_static(b"abc")), 3));
    }

    #[test]
    fn tiny_pieces_cost_more_than_their_bytes() {
        let mut chunks = Chunks::new(&Memory::new(0));
        chunks.push(Bytes::from_static(b"a"));
        let one = chunks.weight();
        assert!(one > 1);
        chunks.push(Bytes::new());
        assert_eq!(chunks.weight(), one, "an empty piece costs nothing");
        chunks.push(Bytes::from_static(b"b"));
        assert_eq!(chunks.weight(), 2 * one);
    }

    #[test]
    fn what_they_take_is_counted_until_it_is_gone() {
        let memory = Memory::new(0);
        let mut chunks = Chunks::new(&memory);
        assert_eq!(memory.held(), 0);
        for _ in 0..3 {
            chunks.push(vec![b'x'; 10_000].into());
            assert_eq!(memory.held(), chunks.weight());
        }
        assert!(memory.held() > 30_000);
        chunks.forget_until(10_000);
        assert_eq!(memory.held(), chunks.weight());
        assert!((20_000..30_000).contains(&memory.held()));
        chunks.replace(vec![b'x'; 30_000].into());
        assert_eq!(memory.held(), chunks.weight());
        drop(chunks);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_small_piece_keeps_no_large_buffer() {
        let mut chunks = Chunks::new(&Memory::new(0));
        let mut buffer = BytesMut::zeroed(64 << 10);
        chunks.push(buffer.split_to(100).freeze());
        buffer.clear();
        assert!(buffer.try_reclaim(64 << 10), "the buffer is its reader's alone");
    }
}
