//! The express lane: a plain request is answered from where it was read, before hyper sees it.
//!
//! What hyper does for a request (maps of fields, a service call, a body with a state machine around it) costs more
//! than to find a stored response. So where a connection is between two requests, what is read is shown to the handler
//! first; if that can answer at once, head and content go to the socket in one write, and hyper has read nothing.
//! Content that lies in a file goes there without passing through this process. Everything else goes to hyper as it came.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::Body;

use super::{Handler, Peer, server::Shared};
use crate::object::{
    content::Filed,
    plain::{Plain, Slots},
};

/// Most memory for a head that a thread keeps between two answers; they hardly ever take more.
const HEAD_KEPT_MAX: usize = 16 * 1024;

thread_local! {
    /// Where heads are written: only an answer that the socket does not take at once needs memory of its own.
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Answers the plain requests of one connection.
pub(super) struct Lane<S> {
    pub(super) handler: S,
    pub(super) peer: Arc<Peer>,
    pub(super) shared: Arc<Shared>,
}

impl<S: Handler> Lane<S> {
    /// The answer to the request at the start of `bytes`, and how many of them it takes; `None`: hyper is to see them.
    pub(super) fn answer(&self, bytes: &[u8]) -> Option<(Reply<S::Body>, usize)> {
        let config = &self.shared.config;
        let mut slots = Slots::default();
        let (request, length) = Plain::parse(bytes, &mut slots)?;
        let allowed = length as u64 <= config.head_bytes_max.as_u64() && request.len() <= config.head_fields_max;
        // The last answer of a connection says so, which is for hyper to do.
        if !allowed || self.shared.is_draining() {
            return None;
        }
        let mut head = HEAD.take();
        head.clear();
        let Some(mut body) = self.handler.express(&request, &self.peer, &mut head) else {
            HEAD.set(head);
            return None;
        };
        self.shared.metrics.express.inc();
        let file = S::take_file(&mut body).filter(|file| file.length > 0).map(|file| FileRest { file, sent: 0 });
        if file.is_some() {
            self.shared.metrics.files_sent.inc();
        }
        let ended = body.is_end_stream();
        Some((Reply { head, written: 0, file, chunk: Bytes::new(), ended, body }, length))
    }
}

/// An answer on its way to the socket.
pub(super) struct Reply<B> {
    head: Vec<u8>,
    /// Bytes of the head that the socket has taken.
    written: usize,
    /// What is left of content that is sent from a file.
    file: Option<FileRest>,
    chunk: Bytes,
    body: B,
    ended: bool,
}

/// What of a file the socket has not taken yet.
struct FileRest {
    file: Filed,
    sent: u64,
}

/// What goes to the socket next.
pub(super) enum Piece<'a> {
    /// Head and content, or the rest of them.
    Bytes(&'a [IoSlice<'a>]),
    /// A head whose content is in a file, which follows at once.
    Head(&'a [u8]),
    /// The file from `offset` on, `length` bytes.
    File {
        /// The file.
        file: BorrowedFd<'a>,
        /// Bytes of it that the socket has taken.
        offset: u64,
        /// Bytes of it that are left.
        length: u64,
    },
}

impl<B: Body<Data = Bytes, Error: Into<super::BoxError>> + Unpin> Reply<B> {
    /// Gives `write` what is left until it has taken all of it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, Piece<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_chunk(cx))?;
            let head = &self.head[self.written..];
            let taken = match &self.file {
                None if head.is_empty() && self.chunk.is_empty() => return Poll::Ready(Ok(())),
                None => ready!(write(cx, Piece::Bytes(&[IoSlice::new(head), IoSlice::new(&self.chunk)])))?,
                Some(rest) if head.is_empty() => ready!(write(cx, rest.piece()))?,
                Some(_) => ready!(write(cx, Piece::Head(head)))?,
            };
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(taken);
        }
    }

    /// The socket has taken so much.
    fn advance(&mut self, taken: usize) {
        let of_head = taken.min(self.head.len() - self.written);
        self.written += of_head;
        match &mut self.file {
            None => self.chunk.advance(taken - of_head),
            Some(rest) => {
                rest.sent += (taken - of_head) as u64;
                if rest.sent == rest.file.length {
                    self.file = None;
                }
            }
        }
    }

    /// Takes the next piece of content, where the last one has gone and there is one.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() && !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => self.ended = true,
            }
            self.ended |= self.body.is_end_stream();
        }
        Poll::Ready(Ok(()))
    }
}

impl FileRest {
    fn piece(&self) -> Piece<'_> {
        Piece::File { file: self.file.file.as_fd(), offset: self.sent, length: self.file.length - self.sent }
    }
}

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        let head = std::mem::take(&mut self.head);
        if head.capacity() <= HEAD_KEPT_MAX {
            HEAD.set(head);
        }
    }
}
