//! The byte stream of one connection: TCP, with or without TLS, and what was heard on it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connection's bytes.
#[derive(Debug)]
pub(super) struct Io {
    stream: Stream,
    ear: Arc<Ear>,
}

/// TCP or TLS.
#[derive(Debug)]
pub(super) enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted. Boxed: it is an order of magnitude larger.
    Secure(Box<TlsStream<TcpStream>>),
}

/// What another task may know about a connection's incoming bytes.
#[derive(Debug, Default)]
pub(super) struct Ear {
    /// Whether a byte (of HTTP, not of TLS) came since [`Ear::forget`].
    heard: AtomicBool,
    /// Woken when all that came has been looked at, and when the connection ends.
    settled: AtomicWaker,
}

impl Io {
    pub(super) fn new(stream: Stream) -> (Self, Arc<Ear>) {
        let ear = Arc::<Ear>::default();
        (Self { stream, ear: Arc::clone(&ear) }, ear)
    }
}

impl Ear {
    /// Begins anew, before a request is sent.
    pub(super) fn forget(&self) {
        self.heard.store(false, Ordering::Relaxed);
    }

    /// Whether anything came since.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Asks to be woken when all that came has been looked at.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.settled.register(cx.waker());
    }

    /// Wakes who asked.
    pub(super) fn wake(&self) {
        self.settled.wake();
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.ear.wake();
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let result = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Secure(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if result.is_pending() {
            this.ear.wake();
        } else if buf.filled().len() > before {
            this.ear.heard.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Secure(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Secure(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
