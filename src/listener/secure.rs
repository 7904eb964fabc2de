//! TLS in a tunnel: what a client sends through a CONNECT that is answered here instead of by the host it names.
//!
//! ```text
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

/// A tunnel after its handshake.
pub struct Secured {
    stream: TlsStream<Counted>,
    taken: Arc<AtomicU64>,
    /// The connection that the tunnel is in, where it is nothing else any more.
    outer: Option<Arc<Link>>,
    /// What the tunnel holds for as long as it lives, whatever is spoken in it by then.
    _held: Box<dyn Any + Send>,
}

impl Secured {
    pub(super) fn accept(
        tunnel: Upgraded,
        tls: Arc<ServerConfig>,
        outer: &Peer,
        held: Box<dyn Any + Send>,
    ) -> impl Future<Output = io::Result<Self>> + Send + use<> {
        let taken = Arc::<AtomicU64>::default();
        let counted = Counted { stream: TokioIo::new(tunnel), taken: Arc::clone(&taken) };
        let (handshake, outer) = (TlsAcceptor::from(tls).accept(counted), outer.alone());
        async move { Ok(Self { stream: handshake.await?, taken, outer, _held: held }) }
    }
}

impl Transport for Secured {
    const WRITES_BEHIND: bool = true;

    /// Without a `close_notify` no end is a clean one.
    fn break_off(&self) {
        if let Some(outer) = &self.outer {
            outer.demand_reset();
        }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }
}

impl AsyncRead for Secured {
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

impl AsyncWrite for Secured {
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

/// A tunnel that counts what goes into it: TLS does not tell.
struct Counted {
    stream: TokioIo<Upgraded>,
    taken: Arc<AtomicU64>,
}

impl Counted {
    fn note(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = written {
            self.taken.fetch_add(*written as u64, Relaxed);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
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
