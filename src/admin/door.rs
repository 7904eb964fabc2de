//! The socket of the admin plane, and TLS on it, where that is configured.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::tls::Acceptor;

/// Handshakes at once; one more client waits in the kernel's backlog. Operators are few.
const HANDSHAKES_MAX: usize = 64;

pin_project! {
    /// A connection of an operator, and its place among those that may be open.
    pub(super) struct Connection {
        #[pin]
        stream: Either<TcpStream, TlsStream<TcpStream>>,
        place: OwnedSemaphorePermit,
    }
}

/// Where a call came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Door>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Accepts connections. A client that is slow with its handshake keeps no other from coming in; beyond as many as may
/// be open, one more waits in the kernel's backlog.
pub(super) struct Door {
    listener: TcpListener,
    tls: Arc<Acceptor>,
    places: Arc<Semaphore>,
    handshakes: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, tls: Arc<Acceptor>, connections_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, tls, places, handshakes: JoinSet::new() }
    }

    fn greet(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Option<(Connection, SocketAddr)> {
        let Some(settings) = self.tls.now() else {
            return Some((Connection { stream: Either::Left(stream), place }, address));
        };
        let tls = Arc::clone(&self.tls);
        self.handshakes.spawn(async move {
            let secured = tls.accept(settings, stream, |stream| stream).await?;
            Some((Connection { stream: Either::Right(secured), place }, address))
        });
        None
    }
}

/// The next connection, once there is a place for it.
async fn accepted(
    places: &Arc<Semaphore>,
    listener: &mut TcpListener,
) -> (OwnedSemaphorePermit, (TcpStream, SocketAddr)) {
    loop {
        // Nobody closes it.
        if let Ok(place) = Arc::clone(places).acquire_owned().await {
            return (place, Listener::accept(listener).await);
        }
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            let came = tokio::select! {
                // One that panicked has failed as well.
                Some(secured) = self.handshakes.join_next() => secured.ok().flatten(),
                (place, (stream, address)) = accepted(&self.places, &mut self.listener), if room => {
                    self.greet(stream, address, place)
                }
            };
            if let Some(came) = came {
                return came;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}
