//! TLS with a client: on its connection, or in a tunnel, which is what it sends through a CONNECT that is answered here
//! instead of by the host it names.
//!
//! ```text
//!  hyper ── Io ── TlsStream ── Counted ── TcpStream
//!  hyper ── Io ── TlsStream ── Counted ── Upgraded ── hyper (of the CONNECT) ── Io ── TcpStream
//! ```

use std::{
    any::Any,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Peer, link::Link, transport::Transport};

/// Why there is no TLS in a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client took too long.
    #[error("the handshake took longer than client.head_timeout")]
    TimedOut,
    /// It failed, or the client went away.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// The server stops.
    #[error("the gateway is stopping")]
    Stopped,
}

/// What a CONNECT has opened.
pub struct Tunnel {
    stream: TokioIo<Upgraded>,
    /// The connection that the tunnel is in, where it is nothing else any more.
    outer: Option<Arc<Link>>,
    /// What the tunnel holds for as long as it lives, whatever is spoken in it by then.
    _held: Box<dyn Any + Send>,
}

impl Tunnel {
    pub(super) fn new(upgraded: Upgraded, outer: &Peer, held: Box<dyn Any + Send>) -> Self {
        Self { stream: TokioIo::new(upgraded), outer: outer.alone(), _held: held }
    }
}

impl Transport for Tunnel {
    const WRITES_BEHIND: bool = true;

    fn break_off(&self) {
        if let Some(outer) = &self.outer {
            outer.demand_reset();
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection, or a tunnel, after its handshake.
pub struct Secured<S = Tunnel> {
    stream: TlsStream<Counted<S>>,
    taken: Arc<AtomicU64>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    pub(super) async fn accept(under: S, tls: Arc<ServerConfig>) -> io::Result<Self> {
        let stream = TlsAcceptor::from(tls).accept(Counted::over(under)).await?;
        Ok(Self::of(stream))
    }

    pub(super) fn of(stream: TlsStream<Counted<S>>) -> Self {
        let taken = Arc::clone(&stream.get_ref().0.taken);
        Self { stream, taken }
    }
}

impl<S: Transport> Transport for Secured<S> {
    const WRITES_BEHIND: bool = true;

    /// Without a `close_notify` no end is a clean one.
    fn break_off(&self) {
        self.stream.get_ref().0.stream.break_off();
    }

    fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }
}

impl<S: Transport> AsyncRead for Secured<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            // Many clients close without a word. Whether a message is whole, HTTP tells by itself.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                buffer.set_filled(before);
                Poll::Ready(Ok(()))
            }
            read => read,
        }
    }
}

impl<S: Transport> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream that counts what goes into it: TLS does not tell.
pub(super) struct Counted<S> {
    stream: S,
    taken: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    pub(super) fn over(stream: S) -> Self {
        Self { stream, taken: Arc::default() }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = written {
            self.taken.fetch_add(*written as u64, Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
