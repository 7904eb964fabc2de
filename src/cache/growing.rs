//! A body that is written once, while it arrives, and read by many, each at its own pace.
//!
//! ```text
//!            push            push …            complete(body) ── readers end cleanly
//!  Memory ─────────▶ Memory ─────────▶ …  ───▶
//!     │ more than `memory_max` at once         fail(error) ───── readers break
//!     ├──────────▶ Spilled   the older part lies in a file, every reader still finds all of it
//!     └──────────▶ !whole    no room in a file: what comes now is dropped once every reader has passed it,
//!                            the writer waits for the slowest reader, and nobody can join any more
//! ```
//!
//! Readers are woken by event. They hold a byte offset, not a chunk number, so that chunks can be replaced by one
//! contiguous body when it is complete.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;
use slab::Slab;
use tokio::task::JoinHandle;

use super::{
    failure::Failure,
    spill::{Spill, SpillFile},
};

/// Bytes a reader takes from the spill file at once.
const SPILL_READ: usize = 256 << 10;

/// The shared state; writer and readers hold it by `Arc`.
pub(super) struct Growing {
    state: Mutex<State>,
    memory_max: usize,
    spill: Spill,
}

struct State {
    /// What is in memory: `chunks` laid end to end start at offset `base`.
    chunks: VecDeque<Bytes>,
    base: u64,
    /// Bytes written so far.
    len: u64,
    mode: Mode,
    /// Whether the first byte is still to be had.
    whole: bool,
    end: Option<End>,
    readers: Slab<ReaderState>,
    writer: Option<Waker>,
}

enum Mode {
    Memory,
    /// What lies before `base` is in the file.
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
}

impl Growing {
    pub(super) fn new(memory_max: usize, spill: Spill) -> Arc<Self> {
        let state = State {
            chunks: VecDeque::new(),
            base: 0,
            len: 0,
            mode: Mode::Memory,
            whole: true,
            end: None,
            readers: Slab::new(),
            writer: None,
        };
        Arc::new(Self { state: Mutex::new(state), memory_max, spill })
    }

    /// A reader from the first byte; `None` once the first byte is gone.
    pub(super) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        if !state.whole {
            return None;
        }
        let slot = state.readers.insert(ReaderState { offset: 0, waker: None });
        Some(Reader { growing: Arc::clone(self), slot, offset: 0, stop: u64::MAX, reading: None, over: false })
    }

    /// How many readers there are.
    pub(super) fn readers(&self) -> usize {
        self.state.lock().readers.len()
    }

    /// The whole body, where it is complete and in memory.
    fn whole(state: &State) -> Option<Bytes> {
        match (&state.end, &state.mode, state.chunks.len()) {
            (Some(End::Complete(None)), Mode::Memory, 0) => Some(Bytes::new()),
            (Some(End::Complete(None)), Mode::Memory, 1) => state.chunks.front().cloned(),
            _ => None,
        }
    }

    /// Appends a chunk. Waits for the disk when spilling, and for the slowest reader in a window.
    pub(super) async fn push(self: &Arc<Self>, chunk: Bytes) -> Result<(), WriterStopped> {
        let crowded = {
            let mut state = self.state.lock();
            state.len += chunk.len() as u64;
            state.chunks.push_back(chunk);
            state.in_memory() > self.memory_max
        };
        self.wake_readers();
        if crowded { self.make_room().await } else { Ok(()) }
    }

    async fn make_room(self: &Arc<Self>) -> Result<(), WriterStopped> {
        if self.start_spilling() && self.spill_now().await.is_ok() {
            return Ok(());
        }
        self.state.lock().whole = false;
        std::future::poll_fn(|cx| self.poll_window(cx)).await
    }

    /// Whether there is a spill file, now at the latest.
    fn start_spilling(&self) -> bool {
        let mut state = self.state.lock();
        match state.mode {
            _ if !state.whole => false,
            Mode::Spilled(_) => true,
            Mode::Memory => match self.spill.create() {
                Ok(file) => {
                    state.mode = Mode::Spilled(Arc::new(file));
                    true
                }
                Err(_) => false,
            },
        }
    }

    /// Moves what is in memory to the file.
    async fn spill_now(self: &Arc<Self>) -> io::Result<()> {
        let (file, at, batch) = {
            let state = self.state.lock();
            let Mode::Spilled(file) = &state.mode else { return Err(io::ErrorKind::NotFound.into()) };
            (Arc::clone(file), state.base, state.chunks.iter().cloned().collect::<Vec<_>>())
        };
        let written: usize = batch.iter().map(Bytes::len).sum();
        let writing = tokio::task::spawn_blocking(move || file.write_at(at, &batch));
        writing.await.map_err(io::Error::other)??;
        let mut state = self.state.lock();
        state.forget_until(at + written as u64);
        Ok(())
    }

    /// Ready once the window has room again; an error once nobody reads any more.
    fn poll_window(&self, cx: &mut Context<'_>) -> Poll<Result<(), WriterStopped>> {
        let mut state = self.state.lock();
        let Some(slowest) = state.readers.iter().map(|(_, reader)| reader.offset).min() else {
            return Poll::Ready(Err(WriterStopped));
        };
        state.forget_until(slowest);
        if state.in_memory() <= self.memory_max {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until nobody reads it any more.
    pub(super) async fn abandoned(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.readers.is_empty() {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// All of it in one piece, to be stored; `None` in a window, or where the file cannot be read back.
    pub(super) async fn contiguous(self: &Arc<Self>) -> Option<Bytes> {
        let (file, base, chunks) = {
            let state = self.state.lock();
            match &state.mode {
                _ if !state.whole => return None,
                Mode::Memory => return Some(joined(state.chunks.iter(), state.len)),
                Mode::Spilled(file) => (Arc::clone(file), state.base, state.chunks.clone()),
            }
        };
        let read = move || -> io::Result<Bytes> {
            let spilled = file.read_at(0, usize::try_from(base).map_err(io::Error::other)?)?;
            let len = base + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            Ok(joined(std::iter::once(&spilled).chain(chunks.iter()), len))
        };
        tokio::task::spawn_blocking(read).await.ok()?.ok()
    }

    /// The body has come to its end. `body`, where given, is all of it and replaces the chunks.
    pub(super) fn complete(&self, body: Option<Bytes>, trailers: Option<HeaderMap>) {
        {
            let mut state = self.state.lock();
            if let Some(body) = body {
                debug_assert_eq!(body.len() as u64, state.len, "a body replaces exactly what was written");
                state.chunks.clear();
                state.chunks.extend((!body.is_empty()).then_some(body));
                state.base = 0;
                state.mode = Mode::Memory;
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
        self.state.lock().len
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
    fn in_memory(&self) -> usize {
        usize::try_from(self.len - self.base).unwrap_or(usize::MAX)
    }

    /// Drops the chunks that lie wholly before `offset`.
    fn forget_until(&mut self, offset: u64) {
        while let Some(first) = self.chunks.front() {
            let end = self.base + first.len() as u64;
            if end > offset {
                break;
            }
            self.base = end;
            self.chunks.pop_front();
        }
    }

    /// What follows `offset` in memory.
    fn slice(&self, offset: u64) -> Option<Bytes> {
        let mut start = self.base;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if offset < end {
                let skip = usize::try_from(offset.checked_sub(start)?).ok()?;
                return Some(chunk.slice(skip..));
            }
            start = end;
        }
        None
    }
}

fn joined<'a>(mut chunks: impl Iterator<Item = &'a Bytes>, len: u64) -> Bytes {
    let mut body = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
    chunks.by_ref().for_each(|chunk| body.extend_from_slice(chunk));
    body.freeze()
}

/// Nobody reads the body any more and it cannot be kept: writing on is useless.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriterStopped;

/// One reader: a body of its own.
pub struct Reader {
    growing: Arc<Growing>,
    slot: usize,
    offset: u64,
    /// First byte not wanted any more.
    stop: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    over: bool,
}

impl Reader {
    /// Limits the reader to the bytes from `first` to `last`.
    pub(super) fn only(mut self, first: u64, last: u64) -> Self {
        self.offset = first;
        self.stop = last.saturating_add(1);
        // The writer waits for the slowest: it must not wait for bytes this one has passed over.
        let writer = {
            let mut state = self.growing.state.lock();
            state.readers[self.slot].offset = first;
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        self
    }

    /// The whole rest, if it is there already: saves polling a body that is complete.
    pub(super) fn at_once(&self) -> Option<Bytes> {
        if self.offset != 0 || self.stop != u64::MAX || self.over {
            return None;
        }
        Growing::whole(&self.growing.state.lock())
    }

    /// Why it broke off, if it has.
    pub(super) fn failure(&self) -> Option<Arc<Failure>> {
        match &self.growing.state.lock().end {
            Some(End::Failed(failure)) => Some(Arc::clone(failure)),
            _ => None,
        }
    }

    /// Bytes left, where the end is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        let state = self.growing.state.lock();
        match state.end {
            Some(End::Complete(_)) => Some(state.len.min(self.stop).saturating_sub(self.offset)),
            _ => None,
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Arc<Failure>>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            if self.offset >= self.stop {
                self.over = true;
                return Poll::Ready(None);
            }
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                return Poll::Ready(Some(self.spilled(read)));
            }
            match self.next_step(cx) {
                Step::Data(data) => return Poll::Ready(Some(Ok(Frame::data(self.taken(data))))),
                Step::File(file, len) => {
                    let offset = self.offset;
                    self.reading = Some(tokio::task::spawn_blocking(move || file.read_at(offset, len)));
                }
                Step::End(End::Failed(failure)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(failure)));
                }
                Step::End(End::Complete(trailers)) => {
                    self.over = true;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Step::Wait => return Poll::Pending,
            }
        }
    }

    fn next_step(&self, cx: &mut Context<'_>) -> Step {
        let mut state = self.growing.state.lock();
        if let Some(data) = state.slice(self.offset) {
            return Step::Data(data);
        }
        if self.offset < state.base {
            if let Mode::Spilled(file) = &state.mode {
                let len = usize::try_from(state.base - self.offset).unwrap_or(usize::MAX).min(SPILL_READ);
                return Step::File(Arc::clone(file), len);
            }
            debug_assert!(false, "a window drops nothing a reader still wants");
            return Step::End(End::Failed(Arc::new(Failure::Spill)));
        }
        if let Some(end) = &state.end {
            return Step::End(end.clone());
        }
        state.readers[self.slot].waker = Some(cx.waker().clone());
        Step::Wait
    }

    fn spilled(
        &mut self,
        read: Result<io::Result<Bytes>, tokio::task::JoinError>,
    ) -> Result<Frame<Bytes>, Arc<Failure>> {
        match read {
            Ok(Ok(data)) if !data.is_empty() => Ok(Frame::data(self.taken(data))),
            _ => {
                self.over = true;
                Err(Arc::new(Failure::Spill))
            }
        }
    }

    /// Moves on past `data`, cut to what is wanted; tells a waiting writer.
    fn taken(&mut self, mut data: Bytes) -> Bytes {
        let wanted = usize::try_from(self.stop - self.offset).unwrap_or(usize::MAX);
        data.truncate(wanted);
        self.offset += data.len() as u64;
        let writer = {
            let mut state = self.growing.state.lock();
            state.readers[self.slot].offset = self.offset;
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        data
    }
}

enum Step {
    Data(Bytes),
    File(Arc<SpillFile>, usize),
    End(End),
    Wait,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let writer = {
            let mut state = self.growing.state.lock();
            state.readers.remove(self.slot);
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(memory_max: usize, spill_max: u64) -> (Arc<Growing>, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        (Growing::new(memory_max, Spill::new(directory.path(), spill_max)), directory)
    }

    async fn frame(reader: &mut Reader) -> Option<Result<Bytes, Arc<Failure>>> {
        let frame = std::future::poll_fn(|cx| reader.poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    async fn all(mut reader: Reader) -> Result<Vec<u8>, Arc<Failure>> {
        let mut read = Vec::new();
        while let Some(data) = frame(&mut reader).await {
            read.extend_from_slice(&data?);
        }
        Ok(read)
    }

    fn chunks() -> impl Iterator<Item = Bytes> {
        (0..64_u8).map(|number| Bytes::from(vec![number; 1000]))
    }

    fn expected() -> Vec<u8> {
        chunks().flatten().collect()
    }

    #[tokio::test]
    async fn readers_follow_at_their_own_pace() {
        let (growing, _directory) = growing(1 << 20, 0);
        let (early, late) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
        let early = tokio::spawn(all(early));
        for chunk in chunks() {
            growing.push(chunk).await.expect("room");
            tokio::task::yield_now().await;
        }
        let whole = growing.contiguous().await.expect("in memory");
        growing.complete(Some(whole.clone()), None);
        assert_eq!(early.await.expect("no panic").expect("complete"), expected());
        assert_eq!(late.at_once(), Some(whole));
        assert_eq!(all(late).await.expect("complete"), expected());
    }

    #[tokio::test]
    async fn what_does_not_fit_memory_lies_in_a_file() {
        let (growing, _directory) = growing(4000, 1 << 20);
        let late = growing.reader().expect("whole");
        for chunk in chunks() {
            growing.push(chunk).await.expect("room");
            assert!(growing.state.lock().in_memory() <= 5000, "memory stays bounded");
        }
        assert_eq!(growing.contiguous().await.expect("readable").to_vec(), expected());
        let newcomer = growing.reader().expect("the first byte is in the file");
        growing.complete(None, None);
        assert_eq!(all(late).await.expect("complete"), expected());
        assert_eq!(all(newcomer.only(1500, 2499)).await.expect("complete"), expected()[1500..2500]);
        assert!(growing.spill.bytes() > 0);
    }

    #[tokio::test]
    async fn without_room_the_slowest_reader_sets_the_pace() {
        let (growing, _directory) = growing(4000, 6000);
        let (slow, fast) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
        let writing = tokio::spawn({
            let growing = Arc::clone(&growing);
            async move {
                for chunk in chunks() {
                    growing.push(chunk).await.expect("somebody reads");
                }
                growing.complete(None, None);
            }
        });
        let fast = tokio::spawn(all(fast));
        while growing.state.lock().whole {
            tokio::task::yield_now().await;
        }
        assert!(growing.reader().is_none(), "the first byte may be gone");
        assert!(growing.contiguous().await.is_none(), "not to be stored");
        assert!(!writing.is_finished(), "the writer waits for the slow one");
        assert_eq!(all(slow).await.expect("complete"), expected());
        assert_eq!(fast.await.expect("no panic").expect("complete"), expected());
        writing.await.expect("no panic");
        drop(growing);
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

    #[tokio::test]
    async fn a_failure_is_no_clean_end() {
        let (growing, _directory) = growing(1 << 20, 0);
        let reader = growing.reader().expect("whole");
        growing.push(Bytes::from_static(b"half")).await.expect("room");
        growing.fail(Arc::new(Failure::GivenUp));
        // Whatever comes after: the first word on the end counts.
        growing.complete(None, None);
        assert!(matches!(*all(reader).await.expect_err("broken"), Failure::GivenUp));
    }
}
