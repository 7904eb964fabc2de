//! The express lane: a plain request is answered from where it was read, before hyper sees it.
//!
//! What hyper does for a request (maps of fields, a service call, a body with a state machine around it) costs more
//! than to find a stored response. So where a connection is between two requests, what is read is shown to the handler
//! first; if that can answer at once, head and content go to the socket in one write, and hyper has read nothing.
//! Everything else goes to hyper as it came.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::Body;

use super::{Handler, Peer, server::Shared};
use crate::object::plain::{Plain, Slots};

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
        let Some(body) = self.handler.express(&request, &self.peer, &mut head) else {
            HEAD.set(head);
            return None;
        };
        self.shared.metrics.express.inc();
        Some((Reply { head, written: 0, chunk: Bytes::new(), ended: body.is_end_stream(), body }, length))
    }
}

/// An answer on its way to the socket.
pub(super) struct Reply<B> {
    head: Vec<u8>,
    /// Bytes of the head that the socket has taken.
    written: usize,
    chunk: Bytes,
    body: B,
    ended: bool,
}

impl<B: Body<Data = Bytes, Error: Into<super::BoxError>> + Unpin> Reply<B> {
    /// Gives `write` what is left until it has taken all of it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_chunk(cx))?;
            let head = &self.head[self.written..];
            if head.is_empty() && self.chunk.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = ready!(write(cx, &[IoSlice::new(head), IoSlice::new(&self.chunk)]))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = taken.min(head.len());
            self.written += of_head;
            self.chunk.advance(taken - of_head);
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

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        let head = std::mem::take(&mut self.head);
        if head.capacity() <= HEAD_KEPT_MAX {
            HEAD.set(head);
        }
    }
}
