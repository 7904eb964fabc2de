//! The socket of the admin plane, and TLS on it, where that is configured.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
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

use super::idle::{Calls, Patience};
use crate::tls::Acceptor;

/// Handshakes at once; one more client waits in the kernel's backlog. Operators are few.
const HANDSHAKES_MAX: usize = 64;

pin_project! {
    /// A connection of an operator, and its place among those that may be open.
    pub(super) struct Connection {
        #[pin]
        stream: Either<TcpStream, TlsStream<TcpStream>>,
        place: OwnedSemaphorePermit,
        patience: Patience,
    }
}

/// Where a call came from.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    address: SocketAddr,
    /// All that came there.
    pub(super) calls: Arc<Calls>,
}

impl Remote {
    pub(super) fn address(&self) -> IpAddr {
        self.address.ip()
    }
}

impl Connected<IncomingStream<'_, Door>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self { address: *stream.remote_addr(), calls: stream.io().patience.calls() }
    }
}

/// Accepts connections. A client that is slow with its handshake keeps no other from coming in; beyond as many as may
/// be open, one more waits in the kernel's backlog.
pub(super) struct Door {
    listener: TcpListener,
    tls: Arc<Acceptor>,
    places: Arc<Semaphore>,
    idle_timeout: Duration,
    handshakes: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl Door {
    pub(super) fn new(
        listener: TcpListener,
        tls: Arc<Acceptor>,
        connections_max: usize,
        idle_timeout: Duration,
    ) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, tls, places, idle_timeout, handshakes: JoinSet::new() }
    }

    fn greet(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Option<(Connection, SocketAddr)> {
        let idle_timeout = self.idle_timeout;
        let Some(settings) = self.tls.now() else {
            let patience = Patience::new(idle_timeout);
            return Some((Connection { stream: Either::Left(stream), place, patience }, address));
        };
        let tls = Arc::clone(&self.tls);
        self.handshakes.spawn(async move {
            let secured = tls.accept(settings, stream, |stream| stream).await?;
            let patience = Patience::new(idle_timeout);
            Some((Connection { stream: Either::Right(secured), place, patience }, address))
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
        let this = self.project();
        let read = this.stream.poll_read(cx, buf);
        this.patience.read(cx, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.stream.poll_write(cx, bytes);
        this.patience.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.stream.poll_write_vectored(cx, bytes);
        this.patience.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let flushed = this.stream.poll_flush(cx);
        this.patience.written(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let shut = this.stream.poll_shutdown(cx);
        this.patience.written(cx, shut)
    }
}
