//! One reader of a growing body.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use tokio::task::JoinHandle;

use super::{
    super::{failure::Failure, spill::SpillFile},
    End, Growing, Mode,
};

/// Bytes a reader takes from the spill file at once. Each slow reader has so many in memory, until its socket takes them.
const SPILL_READ: usize = 64 << 10;

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
    /// The reader that was given `slot`.
    pub(super) fn new(growing: Arc<Growing>, slot: usize) -> Self {
        Self { growing, slot, offset: 0, stop: u64::MAX, reading: None, over: false }
    }

    /// Limits the reader to the bytes from `first` to `last`.
    pub(in crate::cache) fn only(mut self, first: u64, last: u64) -> Self {
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
    pub(in crate::cache) fn at_once(&self) -> Option<Bytes> {
        if self.offset != 0 || self.stop != u64::MAX || self.over {
            return None;
        }
        Growing::whole(&self.growing.state.lock())
    }

    /// Why it broke off, if it has.
    pub(in crate::cache) fn failure(&self) -> Option<Arc<Failure>> {
        match &self.growing.state.lock().end {
            Some(End::Failed(failure)) => Some(Arc::clone(failure)),
            _ => None,
        }
    }

    /// Bytes left, where the end is known.
    pub(in crate::cache) fn remaining(&self) -> Option<u64> {
        let state = self.growing.state.lock();
        match state.end {
            Some(End::Complete(_)) => Some(state.chunks.end().min(self.stop).saturating_sub(self.offset)),
            _ => None,
        }
    }

    pub(in crate::cache) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Arc<Failure>>>> {
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
        if state.given_up && state.readers[self.slot].for_tier {
            return Step::End(End::Failed(Arc::new(Failure::GivenUp)));
        }
        if let Some(data) = state.chunks.rest_at(self.offset) {
            return Step::Data(data);
        }
        let start = state.chunks.start();
        if self.offset < start {
            if let Mode::Spilled(file) = &state.mode {
                let len = usize::try_from(start - self.offset).unwrap_or(usize::MAX).min(SPILL_READ);
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
        let (writer, _closed_unlocked) = {
            let mut state = self.growing.state.lock();
            state.readers[self.slot].offset = self.offset;
            (state.writer.take(), state.let_go_of_read())
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
            // It has read all it wanted, a range perhaps: that is not to have gone.
            state.wanted |= self.offset >= self.stop;
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[tokio::test]
    async fn readers_follow_at_their_own_pace() {
        let (growing, _directory) = growing(1 << 20, 0);
        let (early, late) = (growing.reader().expect("whole"), growing.reader().expect("whole"));
        let early = tokio::spawn(all(early));
        for chunk in chunks() {
            growing.push(chunk).await.expect("room");
            tokio::task::yield_now().await;
        }
        let whole = growing.contiguous(&Bytes::new()).await.expect("in memory");
        growing.complete(Bytes::new(), Some(whole.clone()), None);
        assert_eq!(early.await.expect("no panic").expect("complete"), expected());
        assert_eq!(late.at_once(), Some(whole));
        assert_eq!(all(late).await.expect("complete"), expected());
    }

    #[tokio::test]
    async fn any_range_of_many_chunks_is_found() {
        let (growing, _directory) = growing(1 << 20, 0);
        let content: Vec<u8> = (0..=255).cycle().take(9000).collect();
        for chunk in content.chunks(3) {
            growing.push(Bytes::copy_from_slice(chunk)).await.expect("room");
        }
        let reader = || growing.reader().expect("whole");
        let ranges = [(0, 0), (0, 2), (2, 3), (3, 3), (4498, 4503), (8997, 8999), (8999, 8999), (1, 8998)];
        let readers = ranges.map(|(first, last)| (reader().only(first, last), first as usize..=last as usize));
        for (reader, range) in readers {
            assert_eq!(all(reader).await.expect("complete"), content[range]);
        }
        let (whole, behind) = (reader(), reader().only(9000, u64::MAX));
        growing.complete(Bytes::new(), None, None);
        assert_eq!(all(whole).await.expect("complete"), content);
        assert_eq!(all(behind).await.expect("complete"), b"", "behind the end is nothing");
    }

    #[tokio::test]
    async fn a_failure_is_no_clean_end() {
        let (growing, _directory) = growing(1 << 20, 0);
        let reader = growing.reader().expect("whole");
        growing.push(Bytes::from_static(b"half")).await.expect("room");
        growing.fail(Arc::new(Failure::GivenUp));
        // Whatever comes after: the first word on the end counts.
        growing.complete(Bytes::new(), None, None);
        assert!(matches!(*all(reader).await.expect_err("broken"), Failure::GivenUp));
    }
}
