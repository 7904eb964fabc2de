//! A connection that speaks HTTP/1 and is driven by the one request it carries: no task, no channel, nobody to wake.
//!
//! ```text
//!  exchange: head and content written ─▶ heads read until a final one ─▶ poll_frame … until the content ends ─▶ reusable?
//! ```
//! It carries requests whose content is at hand. What streams up while the answer comes down, and what is to be switched
//! to another protocol, is for hyper ([`super::tasked`]). What has been written when the response comes, and what is left
//! in the buffer when it ends, decides whether the connection may be used again.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    thread::{self, ThreadId},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{
    chunked::{Chunked, Step},
    head::Framing,
};
pub(super) use self::{head::Head, request::encode};
use super::{
    error::{Error, Kind},
    io::Stream,
    pieces::PIECE_MAX,
    request::Interim,
    upstream::Limits,
    wire::Open,
};

mod chunked;
mod head;
mod request;

/// Bytes read at once at first; twice as many whenever a read fills what it is given, up to [`PIECE_MAX`].
const READ_MIN: usize = 8 * 1024;
/// With less room than this left in a buffer, another one is taken.
const ROOM_MIN: usize = 2 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Direct {
    stream: Stream,
    /// What has come and was not asked for yet.
    buffer: BytesMut,
    unsent: Unsent,
    content: Content,
    read_size: usize,
    /// How long it may be kept unused; zero if it must not be used again.
    pub(super) keep: Duration,
    /// The thread that is told when something comes.
    pub(super) home: ThreadId,
    _open: Open,
}

/// What is left to be written of a request.
#[derive(Debug, Default)]
struct Unsent {
    head: Bytes,
    content: Bytes,
    /// Whether the layer below may still hold something back.
    unflushed: bool,
    failed: bool,
}

/// What is left to be read of a response's content.
#[derive(Debug)]
enum Content {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// All that comes.
    Close,
    /// Nothing.
    Ended,
}

/// A request without a response.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: Error,
    /// Whether a byte of a response came.
    pub(super) heard: bool,
    /// Whether no byte of the request left.
    pub(super) untouched: bool,
}

impl Direct {
    pub(super) fn new(stream: Stream, open: Open) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            unsent: Unsent::default(),
            content: Content::Ended,
            read_size: READ_MIN,
            keep: Duration::ZERO,
            home: thread::current().id(),
            _open: open,
        }
    }

    /// Whether the origin has neither closed nor said anything, as far as is known here without asking the system.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut byte = [0];
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut nobody, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// The same by asking the system, which may know it a moment earlier.
    pub(super) fn is_alive_now(&mut self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = SockRef::from(self.stream.tcp()).peek(&mut byte);
        // With TLS, something may be there that is not for us.
        let open = match peeked {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        open && self.is_alive()
    }

    /// The byte stream, with its place among the open connections, for somebody else to speak on. Only between requests.
    pub(super) fn into_stream(self) -> (Stream, Open) {
        (self.stream, self._open)
    }

    /// Whether request and response are complete, and nothing came that belongs to neither.
    pub(super) fn is_reusable(&self) -> bool {
        let sent = self.unsent.head.is_empty() && self.unsent.content.is_empty() && !self.unsent.unflushed;
        self.is_ended() && sent && !self.unsent.failed && self.buffer.is_empty()
    }

    /// Sends a request, and waits for the head of the final response.
    pub(super) async fn exchange(
        &mut self,
        (head, content): (Bytes, Bytes),
        method: &Method,
        limits: &Limits,
        interim: Option<&Interim>,
    ) -> Result<Head, Unanswered> {
        let length = head.len();
        self.unsent = Unsent { head, content, unflushed: true, failed: false };
        let mut waiting = Waiting { scanned: 0, heard: false };
        let answered = std::future::poll_fn(|cx| self.poll_head(cx, &mut waiting, method, limits, interim)).await;
        answered.map_err(|error| {
            let untouched = self.unsent.failed && self.unsent.head.len() == length && !waiting.heard;
            Unanswered { error, heard: waiting.heard, untouched }
        })
    }
}

/// A head that is being read.
struct Waiting {
    /// Bytes in which it was found not to end.
    scanned: usize,
    heard: bool,
}

// === writing ===

impl Direct {
    /// Writes what the origin takes. That it takes no more is not the end: it may have answered before.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        if self.unsent.failed || !self.unsent.unflushed {
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_write_out(cx) {
            tracing::debug!(%error, "request to an origin not sent");
            self.unsent.failed = true;
        }
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Unsent { head, content, .. } = &mut self.unsent;
        let mut stream = Pin::new(&mut self.stream);
        while head.has_remaining() || content.has_remaining() {
            let pieces = [IoSlice::new(head), IoSlice::new(content)];
            let written = match (head.is_empty(), content.is_empty()) {
                (false, false) => ready!(stream.as_mut().poll_write_vectored(cx, &pieces))?,
                (false, true) => ready!(stream.as_mut().poll_write(cx, head))?,
                (true, _) => ready!(stream.as_mut().poll_write(cx, content))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            head.advance(of_head);
            content.advance(written - of_head);
        }
        ready!(stream.poll_flush(cx))?;
        self.unsent.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

// === reading ===

impl Direct {
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting,
        method: &Method,
        limits: &Limits,
        interim: Option<&Interim>,
    ) -> Poll<Result<Head, Error>> {
        self.poll_send(cx);
        loop {
            while let Some(head) = self.next_head(waiting, limits)? {
                let status = head.status;
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    if let (Some(interim), true) = (interim, status != StatusCode::CONTINUE) {
                        interim(status, &head.headers);
                    }
                    continue;
                }
                self.content = match head::framing(&head, method)? {
                    Framing::Length(0) => Content::Ended,
                    Framing::Length(length) => Content::Length(length),
                    Framing::Chunked => Content::Chunked(Chunked::new()),
                    Framing::Close => Content::Close,
                };
                return Poll::Ready(Ok(head));
            }
            let gone = if waiting.heard { Kind::Incomplete } else { Kind::Terminated };
            match ready!(self.poll_more(cx, usize::MAX)) {
                Ok(0) => return Poll::Ready(Err(Error::new(gone))),
                Ok(_) => waiting.heard = true,
                Err(error) => return Poll::Ready(Err(Error::reading(error, gone))),
            }
        }
    }

    /// The next head, if all of it is here.
    fn next_head(&mut self, waiting: &mut Waiting, limits: &Limits) -> Result<Option<Head>, Error> {
        if waiting.scanned == 0 {
            head::skip_blank_lines(&mut self.buffer);
        }
        let end = head::end(&self.buffer, waiting.scanned);
        if end.unwrap_or(self.buffer.len()) > limits.head_bytes_max {
            return Err(Error::new(Kind::HeadTooLarge));
        }
        waiting.scanned = if end.is_some() { 0 } else { self.buffer.len() };
        end.map(|end| head::parse(&self.buffer.split_to(end).freeze(), limits)).transpose()
    }

    /// The next piece of the content.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        piece_max: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_send(cx);
        loop {
            match self.next_piece(limits) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::End(trailers)) => {
                    self.content = Content::Ended;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Ok(Step::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let wanted = match self.content {
                Content::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(piece_max),
                _ => piece_max,
            };
            match ready!(self.poll_more(cx, wanted)) {
                Ok(0) if matches!(self.content, Content::Close) => self.content = Content::Ended,
                Ok(0) => return Poll::Ready(Some(Err(Error::new(Kind::Incomplete)))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Error::reading(error, Kind::Incomplete)))),
            }
        }
    }

    fn next_piece(&mut self, limits: &Limits) -> Result<Step, Error> {
        match &mut self.content {
            Content::Ended => Ok(Step::End(None)),
            Content::Chunked(chunked) => {
                let step = chunked.next(&mut self.buffer, limits)?;
                if matches!(step, Step::Data(_)) && chunked.ends(&mut self.buffer) {
                    self.content = Content::Ended;
                }
                Ok(step)
            }
            _ if self.buffer.is_empty() => Ok(Step::More),
            Content::Close => Ok(Step::Data(self.buffer.split().freeze())),
            Content::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                *left -= here as u64;
                if *left == 0 {
                    self.content = Content::Ended;
                }
                Ok(Step::Data(self.buffer.split_to(here).freeze()))
            }
        }
    }

    /// Whether the content has come to its end.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.content, Content::Ended)
    }

    /// How much is to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.content {
            Content::Ended => SizeHint::with_exact(0),
            Content::Length(left) => SizeHint::with_exact(left),
            Content::Chunked(_) | Content::Close => SizeHint::new(),
        }
    }

    /// Reads on, `wanted` bytes at most; 0 at the end of the connection.
    fn poll_more(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        // While nothing comes, no memory waits for it.
        ready!(self.stream.poll_read_ready(cx))?;
        let size = self.read_size.min(wanted);
        // Who fills what it is given gets all of it; small pieces share a buffer.
        let room = if self.read_size > READ_MIN { size } else { size.min(ROOM_MIN) };
        if self.buffer.capacity() - self.buffer.len() < room {
            self.buffer.reserve(size);
        }
        let read = ready!(self.stream.poll_read_into(cx, &mut self.buffer, size))?;
        self.read_size = match read {
            filled if filled >= self.read_size => (self.read_size * 2).min(PIECE_MAX),
            little if little < self.read_size / 4 => (self.read_size / 2).max(READ_MIN),
            _ => self.read_size,
        };
        Poll::Ready(Ok(read))
    }
}
