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
#[cfg(test)]
mod tests;

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
