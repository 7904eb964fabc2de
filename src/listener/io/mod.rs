//! The socket as hyper sees it, and what hyper cannot do: interim responses, write stalls noticed, a close that lets
//! the client read the last response.
//!
//! On the way of an ordinary request this costs a few loads and, while the head is read, one look at its lines. Plain
//! requests may take the [express lane](super::express) and never get to hyper.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    Handler,
    express::{Lane, Reply},
    head::HeadWatch,
    link::{Link, Phase},
    metrics::OpenGuard,
    sniff::Sniffed,
    transport::Transport,
};

#[cfg(test)]
mod tests;

/// Bytes of a refused request body that are read and thrown away before the socket is closed regardless.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// One client's socket, or the stream in a tunnel of it.
pub(super) struct Io<S: Handler, T: Transport = TcpStream> {
    stream: T,
    lane: Lane<S>,
    /// An answer of the lane that the socket did not take at once; it goes before any other byte.
    reply: Option<Box<Reply<S::Body>>>,
    link: Arc<Link>,
    /// What was read to tell the protocol, to be read again.
    sniffed: Sniffed,
    watch: HeadWatch,
    /// Interim responses on their way; what is left goes before any other byte.
    interim: Vec<u8>,
    interim_written: usize,
    /// The request for which it is certain that no byte of an earlier response waits in hyper's buffer.
    clean_for: u64,
    blocked: bool,
    /// What the client had taken when that was last looked at, in a stream that writes behind.
    taken: u64,
    shut: bool,
    discarded: usize,
    /// `None` in a tunnel, whose socket has one.
    _open: Option<OpenGuard>,
}

impl<S: Handler, T: Transport> Io<S, T> {
    pub(super) fn new(stream: T, lane: Lane<S>, sniffed: Sniffed, link: Arc<Link>, open: Option<OpenGuard>) -> Self {
        let watch = HeadWatch::new(!link.multiplexed());
        Self {
            stream,
            lane,
            reply: None,
            link,
            sniffed,
            watch,
            interim: Vec::new(),
            interim_written: 0,
            clean_for: 0,
            blocked: false,
            taken: 0,
            shut: false,
            discarded: 0,
            _open: open,
        }
    }

    /// Bytes of a request were read.
    fn note_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.link.multiplexed() {
            return;
        }
        match self.link.phase() {
            Phase::Idle if !self.link.body_open() => self.link.enter(Phase::Head),
            Phase::Gone => self.watch.stop(),
            _ => {}
        }
        self.watch.read(&self.link, bytes);
    }

    /// Bytes were written, or flushed.
    fn note_write<R>(&mut self, written: &Poll<R>) {
        match written {
            Poll::Pending if !self.blocked => {
                self.blocked = true;
                self.taken = self.stream.taken();
                self.link.block();
            }
            Poll::Pending => self.note_progress(),
            Poll::Ready(_) if self.blocked => {
                self.blocked = false;
                self.link.unblock();
            }
            Poll::Ready(_) => {}
        }
    }

    /// A stream that writes behind may be blocked for long while its client reads on.
    fn note_progress(&mut self) {
        let taken = self.stream.taken();
        if taken != self.taken {
            self.taken = taken;
            self.link.unblock();
            self.link.block();
        }
    }

    /// Writes what interim responses there are, if they may go now.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            let request = self.link.request();
            if !self.link.has_offered() || self.clean_for != request {
                return Poll::Ready(Ok(()));
            }
            self.link.take_offered(request, &mut self.interim);
        }
        while self.interim_written < self.interim.len() {
            let rest = &self.interim[self.interim_written..];
            let written = Pin::new(&mut self.stream).poll_write(cx, rest);
            self.note_write(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim_written += written,
            }
        }
        self.interim.clear();
        self.interim_written = 0;
        Poll::Ready(Ok(()))
    }

    /// Whether the next byte that is read begins a request, and hyper has nothing of an earlier one left to write.
    fn is_between_requests(&mut self) -> bool {
        if T::WRITES_BEHIND {
            return false;
        }
        let idle = match self.link.phase() {
            Phase::Idle => true,
            Phase::Head => self.link.request() == 0,
            _ => false,
        };
        idle && self.reply.is_none() && self.interim.is_empty() && self.watch.is_between_heads(&self.link)
    }

    /// Answers what it can of `bytes`, of which the first begins a request; how many of them that took.
    fn express(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while self.reply.is_none()
            && let Some((mut reply, length)) = self.lane.answer(&bytes[taken..])
        {
            taken += length;
            self.link.pass_by();
            self.watch.pass_by(&self.link);
            if self.poll_send(cx, &mut reply)?.is_pending() {
                self.reply = Some(Box::new(reply));
            }
        }
        Ok(taken)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, reply: &mut Reply<S::Body>) -> Poll<io::Result<()>> {
        reply.poll(cx, |cx, slices| {
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
            self.note_write(&written);
            written
        })
    }

    /// Writes what is left of an answer of the lane.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut reply) = self.reply.take() else { return Poll::Ready(Ok(())) };
        let sent = self.poll_send(cx, &mut reply);
        if sent.is_pending() {
            self.reply = Some(reply);
        }
        sent
    }

    /// Reads from the socket, first what was read of it before.
    fn poll_socket(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.sniffed.replay(buffer) {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        // What was read to tell the protocol is never all of a request.
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => Poll::Ready(Ok(())),
            read => read,
        }
    }

    /// Reads until the client closes. Closing with unread bytes in the socket would send a reset, and a reset can
    /// overtake the response the client should still read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4096];
        while self.discarded < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.discarded += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Handler, T: Transport> AsyncRead for Io<S, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_reply(cx))?;
        let before = buffer.filled().len();
        loop {
            let express = this.is_between_requests();
            ready!(this.poll_socket(cx, buffer))?;
            let taken = if express { this.express(cx, &buffer.filled()[before..])? } else { 0 };
            let left = buffer.filled().len() - before - taken;
            if taken == 0 || left > 0 {
                // What the lane took is as if it had not been there.
                buffer.filled_mut().copy_within(before + taken.., before);
                buffer.set_filled(before + left);
                this.note_read(&buffer.filled()[before..]);
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            ready!(this.poll_reply(cx))?;
        }
    }
}

impl<S: Handler, T: Transport> AsyncWrite for Io<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_reply(cx))?;
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.clean_for = 0;
        self.note_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_reply(cx))?;
        ready!(self.poll_interim(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.clean_for = 0;
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when all it had has been written, and at least once each time its connection is polled. While
    /// the handler runs that is the moment for interim responses; after the response it is the response's end.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_reply(cx))?;
        let phase = self.link.phase();
        if phase == Phase::Handling && !self.link.multiplexed() {
            self.clean_for = self.link.request();
            self.link.register(cx.waker());
        }
        ready!(self.poll_interim(cx))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if T::WRITES_BEHIND {
            self.note_write(&flushed);
        }
        ready!(flushed)?;
        if self.link.written() {
            // hyper does not come back by itself if the socket has taken everything.
            cx.waker().wake_by_ref();
        }
        if phase == Phase::Finished {
            self.link.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_reply(cx))?;
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            if self.link.phase() == Phase::Gone || self.link.multiplexed() || !self.link.unread() {
                return Poll::Ready(Ok(()));
            }
            self.link.enter(Phase::Lingering);
        }
        match self.link.phase() {
            Phase::Lingering => self.poll_discard(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: Handler, T: Transport> Drop for Io<S, T> {
    fn drop(&mut self) {
        if self.link.reset_demanded() {
            self.stream.break_off();
        }
    }
}
