//! A body that is written once, while it arrives, and read by many, each at its own pace.
//!
//! ```text
//!            push            push …            complete(body) ── readers end cleanly
//!  Memory ─────────▶ Memory ─────────▶ …  ───▶
//!     │ more than `memory_max` at once,        fail(error) ───── readers break
//!     │ or all bodies together hold too much
//!     ├──────────▶ Spilled   the older part lies in a file, every reader still finds all of it
//!     └──────────▶ !whole    no room in a file, or never to be stored: what comes now is dropped once every reader
//!                            has passed it, the writer waits for the slowest, and nobody can join any more
//! ```
//!
//! Readers are woken by event. They hold a byte offset, not a chunk number, so that chunks can be replaced by one
//! contiguous body when it is complete. That is done with small ones: who reads a large one slowly would keep all of it
//! in memory, long after the tier it was stored in has dropped it. Its chunks go when they have been read.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use slab::Slab;

use self::chunks::{Chunks, joined};
pub(super) use self::reader::Reader;
use super::{
    failure::Failure,
    memory::Memory,
    spill::{Spill, SpillFile},
};

mod chunks;
mod reader;
#[cfg(test)]
mod testing;

/// A body may have so much in memory even while all together hold too much: the piece that has just come is there in any
/// case, and a file costs more than that is worth.
const MEMORY_MIN: usize = 16 << 10;
/// Largest body whose readers share it with the tier it is stored in.
const SHARED_MAX: usize = 64 << 10;
/// Most readers of a complete body for which it is looked up what none of them needs any more.
const FEW_READERS: usize = 8;

/// The shared state; writer and readers hold it by `Arc`.
pub(super) struct Growing {
    state: Mutex<State>,
    memory_max: usize,
    memory: Memory,
    spill: Spill,
}

struct State {
    /// What is in memory.
    chunks: Chunks,
    mode: Mode,
    /// Whether the first byte is still to be had, and will be.
    whole: bool,
    /// Whether it is to come to its end although nobody reads it.
    wanted: bool,
    end: Option<End>,
    readers: Slab<ReaderState>,
    writer: Option<Waker>,
    /// Whether it was found that it will not be stored.
    given_up: bool,
}

enum Mode {
    Memory,
    /// What lies before the chunks is in the file, as far as any reader wants it.
    Spilled(Arc<SpillFile>),
}

#[derive(Clone)]
enum End {
    Complete(Option<HeaderMap>),
    Failed(Arc<Failure>),
}

struct ReaderState {
    offset: u64,
    waker: Option<Waker>,
    /// Reads for a tier, not for a client: nobody waits for it, and it does not keep a body from being abandoned. It
    /// breaks off once the body will not be stored.
    for_tier: bool,
}

impl Growing {
    /// Nothing yet; at most `memory_max` of it is to be in memory, as long as `memory` suffices for all.
    pub(super) fn new(memory_max: usize, memory: Memory, spill: Spill) -> Arc<Self> {
        let state = State {
            chunks: Chunks::new(&memory),
            mode: Mode::Memory,
            whole: true,
            wanted: false,
            end: None,
            readers: Slab::new(),
            writer: None,
            given_up: false,
        };
        Arc::new(Self { state: Mutex::new(state), memory_max, memory, spill })
    }

    /// A reader from the first byte; `None` once the first byte is gone.
    pub(super) fn reader(self: &Arc<Self>) -> Option<Reader> {
        self.read(false)
    }

    /// A reader for a tier, from the first byte.
    pub(super) fn reader_for_tier(self: &Arc<Self>) -> Option<Reader> {
        self.read(true)
    }

    fn read(self: &Arc<Self>, for_tier: bool) -> Option<Reader> {
        let mut state = self.state.lock();
        if !state.whole {
            return None;
        }
        let slot = state.readers.insert(ReaderState { offset: 0, waker: None, for_tier });
        Some(Reader::new(Arc::clone(self), slot))
    }

    /// How many clients read it.
    pub(super) fn readers(&self) -> usize {
        self.state.lock().clients()
    }

    /// The whole body, where it is complete and in memory.
    fn whole(state: &State) -> Option<Bytes> {
        match &state.end {
            Some(End::Complete(None)) => state.chunks.in_one_piece(),
            _ => None,
        }
    }

    /// Appends a chunk. Waits for the disk when spilling, and for the slowest reader in a window.
    pub(super) async fn push(self: &Arc<Self>, chunk: Bytes) -> Result<(), WriterStopped> {
        let crowded = {
            let mut state = self.state.lock();
            state.chunks.push(chunk);
            self.is_crowded(&state)
        };
        self.wake_readers();
        if crowded { self.make_room().await } else { Ok(()) }
    }

    /// Whether less of it has to be in memory.
    fn is_crowded(&self, state: &State) -> bool {
        let weight = state.chunks.weight();
        weight > self.memory_max || (weight > MEMORY_MIN && self.memory.is_short())
    }

    /// It will not be stored: from now on nobody can join, nothing more goes to the file, and the writer waits for the
    /// slowest reader. What is in the file already stays there for those who have not read it.
    pub(super) fn stop_keeping(&self) {
        let mut state = self.state.lock();
        (state.whole, state.given_up) = (false, true);
    }

    async fn make_room(self: &Arc<Self>) -> Result<(), WriterStopped> {
        if self.start_spilling() && self.spill_now().await.is_ok() {
            return Ok(());
        }
        self.stop_keeping();
        std::future::poll_fn(|cx| self.poll_window(cx)).await
    }

    /// Whether there is a spill file for what is to be kept, now at the latest.
    fn start_spilling(&self) -> bool {
        let mut state = self.state.lock();
        state.whole && self.has_file(&mut state)
    }

    /// Whether there is a spill file, now at the latest.
    fn has_file(&self, state: &mut State) -> bool {
        if let Mode::Spilled(_) = state.mode {
            return true;
        }
        let Ok(file) = self.spill.create() else { return false };
        state.mode = Mode::Spilled(Arc::new(file));
        true
    }

    /// Moves what is in memory to the file.
    async fn spill_now(self: &Arc<Self>) -> io::Result<()> {
        let (file, at, batch) = {
            let state = self.state.lock();
            let Mode::Spilled(file) = &state.mode else { return Err(io::ErrorKind::NotFound.into()) };
            (Arc::clone(file), state.chunks.start(), state.chunks.to_vec())
        };
        let written: u64 = batch.iter().map(|chunk| chunk.len() as u64).sum();
        let writing = tokio::task::spawn_blocking({
            let file = Arc::clone(&file);
            move || file.write_at(at, &batch)
        });
        writing.await.map_err(io::Error::other)??;
        self.forget_spilled(&file, at + written);
        Ok(())
    }

    /// What lies before `offset` is in `file`.
    fn forget_spilled(&self, file: &Arc<SpillFile>, offset: u64) {
        let mut state = self.state.lock();
        // The readers of a complete body may meanwhile have come so far that the file was given back.
        if matches!(&state.mode, Mode::Spilled(current) if Arc::ptr_eq(current, file)) {
            state.chunks.forget_until(offset);
        }
    }

    /// Moves what a complete body still has in memory to a file, where all bodies hold too much: its readers may take
    /// their time. Without room in a file it stays.
    pub(super) async fn spill_rest(self: &Arc<Self>) {
        if !self.memory.is_short() {
            return;
        }
        let spills = {
            let mut state = self.state.lock();
            let shared = state.chunks.end() <= SHARED_MAX as u64;
            !shared && !state.readers.is_empty() && self.is_crowded(&state) && self.has_file(&mut state)
        };
        if spills {
            // Its readers find it in memory then.
            let _ = self.spill_now().await;
        }
    }

    /// Ready once the window has room again; an error once nobody reads any more.
    fn poll_window(&self, cx: &mut Context<'_>) -> Poll<Result<(), WriterStopped>> {
        let mut state = self.state.lock();
        let Some(slowest) = state.slowest() else { return Poll::Ready(Err(WriterStopped)) };
        let _closed_unlocked = state.let_go(slowest);
        let room = if self.is_crowded(&state) {
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        };
        drop(state);
        room
    }

    /// From now on it is not abandoned because nobody reads it, unless it cannot be kept either.
    pub(super) fn finish_anyway(&self) {
        self.state.lock().wanted = true;
    }

    /// Waits until nobody reads it any more and nobody wants it otherwise.
    pub(super) async fn abandoned(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.clients() == 0 && !(state.wanted && state.whole) {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// All of it and `last`, which no reader sees yet, in one piece, to be stored; `None` in a window, or where the file
    /// cannot be read back.
    pub(super) async fn contiguous(self: &Arc<Self>, last: &Bytes) -> Option<Bytes> {
        let (file, start, mut chunks) = {
            let state = self.state.lock();
            let file = match &state.mode {
                _ if !state.whole => return None,
                Mode::Memory => None,
                Mode::Spilled(file) => Some(Arc::clone(file)),
            };
            if file.is_none() && state.chunks.is_empty() {
                return Some(Bytes::copy_from_slice(last));
            }
            if last.is_empty()
                && let Some(whole) = state.chunks.as_it_is()
            {
                return Some(whole);
            }
            (file, state.chunks.start(), state.chunks.to_vec())
        };
        chunks.push(last.clone());
        let Some(file) = file else { return Some(joined(chunks.iter())) };
        let _turn = self.spill.turn().await;
        let read = move || -> io::Result<Bytes> {
            let spilled = file.read_at(0, usize::try_from(start).map_err(io::Error::other)?)?;
            Ok(joined(std::iter::once(&spilled).chain(&chunks)))
        };
        tokio::task::spawn_blocking(read).await.ok()?.ok()
    }

    /// The body has come to its end, with `last`. `body`, where given, is all of it, and replaces the chunks if it is
    /// small.
    pub(super) fn complete(&self, last: Bytes, body: Option<Bytes>, trailers: Option<HeaderMap>) {
        {
            let mut state = self.state.lock();
            if let Some(body) = body.filter(|body| body.len() <= SHARED_MAX) {
                state.chunks.replace(body);
                state.mode = Mode::Memory;
            } else {
                state.chunks.push(last);
            }
            state.end.get_or_insert(End::Complete(trailers));
        }
        self.wake_readers();
    }

    /// The body will never come to its end: every reader sees a broken connection.
    pub(super) fn fail(&self, failure: Arc<Failure>) {
        self.state.lock().end.get_or_insert(End::Failed(failure));
        self.wake_readers();
    }

    /// Whether the body has come to an end, one way or the other.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Bytes written so far.
    pub(super) fn len(&self) -> u64 {
        self.state.lock().chunks.end()
    }

    fn wake_readers(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.lock();
            state.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// How many clients read it.
    fn clients(&self) -> usize {
        self.readers.iter().filter(|(_, reader)| !reader.for_tier).count()
    }

    /// How far the slowest of those is that are waited for.
    fn slowest(&self) -> Option<u64> {
        let waited_for = self.readers.iter().filter(|(_, reader)| !(reader.for_tier && self.given_up));
        waited_for.map(|(_, reader)| reader.offset).min()
    }

    /// Drops what lies before `slowest`. What is given back is to be dropped without the lock.
    fn let_go(&mut self, slowest: u64) -> Option<Mode> {
        // Nobody wants what is in the file any more: its share of the budget is of use to others.
        let passed = slowest >= self.chunks.start();
        let closed = passed.then(|| std::mem::replace(&mut self.mode, Mode::Memory));
        self.chunks.forget_until(slowest);
        closed
    }

    /// Drops what none of its few readers wants of a complete body. Of many, one is always at its beginning.
    fn let_go_of_read(&mut self) -> Option<Mode> {
        if self.end.is_none() || self.readers.len() > FEW_READERS {
            return None;
        }
        let slowest = self.slowest()?;
        self.whole &= slowest == 0;
        self.let_go(slowest)
    }
}

/// Nobody reads the body any more and it cannot be kept: writing on is useless.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriterStopped;

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[tokio::test]
    async fn what_does_not_fit_memory_lies_in_a_file() {
        let (growing, _directory) = growing(4000, 1 << 20);
        let late = growing.reader().expect("whole");
        for chunk in chunks() {
            growing.push(chunk).await.expect("room");
            assert!(growing.state.lock().chunks.weight() <= 5000, "memory stays bounded");
        }
        assert_eq!(growing.contiguous(&Bytes::new()).await.expect("readable").to_vec(), expected());
        let newcomer = growing.reader().expect("the first byte is in the file");
        growing.complete(Bytes::new(), None, None);
        assert_eq!(all(late).await.expect("complete"), expected());
        assert_eq!(all(newcomer.only(1500, 2499)).await.expect("complete"), expected()[1500..2500]);
        assert!(growing.spill.bytes() > 0);
    }

    #[tokio::test]
    async fn without_room_the_slowest_reader_sets_the_pace() {
        let (growing, _directory) = growing(4000, 6000);
        let (slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
        let writing = write_out(&growing, chunks());
        let fast = tokio::spawn(all(fast));
        while growing.state.lock().whole {
            tokio::task::yield_now().await;
        }
        assert!(growing.reader().is_none(), "the first byte may be gone");
        assert!(growing.contiguous(&Bytes::new()).await.is_none(), "not to be stored");
        assert!(!writing.is_finished(), "the writer waits for the slow one");
        assert_eq!(all(slow).await.expect("complete"), expected());
        assert_eq!(fast.await.expect("no panic").expect("complete"), expected());
        writing.await.expect("no panic");
        drop(growing);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_for_a_tier() {
        let (growing, _directory) = growing(4000, 6000);
        let (client, idle) = (growing.reader().expect("whole"), growing.reader_for_tier().expect("whole"));
        assert_eq!(growing.readers(), 1);
        let writing = write_out(&growing, chunks());
        assert_eq!(all(client).await.expect("complete"), expected());
        writing.await.expect("no panic");
        assert!(matches!(*all(idle).await.expect_err("not kept for it"), Failure::GivenUp));
    }

    #[tokio::test]
    async fn a_reader_for_a_tier_keeps_a_complete_body_and_not_a_fill() {
        let (growing, _directory) = growing(4000, 1 << 20);
        let (client, idle) = (growing.reader().expect("whole"), growing.reader_for_tier().expect("whole"));
        let reading = growing.reader_for_tier().expect("whole");
        write_out(&growing, chunks()).await.expect("no panic");
        for reader in [client, reading] {
            assert_eq!(all(reader).await.expect("complete"), expected());
        }
        let late = growing.reader().expect("kept from the first byte");
        assert_eq!(all(late).await.expect("complete"), expected());
        growing.abandoned().await;
        drop(idle);
    }

    #[tokio::test]
    async fn what_is_not_kept_is_not_spilled() {
        let (growing, _directory) = growing(4000, 1 << 20);
        let (mut slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
        let mut chunks = chunks();
        for chunk in chunks.by_ref().take(32) {
            growing.push(chunk).await.expect("room");
        }
        let spilled = growing.spill.bytes();
        assert!(spilled > 20_000, "the older part is in the file");

        growing.stop_keeping();
        assert!(growing.reader().is_none(), "nobody can join what is about to be dropped");
        assert!(growing.contiguous(&Bytes::new()).await.is_none(), "not to be stored");
        let writing = write_out(&growing, chunks);
        let fast = tokio::spawn(all(fast));
        let mut read = Vec::new();
        while (read.len() as u64) < spilled {
            read.extend(frame(&mut slow).await.expect("more").expect("what is in the file can be read"));
            assert!(growing.spill.bytes() <= spilled, "nothing more goes to the file");
            assert!(growing.state.lock().chunks.weight() <= 6000, "memory stays bounded");
        }
        assert!(!writing.is_finished(), "the writer waits for the slow one");
        while let Some(data) = frame(&mut slow).await {
            read.extend(data.expect("complete"));
            assert!(growing.spill.bytes() <= spilled, "nothing more goes to the file");
        }
        assert_eq!(read, expected());
        assert_eq!(fast.await.expect("no panic").expect("complete"), expected());
        writing.await.expect("no panic");
        assert_eq!(growing.spill.bytes(), 0, "a file that all have passed is given back");
    }

    /// The last piece is there for the readers at once; it does not stay in memory for the slowest of them.
    #[tokio::test]
    async fn where_all_hold_too_much_the_last_piece_spills_too() {
        for (before, read) in [(0, false), (10, false), (10, true)] {
            let memory = Memory::new(100_000);
            let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
            let mut reader = growing.reader().expect("whole");
            for chunk in large_chunks().take(before) {
                growing.push(chunk).await.expect("room");
            }
            growing.complete(vec![b'x'; 200_000].into(), None, None);
            assert!(memory.is_short());
            let mut got = Vec::new();
            if read {
                got.extend(frame(&mut reader).await.expect("more").expect("complete"));
            }
            growing.spill_rest().await;
            assert_eq!(memory.held(), 0, "after {before} pieces");
            got.extend(all(reader).await.expect("complete"));
            let expected: Vec<u8> = large_chunks().take(before).flatten().chain(vec![b'x'; 200_000]).collect();
            assert!(got == expected, "after {before} pieces");
            assert_eq!(growing.spill.bytes(), 0, "what all have read is given back");
        }
    }

    #[tokio::test]
    async fn a_file_given_back_while_the_rest_spills_takes_nothing_along() {
        let memory = Memory::new(0);
        let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
        let mut reader = growing.reader().expect("whole");
        for chunk in large_chunks().take(10) {
            growing.push(chunk).await.expect("room");
        }
        let (first, second) = (Bytes::from(vec![b'x'; 50_000]), Bytes::from(vec![b'y'; 50_000]));
        growing.state.lock().chunks.push(first.clone());
        growing.complete(second.clone(), None, None);
        let file = match &growing.state.lock().mode {
            Mode::Spilled(file) => Arc::clone(file),
            Mode::Memory => panic!("it spilled"),
        };
        let mut got = Vec::new();
        while got.len() <= 100_000 {
            got.extend(frame(&mut reader).await.expect("more").expect("complete"));
        }
        growing.forget_spilled(&file, 200_000);
        got.extend(all(reader).await.expect("complete"));
        assert!(got == large_chunks().take(10).flatten().chain(first).chain(second).collect::<Vec<u8>>());
        drop(file);
        assert_eq!(growing.spill.bytes(), 0, "what all have read is given back");
    }

    /// Pieces of 10 kB, too large to be copied.
    fn large_chunks() -> impl Iterator<Item = Bytes> + Send + 'static {
        (0..64_u8).map(|number| Bytes::from(vec![number; 10_000]))
    }

    #[tokio::test]
    async fn where_all_hold_too_much_a_body_spills_at_once() {
        let memory = Memory::new(100_000);
        let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
        let reader = growing.reader().expect("whole");
        let others = memory.reserve(90_000).expect("room");
        for chunk in large_chunks() {
            growing.push(chunk).await.expect("room");
            assert!(memory.held() <= 90_000 + MEMORY_MIN, "{} bytes in memory", memory.held());
        }
        assert!(growing.spill.bytes() > 600_000);
        drop(others);
        let whole = growing.contiguous(&Bytes::new()).await.expect("readable");
        growing.complete(Bytes::new(), Some(whole.clone()), None);
        assert!(memory.held() <= MEMORY_MIN, "a large body is not kept in memory for its readers");
        assert_eq!(all(reader).await.expect("complete"), whole);
        assert_eq!(growing.spill.bytes(), 0, "what all have read is given back");
        drop(growing);
        assert_eq!(memory.held(), 0);
    }

    #[tokio::test]
    async fn a_window_holds_one_piece_where_all_hold_too_much() {
        let memory = Memory::new(0);
        let (growing, _directory) = growing_in(&memory, 1 << 20, 0);
        let mut reader = growing.reader().expect("whole");
        let writing = write_out(&growing, large_chunks());
        let mut read = Vec::new();
        while let Some(data) = frame(&mut reader).await {
            read.extend(data.expect("complete"));
            assert!(memory.held() <= 2 * MEMORY_MIN, "{} bytes in memory", memory.held());
        }
        writing.await.expect("no panic");
        assert!(read == large_chunks().flatten().collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn a_small_body_spills_to_no_file() {
        let memory = Memory::new(0);
        let (growing, _directory) = growing_in(&memory, 1 << 20, 1 << 20);
        let reader = growing.reader().expect("whole");
        for chunk in chunks().take(10) {
            growing.push(chunk).await.expect("room");
        }
        assert_eq!(growing.spill.bytes(), 0);
        let whole = growing.contiguous(&Bytes::new()).await.expect("in memory");
        growing.complete(Bytes::new(), Some(whole.clone()), None);
        assert_eq!(reader.at_once(), Some(whole), "shared with where it is stored");
    }

    #[tokio::test]
    async fn what_the_slowest_has_read_of_a_complete_body_goes() {
        let memory = Memory::new(1 << 20);
        let (growing, _directory) = growing_in(&memory, 1 << 20, 0);
        let (mut slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
        for chunk in large_chunks() {
            growing.push(chunk).await.expect("room");
        }
        growing.complete(Bytes::new(), growing.contiguous(&Bytes::new()).await, None);
        assert_eq!(all(fast).await.expect("complete").len(), 640_000);
        let mut left = memory.held();
        assert!(left > 640_000);
        while let Some(data) = frame(&mut slow).await {
            data.expect("complete");
            assert!(memory.held() < left, "piece by piece");
            left = memory.held();
        }
        assert!(growing.reader().is_none(), "the first byte is gone");
        assert_eq!(left, 0);
    }

    /// With the last piece held back, what is stored has it before any reader does.
    #[tokio::test]
    async fn the_last_piece_is_stored_before_it_is_seen() {
        for (memory_max, file_max, pieces) in
            [(1 << 20, 0, 0), (1 << 20, 0, 1), (1 << 20, 0, 64), (20_000, 1 << 20, 64)]
        {
            let (growing, _directory) = growing(memory_max, file_max);
            let reader = growing.reader().expect("whole");
            let mut expected = Vec::new();
            for chunk in large_chunks().take(pieces) {
                expected.extend_from_slice(&chunk);
                growing.push(chunk).await.expect("room");
            }
            let last = Bytes::from_static(b"last");
            let whole = growing.contiguous(&last).await.expect("readable");
            assert_eq!(growing.len(), expected.len() as u64, "nobody sees it yet");
            expected.extend_from_slice(&last);
            assert!(whole == expected, "{pieces} pieces");
            growing.complete(last, Some(whole), None);
            assert!(all(reader).await.expect("complete") == expected, "{pieces} pieces");
        }
    }

    #[tokio::test]
    async fn pieces_without_content_leave_nothing() {
        let (growing, _directory) = growing(100, 0);
        let reader = growing.reader().expect("whole");
        for _ in 0..10_000 {
            growing.push(Bytes::new()).await.expect("room");
        }
        growing.push(Bytes::from_static(b"a")).await.expect("room");
        growing.complete(Bytes::new(), None, None);
        assert_eq!(all(reader).await.expect("complete"), b"a");
    }

    #[tokio::test]
    async fn a_writer_nobody_reads_stops() {
        let (growing, _directory) = growing(2000, 0);
        drop(growing.reader());
        let mut stopped = false;
        for chunk in chunks() {
            stopped |= growing.push(chunk).await.is_err();
        }
        assert!(stopped);
    }
}
