//! The socket of the admin plane, and TLS on it, where that is configured.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::tls::Acceptor;

/// Handshakes at once; one more client waits in the kernel's backlog. Operators are few.
const HANDSHAKES_MAX: usize = 64;

/// A connection of an operator.
type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// Where a call came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Door>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Accepts connections. A client that is slow with its handshake keeps no other from coming in.
pub(super) struct Door {
    listener: TcpListener,
    tls: Arc<Acceptor>,
    handshakes: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, tls: Arc<Acceptor>) -> Self {
        Self { listener, tls, handshakes: JoinSet::new() }
    }

    fn greet(&mut self, stream: TcpStream, address: SocketAddr) -> Option<(Connection, SocketAddr)> {
        let Some(settings) = self.tls.now() else { return Some((Either::Left(stream), address)) };
        let tls = Arc::clone(&self.tls);
        self.handshakes.spawn(async move {
            let secured = tls.accept(settings, stream, |stream| stream).await?;
            Some((Either::Right(secured), address))
        });
        None
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
                (stream, address) = Listener::accept(&mut self.listener), if room => self.greet(stream, address),
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
