//! The data listener: HTTP/1.1 and HTTP/2 on one port, over TLS or with prior knowledge, on bare hyper.
//!
//! It guarantees that nothing a client does, or does not do, costs more than the configuration allows: connections,
//! heads, bodies, silence and slow reading all have limits; that a request reaches the [`Handler`] with exactly one
//! possible framing; and that a stop lets requests under way finish. What requests mean is the handler's business.
//! What a CONNECT has opened can be served like a connection of its own: [`Server::secure`], [`Server::serve_inside`].
//! What a handler can answer at once costs less than hyper would take to ask for it: see [`Handler::express`].
//!
//! Requests hyper itself cannot parse are answered 400, 414 or 431 by hyper and never seen here.

mod body;
pub mod config;
mod connection;
mod express;
mod head;
mod interim;
mod io;
mod link;
mod metrics;
mod secure;
mod server;
mod service;
mod sniff;
mod transport;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use self::link::Link;
use crate::object::plain::Plain;

pub use self::{
    body::{BodyError, ClientBody},
    config::Config,
    interim::Interim,
    link::Hold,
    secure::{HandshakeError, Secured, Tunnel},
    server::{Server, bind},
};

/// An error of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address.
    pub addr: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Sends interim responses to the request under way.
    pub interim: Interim,
    /// Whether [`Handler::express`] was asked for the request that comes next and found nothing: the handler's own note.
    pub looked_up: AtomicBool,
    /// The authority of the tunnel that the connection is in, inside TLS; `None` outside of any.
    pub within: Option<Arc<str>>,
    /// Whether the connection itself is TLS.
    secured: bool,
    /// The connection, where it has many requests at once.
    link: Option<Arc<Link>>,
}

impl Peer {
    /// Has the connection outlast the request, for a tunnel that the request opens in it. `None`: it does so anyway.
    pub fn hold(&self) -> Option<Hold> {
        self.link.clone().map(Hold::new)
    }

    /// A client that cannot be sent interim responses.
    pub fn new(addr: SocketAddr, local: SocketAddr) -> Self {
        Self {
            addr,
            local,
            interim: Interim::none(),
            looked_up: AtomicBool::new(false),
            within: None,
            secured: false,
            link: None,
        }
    }

    /// The connection, if a tunnel in it is all there is to it.
    fn alone(&self) -> Option<Arc<Link>> {
        self.interim.link().filter(|link| !link.multiplexed())
    }

    /// How its requests come.
    pub fn scheme(&self) -> &'static str {
        if self.secured || self.within.is_some() { "https" } else { "http" }
    }
}

/// Answers requests.
///
/// The future is dropped when the client goes away; what must survive that belongs in a task of its own.
pub trait Handler: Send + Sync + Unpin + 'static {
    /// What responses consist of. An error in it breaks the connection, so that no client takes the part for the
    /// whole.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// Answers a plain request at once, where that can be done: writes the head of the response to `head`, the empty
    /// line at its end included, and returns the content; or what of that it has not written there, too. `None`: with nothing written, and [`Handler::handle`] is asked
    /// as if this had not been.
    fn express(&self, _request: &Plain<'_>, _peer: &Peer, _head: &mut Vec<u8>) -> Option<Self::Body> {
        None
    }

    /// Answers one request.
    fn handle(
        &self,
        request: Request<ClientBody>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}
